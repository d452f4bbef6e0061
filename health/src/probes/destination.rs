//! A host and a port that a probe of its own connects to.

use std::{
    error::Error,
    fmt, io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
};

use tokio::net::TcpStream;

use super::{address::Address, one_thread::OneThread};

/// Why a probe can't be made of what was given: a URL, an address or a name that is none. What was given is not repeated, for
/// it may hold a password.
#[derive(Debug)]
pub struct InvalidProbe(&'static str);

impl InvalidProbe {
    pub(super) const fn new(why: &'static str) -> Self {
        Self(why)
    }
}

impl fmt::Display for InvalidProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for InvalidProbe {}

/// A name is looked up anew each time, as the operating system does it for the application too, and without more than one
/// thread, which a resolver that hangs would block.
#[derive(Clone)]
pub(super) struct Destination {
    pub(super) address: Address,
    lookup: OneThread<io::Result<Vec<SocketAddr>>>,
}

impl Destination {
    pub(super) fn new(address: Address) -> Self {
        Self { address, lookup: OneThread::new() }
    }

    /// From `host:port`.
    pub(super) fn parse(text: &str) -> Result<Self, InvalidProbe> {
        let address = Address::parse(text);
        address
            .map(Self::new)
            .ok_or(InvalidProbe::new("expected a host and a port, such as `db.internal:5432` or `[::1]:5432`"))
    }

    pub(super) async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let Address { host, port } = &self.address;
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![(ip, *port).into()]);
        }
        let name = (host.clone(), *port);
        self.lookup.ask(move || Ok((name.0.as_str(), name.1).to_socket_addrs()?.collect())).await?
    }

    pub(super) async fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(&*self.resolve().await?).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}
