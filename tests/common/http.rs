//! An HTTP client that sends exactly the given bytes, over TCP from any local address, or over a Unix socket.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::LazyLock,
    time::{Duration, Instant},
};

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpSocket, UnixStream},
    time::timeout,
};

/// A response as it was received.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
    pub(crate) took: Duration,
}

impl Response {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body as JSON. That of a report must be valid by the schema of the crate.
    pub(crate) fn json(&self) -> Value {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        let is_report = body.get("status").is_some() && body.get("checks").is_some();
        if is_report && self.header("content-type") == Some("application/json") {
            assert_valid(&body);
        }
        body
    }
}

fn assert_valid(body: &Value) {
    static SCHEMA: LazyLock<(Schemas, SchemaIndex)> = LazyLock::new(|| {
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.enable_format_assertions();
        let schema = serde_json::from_str(include_str!("../../health/src/render/schema.json")).unwrap();
        compiler.add_resource("http://localhost/schema", schema).unwrap();
        let index = compiler.compile("http://localhost/schema", &mut schemas).unwrap();
        (schemas, index)
    });
    let (schemas, index) = &*SCHEMA;
    if let Err(error) = schemas.validate(body, *index) {
        panic!("{error:#}\n{body}");
    }
}

pub(crate) async fn get(server: SocketAddr, path: &str) -> Response {
    request(server, "GET", path).await
}

pub(crate) async fn request(server: SocketAddr, method: &str, path: &str) -> Response {
    request_from(server.ip(), server, method, path).await
}

/// Sends a request from a given local address, such as any address of 127.0.0.0/8.
pub(crate) async fn request_from(from: IpAddr, server: SocketAddr, method: &str, path: &str) -> Response {
    request_with(from, server, method, path, &[]).await
}

/// Sends a request with further header lines, unchanged.
pub(crate) async fn request_with(
    from: IpAddr,
    server: SocketAddr,
    method: &str,
    path: &str,
    lines: &[&str],
) -> Response {
    let socket = if server.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
    socket.bind((from, 0).into()).unwrap();
    exchange(socket.connect(server).await.unwrap(), method, path, lines).await
}

pub(crate) async fn request_unix(socket: &Path, method: &str, path: &str) -> Response {
    request_unix_with(socket, method, path, &[]).await
}

pub(crate) async fn request_unix_with(socket: &Path, method: &str, path: &str, lines: &[&str]) -> Response {
    exchange(UnixStream::connect(socket).await.unwrap(), method, path, lines).await
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    method: &str,
    path: &str,
    lines: &[&str],
) -> Response {
    let started = Instant::now();
    let start = format!("{method} {path} HTTP/1.1");
    let request = [&[&*start, "Host: localhost", "Connection: close"], lines, &["", ""]].concat().join("\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut raw = Vec::new();
    timeout(Duration::from_secs(60), stream.read_to_end(&mut raw)).await.expect("no response within a minute").unwrap();
    let took = started.elapsed();
    let text = String::from_utf8(raw).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Response { status, head: head.to_owned(), body: body.to_owned(), took }
}
