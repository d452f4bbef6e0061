//! [`Get`]: another service, requested over HTTP by the application's own `reqwest::Client`.
//!
//! Each run sends one `GET`, and checks the status and, with [`Get::body_contains`], the body. The client decides what it decides for the
//! application's requests: connections and their reuse, versions of HTTP, TLS and trusted certificates, proxies, redirects, decompression,
//! and limits of its own. A client that is built by default follows up to 10 redirects; one with `redirect(Policy::none())` makes every
//! redirect a failure. No TLS and no crypto provider come with this crate.
//!
//! A pooled connection that ends while the request is in flight is not an outage: the request is repeated once. If a response takes longer
//! than twice the longest one before, and at least 300 ms, or longer than a timeout of the client, the request is also sent on another
//! connection, and again every 2 s. If only a later request has a response in time, some requests of the application have none, either: the
//! check is DEGRADED. A later request that fails does not count while the first one may still have a response, except that the server refuses
//! connections. With HTTP/2 all requests share one connection, so while that one is silent the check is DOWN, like the application's requests.
//!
//! At most 64 KiB of a body are read, or as much as the expected text is long. The rest of a body is read after the result, so that the
//! connection can be reused. If it does not end within 100 ms, it is dropped, which closes the connection.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, reset, no such host, closed without a response | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | 401, 403, 407; with rustls: a certificate that is not trusted, or the server ends the handshake with an alert | [`ProbeErrorKind::Rejected`] | DOWN |
//! | no response in time to a request, and one to a later request | [`ProbeErrorKind::TimedOut`] | DEGRADED |
//! | 408, 504; the client's own limit | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | any other status than the expected one, a body without the expected text, too many redirects, not HTTP, not TLS; a URL that the client does not support, such as `ftp://` | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! Responses and the log name the server by host and port: never the path, the query or the credentials of the URL. After a
//! redirect they name the server that has responded. Without a response they name the server in the URL of the check, because errors of the
//! client do not contain the target of the redirect. They never name a proxy: if it is unreachable or denies access, they name the server
//! behind it. The status of the last response is a value of the run, `http_status`.
//!
//! What a run costs the server: one request, on an idle connection of the client or a new one, which both stay in its pool. A run with a
//! stale connection or a slow response sends a second request, and a run that fails without a response, too. A silent server gets one more
//! every 2 s, each on a new connection. While the client's resolver hangs, each of them blocks a thread.
//!
//! Request a cheap page, such as the liveness of the other service, and not its readiness. Otherwise one failed dependency takes all
//! services that call each other out of rotation.
//!
//! `reqwest::Client` itself is not probed, because it names no server.

use std::{error::Error as StdError, fmt, io, sync::Arc, time::Duration};

use derive_more::Display;
use reqwest::{
    Client, Error, Response, StatusCode, Url,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use tokio::time::timeout;

use super::tls::classify_tls;
use crate::{
    error::{BoxError, ProbeError, ProbeErrorKind, chain},
    observe::observe,
    probe::{LibraryProbe, library_probe},
    probes::{
        classify::Classify,
        support::{
            address::Address,
            hedge::{HedgeDelay, repeated},
            label::Label,
        },
    },
};

/// The longest part of a body that is read, unless the expected text is longer.
const MAX_LEN: usize = 64 * 1024;

/// How long the rest of a body may take.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(100);

/// The error if a proxy responds 407 to a `CONNECT`. Its type is private in hyper-util, so there is only the text.
const PROXY_AUTH_REQUIRED: &str = "tunnel error: proxy authorization required";

/// Requests a URL: UP if the response is a success, or the expected one.
///
/// # Examples
///
/// ```
/// use health::{HealthCheck, probes::reqwest::Get};
/// use reqwest::{Client, StatusCode, header::{AUTHORIZATION, HeaderValue}};
///
/// #[derive(HealthCheck)]
/// struct AppState {
///     payments: Get,
///     search: Get,
///     client: Client, // not probed: it names no server
/// }
///
/// # fn state(client: Client) -> Result<AppState, Box<dyn std::error::Error>> {
/// Ok(AppState {
///     payments: Get::new(client.clone(), "http://payments.internal/health/live".parse()?),
///     search: Get::new(client.clone(), "http://search.internal:9200/_cluster/health".parse()?)
///         .header(AUTHORIZATION, HeaderValue::from_static("Bearer 5ecret"))
///         .status(StatusCode::OK)
///         .body_contains(r#""status":"green""#),
///     client,
/// })
/// # }
/// # rustls::crypto::ring::default_provider().install_default().unwrap();
/// # state(Client::new()).unwrap();
/// ```
#[derive(Clone)]
#[must_use]
pub struct Get {
    target: Target,
    /// Of the response to the request, which clones share.
    delay: Arc<HedgeDelay>,
}

/// The request, and the expected response.
#[derive(Clone)]
struct Target {
    client: Client,
    url: Url,
    headers: HeaderMap,
    status: Option<StatusCode>,
    text: Option<Arc<str>>,
}

impl Get {
    /// Requests this URL with this client. Credentials in the URL are sent as basic authentication.
    pub fn new(client: Client, url: Url) -> Self {
        let target = Target { client, url, headers: HeaderMap::new(), status: None, text: None };
        Self { target, delay: Arc::default() }
    }

    /// Expects this status. Defaults to any of 200 to 299.
    pub fn status(mut self, expected: StatusCode) -> Self {
        self.target.status = Some(expected);
        self
    }

    /// Expects this text somewhere in the first 64 KiB of the body, or at its beginning if the text is longer. Defaults to any body, as does
    /// an empty text.
    pub fn body_contains(mut self, expected: impl Into<Arc<str>>) -> Self {
        self.target.text = Some(expected.into()).filter(|text| !text.is_empty());
        self
    }

    /// Sets a header of the request. Defaults to the headers of the client.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.target.headers.insert(name, value);
        self
    }
}

