//! [`Get`]: another service, asked over HTTP.
//!
//! Each round sends one `GET` and looks at the status and, if wanted, for a text in the body. It is HTTP/1.1 on a connection
//! of the probe's own, kept from round to round and replaced when the server has closed it. Where a kept one is silent for
//! 300 ms, as one is that a firewall has forgotten, the question is asked on a new one too.
//!
//! No redirect is followed, and the environment's proxies are not used. No more than 64 KiB of a body is read; without
//! [`Get::body_contains`], one that does not end within 100 ms is left alone.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, reset, no such host, closed without an answer | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | 401, 403, 407; a certificate that is not trusted, or our lack of one | [`ProbeErrorKind::Rejected`] | DOWN |
//! | 408, 504 | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | any other status than the expected one, a body without the expected text, no HTTP, no TLS | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! Answers and the log name the server by host and port: never the path, the query or the credentials of the URL.
//!
//! `https://` needs the feature `https`. The certificate is verified with the roots that the system trusts, and those given to
//! [`Get::trusting`](Get#method.trusting). The provider of cryptography is the one that the application has installed for its
//! process, else ring's; none is installed by this crate. It turns on rustls's feature `ring`: an application that has left
//! rustls to find its only provider by itself, and has another one, has to install that one.
//!
//! Ask a service that this one can't work without at its liveness or a cheap page of it, and not at its own readiness: else
//! one failure takes all services down that are before it.

