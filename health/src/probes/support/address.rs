//! A host and a port, and whether it can be connected to.

use std::{fmt, io};

use futures_util::{
    FutureExt as _,
    future::{join_all, select_ok},
};
use tokio::net::TcpStream;

/// Displays as `host:port`, or `[host]:port` for an IPv6 address.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::probes) struct Address {
    pub(in crate::probes) host: String,
    pub(in crate::probes) port: u16,
}

impl Address {
    /// Parses `host:port`, with brackets around an IPv6 address.
    pub(in crate::probes) fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let is_v6 = host.starts_with('[') && host.ends_with(']');
        let host = if is_v6 { &host[1..host.len() - 1] } else { host };
        let port = port.parse().ok().filter(|&port| port != 0)?;
        (is_host(host) && is_v6 == host.contains(':')).then(|| Self { host: host.to_owned(), port })
    }
}

impl Address {
    /// Opens a TCP connection and closes it. Returns the error if that fails.
    pub(in crate::probes) async fn refusal(&self) -> Option<io::Error> {
        TcpStream::connect((self.host.as_str(), self.port)).await.err()
    }
}

/// Connects to all addresses concurrently. Returns the first refusal.
pub(in crate::probes) async fn first_refusal(addresses: &[Address]) -> Option<(Address, io::Error)> {
    if addresses.is_empty() {
        return None;
    }
    let refusals = addresses
        .iter()
        .map(|address| async move { address.refusal().await.map(|error| (address.clone(), error)).ok_or(()) }.boxed());
    select_ok(refusals).await.ok().map(|(refusal, _)| refusal)
}

/// Connects to all addresses concurrently. Returns a refusal if all refuse.
pub(in crate::probes) async fn common_refusal(addresses: &[Address]) -> Option<(Address, io::Error)> {
    let refusals = join_all(addresses.iter().map(Address::refusal)).await;
    let refusals: Option<Vec<_>> = refusals.into_iter().collect();
    addresses.first().cloned().zip(refusals?.into_iter().next())
}

/// Whether the text is only a host name or an IP address, without other parts of a URL.
pub(in crate::probes) fn is_host(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || "/?#@[]\\".contains(c))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') && !host.starts_with('[') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// An address that accepts connections as long as the listener is open, and one that refuses them.
    async fn addresses() -> (TcpListener, Address, Address) {
        let address = |listener: &TcpListener| Address::parse(&listener.local_addr().unwrap().to_string()).unwrap();
        let listen = || TcpListener::bind("127.0.0.1:0");
        let (open, closed) = (listen().await.unwrap(), listen().await.unwrap());
        let (accepts, refuses) = (address(&open), address(&closed));
        (open, accepts, refuses)
    }

    #[tokio::test]
    async fn one_address_that_refuses_is_the_first_refusal_and_not_a_common_one() {
        let (_open, accepts, refuses) = addresses().await;
        let both = [accepts.clone(), refuses.clone()];
        assert_eq!(first_refusal(&both).await.unwrap().0, refuses);
        assert!(common_refusal(&both).await.is_none());
        assert!(first_refusal(&[accepts]).await.is_none());
        assert_eq!(common_refusal(&[refuses]).await.unwrap().1.kind(), io::ErrorKind::ConnectionRefused);
        assert!(first_refusal(&[]).await.is_none() && common_refusal(&[]).await.is_none());
    }

    #[test]
    fn brackets_are_only_around_a_whole_ipv6_address() {
        for text in ["[::1:6379", "::1]:6379", "[10.0.0.7]:6379", "::1:6379", "a b:1", "a\u{7}:1", "a/b:1", ":1", "a:0"]
        {
            assert_eq!(Address::parse(text), None, "{text:?}");
        }
        assert_eq!(Address::parse("[::1]:6379").unwrap().host, "::1");
    }

    #[test]
    fn an_address_consists_of_a_host_and_a_port_only() {
        for text in ["db.internal:5432", "127.0.0.1:1", "[::1]:443", "münchen.example:65535"] {
            assert_eq!(Address::parse(text).map(|address| address.to_string()).as_deref(), Some(text));
        }
        for text in [
            "",
            "db",
            "db:",
            ":5432",
            "db:0",
            "db:65536",
            "::1",
            "::1:443",
            "[db]:1",
            "bob:pw@db:1",
            "tcp://db:1",
            "d b:1",
        ] {
            assert_eq!(Address::parse(text), None, "{text}");
        }
    }
}
