//! [`Get`]: another service, requested over HTTP.
//!
//! Each run sends one `GET`, and checks the status and, with [`Get::body_contains`], the body. It uses HTTP/1.1 on a connection of its
//! own, which is reused for at most 30 s. Only a success counts on a reused connection. Any failure, including a complete response
//! with another status, closes it, and the run is repeated on a new one, which a load balancer may route to another backend. If a reused
//! connection is silent for longer than twice the longest response before, and at least 300 ms, the request is also sent on a new one,
//! at most every 2 s.
//!
//! Redirects are not followed, and the proxies of the environment are not used. At most 64 KiB of a body are read. Without
//! [`Get::body_contains`], the connection is closed if the body does not end within 100 ms.
//!
//! What a run costs the server: one request. Every 30 s a run opens a connection and sends two requests. A run that fails opens a
//! connection too.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, reset, no such host, closed without a response | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | 401, 403, 407; a certificate that is not trusted; the server requires a client certificate | [`ProbeErrorKind::Rejected`] | DOWN |
//! | 408, 504 | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | any other status than the expected one, a body without the expected text, not HTTP, not TLS | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! Responses and the log name the server by host and port: never the path, the query or the credentials of the URL.
//!
//! `https://` needs the feature `https`. The certificate is verified with the roots of the system and those of
//! [`Get::trusting`](Get#method.trusting), by the process's rustls crypto provider. This crate does not contain one, so install one
//! at the start of `main`, before the probe is created:
//!
//! ```
//! rustls::crypto::ring::default_provider().install_default().expect("the first one");
//! ```
//!
//! Request a cheap page, such as the liveness of the other service, and not its readiness. Otherwise one failed dependency takes all
//! services that call each other out of rotation.

use std::{fmt, future::poll_fn, pin::Pin, sync::Arc, time::Duration};

use actix_web::http::StatusCode;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use hyper::{
    Request,
    body::{Body as _, Incoming},
    client::conn::http1::{Builder, SendRequest},
    header::{AUTHORIZATION, HOST, HeaderName, HeaderValue, USER_AGENT},
    rt::{Read, Write},
};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use tokio::time::timeout;
use url::{Position, Url};

use super::https::TlsClient;
use crate::{
    error::{BoxError, ProbeError, ProbeErrorKind, classify_io},
    probe::{LibraryProbe, library_probe},
    probes::support::{
        address::Address,
        endpoint::{Endpoint, InvalidProbe},
        reused_connection::{Connector, ReusedConnection},
    },
};

/// The longest part of a body that is read, and the longest head.
const MAX_LEN: usize = 64 * 1024;

/// How long the rest of a body may take, so that the connection can be reused.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(100);

/// Requests a URL: UP if the response is a success, or the expected one.
///
/// Clones share one connection.
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
pub struct Get(Arc<ReusedConnection<Target>>);

/// The request, its server, and the expected response.
#[derive(Clone)]
pub(super) struct Target {
    endpoint: Endpoint,
    tls: Option<TlsClient>,
    request: Request<String>,
    status: Option<StatusCode>,
    text: Option<Arc<str>>,
}

