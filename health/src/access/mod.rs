//! Who may ask: pure functions of addresses. Access knows neither checks nor HTTP.

mod connection;
mod forwarded;
#[cfg(fuzzing)]
pub mod fuzzing;
mod list;
mod networks;
mod refusals;

#[cfg(test)]
mod cases;

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

pub(crate) use self::{
    connection::UnixSocket,
    forwarded::{Flaw, Header},
    networks::Networks,
    refusals::{News, REMEMBERED, Refusals},
};
pub use self::{connection::on_connect, list::AllowList, networks::ListError};

/// What a scope was told of who may ask.
#[derive(Clone, Debug)]
pub(crate) enum Allow {
    /// What [`VARIABLE`] says, else loopback.
    Default,
    Networks(Vec<IpNet>),
    List(AllowList),
    Any,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Peer {
    Address(IpAddr),
    /// A Unix socket, as [`on_connect`] has marked it.
    Unix,
    /// It has no address and no mark: a TCP connection that the client has reset before the server looked up its address, a
    /// Unix socket of a server without [`on_connect`], or a request of `actix_web::test`.
    Unknown,
}

impl Peer {
    fn to_canonical(self) -> Self {
        match self {
            Self::Address(address) => Self::Address(address.to_canonical()),
            other => other,
        }
    }

    pub(crate) fn address(self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(address),
            Self::Unix | Self::Unknown => None,
        }
    }

    /// Whether a list contains its address; of a Unix socket, whether such are allowed.
    fn is_in(self, contains: impl FnOnce(IpAddr) -> bool, unix: bool) -> bool {
        match self {
            Self::Address(address) => contains(address),
            Self::Unix => unix,
            Self::Unknown => false,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Unix => f.write_str("a client on a Unix socket"),
            Self::Unknown => f.write_str("a connection without an address"),
        }
    }
}

/// The proxies whose word is believed on who asked them.
#[derive(Clone, Debug)]
pub(crate) struct Proxies {
    pub(crate) header: Header,
    pub(crate) networks: Networks,
    /// Whether a peer on a Unix socket is one too.
    pub(crate) unix: bool,
}

/// The decision, made ready for requests.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// `None` lets everybody in.
    list: Option<AllowList>,
    /// Whether peers on a Unix socket are allowed.
    unix: bool,
    proxies: Option<Proxies>,
    is_default: bool,
}

/// Why an address is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The peer itself, which no network holds, or which has no address.
    Peer(Peer),
    /// Whom a trusted proxy names.
    Hop { address: IpAddr, header: Header, proxy: Peer },
    /// What a trusted proxy says can't be understood.
    Header { flaw: Flaw, header: Header, proxy: Peer },
}

impl Policy {
    /// # Errors
    ///
    /// An entry of the list is no address and no network, or a network with host bits set.
    pub(crate) fn new(allow: &Allow, unix: bool, proxies: Option<Proxies>) -> Result<Self, ListError> {
        let list = match allow {
            Allow::Any => None,
            Allow::Networks(networks) => Some(AllowList::of(Networks::new(".allow", networks.iter().copied())?)),
            Allow::List(list) => Some(list.clone()),
            Allow::Default => Some(AllowList::from_env()?),
        };
        Ok(Self { list, unix, proxies, is_default: matches!(allow, Allow::Default) })
    }

    /// Whether nothing was said of who may ask, and nothing of proxies.
    pub(crate) fn is_for_this_machine_alone(&self) -> bool {
        self.is_default && self.proxies.is_none()
    }

    /// Judges who asks: the peer, or, if that is a trusted proxy, whom it names in the header. `values` are the header's
    /// values in their order; they are looked at only if the peer is trusted. Comes to the address that is let in.
    ///
    /// # Errors
    ///
    /// Who asks may not; or it can't be told who asks.
    pub(crate) fn judge<'a>(&self, peer: Peer, values: impl FnOnce(Header) -> Vec<&'a [u8]>) -> Result<Peer, Refusal> {
        let peer = peer.to_canonical();
        let Some(list) = &self.list else { return Ok(peer) };
        if let Some(Proxies { header, networks, unix }) = &self.proxies
            && peer.is_in(|address| networks.contains(address), *unix)
        {
            let (header, proxy) = (*header, peer);
            return match forwarded::client(header, &values(header), networks) {
                Ok(address) if list.contains(address) => Ok(Peer::Address(address)),
                Ok(address) => Err(Refusal::Hop { address, header, proxy }),
                Err(flaw) => Err(Refusal::Header { flaw, header, proxy }),
            };
        }
        if peer.is_in(|address| list.contains(address), self.unix) { Ok(peer) } else { Err(Refusal::Peer(peer)) }
    }

    /// Whether the decision depends on the mark of [`on_connect`] for peers without an address.
    pub(crate) fn distinguishes_unix(&self) -> bool {
        self.list.is_some() && (self.unix || self.proxies.as_ref().is_some_and(|proxies| proxies.unix))
    }
}

impl Refusal {
    /// What was judged; if nothing could be, the peer.
    pub(crate) fn client(&self) -> Peer {
        match self {
            Self::Peer(peer) => *peer,
            Self::Hop { address, .. } => Peer::Address(*address),
            Self::Header { proxy, .. } => *proxy,
        }
    }
}

/// What sets the list of a scope.
const LISTS: &str = "what Scope::allow or Scope::allow_list was given, else HEALTHCHECK_IPS";

impl fmt::Display for Refusal {
    /// Which address was judged, where it comes from, and what lets it in.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = |proxy: &Peer| proxy.address().map_or("on a Unix socket".to_owned(), |proxy| proxy.to_string());
        match self {
            Self::Peer(Peer::Address(peer)) => write!(
                f,
                "refused {peer}, the address of the peer itself, which no network of its list holds; to let it in, add it to that: \
                 {LISTS}; if it is a proxy, name it in Scope::trust_proxies, and the address that it forwards is judged"
            ),
            Self::Peer(Peer::Unix) => f.write_str(
                "refused a client on a Unix socket; to allow such clients, call Scope::allow_unix; if it is a proxy, \
                 Scope::trust_unix",
            ),
            Self::Peer(Peer::Unknown) => f.write_str(
                "refused a connection without an address: the client has reset it, or it is a Unix socket, which is recognized only \
                 with HttpServer::on_connect(health::on_connect) and listen_uds, or a TestRequest without peer_addr",
            ),
            Self::Hop { address, header, proxy } => write!(
                f,
                "refused {address}, whom the trusted proxy {} names in {}, and which no network of its list holds; to let it \
                 in, add it to that: {LISTS}; if it is a proxy too, trust it as that one",
                by(proxy),
                header.name()
            ),
            Self::Header { flaw, header, proxy } => write!(
                f,
                "refused a request by way of the trusted proxy {}, whose {} header {flaw}; let the proxy append the address \
                 that it is asked from, and its own health check send one",
                by(proxy),
                header.name()
            ),
        }
    }
}
