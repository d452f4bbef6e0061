//! Who may ask: pure functions of addresses. Access knows neither checks nor HTTP.

use std::{
    collections::HashMap,
    env::{self, VarError},
    error::Error,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tokio::time::Instant;

/// The environment variable that holds the default list.
pub(crate) const VARIABLE: &str = "HEALTHCHECK_IPS";

/// Who may ask.
#[derive(Clone, Debug)]
pub(crate) enum Allow {
    /// What [`VARIABLE`] says, else loopback.
    Default,
    Networks(Vec<IpNet>),
    Any,
}

/// The decision, made ready for requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    /// `None` lets everybody in.
    networks: Option<Vec<IpNet>>,
    /// Whether a peer without an address, which is one on a Unix socket, may ask.
    unix: bool,
}

impl Policy {
    /// # Errors
    ///
    /// An entry of the list is no address and no network, or a network with host bits set.
    pub(crate) fn new(allow: &Allow, unix: bool) -> Result<Self, ListError> {
        let networks = match allow {
            Allow::Any => return Ok(Self { networks: None, unix: true }),
            Allow::Networks(networks) => networks
                .iter()
                .map(|&network| checked(network).map_err(|flaw| ListError::new(".allow", network, flaw)))
                .collect(),
            Allow::Default => match env::var(VARIABLE) {
                Ok(list) if !list.trim().is_empty() => parse(&list),
                Ok(_) | Err(VarError::NotPresent) => Ok(loopback()),
                Err(VarError::NotUnicode(list)) => {
                    Err(ListError::new(VARIABLE, list.to_string_lossy(), Flaw::NoNetwork))
                }
            },
        };
        Ok(Self { networks: Some(networks?), unix })
    }

    /// Whether a peer may ask. An IPv4-mapped IPv6 address is the IPv4 address.
    pub(crate) fn allows(&self, peer: Option<IpAddr>) -> bool {
        match (&self.networks, peer.map(|peer| peer.to_canonical())) {
            (None, _) => true,
            (Some(_), None) => self.unix,
            (Some(networks), Some(peer)) => networks.iter().any(|network| network.contains(&peer)),
        }
    }
}

fn loopback() -> Vec<IpNet> {
    vec![
        Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8).into(),
        Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128).into(),
    ]
}

/// Parses a list of addresses and networks, separated by commas.
fn parse(list: &str) -> Result<Vec<IpNet>, ListError> {
    let parse = |entry: &str| {
        let entry = entry.trim();
        let network = match entry.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => entry.parse().map_err(|_| ListError::new(VARIABLE, entry, Flaw::NoNetwork))?,
        };
        checked(network).map_err(|flaw| ListError::new(VARIABLE, entry, flaw))
    };
    list.split(',').map(parse).collect()
}

/// The network as it is compared: IPv4-mapped ones as IPv4.
fn checked(network: IpNet) -> Result<IpNet, Flaw> {
    if network.trunc() != network {
        return Err(Flaw::HostBits(network.trunc()));
    }
    if let IpNet::V6(v6) = network
        && let Some(address) = v6.addr().to_ipv4_mapped()
        && let Some(length) = v6.prefix_len().checked_sub(96)
    {
        return Ok(Ipv4Net::new_assert(address, length).into());
    }
    Ok(network)
}

/// An entry of an allow-list that is none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ListError {
    list: &'static str,
    entry: String,
    flaw: Flaw,
}

#[derive(Debug, PartialEq, Eq)]
enum Flaw {
    NoNetwork,
    HostBits(IpNet),
}

impl ListError {
    fn new(list: &'static str, entry: impl fmt::Display, flaw: Flaw) -> Self {
        Self { list, entry: entry.to_string(), flaw }
    }
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { list, entry, flaw } = self;
        let entry = entry.escape_debug();
        match flaw {
            Flaw::NoNetwork if entry.to_string().is_empty() => {
                write!(f, "{list}: an entry is empty: is there a comma too many?")
            }
            Flaw::NoNetwork => {
                write!(
                    f,
                    "{list}: `{entry}` is no address and no network; expected a list such as `10.0.0.7, 192.168.0.0/16, fd00::/8`"
                )
            }
            Flaw::HostBits(network) => {
                write!(
                    f,
                    "{list}: `{entry}` has bits set behind its prefix; write `{network}` for the network, or the address without a prefix"
                )
            }
        }
    }
}

impl Error for ListError {}

/// Which refusals the log has had lately: each address once a period, in bounded memory however many knock.
#[derive(Default)]
pub(crate) struct Refusals {
    logged: HashMap<Option<IpAddr>, Instant>,
    /// Before that time, none of them is a period old.
    next_sweep: Option<Instant>,
}

impl Refusals {
    const PERIOD: Duration = Duration::from_mins(1);
    const ADDRESSES: usize = 1024;

