//! [`Policy`]: which peers and which clients behind trusted proxies are allowed.

use std::{fmt, net::IpAddr};

use derive_more::Display;
use ipnet::IpNet;

use super::{
    allow_list::AllowList,
    forwarded::{self, ForwardedError, ForwardingHeader},
    networks::{ListError, NetworkSet},
};

/// Where a scope's allow-list comes from.
#[derive(Clone, Debug)]
pub(crate) enum AllowSource {
    /// The environment variable `HEALTHCHECK_IPS`, else loopback.
    Default,
    Networks(Vec<IpNet>),
    List(AllowList),
    /// Every address, without a list.
    Any,
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Peer {
    Address(IpAddr),
    /// A client on a Unix socket, as marked by `health::on_connect`.
    Unix,
    /// A connection with neither an address nor the mark: a TCP connection that the client reset before the server looked up
    /// its address, a Unix socket of a server without `health::on_connect`, or a request of `actix_web::test`.
    Unknown,
}

impl Peer {
    pub(super) fn to_canonical(self) -> Self {
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

    /// Whether a list contains the peer's address. `unix` is the result for a Unix socket.
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
            Self::Unknown => f.write_str("a connection without a peer address"),
        }
    }
}

/// The proxies whose forwarding header is trusted.
#[derive(Clone, Debug)]
pub(crate) struct TrustedProxies {
    pub(crate) header: ForwardingHeader,
    pub(crate) networks: NetworkSet,
    /// Whether peers on Unix sockets are trusted, too.
    pub(crate) unix: bool,
}

/// The access rules of a scope, validated.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// `None` allows every address.
    pub(super) list: Option<AllowList>,
    /// Whether peers on Unix sockets are allowed.
    pub(super) unix: bool,
    pub(super) proxies: Option<TrustedProxies>,
    pub(super) is_default: bool,
}

/// Where the allow-list of a scope is set.
const SOURCES: &str = "Scope::allow, Scope::allow_list or HEALTHCHECK_IPS";

/// Why a request is denied. Its text is the log line.
#[derive(Clone, Debug, Display, PartialEq, Eq)]
pub(crate) enum AccessDenied {
    /// The peer is not on the allow-list, or has no address.
    #[display("{}", peer_not_allowed(*_0))]
    PeerNotAllowed(Peer),
    /// The address that a trusted proxy forwarded is not on the allow-list.
    #[display(
        "denied {address}: the address that the trusted proxy {} forwarded in {} is not on the allow-list ({}); if it is a proxy, \
         too, add it to Scope::trust_proxies",
        proxy_name(*proxy),
        header.name(),
        SOURCES
    )]
    ClientNotAllowed { address: IpAddr, header: ForwardingHeader, proxy: Peer },
    /// The forwarding header of a trusted proxy is missing or malformed.
    #[display(
        "denied a request from the trusted proxy {}: its {} header {error}; configure the proxy to append the client address, and \
         its own health check to send the header",
        proxy_name(*proxy),
        header.name()
    )]
    MalformedHeader { error: ForwardedError, header: ForwardingHeader, proxy: Peer },
}

impl AccessDenied {
    /// The address that was evaluated; the proxy's if its header has none.
    pub(crate) fn client(&self) -> Peer {
        match self {
            Self::PeerNotAllowed(peer) => *peer,
            Self::ClientNotAllowed { address, .. } => Peer::Address(*address),
            Self::MalformedHeader { proxy, .. } => *proxy,
        }
    }
}

fn peer_not_allowed(peer: Peer) -> String {
    match peer {
        Peer::Address(address) => format!(
            "denied {address}: the peer address is not on the allow-list ({SOURCES}); if it is a proxy, add it to \
             Scope::trust_proxies"
        ),
        Peer::Unix => {
            format!(
                "denied {peer}: call Scope::allow_unix to allow such clients, or Scope::trust_unix if it is a proxy"
            )
        }
        Peer::Unknown => format!(
            "denied {peer}: the client reset it, or it is a Unix socket that is not marked by \
             HttpServer::on_connect(health::on_connect) and listen_uds, or a TestRequest without peer_addr"
        ),
    }
}

fn proxy_name(proxy: Peer) -> String {
    proxy.address().map_or("on a Unix socket".to_owned(), |address| address.to_string())
}

impl Policy {
    /// # Errors
    ///
    /// An entry of the list is not an address or a network, or a network has host bits set.
    pub(crate) fn new(allow: &AllowSource, unix: bool, proxies: Option<TrustedProxies>) -> Result<Self, ListError> {
        let list = match allow {
            AllowSource::Any => None,
            AllowSource::Networks(networks) => {
                Some(AllowList::from_set(NetworkSet::new(".allow", networks.iter().copied())?))
            }
            AllowSource::List(list) => Some(list.clone()),
            AllowSource::Default => Some(AllowList::from_env()?),
        };
        Ok(Self { list, unix, proxies, is_default: matches!(allow, AllowSource::Default) })
    }

    /// Whether neither an allow-list nor a proxy is configured.
    pub(crate) fn is_default_loopback(&self) -> bool {
        self.is_default && self.proxies.is_none()
    }

    /// Decides whether a request is allowed, by the address of the peer or, if the peer is a trusted proxy, by the address in the
    /// forwarding header. `values` returns the values of a header in their order; it is called only for a trusted proxy.
    /// Returns the client that is allowed.
    ///
    /// # Errors
    ///
    /// The client is not allowed, or the header of a trusted proxy is missing or malformed.
    pub(crate) fn evaluate<'a>(
        &self,
        peer: Peer,
        values: impl FnOnce(ForwardingHeader) -> Vec<&'a [u8]>,
    ) -> Result<Peer, AccessDenied> {
        let peer = peer.to_canonical();
        let Some(list) = &self.list else { return Ok(peer) };
        if let Some(TrustedProxies { header, networks, unix }) = &self.proxies
            && peer.is_in(|address| networks.contains(address), *unix)
        {
            let (header, proxy) = (*header, peer);
            return match forwarded::client_address(header, &values(header), networks) {
                Ok(address) if list.contains(address) => Ok(Peer::Address(address)),
                Ok(address) => Err(AccessDenied::ClientNotAllowed { address, header, proxy }),
                Err(error) => Err(AccessDenied::MalformedHeader { error, header, proxy }),
            };
        }
        if peer.is_in(|address| list.contains(address), self.unix) {
            Ok(peer)
        } else {
            Err(AccessDenied::PeerNotAllowed(peer))
        }
    }

    /// Whether the decision on a peer without an address depends on the mark of `health::on_connect`.
    pub(crate) fn distinguishes_unix(&self) -> bool {
        self.list.is_some() && (self.unix || self.proxies.as_ref().is_some_and(|proxies| proxies.unix))
    }
}
