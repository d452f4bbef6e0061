//! The host and port that a probe connects to by itself.

use std::{
    error::Error,
    fmt, io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
};

use tokio::net::TcpStream;

use super::{address::Address, blocking_single_flight::BlockingSingleFlight};

/// The URL, address or name that a probe was created with is invalid. The message does not repeat it, because it may contain a
/// password.
#[derive(Debug)]
pub struct InvalidProbe(&'static str);

impl InvalidProbe {
    pub(in crate::probes) const fn new(reason: &'static str) -> Self {
        Self(reason)
    }
}

impl fmt::Display for InvalidProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for InvalidProbe {}

/// A host and a port. Each use resolves the host by the system's resolver, as the application does, and blocks at most one thread
/// while the resolver hangs.
#[derive(Clone)]
pub(in crate::probes) struct Endpoint {
    pub(in crate::probes) address: Address,
    lookup: BlockingSingleFlight<io::Result<Vec<SocketAddr>>>,
}

impl Endpoint {
    pub(in crate::probes) fn new(address: Address) -> Self {
        Self { address, lookup: BlockingSingleFlight::new() }
    }

    /// Parses `host:port`.
    pub(in crate::probes) fn parse(text: &str) -> Result<Self, InvalidProbe> {
        let address = Address::parse(text);
        address
            .map(Self::new)
            .ok_or(InvalidProbe::new("expected a host and a port, such as `db.internal:5432` or `[::1]:5432`"))
    }

    pub(in crate::probes) async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let Address { host, port } = &self.address;
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![(ip, *port).into()]);
        }
        let name = (host.clone(), *port);
        self.lookup.run(move || Ok((name.0.as_str(), name.1).to_socket_addrs()?.collect())).await?
    }

    pub(in crate::probes) async fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(&*self.resolve().await?).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_resolved_and_an_address_is_itself() {
        let resolve = async |text| Endpoint::parse(text).unwrap().resolve().await.unwrap();
        assert_eq!(resolve("[::1]:5432").await, ["[::1]:5432".parse().unwrap()]);
        let local = resolve("localhost:5432").await;
        assert!(!local.is_empty() && local.iter().all(|address| address.ip().is_loopback() && address.port() == 5432));
    }

    #[test]
    fn an_address_without_a_port_is_invalid_and_the_message_does_not_repeat_it() {
        let message = Endpoint::parse("secret").map(drop).unwrap_err().to_string();
        assert_eq!(message, "expected a host and a port, such as `db.internal:5432` or `[::1]:5432`");
    }
}
