//! [`CertificateFile`] and [`ServerCertificate`]: days until a certificate expires.
//!
//! Each run reads the file, so it detects a renewed one, or performs a TLS handshake with the server. All certificates of the chain are
//! checked, and the one that expires first decides. A server has to prove that it has the private key. Its name and its issuer are not
//! verified, so certificates of a private authority need no roots here. (`probes::http` with `https://` verifies them.)
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
//! every 2 s.
//!
//! [`ServerCertificate`] uses the process's rustls crypto provider for the handshake. This crate does not contain one, so install one at
//! the start of `main`, before the probe is created. [`CertificateFile`] needs none.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};
use tokio_rustls::TlsConnector;
use x509_parser::parse_x509_certificate;

use super::tls::{classify_tls, client_config, crypto_provider};
use crate::{
    error::{BoxError, ProbeError, ProbeErrorKind, classify_io},
    probe::{LibraryProbe, library_probe},
    probes::support::{
        attempts::{INTERVAL, first_result},
        blocking_single_flight::BlockingSingleFlight,
        endpoint::{Endpoint, InvalidProbe},
    },
};

/// How much of a file is read; a chain of certificates is shorter.
const MAX_FILE_LEN: u64 = 1 << 20;

const DAY: i64 = 24 * 60 * 60;

/// Checks when the certificates in a file expire. The file is in the PEM format, which may also contain a private key, or in DER.
///
/// # Examples
///
/// ```
/// use health::{HealthCheck, probes::certificate::CertificateFile};
///
/// #[derive(HealthCheck)]
/// struct AppState {
///     certificate: CertificateFile,
/// }
///
/// let state = AppState { certificate: CertificateFile::new("/etc/shop/tls.crt").degraded_below_days(21) };
/// # let _ = state;
/// ```
#[derive(Clone)]
#[must_use]
pub struct CertificateFile {
    path: Arc<Path>,
    thresholds: ExpiryThresholds,
    reading: BlockingSingleFlight<io::Result<Vec<u8>>>,
}

impl CertificateFile {
    /// Checks the certificates in this file.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().into(),
            thresholds: ExpiryThresholds::default(),
            reading: BlockingSingleFlight::new(),
        }
    }

    /// Sets the number of days before expiry at which the check is DEGRADED. Defaults to 14.
    pub fn degraded_below_days(mut self, days: u32) -> Self {
        self.thresholds.degraded = days;
        self
    }

    /// Sets the number of days before expiry at which the check is DOWN. Defaults to 2.
    pub fn down_below_days(mut self, days: u32) -> Self {
        self.thresholds.down = days;
        self
    }
}

library_probe! { "system", CertificateFile => |probe: &CertificateFile| probe.clone() }

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
        self.thresholds.evaluate(&certificates_in(bytes)?)
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
/// use health::{HealthCheck, probes::{InvalidProbe, certificate::ServerCertificate}};
///
/// #[derive(HealthCheck)]
/// struct AppState {
///     shop: ServerCertificate,
/// }
///
/// rustls::crypto::ring::default_provider().install_default().expect("the first one");
/// # fn state() -> Result<AppState, InvalidProbe> {
/// Ok(AppState { shop: ServerCertificate::of("shop.example:443")?.degraded_below_days(21) })
/// # }
/// # state().unwrap();
/// ```
#[derive(Clone)]
#[must_use]
pub struct ServerCertificate {
    endpoint: Endpoint,
    server_name: ServerName<'static>,
    config: Arc<ClientConfig>,
    thresholds: ExpiryThresholds,
}

