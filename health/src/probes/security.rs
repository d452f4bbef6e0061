//! What the probes that speak TLS share.

use std::{io, sync::Arc};

use rustls::{
    ClientConfig, ConfigBuilder, Error,
    client::WantsClientCert,
    crypto::{CryptoProvider, ring},
};

use super::InvalidProbe;
use crate::error::{ProbeErrorKind, classify_io};

/// The application's own cryptography, where it has installed one for the process, else ring's. None is installed.
pub(super) fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(ring::default_provider()))
}

/// A client's configuration, begun.
pub(super) fn configuration(
    provider: Arc<CryptoProvider>,
    verified: impl FnOnce(
        ConfigBuilder<ClientConfig, rustls::WantsVerifier>,
    ) -> ConfigBuilder<ClientConfig, WantsClientCert>,
) -> Result<ClientConfig, InvalidProbe> {
    let begun = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let begun = begun.map_err(|_| InvalidProbe::new("the process's provider of cryptography has no version of TLS"))?;
    Ok(verified(begun).with_no_client_auth())
}

/// The kind of an error of a connection that speaks TLS.
pub(super) fn classify_tls(error: &io::Error) -> ProbeErrorKind {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(_) | Error::AlertReceived(_) | Error::NoCertificatesPresented) => {
            ProbeErrorKind::Rejected
        }
        Some(_) => ProbeErrorKind::Failed,
        None => classify_io(error),
    }
}