    /// Whether this refusal is to be logged. When more addresses knock than are remembered, the further ones are not logged.
    pub(crate) fn is_news(&mut self, peer: Option<IpAddr>, now: Instant) -> bool {
        let past = |logged: &Instant| now.duration_since(*logged) >= Self::PERIOD;
        if let Some(logged) = self.logged.get_mut(&peer) {
            let news = past(logged);
            if news {
                *logged = now;
            }
            return news;
        }
        if self.logged.len() >= Self::ADDRESSES && self.next_sweep.is_none_or(|sweep| now >= sweep) {
            self.logged.retain(|_, logged| !past(logged));
            self.next_sweep = self.logged.values().min().map(|&oldest| oldest + Self::PERIOD);
        }
        let room = self.logged.len() < Self::ADDRESSES;
        if room {
            self.logged.insert(peer, now);
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(list: &str) -> Policy {
        Policy { networks: Some(parse(list).unwrap()), unix: false }
    }

    fn ip(address: &str) -> Option<IpAddr> {
        address.parse().map_or_else(|_| panic!("{address}"), Some)
    }

    #[test]
    fn an_address_is_allowed_if_a_network_of_the_list_holds_it() {
        let policy = policy("10.0.0.0/8, 192.0.2.7,fd00::/8 ,2001:db8::1");
        for allowed in ["10.255.0.1", "192.0.2.7", "fd12::1", "2001:db8::1", "::ffff:10.1.2.3", "::ffff:192.0.2.7"] {
            assert!(policy.allows(ip(allowed)), "{allowed}");
        }
        for refused in
            ["11.0.0.1", "192.0.2.8", "fe80::1", "2001:db8::2", "::ffff:11.0.0.1", "127.0.0.1", "::1", "::a00:1"]
        {
            assert!(!policy.allows(ip(refused)), "{refused}");
        }
        assert!(!policy.allows(None));
    }

    #[test]
    fn a_mapped_network_is_the_ipv4_network() {
        let policy = policy("::ffff:10.0.0.0/104,::ffff:192.0.2.7");
        assert!(policy.allows(ip("10.9.8.7")));
        assert!(policy.allows(ip("192.0.2.7")));
        assert!(!policy.allows(ip("11.0.0.1")));
    }

    #[test]
    fn loopback_is_the_default_and_unix_sockets_are_let_in_only_when_told() {
        let default = Policy { networks: Some(loopback()), unix: false };
        for allowed in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(default.allows(ip(allowed)), "{allowed}");
        }
        assert!(!default.allows(ip("10.0.0.1")));
        assert!(!default.allows(None));
        assert!(Policy { unix: true, ..default }.allows(None));
        let any = Policy::new(&Allow::Any, false).unwrap();
        assert!(any.allows(None) && any.allows(ip("203.0.113.9")));
    }

    #[test]
    fn what_is_no_network_is_named() {
        assert!(parse("127.0.0.1,").unwrap_err().to_string().contains("an entry is empty"));
        for entry in [
            "localhost",
            "10.0.0.0/33",
            "10.0.0",
            "010.0.0.1",
            "fe80::1%eth0",
            "1.2.3.4:80",
            "10.0.0.0/8/8",
            "10.0.0.1 10.0.0.2",
        ] {
            let error = parse(&format!("127.0.0.1,{entry}")).unwrap_err();
            assert!(error.to_string().starts_with(&format!("HEALTHCHECK_IPS: `{entry}` is no address")), "{error}");
        }
    }

    #[test]
    fn host_bits_are_refused_with_the_network_that_was_meant() {
        let error = parse("10.0.0.5/8").unwrap_err().to_string();
        assert!(error.contains("`10.0.0.5/8`") && error.contains("`10.0.0.0/8`"), "{error}");
        let listed = Allow::Networks(vec!["10.0.0.5/8".parse().unwrap()]);
        assert!(Policy::new(&listed, false).unwrap_err().to_string().starts_with(".allow: `10.0.0.5/8`"));
    }

    #[test]
    fn a_refusal_is_news_once_a_minute_and_memory_is_bounded() {
        let mut refusals = Refusals::default();
        let start = Instant::now();
        assert!(refusals.is_news(ip("192.0.2.1"), start));
        assert!(!refusals.is_news(ip("192.0.2.1"), start + Duration::from_secs(59)));
        assert!(refusals.is_news(ip("192.0.2.1"), start + Duration::from_mins(1)));
        let minute_later = start + Duration::from_mins(1);
        let knocked =
            (0..100_000u32).filter(|&n| refusals.is_news(Some(Ipv4Addr::from(n).into()), minute_later)).count();
        assert_eq!(knocked, Refusals::ADDRESSES - 1);
        assert_eq!(refusals.logged.len(), Refusals::ADDRESSES);
        assert!(refusals.is_news(ip("198.51.100.1"), minute_later + Refusals::PERIOD));
    }
}
