//! `probes::certificate`, with certificates of the test, in files and on a TLS server in its process.
//!
//! A server's certificate runs the applicable tests of the suite: it has no credentials and no pool, and no connection
//! is reused. For a file none of them applies.

use std::{
    any::Any,
    fs,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use health::probes::certificate::{CertificateFile, ServerCertificate};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::PrivateKeyDer,
    server::{NoClientAuth, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::TLS12,
};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    acceptance::{Backend, ExpectedMessage, Password, Unsupported, acceptance, serve_uncached, values},
    common::{
        logs,
        responses::{assert_degraded, assert_down, assert_not_leaked, assert_up},
        test_server::TestServer,
    },
    servers::stub::{Stub, Talk},
};

/// Returns the time in this number of days and an hour, so that a slow test does not reach the next day.
pub(crate) fn days(days: i32) -> SystemTime {
    let time = Duration::from_secs(u64::from(days.unsigned_abs()) * 24 * 60 * 60);
    let hour = Duration::from_secs(60 * 60);
    if days < 0 { SystemTime::now() - time } else { SystemTime::now() + time + hour }
}

/// Installs a crypto provider, as an application at its start.
pub(crate) fn install_provider() {
    // Fails if another test of the process has installed it.
    let _ = ring::default_provider().install_default();
}

/// A certificate authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key.
struct Made {
    der: rustls::pki_types::CertificateDer<'static>,
    pem: String,
    key: KeyPair,
}

impl Authority {
    pub(crate) fn new() -> Self {
        Self::valid(days(-400), days(400))
    }

    fn valid(from: SystemTime, to: SystemTime) -> Self {
        install_provider();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.not_before, params.not_after) = (from.into(), to.into());
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Starts a server with a certificate of this authority, which presents the whole chain.
    pub(crate) fn server(&self, name: &str, from: SystemTime, to: SystemTime) -> Talk {
        self.server_with_verifier(name, from, to, Arc::new(NoClientAuth))
    }

    /// Starts a server that serves only clients with a certificate of this authority.
    pub(crate) fn server_for_known_clients(&self, name: &str) -> Talk {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        self.server_with_verifier(name, days(-1), days(30), verifier)
    }

    fn server_with_verifier(
        &self,
        name: &str,
        from: SystemTime,
        to: SystemTime,
        verifier: Arc<dyn ClientCertVerifier>,
    ) -> Talk {
        let made = self.make(name, from, to);
        let chain = vec![made.der, self.0.der().clone()];
        let key = PrivateKeyDer::try_from(made.key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_client_cert_verifier(verifier);
        Talk::Tls(Arc::new(config.with_single_cert(chain, key).unwrap()))
    }

    fn make(&self, name: &str, from: SystemTime, to: SystemTime) -> Made {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.not_before, params.not_after) = (from.into(), to.into());
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Made { der: certificate.der().clone(), pem: certificate.pem(), key }
    }
}

/// An authority for tests in which it does not matter.
fn good() -> Talk {
    static GOOD: OnceLock<Talk> = OnceLock::new();
    GOOD.get_or_init(|| Authority::new().server("localhost", days(-1), days(90))).clone()
}

struct Server;

acceptance!(server, Server);

impl Backend for Server {
    type Resource = ServerCertificate;
    type Server = Stub;

    fn prepare() -> Stub {
        Stub::prepared(good())
    }

    async fn open(server: &Stub, _: Password) -> Result<ServerCertificate, Unsupported> {
        Ok(ServerCertificate::new(format!("127.0.0.1:{}", server.port())).unwrap())
    }

    fn unreachable(server: &Stub) -> (ExpectedMessage, &'static str) {
        let message = format!("unable to connect to tls server at 127.0.0.1:{}", server.port());
        (ExpectedMessage::Message(message), "Connection refused")
    }

    fn rejected(_: &Stub) -> Result<(ExpectedMessage, &'static str), Unsupported> {
        Err("a handshake has no credentials: a server that wants a certificate of ours shows its own before")
    }

    async fn saturate(_: &ServerCertificate) -> Result<(Box<dyn Any>, u32), Unsupported> {
        Err("it has no connections that could be used up")
    }

    async fn queries(server: &Stub) -> Result<u64, Unsupported> {
        Ok(server.accepted())
    }

    async fn connections(_: &Stub) -> Result<usize, Unsupported> {
        Err("each run opens a connection and closes it: none is kept")
    }
}

