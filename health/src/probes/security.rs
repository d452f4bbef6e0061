//! What the probes that speak TLS share.

use std::{io, sync::Arc};

use rustls::{ClientConfig, ConfigBuilder, Error, client::WantsClientCert, crypto::CryptoProvider};

use super::InvalidProbe;
use crate::error::{ProbeErrorKind, classify_io};

/// The cryptography that the application has installed for its process. Two providers in one process would make rustls panic
/// where an application left the choice to it, so this crate brings none and installs none.
pub(super) fn provider() -> Result<Arc<CryptoProvider>, InvalidProbe> {
    CryptoProvider::get_default().cloned().ok_or(InvalidProbe::new(
        "the process has no rustls crypto provider: call `rustls::crypto::…::default_provider().install_default()` first, \
         with `ring` or `aws_lc_rs` for the dots",
    ))
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
