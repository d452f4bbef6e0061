//! The TLS client configuration that `https` and `certificate` share.

use std::{io, sync::Arc};

use rustls::{ClientConfig, ConfigBuilder, Error, client::WantsClientCert, crypto::CryptoProvider};

use crate::{
    error::{ProbeErrorKind, classify_io},
    probes::support::endpoint::InvalidProbe,
};

/// Returns the crypto provider that the application has installed for its process. This crate neither contains nor installs one:
/// with two providers compiled in, rustls panics in applications that leave the choice to it.
pub(super) fn crypto_provider() -> Result<Arc<CryptoProvider>, InvalidProbe> {
    CryptoProvider::get_default().cloned().ok_or(InvalidProbe::new(
        "the process has no rustls crypto provider: call `rustls::crypto::…::default_provider().install_default()` first, \
         with `ring` or `aws_lc_rs` for the dots",
    ))
}

/// Builds a client configuration without a client certificate. `verify` chooses how servers are verified.
pub(super) fn client_config(
    provider: Arc<CryptoProvider>,
    verify: impl FnOnce(ConfigBuilder<ClientConfig, rustls::WantsVerifier>) -> ConfigBuilder<ClientConfig, WantsClientCert>,
) -> Result<ClientConfig, InvalidProbe> {
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|_| InvalidProbe::new("the rustls crypto provider supports no version of TLS"))?;
    Ok(verify(builder).with_no_client_auth())
}

/// Returns the kind of an error of a TLS connection.
pub(super) fn classify_tls(error: &io::Error) -> ProbeErrorKind {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(_) | Error::AlertReceived(_) | Error::NoCertificatesPresented) => {
            ProbeErrorKind::Rejected
        }
        Some(_) => ProbeErrorKind::Failed,
        None => classify_io(error),
    }
}
