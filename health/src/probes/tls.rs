//! [`CertificateFile`] and [`ServerCertificate`]: days until a certificate expires.
//!
//! Each round reads the file, so that a renewed one is seen; or connects to the server, shakes hands and hangs up. Every
//! certificate of the chain is looked at, and the one that expires first counts. A server must prove that it has the key;
//! whether its certificate is for the name and from somebody who is trusted is not looked at, so certificates of the own
//! authority need no roots here. (`probes::http` with `https://` verifies them.)
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | it expires in less than 14 days | [`ProbeErrorKind::Failed`] | DEGRADED |
//! | it expires in less than 2 days, has expired, or is not yet valid | [`ProbeErrorKind::Failed`] | DOWN |
//! | the file holds no certificate, or one that can't be read; the server speaks no TLS | [`ProbeErrorKind::Failed`] | DOWN |
//! | the file is gone; the server is: refused, reset, no such host | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | the file may not be read; the server ends the handshake by an alert | [`ProbeErrorKind::Rejected`] | DOWN |
//! | the server is silent: no answer by the deadline | [`ProbeErrorKind::TimedOut`] | DOWN |
//!
//! Certificates are renewed by themselves a month before their end, or a third of their time: at 14 days that has failed for
//! two weeks, and there is time to mend it. At 2 days the service is of no use soon; have the check `optional` where a
//! service should stay in rotation to the last minute.
//!
//! What a run of [`ServerCertificate`] costs the server: one connection with a handshake. Where it is silent, another one is
//! opened every 2 s.
//!
//! A server's certificate needs cryptography for the handshake: that of the process's own rustls provider. This crate brings
//! none, so install one at the start of `main`, before the probe is made. A file's certificate needs none.

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

use super::{
    InvalidProbe,
    destination::Destination,
    one_thread::OneThread,
    security::{classify_tls, configuration, provider},
    support::attempts::{INTERVAL, first_result},
};
use crate::{
    error::{BoxError, ProbeError, ProbeErrorKind, classify_io},
    probe::Probe,
};

/// More than any chain has; what is longer is none.
const LONGEST: u64 = 1 << 20;

const DAY: i64 = 24 * 60 * 60;

/// Looks when the certificates in a file expire: PEM, also beside a key, or DER.
///
/// # Examples
///
/// ```
/// use health::{HealthCheck, probes::tls::CertificateFile};
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
    days: Days,
    read: OneThread<io::Result<Vec<u8>>>,
}

impl CertificateFile {
    /// The certificates in this file.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().into(), days: Days::default(), read: OneThread::new() }
    }

    /// DEGRADED if a certificate expires in less than so many days. Default is 14.
    pub fn degraded_below_days(mut self, days: u32) -> Self {
        self.days.degraded = days;
        self
    }

    /// DOWN if a certificate expires in less than so many days. Default is 2.
    pub fn down_below_days(mut self, days: u32) -> Self {
        self.days.down = days;
        self
    }
}

impl Probe for CertificateFile {
    const GROUP: &'static str = "system";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        let path = self.path.clone();
        let read = self.read.ask(move || {
            let mut bytes = Vec::new();
            File::open(path)?.take(LONGEST).read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        let bytes = read.await.flatten().map_err(|error| {
            let kind = classify_io(&error);
            let message = match error.kind() {
                io::ErrorKind::NotFound => "the certificate's file is not there".to_owned(),
                _ => kind.message("the certificate's file"),
            };
            ProbeError::new(kind, message).with_source(error)
        })?;
        self.days.judge(&certificates_in(bytes)?)
    }

    fn resource(&self) -> Option<String> {
        Some(format!("the certificate in {}", self.path.display()))
    }
}

impl fmt::Debug for CertificateFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateFile").field("path", &self.path).field("days", &self.days).finish_non_exhaustive()
    }
}

/// Looks when the certificates that a server shows expire.
///
/// # Examples
///
/// ```
/// use health::{HealthCheck, probes::{InvalidProbe, tls::ServerCertificate}};
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
    destination: Destination,
    server_name: ServerName<'static>,
    config: Arc<ClientConfig>,
    days: Days,
}