impl Target {
    async fn query(&self) -> Result<(), Failure> {
        match self.request().await {
            Err(Failure::Client(error)) if may_be_stale(&error) => self.request().await,
            result => result,
        }
    }

    async fn request(&self) -> Result<(), Failure> {
        let response = self.client.get(self.url.clone()).headers(self.headers.clone()).send().await?;
        let status = response.status();
        observe("http_status", status.as_u16());
        let mut body = Body { response, read: Vec::new() };
        let result = self.evaluate(status, &mut body).await;
        // The connection is only reused after the end of the body. What it contains does not matter, so the result does not wait for it.
        tokio::spawn(async move { timeout(DRAIN_TIMEOUT, body.read_until(&[])).await });
        result
    }

    async fn evaluate(&self, status: StatusCode, body: &mut Body) -> Result<(), Failure> {
        if !self.status.map_or(status.is_success(), |expected| expected == status) {
            return Err(Failure::Status(status, body.server()));
        }
        match &self.text {
            Some(text) if !body.read_until(text.as_bytes()).await? => Err(Failure::Text(body.server())),
            _ => Ok(()),
        }
    }
}

/// The body of a response, and what was read of it.
struct Body {
    response: Response,
    read: Vec<u8>,
}

impl Body {
    /// Returns the server that has responded, which may be the target of a redirect.
    fn server(&self) -> Label {
        label_of(self.response.url())
    }

    /// Reads until the body contains the text, and returns whether it does. An empty text reads the whole body and returns `false`. At most
    /// [`MAX_LEN`] bytes are read, or the length of the text.
    async fn read_until(&mut self, text: &[u8]) -> Result<bool, Error> {
        let max_len = MAX_LEN.max(text.len());
        let mut from = 0;
        loop {
            if !text.is_empty() && self.read[from..].windows(text.len()).any(|part| part == text) {
                return Ok(true);
            }
            from = (self.read.len() + 1).saturating_sub(text.len()).min(self.read.len());
            if self.read.len() >= max_len {
                return Ok(false);
            }
            let chunk = self.response.chunk().await.map_err(|error| error.with_url(self.response.url().clone()))?;
            let Some(chunk) = chunk else { return Ok(false) };
            self.read.extend_from_slice(&chunk[..chunk.len().min(max_len - self.read.len())]);
        }
    }
}

library_probe! { "service", Get => Get::clone }

impl LibraryProbe for Get {
    async fn probe(&self) -> Result<(), ProbeError> {
        let result = repeated(&self.delay, || self.target.query()).await;
        let label = label_of(&self.target.url);
        result.map_err(|error| error.into_probe_error(&label, |failure| failure.into_probe_error(&label)))
    }

    fn resource(&self) -> Option<String> {
        Some(label_of(&self.target.url).to_string())
    }
}

/// Formats neither path nor query nor credentials.
impl fmt::Debug for Get {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Get").field(&label_of(&self.target.url).to_string()).finish()
    }
}

fn label_of(url: &Url) -> Label {
    let name = match url.scheme() {
        "http" => "http server",
        "https" => "https server",
        _ => "server",
    };
    // Only in a URL does an IPv6 address have brackets.
    let host = url.host_str().map(|host| host.trim_start_matches('[').trim_end_matches(']').to_owned());
    let address = host.zip(url.port_or_known_default()).map(|(host, port)| Address { host, port });
    Label::new(name).at(address)
}