async fn is_up(rig: &TestServer) {
    assert_up(rig, "system", "resource").await;
}

async fn is_degraded(rig: &TestServer, message: &str) {
    assert_degraded(rig, "system", "resource", message).await;
}

async fn is_down(rig: &TestServer, message: &str) {
    assert_down(rig, "system", "resource", message).await;
}

fn file(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("canarybase.pem");
    fs::write(&path, text).unwrap();
    (folder, path)
}

#[actix_web::test]
async fn a_file_is_up_degraded_or_down_by_the_days_until_its_certificate_expires() {
    let authority = Authority::new();
    let (_folder, path) = file("");
    let rig = serve_uncached(CertificateFile::new(&path));
    let valid = |from, to| fs::write(&path, authority.make("localhost", days(from), days(to)).pem).unwrap();
    valid(-1, 14);
    is_up(&rig).await;
    valid(-1, 13);
    is_degraded(&rig, "the certificate expires in 13 days").await;
    valid(-1, 2);
    is_degraded(&rig, "the certificate expires in 2 days").await;
    valid(-1, 1);
    is_down(&rig, "the certificate expires in 1 day").await;
    valid(-1, 0);
    is_down(&rig, "the certificate expires in less than a day").await;
    valid(-3, -1);
    is_down(&rig, "the certificate has expired").await;
    valid(1, 90);
    is_down(&rig, "the certificate is not valid yet").await;
    // Renewed.
    valid(-1, 90);
    is_up(&rig).await;
}

#[actix_web::test]
async fn the_days_can_be_set() {
    let (_folder, path) = file(&Authority::new().make("localhost", days(-1), days(20)).pem);
    let rig = serve_uncached(CertificateFile::new(&path));
    assert_up(&rig, "system", "resource").await;
    assert_eq!(values(&rig, "system", "resource").await, json!({"expires_in_days": 20}));
    is_degraded(
        &serve_uncached(CertificateFile::new(&path).degraded_below(Duration::from_hours(21 * 24))),
        "the certificate expires in 20 days",
    )
    .await;
    is_down(
        &serve_uncached(CertificateFile::new(&path).down_below(Duration::from_hours(21 * 24))),
        "the certificate expires in 20 days",
    )
    .await;
    let stub = Stub::start(Authority::new().server("localhost", days(-1), days(20)));
    let server = || ServerCertificate::new(format!("localhost:{}", stub.port())).unwrap();
    is_up(&serve_uncached(server())).await;
    is_degraded(
        &serve_uncached(server().degraded_below(Duration::from_hours(21 * 24))),
        "the certificate expires in 20 days",
    )
    .await;
    is_down(&serve_uncached(server().down_below(Duration::from_hours(21 * 24))), "the certificate expires in 20 days")
        .await;
}

#[actix_web::test]
async fn the_certificate_of_a_chain_that_expires_first_counts() {
    let authority = Authority::valid(days(-400), days(5));
    let made = authority.make("localhost", days(-1), days(90));
    // In one file with its key, as some servers require.
    let (_folder, path) = file(&(made.key.serialize_pem() + &made.pem + &authority.pem()));
    let message = "a further certificate of the chain expires in 5 days";
    is_degraded(&serve_uncached(CertificateFile::new(path)), message).await;
    let stub = Stub::start(authority.server("localhost", days(-1), days(90)));
    let server = ServerCertificate::new(format!("127.0.0.1:{}", stub.port())).unwrap();
    is_degraded(&serve_uncached(server), message).await;
}

#[actix_web::test]
async fn a_file_may_be_binary() {
    let made = Authority::new().make("localhost", days(-1), days(5));
    let (_folder, path) = file("");
    fs::write(&path, &made.der).unwrap();
    is_degraded(&serve_uncached(CertificateFile::new(path)), "the certificate expires in 5 days").await;
}

#[actix_web::test]
async fn a_file_without_a_certificate_is_down() {
    let (_folder, path) = file("");
    let rig = serve_uncached(CertificateFile::new(&path));
    is_down(&rig, "there is no certificate").await;
    fs::write(&path, Authority::new().make("localhost", days(-1), days(90)).key.serialize_pem()).unwrap();
    is_down(&rig, "there is no certificate").await;
    for broken in [
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nMII",
        "0",
    ] {
        fs::write(&path, broken).unwrap();
        is_down(&rig, "unable to parse the certificate").await;
    }
    fs::remove_file(&path).unwrap();
    let response = assert_down(&rig, "system", "resource", "the certificate's file does not exist").await;
    assert_not_leaked(&rig, &response, &[]).await;
}

