//! [`CertificateFile`] and [`ServerCertificate`]: days until a certificate expires.
//!
//! Each run reads the file, so it detects a renewed one, or performs a TLS handshake with the server. All certificates of the chain are
//! checked, and the one that expires first decides. A server has to prove that it has the private key. Its name and its issuer are not
//! verified, so certificates of a private authority need no roots here. (A request of `probes::reqwest` to an `https://` URL verifies them.)
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | it expires in less than 14 days | [`ProbeErrorKind::Failed`] | DEGRADED |
//! | it expires in less than 2 days, has expired, or is not yet valid | [`ProbeErrorKind::Failed`] | DOWN |
//! | the file contains no certificate, or a malformed one; the server does not speak TLS | [`ProbeErrorKind::Failed`] | DOWN |
//! | the file does not exist; the server: refused, reset, no such host | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | no permission for the file; the server ends the handshake with an alert | [`ProbeErrorKind::Rejected`] | DOWN |
//! | the server is silent: no response by the deadline | [`ProbeErrorKind::TimedOut`] | DOWN |
//!
//! Certificates are usually renewed automatically 30 days before they expire, or after two thirds of their lifetime. At 14 days the
//! renewal has failed for two weeks, and there is time to fix it. Make the check `optional` if the service should stay in rotation until
//! the certificate has expired.
//!
//! What a run of [`ServerCertificate`] costs the server: one connection with a handshake. If the server is silent, another one is opened
//! every 2 s. A run of [`CertificateFile`] reads the file on a thread of the blocking pool, of which a file system that hangs blocks one.
//!
//! [`ServerCertificate`] uses the process's rustls crypto provider for the handshake. This crate neither contains nor installs one, because
//! rustls panics in applications that leave the choice to it if two are compiled in. Install one at the start of `main`:
//! [`ServerCertificate::new`] returns an error if there is none yet, so a missing line is found when the application starts, not by its
//! first health check. [`CertificateFile`] needs none.
//!
//! The days until the first certificate of the chain expires are a value of the run, `expires_in_days`. They are rounded down, and negative after
//! that.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};
use tokio_rustls::TlsConnector;
use x509_parser::parse_x509_certificate;

use super::tls::classify_tls;
use crate::{
    error::{ProbeError, ProbeErrorKind, classify_io},
    observe::observe,
    probe::{LibraryProbe, library_probe},
    probes::support::{
        attempts::{INTERVAL, first_result},
        blocking_single_flight::BlockingSingleFlight,
        endpoint::{Endpoint, InvalidProbe},
        label::Label,
        thresholds::Thresholds,
    },
};

/// How much of a file is read; a chain of certificates is shorter.
const MAX_FILE_LEN: u64 = 1 << 20;

const DAY: u64 = 24 * 60 * 60;

const DEFAULT_THRESHOLDS: Thresholds<Duration> =
    Thresholds { degraded: Duration::from_secs(14 * DAY), down: Duration::from_secs(2 * DAY) };

/// Checks when the certificates in a file expire. The file is in the PEM format, which may also contain a private key, or in DER.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use health::{HealthCheck, probes::certificate::CertificateFile};
///
/// #[derive(HealthCheck)]
/// struct AppState {
///     certificate: CertificateFile,
/// }
///
/// let state = AppState { certificate: CertificateFile::new("/etc/shop/tls.crt").degraded_below(Duration::from_hours(21 * 24)) };
/// # let _ = state;
/// ```
#[derive(Clone)]
#[must_use]
pub struct CertificateFile {
    path: Arc<Path>,
    thresholds: Thresholds<Duration>,
    reading: BlockingSingleFlight<io::Result<Vec<u8>>>,
}

impl CertificateFile {
    /// Checks the certificates in this file.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().into(), thresholds: DEFAULT_THRESHOLDS, reading: BlockingSingleFlight::new() }
    }

    /// Sets the time before expiry from which the check is DEGRADED. Defaults to 14 days.
    pub fn degraded_below(mut self, left: Duration) -> Self {
        self.thresholds.degraded = left;
        self
    }

    /// Sets the time before expiry from which the check is DOWN. Defaults to 2 days.
    pub fn down_below(mut self, left: Duration) -> Self {
        self.thresholds.down = left;
        self
    }
}

library_probe! { "system", CertificateFile => CertificateFile::clone }

impl LibraryProbe for CertificateFile {
    async fn probe(&self) -> Result<(), ProbeError> {
        let path = self.path.clone();
        let read = self.reading.run(move || {
            let mut bytes = Vec::new();
            File::open(path)?.take(MAX_FILE_LEN).read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        let bytes = read.await.flatten().map_err(|error| {
            let kind = classify_io(&error);
            let message = match error.kind() {
                io::ErrorKind::NotFound => "the certificate's file does not exist".to_owned(),
                _ => kind.message("the certificate's file"),
            };
            ProbeError::new(kind, message).with_source(error)
        })?;
        evaluate(self.thresholds, &certificates_in(bytes)?)
    }

    fn resource(&self) -> Option<String> {
        Some(format!("the certificate in {}", self.path.display()))
    }
}

impl fmt::Debug for CertificateFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateFile")
            .field("path", &self.path)
            .field("thresholds", &self.thresholds)
            .finish_non_exhaustive()
    }
}

/// Checks when the certificates that a server presents expire.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use health::{HealthCheck, probes::{InvalidProbe, certificate::ServerCertificate}};
///
/// #[derive(HealthCheck)]
/// struct AppState {
///     shop: ServerCertificate,
/// }
///
/// rustls::crypto::ring::default_provider().install_default().expect("the first one");
/// # fn state() -> Result<AppState, InvalidProbe> {
/// Ok(AppState { shop: ServerCertificate::new("shop.example:443")?.degraded_below(Duration::from_hours(21 * 24)) })
/// # }
/// # state().unwrap();
/// ```
#[derive(Clone)]
#[must_use]
pub struct ServerCertificate {
    endpoint: Endpoint,
    server_name: ServerName<'static>,
    config: Arc<ClientConfig>,
    thresholds: Thresholds<Duration>,
}