/// Why a request fails, before it has a public message. A response is that of the labelled server.
#[derive(Debug, Display, derive_more::Error)]
enum Failure {
    Client(Error),
    #[display("the status is {}", _0.as_u16())]
    Status(StatusCode, Label),
    #[display("the body does not contain the expected text")]
    Text(#[error(not(source))] Label),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Client(error)
    }
}

impl Failure {
    /// `requested` is the server of the URL that was requested.
    fn into_probe_error(self, requested: &Label) -> ProbeError {
        let kind = self.classify();
        match self {
            Self::Client(error) => {
                // That of a redirect is the next target, to which the client may not have connected.
                let url = error.url().filter(|_| !error.is_redirect());
                let label = url.map_or_else(|| requested.clone(), label_of);
                label.error_with(kind, error.message(&label.to_string()), without_urls(error))
            }
            Self::Status(_, ref label) | Self::Text(ref label) => label.clone().error_of_kind(kind, self),
        }
    }
}

impl Classify for Failure {
    fn classify(&self) -> ProbeErrorKind {
        match self {
            Self::Client(error) => error.classify(),
            Self::Status(status, _) => classify_status(*status),
            Self::Text(_) => ProbeErrorKind::Failed,
        }
    }

    /// A server that responds 504 has responded.
    fn is_timeout(&self) -> bool {
        matches!(self, Self::Client(error) if error.is_timeout())
    }
}

/// Whether the request may have failed because its connection was idle before, and ended.
fn may_be_stale(error: &Error) -> bool {
    !error.is_connect() && error.classify() == ProbeErrorKind::Unreachable
}

/// Returns what is logged. URLs may contain credentials, and the error for a redirect has a source with another URL.
fn without_urls(error: Error) -> BoxError {
    let has_url =
        |error: &(dyn StdError + 'static)| error.downcast_ref::<Error>().is_some_and(|error| error.url().is_some());
    let error = error.without_url();
    if chain(&error).any(has_url) { error.to_string().into() } else { error.into() }
}

fn classify_status(status: StatusCode) -> ProbeErrorKind {
    match status.as_u16() {
        401 | 403 | 407 => ProbeErrorKind::Rejected,
        408 | 504 => ProbeErrorKind::TimedOut,
        _ => ProbeErrorKind::Failed,
    }
}

impl Classify for Error {
    fn classify(&self) -> ProbeErrorKind {
        if let Some(status) = self.status() {
            return classify_status(status);
        }
        if self.is_timeout() {
            return ProbeErrorKind::TimedOut;
        }
        if chain(self).any(|error| error.to_string() == PROXY_AUTH_REQUIRED) {
            return ProbeErrorKind::Rejected;
        }
        if let Some(error) = chain(self).find_map(|error| error.downcast_ref::<io::Error>()) {
            return classify_tls(error);
        }
        let http = chain(self).find_map(|error| error.downcast_ref::<hyper::Error>());
        let is_closed =
            |error: &hyper::Error| error.is_incomplete_message() || error.is_closed() || error.is_canceled();
        if self.is_connect() || http.is_some_and(is_closed) {
            ProbeErrorKind::Unreachable
        } else {
            ProbeErrorKind::Failed
        }
    }

    fn message(&self, name: &str) -> String {
        if self.is_builder() { format!("unable to send a request to {name}") } else { self.classify().message(name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(url: &str) -> Get {
        // With TLS, which other members of the workspace enable, a client is built only if the process has a provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Get::new(Client::new(), url.parse().unwrap())
    }

    #[test]
    fn debug_output_and_names_contain_no_credentials() {
        let get = get("http://bob:hunter2@shop.internal/hooks/T0K3N?key=abc");
        let get =
            get.header(HeaderName::from_static("x-key"), HeaderValue::from_static("sesame")).body_contains("w0rd");
        assert_eq!(format!("{get:?}"), "Get(\"http server at shop.internal:80\")");
        assert_eq!(get.resource().unwrap(), "http server at shop.internal:80");
    }

    #[test]
    fn a_name_contains_the_host_and_the_port_of_the_url() {
        let name = |url: &str| label_of(&url.parse().unwrap()).to_string();
        assert_eq!(name("http://b:p@[::1]:8080/a?c=d"), "http server at [::1]:8080");
        assert_eq!(name("https://münchen.example"), "https server at xn--mnchen-3ya.example:443");
        assert_eq!(name("data:text/plain,hello"), "server");
    }
}
