//! [`NetworkSet`], and how a list of networks is written.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use derive_more::{Display, Error};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::joint::JointPrefixSet;

/// A set of networks, stored as a prefix tree. IPv4-mapped IPv6 networks are stored as IPv4.
#[derive(Clone, Default)]
pub(crate) struct NetworkSet(JointPrefixSet<IpNet>);

impl NetworkSet {
    /// # Errors
    ///
    /// A network has host bits set. The error names the list by `list`.
    pub(crate) fn new(list: &'static str, networks: impl IntoIterator<Item = IpNet>) -> Result<Self, ListError> {
        let mut set = Self::default();
        for network in networks {
            set.insert(list, network)?;
        }
        Ok(set)
    }

    /// Parses addresses and networks, separated by commas.
    pub(crate) fn parse(list: &'static str, text: &str) -> Result<Self, ListError> {
        let mut set = Self::default();
        for entry in text.split(',').map(str::trim) {
            let network = match entry.parse::<IpAddr>() {
                Ok(address) => IpNet::from(address),
                Err(_) => entry.parse().map_err(|_| ListError::invalid(list, entry))?,
            };
            set.insert(list, network)?;
        }
        Ok(set)
    }

    pub(crate) fn loopback() -> Self {
        let networks = [
            Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8).into(),
            Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128).into(),
        ];
        Self(networks.into_iter().collect())
    }

    /// Adds a network. Returns whether the set did not contain it yet.
    pub(crate) fn insert(&mut self, list: &'static str, network: IpNet) -> Result<bool, ListError> {
        // Canonicalize first: addresses are compared in canonical form.
        let canonical = canonical(network);
        if canonical.trunc() != canonical {
            let kind = NetworkErrorKind::HostBits { entry: network, suggested: suggested_network(canonical) };
            return Err(ListError { list, kind });
        }
        Ok(self.0.insert(canonical))
    }

    /// Removes a network. Returns whether the set contained exactly this network.
    pub(crate) fn remove(&mut self, network: IpNet) -> bool {
        let canonical = canonical(network);
        canonical.trunc() == canonical && self.0.remove(&canonical)
    }

    /// The network of all clients, if the networks of the set together cover it: all of IPv4, all of IPv6, or all IPv6 addresses
    /// in use on the Internet.
    pub(crate) fn network_of_all_clients(&self) -> Option<IpNet> {
        let all_clients = [
            Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0).into(),
            Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0).into(),
            Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3).into(),
        ];
        let merged = IpNet::aggregate(&self.iter().collect());
        all_clients.into_iter().find(|all| merged.iter().any(|network| network.contains(all)))
    }

    /// Whether a network of the set contains the address. An IPv4-mapped IPv6 address is treated as the IPv4 address.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.0.is_covered(&address.to_canonical().into())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = IpNet> {
        self.0.iter()
    }
}

/// The network to suggest for an entry with host bits. An IPv4-mapped network is often written with its IPv4 prefix
/// length.
fn suggested_network(network: IpNet) -> IpNet {
    match network {
        IpNet::V6(v6) if v6.prefix_len() <= 32 => match v6.addr().to_ipv4_mapped() {
            Some(address) => Ipv4Net::new_assert(address, v6.prefix_len()).trunc().into(),
            None => network.trunc(),
        },
        network => network.trunc(),
    }
}

/// Converts an IPv4-mapped IPv6 network to IPv4.
fn canonical(network: IpNet) -> IpNet {
    if let IpNet::V6(v6) = network
        && let Some(address) = v6.addr().to_ipv4_mapped()
        && let Some(length) = v6.prefix_len().checked_sub(96)
    {
        return Ipv4Net::new_assert(address, length).into();
    }
    network
}

impl fmt::Display for NetworkSet {
    /// Writes the set as [`NetworkSet::parse`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, network) in self.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{network}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for NetworkSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// An invalid entry in a list of networks. The message names the list and the entry, and says what to write instead.
#[derive(Clone, Debug, Display, Error, PartialEq, Eq)]
#[display("{list}: {kind}")]
pub struct ListError {
    list: &'static str,
    kind: NetworkErrorKind,
}

#[derive(Clone, Debug, Display, PartialEq, Eq)]
enum NetworkErrorKind {
    #[display("an entry is empty; remove the extra comma")]
    Empty,
    #[display(
        "`{}` is not an IP address or network; expected a list such as `10.0.0.7, 192.168.0.0/16, fd00::/8`",
        _0.escape_debug()
    )]
    Invalid(String),
    #[display(
        "`{entry}` has bits set after its prefix; write `{suggested}` for the network, or the address without a prefix"
    )]
    HostBits { entry: IpNet, suggested: IpNet },
}