impl ServerCertificate {
    /// The certificates of the server at `host:port`, or `[address]:port` for an IPv6 address.
    ///
    /// # Errors
    ///
    /// It is not such an address, or not one that a TLS server can have; or the process has no rustls provider yet. Whether
    /// there is such a host, the probe finds out.
    pub fn of(address: impl AsRef<str>) -> Result<Self, InvalidProbe> {
        let destination = Destination::parse(address.as_ref())?;
        let provider = provider()?;
        let verifier = Arc::new(AnyCertificate(provider.clone()));
        let mut config = configuration(provider, |begun| begun.dangerous().with_custom_certificate_verifier(verifier))?;
        // A handshake that is resumed shows no certificate anew.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self {
            server_name: server_name(&destination.address.host)?,
            destination,
            config: Arc::new(config),
            days: Days::default(),
        })
    }

    /// Asks for the certificates of this name. Default is the host that is connected to.
    ///
    /// # Errors
    ///
    /// It is no name that a server can have.
    pub fn server_name(mut self, name: &str) -> Result<Self, InvalidProbe> {
        self.server_name = server_name(name)?;
        Ok(self)
    }

    /// DEGRADED if a certificate expires in less than so many days. Default is 14.
    pub fn degraded_below_days(mut self, days: u32) -> Self {
        self.days.degraded = days;
        self
    }

    /// DOWN if a certificate expires in less than so many days. Default is 2.
    pub fn down_below_days(mut self, days: u32) -> Self {
        self.days.down = days;
        self
    }

    /// The certificates that the server shows.
    async fn handshake(&self) -> Result<Vec<CertificateDer<'static>>, ProbeError> {
        let stream = self.destination.connect().await.map_err(|error| self.failure(classify_io(&error), error))?;
        let connector = TlsConnector::from(self.config.clone());
        let session = connector.connect(self.server_name.clone(), stream).await;
        let session = session.map_err(|error| self.failure(classify_tls(&error), error))?;
        Ok(session.get_ref().1.peer_certificates().unwrap_or_default().to_vec())
    }

    fn name(&self) -> String {
        format!("tls server at {}", self.destination.address)
    }

    fn failure(&self, kind: ProbeErrorKind, source: impl Into<BoxError>) -> ProbeError {
        ProbeError::new(kind, kind.message(&self.name())).with_source(source)
    }
}

impl Probe for ServerCertificate {
    const GROUP: &'static str = "system";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        self.days.judge(&first_result(INTERVAL, || self.handshake()).await?)
    }

    fn resource(&self) -> Option<String> {
        Some(self.name())
    }
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate")
            .field("server", &self.destination.address.to_string())
            .field("days", &self.days)
            .finish_non_exhaustive()
    }
}

fn server_name(name: &str) -> Result<ServerName<'static>, InvalidProbe> {
    ServerName::try_from(name.to_owned()).map_err(|_| InvalidProbe::new("that is no name that a TLS server can have"))
}

fn certificates_in(bytes: Vec<u8>) -> Result<Vec<CertificateDer<'static>>, ProbeError> {
    // DER begins with a sequence; so may the text before a certificate in PEM, with the digit 0.
    let is_pem = bytes.windows(10).any(|window| window == b"-----BEGIN");
    if bytes.first() == Some(&0x30) && !is_pem {
        return Ok(vec![bytes.into()]);
    }
    CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>().map_err(|error| {
        ProbeError::new(ProbeErrorKind::Failed, "the certificate can't be read").with_source(error.to_string())
    })
}

/// So many days before its end, a certificate makes the check that.
#[derive(Clone, Copy, Debug)]
struct Days {
    degraded: u32,
    down: u32,
}

impl Default for Days {
    fn default() -> Self {
        Self { degraded: 14, down: 2 }
    }
}

impl Days {
    fn judge(self, chain: &[CertificateDer<'_>]) -> Result<(), ProbeError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.judge_at(chain, i64::try_from(now).unwrap_or(i64::MAX))
    }

    fn judge_at(self, chain: &[CertificateDer<'_>], now: i64) -> Result<(), ProbeError> {
        let mut first_end = None;
        for (place, certificate) in chain.iter().enumerate() {
            let (_, certificate) = parse_x509_certificate(certificate).map_err(|error| {
                ProbeError::new(ProbeErrorKind::Failed, "the certificate can't be read").with_source(error.to_string())
            })?;
            let validity = certificate.validity();
            let whose = if place == 0 { "the certificate" } else { "a further certificate of the chain" };
            let begins = validity.not_before.timestamp();
            if begins > now {
                let message = format!("{whose} is not valid yet");
                return Err(ProbeError::new(ProbeErrorKind::Failed, message));
            }
            let ends = validity.not_after.timestamp();
            if first_end.is_none_or(|(first, _)| ends < first) {
                first_end = Some((ends, whose));
            }
        }
        let Some((ends, whose)) = first_end else {
            return Err(ProbeError::new(ProbeErrorKind::Failed, "there is no certificate"));
        };
        let left = ends.saturating_sub(now);
        let message = match left.div_euclid(DAY) {
            ..0 => format!("{whose} has expired"),
            0 => format!("{whose} expires in less than a day"),
            1 => format!("{whose} expires in 1 day"),
            days => format!("{whose} expires in {days} days"),
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

/// Takes any certificate, for one that has expired must be seen too, but checks that the server has its key.
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
