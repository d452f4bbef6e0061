//! [`self_check`]: the health check of a container whose image has neither a shell nor an HTTP client.

use std::{
    env,
    ffi::OsString,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs},
    process,
    time::{Duration, Instant},
};

use actix_web::http::StatusCode;
use serde_json::Value;

use crate::redact::{label, redact};

/// The time for all of it. Far above the default deadline of a scope (800 ms), and below the timeouts that are usual in a `HEALTHCHECK`
/// (30 s by default, often 10 s): when Docker kills the command, its line is lost.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum length of a response, in bytes: that of some thousand checks.
const MAX_RESPONSE_LEN: usize = 1024 * 1024;

/// The maximum length of the printed line, in bytes. Docker keeps the first 4096 of the output.
const MAX_LINE_LEN: usize = 2048;

/// Runs a health check from the command line: with `app healthcheck [path]`, it requests the path (default `/health/live`) at `addr`, prints
/// one line, and exits with 0 if the response is 200, else with 1. With other arguments it returns. Call it first in `main`.
///
/// It serves the `HEALTHCHECK` of an image that contains only the application:
///
/// ```dockerfile
/// HEALTHCHECK CMD ["/app", "healthcheck"]
/// ```
///
/// `addr` is an address that the server listens on; `0.0.0.0` and `[::]` stand for loopback. It uses plain HTTP, needs no runtime, and takes
/// at most 5 s. A redirect is a failure, as is every other status. The line of a failure has the `errors` of the response.
///
/// # Examples
///
/// ```no_run
/// # use actix_web::{App, HttpServer};
/// #[actix_web::main]
/// async fn main() -> std::io::Result<()> {
///     let address = ("0.0.0.0", 8080);
///     health::self_check(address);
///     HttpServer::new(|| App::new().service(health::scope())).bind(address)?.run().await
/// }
/// ```
pub fn self_check(addr: impl ToSocketAddrs) {
    let Some(path) = requested_path(env::args_os().skip(1)) else { return };
    let checked = path.and_then(|path| {
        let addrs = addr.to_socket_addrs().map_err(|error| format!("unable to resolve the address: {error}"))?;
        check(addrs.map(reachable), &path)
    });
    let (line, code) = match checked {
        Ok(line) => (line, 0),
        Err(line) => (line, 1),
    };
    // The exit code counts, even if the output is closed.
    let _ = writeln!(io::stdout(), "{}", cut(line));
    process::exit(code)
}

/// The path to request; `None` if the arguments are not those of a health check.
fn requested_path(mut args: impl Iterator<Item = OsString>) -> Option<Result<String, String>> {
    if args.next()? != "healthcheck" {
        return None;
    }
    let path = args.next().unwrap_or_else(|| "/health/live".into());
    let usage = |what: &str| Err(format!("{what}; usage: healthcheck [path]"));
    Some(match path.into_string() {
        _ if args.next().is_some() => usage("too many arguments"),
        Ok(path) if path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(path),
        Ok(path) => usage(&format!("`{}` is not the path of a URL, such as /health/ready", label(&path))),
        Err(_) => usage("the path is not Unicode"),
    })
}

/// The address to connect to for one that a server listens on.
fn reachable(mut addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => addr.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => addr.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    addr
}

/// Requests the path at the first address that accepts a connection. Returns the line to print.
fn check(addrs: impl Iterator<Item = SocketAddr>, path: &str) -> Result<String, String> {
    let until = Instant::now() + TIMEOUT;
    let mut failure = "there is no address to connect to".to_owned();
    for addr in addrs {
        let url = format!("http://{addr}{path}");
        match remaining(until).and_then(|time| TcpStream::connect_timeout(&addr, time)) {
            Ok(stream) => {
                let (received, end) = exchange(stream, addr, path, until);
                let outcome = outcome(&received, &end, addr.ip());
                return outcome.map(|line| format!("{url}: {line}")).map_err(|line| format!("{url}: {line}"));
            }
            Err(error) => failure = format!("{url}: unable to connect: {error}"),
        }
    }
    Err(failure)
}

/// Why the server sends nothing more, or why no more is read.
#[derive(Debug)]
enum End {
    /// The response has its whole length.
    Complete,
    Closed,
    TooLong,
    Failed(io::Error),
}

fn exchange(mut stream: TcpStream, addr: SocketAddr, path: &str, until: Instant) -> (Vec<u8>, End) {
    let mut received = Vec::new();
    let end = send(&mut stream, addr, path, until).and_then(|()| receive(&mut stream, &mut received, until));
    (received, end.unwrap_or_else(End::Failed))
}

fn send(stream: &mut TcpStream, addr: SocketAddr, path: &str, until: Instant) -> io::Result<()> {
    stream.set_write_timeout(Some(remaining(until)?))?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nUser-Agent: health-self-check\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())
}