impl Get {
    /// Requests an `http://` URL, or an `https://` URL with the feature `https`. Credentials in the URL are sent as basic
    /// authentication.
    ///
    /// # Errors
    ///
    /// Returns an error if the URL is invalid, and for `https://` if the process has no rustls crypto provider.
    pub fn new(url: impl AsRef<str>) -> Result<Self, InvalidProbe> {
        const NO_URL: InvalidProbe = InvalidProbe::new("expected a URL, such as `http://search.internal:9200/health`");
        let url = Url::parse(url.as_ref()).map_err(|_| NO_URL)?;
        let is_https = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return Err(InvalidProbe::new("expected an `http://` or `https://` URL")),
        };
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return Err(NO_URL) };
        // Only in a URL does an IPv6 address have brackets.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let mut request = Request::get(&url[Position::BeforePath..Position::AfterQuery])
            .header(HOST, &url[Position::BeforeHost..Position::AfterPort])
            .header(USER_AGENT, concat!("health/", env!("CARGO_PKG_VERSION")))
            .body(String::new())
            .map_err(|_| NO_URL)?;
        if let Some(credentials) = credentials(&url) {
            request.headers_mut().insert(AUTHORIZATION, credentials);
        }
        Ok(Self::of(Target {
            tls: if is_https { Some(TlsClient::new(&host)?) } else { None },
            endpoint: Endpoint::new(Address { host, port }),
            request,
            status: None,
            text: None,
        }))
    }

    fn of(target: Target) -> Self {
        Self(Arc::new(ReusedConnection::new(target)))
    }

    /// Changes the target. The connection of the previous one is not reused.
    #[allow(dead_code, reason = "only used with the feature `https`")]
    pub(super) fn try_with<E>(self, change: impl FnOnce(&mut Target) -> Result<(), E>) -> Result<Self, E> {
        let mut target = self.target().clone();
        change(&mut target)?;
        Ok(Self::of(target))
    }

    fn with(self, change: impl FnOnce(&mut Target)) -> Self {
        let mut target = self.target().clone();
        change(&mut target);
        Self::of(target)
    }

    fn target(&self) -> &Target {
        self.0.connector()
    }

    /// Expects this status. Defaults to any of 200 to 299.
    pub fn status(self, expected: StatusCode) -> Self {
        self.with(|target| target.status = Some(expected))
    }

    /// Expects this text somewhere in the first 64 KiB of the body. Defaults to any body, as does an empty text.
    pub fn body_contains(self, expected: impl Into<Arc<str>>) -> Self {
        let expected = Some(expected.into()).filter(|text| !text.is_empty());
        self.with(|target| target.text = expected)
    }

    /// Sets a request header, including `host` and `user-agent`.
    ///
    /// # Errors
    ///
    /// Returns an error if the name or the value is not valid in a header.
    pub fn header(self, name: &str, value: &str) -> Result<Self, InvalidProbe> {
        let name: HeaderName = name.parse().map_err(|_| InvalidProbe::new("invalid name of a header"))?;
        let value: HeaderValue = value.parse().map_err(|_| InvalidProbe::new("invalid value of a header"))?;
        Ok(self.with(|target| {
            target.request.headers_mut().insert(name, value);
        }))
    }
}

impl Target {
    /// The TLS client, for `https://` URLs.
    #[allow(dead_code, reason = "only used with the feature `https`")]
    pub(super) fn tls_mut(&mut self) -> Option<&mut TlsClient> {
        self.tls.as_mut()
    }

    fn name(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme} server at {}", self.endpoint.address)
    }
}

impl Connector for Target {
    type Connection = SendRequest<String>;
    type Error = Failure;

    async fn connect(&self) -> Result<SendRequest<String>, Failure> {
        let stream = self.endpoint.connect().await?;
        match &self.tls {
            Some(tls) => http_handshake(tls.handshake(stream).await.map_err(Failure::tls)?).await,
            None => http_handshake(stream).await,
        }
    }

    async fn query(&self, connection: &mut SendRequest<String>) -> Result<bool, Failure> {
        connection.ready().await?;
        let response = connection.send_request(self.request.clone()).await?;
        let status = response.status().as_u16();
        let mut body = response.into_body();
        let mut read = Vec::new();

        if !self.status.map_or((200..300).contains(&status), |expected| expected.as_u16() == status) {
            return Err(Failure { kind: classify_status(status), source: format!("the status is {status}").into() });
        }
        if let Some(text) = &self.text
            && !read_until(&mut body, &mut read, text.as_bytes()).await?
        {
            let source = "the body does not contain the expected text".into();
            return Err(Failure { kind: ProbeErrorKind::Failed, source });
        }
        let rest = timeout(DRAIN_TIMEOUT, read_until(&mut body, &mut read, &[])).await;
        Ok(rest.is_ok_and(|read| read.is_ok()) && body.is_end_stream())
    }
}

library_probe! { "service", Get => |probe: &Get| probe.clone() }

impl LibraryProbe for Get {
    async fn probe(&self) -> Result<(), ProbeError> {
        self.0.query().await.map_err(|Failure { kind, source }| {
            ProbeError::new(kind, kind.message(&self.target().name())).with_source(source)
        })
    }

    fn resource(&self) -> Option<String> {
        Some(self.target().name())
    }
}