impl ListError {
    pub(super) fn invalid(list: &'static str, entry: &str) -> Self {
        let kind = if entry.is_empty() { NetworkErrorKind::Empty } else { NetworkErrorKind::Invalid(entry.to_owned()) };
        Self { list, kind }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<NetworkSet, ListError> {
        NetworkSet::parse("HEALTHCHECK_IPS", text)
    }

    fn ip(address: &str) -> IpAddr {
        address.parse().unwrap_or_else(|_| panic!("{address}"))
    }

    #[test]
    fn an_address_is_in_the_set_if_a_network_contains_it() {
        let networks = parse("10.0.0.0/8, 192.0.2.7,fd00::/8 ,2001:db8::1").unwrap();
        for contained in ["10.255.0.1", "192.0.2.7", "fd12::1", "2001:db8::1", "::ffff:10.1.2.3", "::ffff:192.0.2.7"] {
            assert!(networks.contains(ip(contained)), "{contained}");
        }
        for other in
            ["11.0.0.1", "192.0.2.8", "fe80::1", "2001:db8::2", "::ffff:11.0.0.1", "127.0.0.1", "::1", "::a00:1"]
        {
            assert!(!networks.contains(ip(other)), "{other}");
        }
    }

    #[test]
    fn a_mapped_network_is_the_ipv4_network() {
        let networks = parse("::ffff:10.0.0.0/104,::ffff:192.0.2.7").unwrap();
        assert!(networks.contains(ip("10.9.8.7")));
        assert!(networks.contains(ip("192.0.2.7")));
        assert!(!networks.contains(ip("11.0.0.1")));
    }

    #[test]
    fn the_loopback_set_contains_all_loopback_addresses_and_no_other() {
        let loopback = NetworkSet::loopback();
        for contained in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(loopback.contains(ip(contained)), "{contained}");
        }
        for other in ["126.255.255.255", "128.0.0.1", "0.0.0.0", "::", "::2", "::7f00:1"] {
            assert!(!loopback.contains(ip(other)), "{other}");
        }
    }

    #[test]
    fn networks_that_cover_all_clients_are_recognized_also_in_parts() {
        for (list, expected) in [
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("0.0.0.0/1, 128.0.0.0/1", Some("0.0.0.0/0")),
            ("::/0", Some("::/0")),
            ("2000::/4, 3000::/4", Some("2000::/3")),
            ("0.0.0.0/1", None),
            ("10.0.0.0/8, 2000::/4", None),
        ] {
            let all = parse(list).unwrap().network_of_all_clients();
            assert_eq!(all.map(|network| network.to_string()).as_deref(), expected, "{list}");
        }
    }

    #[test]
    fn an_invalid_entry_is_named_in_the_error() {
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
            assert!(
                error.to_string().starts_with(&format!("HEALTHCHECK_IPS: `{entry}` is not an IP address")),
                "{error}"
            );
        }
    }

    #[test]
    fn host_bits_are_an_error_that_suggests_the_network() {
        let error = parse("10.0.0.5/8").unwrap_err().to_string();
        assert!(error.contains("`10.0.0.5/8`") && error.contains("`10.0.0.0/8`"), "{error}");
        let mapped = parse("::ffff:10.0.0.0/8").unwrap_err().to_string();
        assert!(mapped.contains("write `10.0.0.0/8`"), "{mapped}");
        let mapped = parse("::ffff:10.0.0.5/104").unwrap_err().to_string();
        assert!(mapped.contains("`::ffff:10.0.0.5/104`") && mapped.contains("write `10.0.0.0/8`"), "{mapped}");
        let wide = parse("::ffff:10.0.0.5/64").unwrap_err().to_string();
        assert!(wide.contains("write `::/64`"), "{wide}");
        let listed = NetworkSet::new(".allow", ["10.0.0.5/8".parse().unwrap()]);
        assert!(listed.unwrap_err().to_string().starts_with(".allow: `10.0.0.5/8`"));
    }

    fn network() -> impl Strategy<Value = IpNet> {
        (any::<IpAddr>(), 0..=128_u8).prop_map(|(address, length)| {
            let longest = if address.is_ipv4() { 32 } else { 128 };
            IpNet::new(address, length % (longest + 1)).unwrap().trunc()
        })
    }

    proptest! {
        #[test]
        fn a_displayed_list_parses_to_the_same_set(networks in prop::collection::vec(network(), 1..20)) {
            let list = NetworkSet::new("list", networks).unwrap();
            let again = NetworkSet::parse("list", &list.to_string()).unwrap();
            prop_assert_eq!(list.iter().collect::<Vec<_>>(), again.iter().collect::<Vec<_>>());
        }

        #[test]
        fn the_set_contains_the_addresses_of_its_networks_and_no_other(
            networks in prop::collection::vec(network(), 0..20),
            address in any::<IpAddr>(),
            at in any::<prop::sample::Index>(),
        ) {
            let set = NetworkSet::new("list", networks.clone()).unwrap();
            // A random address, and one that a network contains.
            let known = if networks.is_empty() { address } else { at.get(&networks).broadcast() };
            for address in [address, known] {
                let is_contained = networks.iter().any(|network| canonical(*network).contains(&address.to_canonical()));
                prop_assert_eq!(set.contains(address), is_contained);
            }
        }
    }
}