use std::{
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use actix_web::http::StatusCode;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures_util::future::{Either, select};
use hyper::{
    Request,
    body::{Body as _, Incoming},
    client::conn::http1::{Builder, SendRequest},
    header::{AUTHORIZATION, HOST, HeaderName, HeaderValue, USER_AGENT},
    rt::{Read, Write},
};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use url::{Position, Url};

use super::{InvalidProbe, address::Address, destination::Destination, https::Security};
use crate::{
    error::{BoxError, ProbeError, ProbeErrorKind, classify_io},
    probe::Probe,
};

/// So much of a body is read, and of a head accepted.
const LONGEST: usize = 64 * 1024;

/// How long the rest of a body is waited for that nobody wants, so that its connection can be kept.
const REST: Duration = Duration::from_millis(100);

/// How long a connection that was idle may be silent before the question is asked on a new one too.
const SILENT_IDLE: Duration = Duration::from_millis(300);

/// How long a connection may have been idle: what is between us and the server may forget an older one and not say so.
const IDLE: Duration = Duration::from_secs(60);

/// Asks a URL: up if the answer is a success, or the one that is expected.
///
/// It is kept in the state, where the derive finds it. Clones share one connection.
///
/// # Examples
///
/// ```
/// use actix_web::http::StatusCode;
/// use health::{HealthCheck, probes::{InvalidProbe, http::Get}};
///
/// #[derive(HealthCheck)]
/// struct AppState {
///     payments: Get,
///     search: Get,
/// }
///
/// # fn state() -> Result<AppState, InvalidProbe> {
/// Ok(AppState {
///     payments: Get::new("http://payments.internal/health/live")?,
///     search: Get::new("http://search.internal:9200/_cluster/health")?
///         .header("authorization", "Bearer 5ecret")?
///         .status(StatusCode::OK)
///         .body_contains(r#""status":"green""#),
/// })
/// # }
/// # state().unwrap();
/// ```
#[derive(Clone)]
#[must_use]
pub struct Get {
    destination: Destination,
    security: Option<Security>,
    request: Request<String>,
    status: Option<StatusCode>,
    text: Option<Arc<str>>,
    kept: Arc<Mutex<Option<Kept>>>,
}

/// The judged answer, and the connection if it can be used again; or why there is no answer.
type Asked = Result<(Result<(), Failure>, Option<Kept>), Failure>;

/// A connection, and when it was used last.
struct Kept {
    connection: SendRequest<String>,
    used: Instant,
}

impl Get {
    /// Asks a URL of `http://`, or of `https://` with the feature of that name. Credentials in it are sent as basic
    /// authorization.
    ///
    /// # Errors
    ///
    /// It is no such URL.
    pub fn new(url: impl AsRef<str>) -> Result<Self, InvalidProbe> {
        const NO_URL: InvalidProbe = InvalidProbe::new("expected a URL, such as `http://search.internal:9200/health`");
        let url = Url::parse(url.as_ref()).map_err(|_| NO_URL)?;
        let is_secure = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return Err(InvalidProbe::new("expected a URL of `http://` or `https://`")),
        };
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return Err(NO_URL) };
        // An IPv6 address has brackets in a URL alone.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let mut request = Request::get(&url[Position::BeforePath..Position::AfterQuery])
            .header(HOST, &url[Position::BeforeHost..Position::AfterPort])
            .header(USER_AGENT, concat!("health/", env!("CARGO_PKG_VERSION")))
            .body(String::new())
            .map_err(|_| NO_URL)?;
        if let Some(credentials) = credentials(&url) {
            request.headers_mut().insert(AUTHORIZATION, credentials);
        }
        Ok(Self {
            security: if is_secure { Some(Security::of(&host)?) } else { None },
            destination: Destination::new(Address { host, port }),
            request,
            status: None,
            text: None,
            kept: Arc::default(),
        })
    }

    /// Expects this status. Default is any of 200 to 299.
    pub fn status(mut self, expected: StatusCode) -> Self {
        self.status = Some(expected);
        self
    }

    /// Expects this text somewhere in the first 64 KiB of the body. Default is any body, as is an empty text.
    pub fn body_contains(mut self, expected: impl Into<Arc<str>>) -> Self {
        self.text = Some(expected.into()).filter(|text| !text.is_empty());
        self
    }

    /// Sends a header; one of the same name is replaced, `host` and `user-agent` too.
    ///
    /// # Errors
    ///
    /// The name or the value can't be those of a header.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, InvalidProbe> {
        let name: HeaderName = name.parse().map_err(|_| InvalidProbe::new("that can't be a header's name"))?;
        let value: HeaderValue = value.parse().map_err(|_| InvalidProbe::new("that can't be a header's value"))?;
        self.request.headers_mut().insert(name, value);
        Ok(self)
    }

    #[allow(dead_code, reason = "only who is secure needs it")]
    pub(super) fn security_mut(&mut self) -> Option<&mut Security> {
        // Connections that were opened before the change are of no use.
        self.kept = Arc::default();
        self.security.as_mut()
    }

    fn name(&self) -> String {
        let scheme = if self.security.is_some() { "https" } else { "http" };
        format!("{scheme} server at {}", self.destination.address)
    }

    async fn asked(&self) -> Result<(), Failure> {
        let mut kept = self.kept.lock().await;
        // Taken out: if the question fails or is dropped, the next one gets a new connection.
        let idle = kept.take().filter(|kept| kept.used.elapsed() < IDLE);
        let (answer, connection) = match idle {
            Some(Kept { connection, .. }) => self.ask_on_idle(connection).await?,
            None => self.ask_anew().await?,
        };
        *kept = connection;
        answer
    }

    /// A connection that was closed while it was idle may show that only now; one that was lost on the way never does.
    async fn ask_on_idle(&self, connection: SendRequest<String>) -> Asked {
        let mut on_idle = pin!(self.ask(connection));
        match timeout(SILENT_IDLE, &mut on_idle).await {
            Ok(Ok(answered)) => Ok(answered),
            Ok(Err(_)) => self.ask_anew().await,
            Err(_) => match select(on_idle, pin!(self.ask_anew())).await {
                Either::Left((Err(_), anew)) => anew.await,
                Either::Left((answered, _)) | Either::Right((answered, _)) => answered,
            },
        }
    }

    async fn ask_anew(&self) -> Asked {
        self.ask(self.open().await?).await
    }

    async fn open(&self) -> Result<SendRequest<String>, Failure> {
        let stream = self.destination.connect().await?;
        match &self.security {
            Some(security) => begin(security.secure(stream).await.map_err(Failure::secured)?).await,
            None => begin(stream).await,
        }
    }

    async fn ask(&self, mut connection: SendRequest<String>) -> Asked {
        connection.ready().await?;
        let answer = connection.send_request(self.request.clone()).await?;
        let status = answer.status().as_u16();
        let mut body = answer.into_body();
        let mut read = Vec::new();

        let is_expected = self.status.map_or((200..300).contains(&status), |expected| expected.as_u16() == status);
        let judged = if !is_expected {
            Err(Failure { kind: classify_status(status), source: format!("it answered {status}").into() })
        } else if let Some(text) = &self.text {
            if read_until(&mut body, &mut read, text.as_bytes()).await? {
                Ok(())
            } else {
                Err(Failure { kind: ProbeErrorKind::Failed, source: "its answer is without the expected text".into() })
            }
        } else {
            Ok(())
        };

        let rest = timeout(REST, read_until(&mut body, &mut read, &[])).await;
        let is_whole = rest.is_ok_and(|read| read.is_ok()) && body.is_end_stream();
        Ok((judged, is_whole.then(|| Kept { connection, used: Instant::now() })))
    }
}

impl Probe for Get {
    const GROUP: &'static str = "service";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        self.asked()
            .await
            .map_err(|Failure { kind, source }| ProbeError::new(kind, kind.message(&self.name())).with_source(source))
    }

    fn resource(&self) -> Option<String> {
        Some(self.name())
    }
}

/// Without path, query and credentials.
impl fmt::Debug for Get {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Get").field(&self.name()).finish()
    }
}