#[actix_web::test]
async fn the_log_contains_the_path_and_responses_do_not() {
    let (_folder, path) = file("");
    fs::remove_file(&path).unwrap();
    let rig = serve_uncached(CertificateFile::new(&path));
    let response = assert_down(&rig, "system", "resource", "the certificate's file does not exist").await;
    assert_not_leaked(&rig, &response, &["canarybase.pem", "No such file"]).await;
    assert!(logs::text().contains("canarybase.pem"));
}

#[actix_web::test]
async fn a_server_is_checked_for_the_expiry_of_its_certificate_and_not_for_its_issuer() {
    let authority = Authority::new();
    let stub = Stub::start(authority.server("other.example", days(-1), days(90)));
    let rig = serve_uncached(ServerCertificate::new(format!("127.0.0.1:{}", stub.port())).unwrap());
    is_up(&rig).await;
    stub.talk(authority.server("other.example", days(-1), days(5)));
    is_degraded(&rig, "the certificate expires in 5 days").await;
    stub.talk(authority.server("other.example", days(-30), days(-1)));
    is_down(&rig, "the certificate has expired").await;
    stub.talk(authority.server("other.example", days(1), days(90)));
    is_down(&rig, "the certificate is not valid yet").await;
}

#[actix_web::test]
async fn the_certificate_of_a_tls_1_2_server_is_checked() {
    let made = Authority::new().make("localhost", days(-1), days(5));
    let key = PrivateKeyDer::try_from(made.key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_protocol_versions(&[&TLS12]).unwrap().with_no_client_auth();
    let stub = Stub::start(Talk::Tls(Arc::new(config.with_single_cert(vec![made.der], key).unwrap())));
    let rig = serve_uncached(ServerCertificate::new(format!("localhost:{}", stub.port())).unwrap());
    is_degraded(&rig, "the certificate expires in 5 days").await;
}

#[actix_web::test]
async fn a_server_without_tls_is_down() {
    install_provider();
    let stub = Stub::start(Talk::Greets);
    let rig = serve_uncached(ServerCertificate::new(format!("127.0.0.1:{}", stub.port())).unwrap());
    let message = format!("unexpected response from tls server at 127.0.0.1:{}", stub.port());
    let response = assert_down(&rig, "system", "resource", &message).await;
    assert_not_leaked(&rig, &response, &["received corrupt message"]).await;
    stub.talk(Talk::Tcp);
    let response = assert_down(&rig, "system", "resource", "timed out after 800 ms").await;
    assert!(response.took < Duration::from_secs(5), "{:?}", response.took);
}

#[actix_web::test]
async fn a_server_that_ends_the_handshake_with_an_alert_denied_access() {
    install_provider();
    // It has no certificate for the requested name.
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let none = config.with_cert_resolver(Arc::new(rustls::server::ResolvesServerCertUsingSni::new()));
    let stub = Stub::start(Talk::Tls(Arc::new(none)));
    let server = ServerCertificate::new(format!("127.0.0.1:{}", stub.port())).unwrap();
    let rig = serve_uncached(server.server_name("shop.example".try_into().unwrap()));
    let message = format!("tls server at 127.0.0.1:{} denied access", stub.port());
    let response = assert_down(&rig, "system", "resource", &message).await;
    assert_not_leaked(&rig, &response, &["received fatal alert"]).await;
}

#[test]
fn without_a_provider_of_the_process_no_probe_is_made_and_the_error_names_the_step() {
    let error = ServerCertificate::new("shop.example:443").unwrap_err();
    assert!(error.to_string().contains("::default_provider().install_default()"), "{error}");
    assert!(rustls::crypto::CryptoProvider::get_default().is_none(), "and none is installed");
    install_provider();
    assert!(ServerCertificate::new("shop.example:443").is_ok());
}

#[test]
fn an_invalid_address_is_an_error() {
    install_provider();
    for address in ["", "shop.example", "https://shop.example:443", "shop example:443", "a..b:443"] {
        ServerCertificate::new(address).unwrap_err();
    }
    let _ = ServerCertificate::new("[::1]:443").unwrap();
}