fn receive(stream: &mut TcpStream, received: &mut Vec<u8>, until: Instant) -> io::Result<End> {
    let mut buffer = [0; 16 * 1024];
    loop {
        // Set for each read, so that a server that sends a byte now and then does not extend the time.
        stream.set_read_timeout(Some(remaining(until)?))?;
        let length = match stream.read(&mut buffer) {
            Ok(0) => return Ok(End::Closed),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // How Unix reports the timeout of a socket.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error),
        };
        received.extend_from_slice(&buffer[..length]);
        if received.len() > MAX_RESPONSE_LEN {
            return Ok(End::TooLong);
        }
        match parse(received) {
            Ok(Some(response)) if response.is_complete() => return Ok(End::Complete),
            Ok(_) => {}
            // What follows does not make it a response.
            Err(_) => return Ok(End::Closed),
        }
    }
}

fn remaining(until: Instant) -> io::Result<Duration> {
    let time = until.saturating_duration_since(Instant::now());
    if time.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(time) }
}

/// The parts of a response that matter here.
struct Response<'a> {
    code: u16,
    content_length: Option<usize>,
    body: &'a [u8],
}

impl Response<'_> {
    fn is_complete(&self) -> bool {
        self.content_length.is_some_and(|length| self.body.len() >= length)
    }
}

/// Parses a response; `None` if its head has not been received to its end.
fn parse(received: &[u8]) -> Result<Option<Response<'_>>, httparse::Error> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = head.parse(received)? else { return Ok(None) };
    let content_length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let content_length = content_length.and_then(|header| str::from_utf8(header.value).ok()?.trim().parse().ok());
    Ok(Some(Response { code: head.code.unwrap_or_default(), content_length, body: &received[length..] }))
}

/// What was received as a line: `Ok` if it is a complete response with the status 200. `peer` is the address that the server has seen.
fn outcome(received: &[u8], end: &End, peer: IpAddr) -> Result<String, String> {
    let interruption = match end {
        End::Complete => None,
        End::Closed => Some("the server closed the connection".to_owned()),
        End::TooLong => Some(format!("the response is longer than {} MiB", MAX_RESPONSE_LEN >> 20)),
        End::Failed(error) if error.kind() == io::ErrorKind::TimedOut => {
            Some(format!("timed out after {} s", TIMEOUT.as_secs()))
        }
        End::Failed(error) => Some(error.to_string()),
    };
    let response = match parse(received) {
        Ok(Some(response)) => response,
        Ok(None) => {
            let interruption = interruption.unwrap_or_default();
            return Err(format!("no response: {interruption}; {} bytes were received", received.len()));
        }
        Err(error) => {
            let start = String::from_utf8_lossy(&received[..received.len().min(64)]);
            return Err(format!("the response is not HTTP ({error}): `{}`", redact(&start, None)));
        }
    };
    let status =
        StatusCode::from_u16(response.code).map_or_else(|_| response.code.to_string(), |status| status.to_string());
    // Without a length, the end of the connection is the end of the body.
    let is_whole = response.content_length.is_none() && matches!(end, End::Closed);
    match (response.code, interruption.filter(|_| !is_whole)) {
        (200, None) => Ok(status),
        (200, Some(interruption)) => {
            let length = response.body.len();
            Err(format!("{status}, but the body is not complete: {interruption}; {length} bytes of it were received"))
        }
        (300..400, _) => Err(format!("{status}: redirects are not followed")),
        (403, _) => Err(format!("{status}: add {peer} to the allow-list (HEALTHCHECK_IPS or Scope::allow)")),
        _ => Err(errors(response.body).map_or_else(|| status.clone(), |errors| format!("{status}: {errors}"))),
    }
}

/// The `errors` of a report: `database.db: timed out after 800 ms; cache.sessions: …`.
fn errors(body: &[u8]) -> Option<String> {
    let report: Value = serde_json::from_slice(body).ok()?;
    let groups = report.get("errors")?.as_object()?.iter();
    let checks = groups.flat_map(|(group, checks)| checks.as_object().into_iter().flatten().map(move |it| (group, it)));
    let lines = checks.filter_map(|(group, (name, error))| {
        Some(format!("{}.{}: {}", label(group), label(name), redact(error.as_str()?, None)))
    });
    let mut lines: Vec<_> = lines.collect();
    // A parsed object is sorted, unless a crate of the application enables a feature of serde_json.
    lines.sort_unstable();
    Some(lines.join("; ")).filter(|errors| !errors.is_empty())
}