impl ServerCertificate {
    /// Checks the certificates of the server at `host:port`, or `[address]:port` for an IPv6 address.
    ///
    /// # Errors
    ///
    /// Returns an error for any other format, for a host that cannot be a TLS server name, and if the process has no rustls crypto
    /// provider. The host is resolved only by the runs.
    pub fn new(address: impl AsRef<str>) -> Result<Self, InvalidProbe> {
        let endpoint = Endpoint::parse(address.as_ref())?;
        let provider = CryptoProvider::get_default().cloned().ok_or(InvalidProbe::new(
            "the process has no rustls crypto provider: call `rustls::crypto::…::default_provider().install_default()` first, \
             with `ring` or `aws_lc_rs` for the dots",
        ))?;
        let verifier = Arc::new(AnyCertificate(Arc::clone(&provider)));
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| InvalidProbe::new("the rustls crypto provider supports no version of TLS"))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        // In a resumed handshake the server presents no certificate.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self {
            server_name: ServerName::try_from(endpoint.address.host.clone())
                .map_err(|_| InvalidProbe::new("the host cannot be the name of a TLS server"))?,
            endpoint,
            config: Arc::new(config),
            thresholds: DEFAULT_THRESHOLDS,
        })
    }

    /// Sets the server name of the handshake (SNI). Defaults to the host that is connected to.
    pub fn server_name(mut self, name: ServerName<'static>) -> Self {
        self.server_name = name;
        self
    }

    /// Sets the time before expiry from which the check is DEGRADED. Defaults to 14 days.
    pub fn degraded_below(mut self, left: Duration) -> Self {
        self.thresholds.degraded = left;
        self
    }

    /// Sets the time before expiry from which the check is DOWN. Defaults to 2 days.
    pub fn down_below(mut self, left: Duration) -> Self {
        self.thresholds.down = left;
        self
    }

    /// Returns the certificates that the server presents.
    async fn handshake(&self) -> Result<Vec<CertificateDer<'static>>, ProbeError> {
        let stream = self.endpoint.connect().await.map_err(|error| self.label().error(error))?;
        let connector = TlsConnector::from(self.config.clone());
        let session = connector.connect(self.server_name.clone(), stream).await;
        let session = session.map_err(|error| self.label().error_of_kind(classify_tls(&error), error))?;
        Ok(session.get_ref().1.peer_certificates().unwrap_or_default().to_vec())
    }

    fn label(&self) -> Label {
        Label::new("tls server").at(self.endpoint.address.clone())
    }
}

library_probe! { "system", ServerCertificate => ServerCertificate::clone }

impl LibraryProbe for ServerCertificate {
    async fn probe(&self) -> Result<(), ProbeError> {
        evaluate(self.thresholds, &first_result(INTERVAL, || self.handshake()).await?)
    }

    fn resource(&self) -> Option<String> {
        Some(self.label().to_string())
    }
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate")
            .field("server", &self.endpoint.address.to_string())
            .field("thresholds", &self.thresholds)
            .finish_non_exhaustive()
    }
}

fn certificates_in(bytes: Vec<u8>) -> Result<Vec<CertificateDer<'static>>, ProbeError> {
    // DER begins with the tag of a sequence, 0x30, which is also the digit 0 in the text before a PEM certificate.
    let is_pem = bytes.windows(10).any(|window| window == b"-----BEGIN");
    if bytes.first() == Some(&0x30) && !is_pem {
        return Ok(vec![bytes.into()]);
    }
    CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>().map_err(|error| {
        ProbeError::new(ProbeErrorKind::Failed, "unable to parse the certificate").with_source(error.to_string())
    })
}

/// Checks the certificate of a chain that expires first.
fn evaluate(thresholds: Thresholds<Duration>, chain: &[CertificateDer<'_>]) -> Result<(), ProbeError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let mut first_expiry = None;
    for (position, certificate) in chain.iter().enumerate() {
        let (_, certificate) = parse_x509_certificate(certificate).map_err(|error| {
            ProbeError::new(ProbeErrorKind::Failed, "unable to parse the certificate").with_source(error.to_string())
        })?;
        let validity = certificate.validity();
        let subject = if position == 0 { "the certificate" } else { "a further certificate of the chain" };
        if validity.not_before.timestamp() > now {
            return Err(ProbeError::new(ProbeErrorKind::Failed, format!("{subject} is not valid yet")));
        }
        let expiry = validity.not_after.timestamp();
        if first_expiry.is_none_or(|(first, _)| expiry < first) {
            first_expiry = Some((expiry, subject));
        }
    }
    let Some((expiry, subject)) = first_expiry else {
        return Err(ProbeError::new(ProbeErrorKind::Failed, "there is no certificate"));
    };
    let left = expiry.saturating_sub(now);
    let days = left.div_euclid(DAY.cast_signed());
    observe("expires_in_days", days);
    thresholds.evaluate(|threshold| {
        let is_below = u64::try_from(left).map_or(true, |left| left < threshold.as_secs());
        let message = match days {
            ..0 => format!("{subject} has expired"),
            0 => format!("{subject} expires in less than a day"),
            1 => format!("{subject} expires in 1 day"),
            days => format!("{subject} expires in {days} days"),
        };
        is_below.then(|| ProbeError::new(ProbeErrorKind::Failed, message))
    })
}

/// Accepts any certificate, so that expired ones can be reported, but verifies that the server has the private key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