/// Why there is no answer, or not the expected one.
struct Failure {
    kind: ProbeErrorKind,
    source: BoxError,
}

impl Failure {
    fn secured(error: std::io::Error) -> Self {
        Self { kind: super::https::classify(&error), source: error.into() }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self { kind: classify_io(&error), source: error.into() }
    }
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        Self { kind: classify(&error), source: error.into() }
    }
}

/// The authorization for what stands before the host.
fn credentials(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let mut plain: Vec<u8> = percent_decode_str(url.username()).collect();
    plain.push(b':');
    plain.extend(percent_decode_str(url.password().unwrap_or_default()));
    HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(plain))).ok()
}

async fn begin<S>(stream: S) -> Result<SendRequest<String>, Failure>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    TokioIo<S>: Read + Write,
{
    let (requests, connection) = Builder::new().max_buf_size(LONGEST).handshake(TokioIo::new(stream)).await?;
    // It ends with its last user. How it fails, the question is told.
    tokio::spawn(connection);
    Ok(requests)
}

/// Reads until the text is there, and says whether it is; no text is never there. At most so much is read in all.
async fn read_until(body: &mut Incoming, read: &mut Vec<u8>, text: &[u8]) -> Result<bool, hyper::Error> {
    let mut from = 0;
    loop {
        if !text.is_empty() && read[from..].windows(text.len()).any(|piece| piece == text) {
            return Ok(true);
        }
        from = (read.len() + 1).saturating_sub(text.len()).min(read.len());
        if read.len() >= LONGEST {
            return Ok(false);
        }
        let Some(frame) = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await else { return Ok(false) };
        if let Ok(data) = frame?.into_data() {
            read.extend_from_slice(&data[..data.len().min(LONGEST - read.len())]);
        }
    }
}

fn classify_status(status: u16) -> ProbeErrorKind {
    match status {
        401 | 403 | 407 => ProbeErrorKind::Rejected,
        408 | 504 => ProbeErrorKind::TimedOut,
        _ => ProbeErrorKind::Failed,
    }
}

/// The kind of an error of hyper's: of the operating system's, if that is its cause.
pub(crate) fn classify(error: &hyper::Error) -> ProbeErrorKind {
    let io = std::iter::successors(std::error::Error::source(error), |error| error.source())
        .find_map(|error| error.downcast_ref::<std::io::Error>());
    match io {
        Some(io) => classify_io(io),
        None if error.is_timeout() => ProbeErrorKind::TimedOut,
        None if error.is_incomplete_message() || error.is_closed() || error.is_canceled() => {
            ProbeErrorKind::Unreachable
        }
        None => ProbeErrorKind::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(url: &str) -> String {
        Get::new(url).unwrap_err().to_string()
    }

    #[test]
    fn a_bad_url_is_told_when_the_probe_is_made() {
        for url in ["", "payments", "payments.internal/health", "http://", "http://[::1", "http://a:99999/"] {
            assert!(why(url).contains("expected a URL"), "{url}");
        }
        assert!(why("ftp://files.internal/").contains("`http://`"));
        assert!(why("redis:6379").contains("`http://`"));
        // With that feature it is none.
        if let Err(error) = Get::new("https://shop.internal/") {
            assert!(error.to_string().contains("feature `https`"), "{error}");
        }
        Get::new("http://a/").unwrap().header("a b", "c").unwrap_err();
        Get::new("http://a/").unwrap().header("a", "b\r\nc: d").unwrap_err();
    }

    #[test]
    fn nothing_secret_of_a_url_is_printed() {
        let get = Get::new("http://bob:hunter2@shop.internal/hooks/T0K3N?key=abc").unwrap();
        let get = get.header("x-key", "sesame").unwrap().body_contains("w0rd");
        assert_eq!(format!("{get:?}"), "Get(\"http server at shop.internal:80\")");
        assert_eq!(get.resource().unwrap(), "http server at shop.internal:80");
        let error = Get::new("http://bob:hunter2@[/").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }

    #[test]
    fn a_request_has_what_the_url_says() {
        let get = Get::new("http://b%20b:p%40ss@[::1]:8080/a%20b?c=d e&f={g}|\"h\"#i").unwrap();
        assert_eq!(get.destination.address.to_string(), "[::1]:8080");
        assert_eq!(get.request.headers()[HOST], "[::1]:8080");
        assert_eq!(get.request.headers()[AUTHORIZATION], "Basic YiBiOnBAc3M=");
        assert_eq!(get.request.uri(), "/a%20b?c=d%20e&f={g}|%22h%22");
        assert_eq!(Get::new("http://a").unwrap().request.uri(), "/");
        assert_eq!(Get::new("http://münchen.example").unwrap().name(), "http server at xn--mnchen-3ya.example:80");
    }
}