fn cut(mut line: String) -> String {
    if line.len() > MAX_LINE_LEN {
        line.truncate(line.floor_char_boundary(MAX_LINE_LEN));
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn path(args: &[&str]) -> Option<Result<String, String>> {
        requested_path(args.iter().map(OsString::from))
    }

    #[test]
    fn only_the_argument_healthcheck_runs_a_check() {
        assert_eq!(path(&[]), None);
        assert_eq!(path(&["serve"]), None);
        assert_eq!(path(&["serve", "healthcheck"]), None);
        assert_eq!(path(&["healthcheck"]), Some(Ok("/health/live".to_owned())));
        assert_eq!(path(&["healthcheck", "/health?details"]), Some(Ok("/health?details".to_owned())));
    }

    #[test]
    fn invalid_arguments_are_a_failure_and_named() {
        for (args, named) in [
            (&["healthcheck", "health"][..], "`health` is not the path of a URL"),
            (&["healthcheck", ""], "`` is not the path"),
            (&["healthcheck", "/a b"], "`/a b` is not the path"),
            (&["healthcheck", "/a\r\nX: y"], "is not the path"),
            (&["healthcheck", "/ä"], "is not the path"),
            (&["healthcheck", "/", "/"], "too many arguments"),
        ] {
            let error = path(args).unwrap().unwrap_err();
            assert!(error.contains(named) && error.ends_with("; usage: healthcheck [path]"), "{error}");
            assert!(!error.contains(['\r', '\n']), "{error:?}");
        }
    }

    #[test]
    fn unspecified_addresses_mean_loopback() {
        for (listening, connected) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
        ] {
            assert_eq!(reachable(listening.parse().unwrap()), connected.parse().unwrap());
        }
    }

    #[test]
    fn only_a_complete_200_is_a_success() {
        let complete = |received: &str| outcome(received.as_bytes(), &End::Complete, LOOPBACK);
        let closed = |received: &str| outcome(received.as_bytes(), &End::Closed, LOOPBACK);
        assert_eq!(complete("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), Ok("200 OK".to_owned()));
        assert_eq!(closed("HTTP/1.0 200 Fine\r\n\r\nanything"), Ok("200 OK".to_owned()));

        let timed_out = End::Failed(io::ErrorKind::TimedOut.into());
        for (received, end, expected) in [
            ("", End::Closed, "no response: the server closed the connection; 0 bytes were received"),
            ("HTTP/1.1 20", timed_out, "no response: timed out after 5 s; 11 bytes were received"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
                End::Closed,
                "200 OK, but the body is not complete: the server closed the connection; 2 bytes of it were received",
            ),
            (
                "HTTP/1.1 200 OK\r\n\r\n{}",
                End::TooLong,
                "200 OK, but the body is not complete: the response is longer than 1 MiB; 2 bytes of it were received",
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", End::Closed, "204 No Content"),
            (
                "HTTP/1.1 301 Moved\r\nLocation: /health\r\nContent-Length: 0\r\n\r\n",
                End::Complete,
                "301 Moved Permanently: redirects are not followed",
            ),
            (
                "HTTP/1.1 403 Forbidden\r\n\r\n",
                End::Closed,
                "403 Forbidden: add 127.0.0.1 to the allow-list (HEALTHCHECK_IPS or Scope::allow)",
            ),
            ("HTTP/1.1 404 Not Found\r\n\r\n<html>", End::Closed, "404 Not Found"),
            ("HTTP/1.1 000 \r\n\r\n", End::Closed, "0"),
        ] {
            assert_eq!(outcome(received.as_bytes(), &end, LOOPBACK), Err(expected.to_owned()));
        }
    }

    #[test]
    fn what_is_not_http_is_shown_in_one_line_and_cut() {
        let error = outcome(b"SSH-2.0-OpenSSH_9.2\r\n\x1b[31m", &End::Closed, LOOPBACK).unwrap_err();
        assert!(error.contains(r"`SSH-2.0-OpenSSH_9.2\r\n\u{1b}[31m`"), "{error}");
        let error = outcome(&[0xff; 10_000], &End::Closed, LOOPBACK).unwrap_err();
        assert!(error.len() < 300, "{error}");
    }

    #[test]
    fn the_errors_of_a_report_are_listed_redacted_and_cut() {
        let outcome = |errors: &str| {
            let response = format!("HTTP/1.1 503 X\r\n\r\n{{\"status\":\"DOWN\",\"errors\":{errors}}}");
            outcome(response.as_bytes(), &End::Closed, LOOPBACK).unwrap_err()
        };
        assert_eq!(
            outcome(r#"{"health":{"drain":"server is draining"},"database":{"a":"timed out after 800 ms","b":"no"}}"#),
            "503 Service Unavailable: database.a: timed out after 800 ms; database.b: no; health.drain: server is draining"
        );
        assert_eq!(
            outcome(r#"{"a":{"b\u001b":"postgres://bob:hunter2@db\nforged"}}"#),
            r"503 Service Unavailable: a.b\u{1b}: postgres://***@db\nforged"
        );
        for other in ["{}", "[]", "null", r#"{"a":1}"#, r#"{"a":{"b":1}}"#] {
            assert_eq!(outcome(other), "503 Service Unavailable");
        }
        let long = cut(outcome(&format!(r#"{{"a":{{"b":"{}"}}}}"#, "ä".repeat(3000))));
        assert!(long.len() <= MAX_LINE_LEN + '…'.len_utf8() && long.ends_with('…'), "{long}");
    }
}