/// Formats neither path nor query nor credentials.
impl fmt::Debug for Get {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Get").field(&self.target().name()).finish()
    }
}

/// Why a run fails, before it has a public message.
pub(super) struct Failure {
    kind: ProbeErrorKind,
    source: BoxError,
}

impl Failure {
    fn tls(error: std::io::Error) -> Self {
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

/// Returns the header for the credentials in a URL.
fn credentials(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let mut plain: Vec<u8> = percent_decode_str(url.username()).collect();
    plain.push(b':');
    plain.extend(percent_decode_str(url.password().unwrap_or_default()));
    HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(plain))).ok()
}

async fn http_handshake<S>(stream: S) -> Result<SendRequest<String>, Failure>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    TokioIo<S>: Read + Write,
{
    let (requests, connection) = Builder::new().max_buf_size(MAX_LEN).handshake(TokioIo::new(stream)).await?;
    // It ends when `requests` is dropped. Its errors are returned by the request.
    tokio::spawn(connection);
    Ok(requests)
}

/// Reads until the body contains the text, and returns whether it does. An empty text reads the whole body and returns `false`. At most
/// [`MAX_LEN`] bytes are read.
async fn read_until(body: &mut Incoming, read: &mut Vec<u8>, text: &[u8]) -> Result<bool, hyper::Error> {
    let mut from = 0;
    loop {
        if !text.is_empty() && read[from..].windows(text.len()).any(|piece| piece == text) {
            return Ok(true);
        }
        from = (read.len() + 1).saturating_sub(text.len()).min(read.len());
        if read.len() >= MAX_LEN {
            return Ok(false);
        }
        let Some(frame) = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await else { return Ok(false) };
        if let Ok(data) = frame?.into_data() {
            read.extend_from_slice(&data[..data.len().min(MAX_LEN - read.len())]);
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

/// Returns the kind of an error of hyper, which is that of the I/O error in its chain of sources, if there is one.
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

    fn error(url: &str) -> String {
        Get::new(url).unwrap_err().to_string()
    }

    #[test]
    fn an_invalid_url_is_an_error() {
        for url in ["", "payments", "payments.internal/health", "http://", "http://[::1", "http://a:99999/"] {
            assert!(error(url).contains("expected a URL"), "{url}");
        }
        assert!(error("ftp://files.internal/").contains("`http://`"));
        assert!(error("redis:6379").contains("`http://`"));
        let needed = if cfg!(feature = "https") { "default_provider().install_default()" } else { "feature `https`" };
        assert!(error("https://shop.internal/").contains(needed), "{}", error("https://shop.internal/"));
        Get::new("http://a/").unwrap().header("a b", "c").unwrap_err();
        Get::new("http://a/").unwrap().header("a", "b\r\nc: d").unwrap_err();
    }

    #[test]
    fn debug_output_and_errors_contain_no_credentials() {
        let get = Get::new("http://bob:hunter2@shop.internal/hooks/T0K3N?key=abc").unwrap();
        let get = get.header("x-key", "sesame").unwrap().body_contains("w0rd");
        assert_eq!(format!("{get:?}"), "Get(\"http server at shop.internal:80\")");
        assert_eq!(get.resource().unwrap(), "http server at shop.internal:80");
        let error = Get::new("http://bob:hunter2@[/").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }

    #[test]
    fn a_request_has_the_host_path_and_credentials_of_the_url() {
        let get = Get::new("http://b%20b:p%40ss@[::1]:8080/a%20b?c=d e&f={g}|\"h\"#i").unwrap();
        let Target { endpoint, request, .. } = get.target();
        assert_eq!(endpoint.address.to_string(), "[::1]:8080");
        assert_eq!(request.headers()[HOST], "[::1]:8080");
        assert_eq!(request.headers()[AUTHORIZATION], "Basic YiBiOnBAc3M=");
        assert_eq!(request.uri(), "/a%20b?c=d%20e&f={g}|%22h%22");
        assert_eq!(Get::new("http://a").unwrap().target().request.uri(), "/");
        assert_eq!(
            Get::new("http://münchen.example").unwrap().target().name(),
            "http server at xn--mnchen-3ya.example:80"
        );
    }
}