impl ServerCertificate {
    /// Checks the certificates of the server at `host:port`, or `[address]:port` for an IPv6 address.
    ///
    /// # Errors
    ///
    /// Returns an error for any other format, for a host that cannot be a TLS server name, and if the process has no rustls crypto
    /// provider. The host is resolved only by the runs.
    pub fn of(address: impl AsRef<str>) -> Result<Self, InvalidProbe> {
        let endpoint = Endpoint::parse(address.as_ref())?;
        let provider = crypto_provider()?;
        let verifier = Arc::new(AnyCertificate(provider.clone()));
        let mut config =
            client_config(provider, |builder| builder.dangerous().with_custom_certificate_verifier(verifier))?;
        // In a resumed handshake the server presents no certificate.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self {
            server_name: server_name(&endpoint.address.host)?,
            endpoint,
            config: Arc::new(config),
            thresholds: ExpiryThresholds::default(),
        })
    }

    /// Sets the server name of the handshake (SNI). Defaults to the host that is connected to.
    ///
    /// # Errors
    ///
    /// Returns an error if the name cannot be a TLS server name.
    pub fn server_name(mut self, name: &str) -> Result<Self, InvalidProbe> {
        self.server_name = server_name(name)?;
        Ok(self)
    }

    /// Sets the number of days before expiry at which the check is DEGRADED. Defaults to 14.
    pub fn degraded_below_days(mut self, days: u32) -> Self {
        self.thresholds.degraded = days;
        self
    }

    /// Sets the number of days before expiry at which the check is DOWN. Defaults to 2.
    pub fn down_below_days(mut self, days: u32) -> Self {
        self.thresholds.down = days;
        self
    }

    /// Returns the certificates that the server presents.
    async fn handshake(&self) -> Result<Vec<CertificateDer<'static>>, ProbeError> {
        let stream = self.endpoint.connect().await.map_err(|error| self.failure(classify_io(&error), error))?;
        let connector = TlsConnector::from(self.config.clone());
        let session = connector.connect(self.server_name.clone(), stream).await;
        let session = session.map_err(|error| self.failure(classify_tls(&error), error))?;
        Ok(session.get_ref().1.peer_certificates().unwrap_or_default().to_vec())
    }

    fn name(&self) -> String {
        format!("tls server at {}", self.endpoint.address)
    }

    fn failure(&self, kind: ProbeErrorKind, source: impl Into<BoxError>) -> ProbeError {
        ProbeError::new(kind, kind.message(&self.name())).with_source(source)
    }
}

library_probe! { "system", ServerCertificate => |probe: &ServerCertificate| probe.clone() }

impl LibraryProbe for ServerCertificate {
    async fn probe(&self) -> Result<(), ProbeError> {
        self.thresholds.evaluate(&first_result(INTERVAL, || self.handshake()).await?)
    }

    fn resource(&self) -> Option<String> {
        Some(self.name())
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

fn server_name(name: &str) -> Result<ServerName<'static>, InvalidProbe> {
    ServerName::try_from(name.to_owned()).map_err(|_| InvalidProbe::new("this cannot be the name of a TLS server"))
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

/// The days before its expiry at which a certificate makes the check DEGRADED and DOWN.
#[derive(Clone, Copy, Debug)]
struct ExpiryThresholds {
    degraded: u32,
    down: u32,
}

impl Default for ExpiryThresholds {
    fn default() -> Self {
        Self { degraded: 14, down: 2 }
    }
}

impl ExpiryThresholds {
    fn evaluate(self, chain: &[CertificateDer<'_>]) -> Result<(), ProbeError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.evaluate_at(chain, i64::try_from(now).unwrap_or(i64::MAX))
    }

    fn evaluate_at(self, chain: &[CertificateDer<'_>], now: i64) -> Result<(), ProbeError> {
        let mut first_expiry = None;
        for (position, certificate) in chain.iter().enumerate() {
            let (_, certificate) = parse_x509_certificate(certificate).map_err(|error| {
                ProbeError::new(ProbeErrorKind::Failed, "unable to parse the certificate")
                    .with_source(error.to_string())
            })?;
            let validity = certificate.validity();
            let subject = if position == 0 { "the certificate" } else { "a further certificate of the chain" };
            if validity.not_before.timestamp() > now {
                let message = format!("{subject} is not valid yet");
                return Err(ProbeError::new(ProbeErrorKind::Failed, message));
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
        let message = match left.div_euclid(DAY) {
            ..0 => format!("{subject} has expired"),
            0 => format!("{subject} expires in less than a day"),
            1 => format!("{subject} expires in 1 day"),
            days => format!("{subject} expires in {days} days"),
        };
        if left < 0 || left < i64::from(self.down) * DAY {
            Err(ProbeError::new(ProbeErrorKind::Failed, message))
        } else if left < i64::from(self.degraded) * DAY {
            Err(ProbeError::new(ProbeErrorKind::Failed, message).degraded())
        } else {
            Ok(())
        }
    }
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
