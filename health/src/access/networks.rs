//! Sets of networks, and how a list of them is written.

use std::{
    error::Error,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::joint::JointPrefixSet;

/// A set of networks, in which IPv4-mapped ones are IPv4. To look an address up takes about as long among ten thousand as in
/// one: it is a prefix tree.
#[derive(Clone, Default)]
pub(crate) struct Networks(JointPrefixSet<IpNet>);

impl Networks {
    /// # Errors
    ///
    /// A network has host bits set; `list` says in the error whose it is.
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
                Err(_) => entry.parse().map_err(|_| ListError::new(list, entry, Flaw::NoNetwork))?,
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

    /// Whether that is new.
    pub(crate) fn insert(&mut self, list: &'static str, network: IpNet) -> Result<bool, ListError> {
        // First of all, so that every rule is applied to the network that addresses are compared with.
        let canonical = canonical(network);
        if canonical.trunc() != canonical {
            return Err(ListError::new(list, network, Flaw::HostBits(meant(canonical))));
        }
        Ok(self.0.insert(canonical))
    }

    /// Whether it was there, as that very network.
    pub(crate) fn remove(&mut self, network: IpNet) -> bool {
        let canonical = canonical(network);
        canonical.trunc() == canonical && self.0.remove(&canonical)
    }

    /// The network of all clients that these networks contain together, if they do: all of IPv4, or all of IPv6, or all
    /// addresses of IPv6 that are in use on the Internet.
    pub(crate) fn of_every_client(&self) -> Option<IpNet> {
        let every_client = [
            Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0).into(),
            Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0).into(),
            Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3).into(),
        ];
        let together = IpNet::aggregate(&self.iter().collect());
        every_client.into_iter().find(|all| together.iter().any(|network| network.contains(all)))
    }

    /// Whether one of them holds an address. An IPv4-mapped IPv6 address is the IPv4 address.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.0.is_covered(&address.to_canonical().into())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = IpNet> {
        self.0.iter()
    }
}

/// The network that somebody meant who wrote one with host bits. Who maps an IPv4 network often leaves its prefix as it was.
fn meant(network: IpNet) -> IpNet {
    match network {
        IpNet::V6(v6) if v6.prefix_len() <= 32 => match v6.addr().to_ipv4_mapped() {
            Some(address) => Ipv4Net::new_assert(address, v6.prefix_len()).trunc().into(),
            None => network.trunc(),
        },
        network => network.trunc(),
    }
}

/// IPv4-mapped networks as IPv4.
fn canonical(network: IpNet) -> IpNet {
    if let IpNet::V6(v6) = network
        && let Some(address) = v6.addr().to_ipv4_mapped()
        && let Some(length) = v6.prefix_len().checked_sub(96)
    {
        return Ipv4Net::new_assert(address, length).into();
    }
    network
}

impl fmt::Display for Networks {
    /// As [`Networks::parse`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, network) in self.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{network}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// An entry of a list of networks that is none. Its text names the list and the entry, and says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListError {
    list: &'static str,
    entry: String,
    flaw: Flaw,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Flaw {
    NoNetwork,
    HostBits(IpNet),
}

impl ListError {
    fn new(list: &'static str, entry: impl fmt::Display, flaw: Flaw) -> Self {
        Self { list, entry: entry.to_string(), flaw }
    }

    pub(crate) fn no_network(list: &'static str, entry: impl fmt::Display) -> Self {
        Self::new(list, entry, Flaw::NoNetwork)
    }
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { list, entry, flaw } = self;
        let entry = entry.escape_debug();
        match flaw {
            Flaw::NoNetwork if self.entry.is_empty() => {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Networks, ListError> {
        Networks::parse("HEALTHCHECK_IPS", text)
    }

    fn ip(address: &str) -> IpAddr {
        address.parse().unwrap_or_else(|_| panic!("{address}"))
    }

    #[test]
    fn an_address_is_in_the_set_if_a_network_holds_it() {
        let networks = parse("10.0.0.0/8, 192.0.2.7,fd00::/8 ,2001:db8::1").unwrap();
        for held in ["10.255.0.1", "192.0.2.7", "fd12::1", "2001:db8::1", "::ffff:10.1.2.3", "::ffff:192.0.2.7"] {
            assert!(networks.contains(ip(held)), "{held}");
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
    fn loopback_is_all_of_it_and_no_more() {
        let loopback = Networks::loopback();
        for held in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(loopback.contains(ip(held)), "{held}");
        }
        for other in ["126.255.255.255", "128.0.0.1", "0.0.0.0", "::", "::2", "::7f00:1"] {
            assert!(!loopback.contains(ip(other)), "{other}");
        }
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
        let mapped = parse("::ffff:10.0.0.0/8").unwrap_err().to_string();
        assert!(mapped.contains("write `10.0.0.0/8`"), "{mapped}");
        let mapped = parse("::ffff:10.0.0.5/104").unwrap_err().to_string();
        assert!(mapped.contains("`::ffff:10.0.0.5/104`") && mapped.contains("write `10.0.0.0/8`"), "{mapped}");
        let listed = Networks::new(".allow", ["10.0.0.5/8".parse().unwrap()]);
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
        fn a_list_that_is_printed_and_parsed_is_the_same(networks in prop::collection::vec(network(), 1..20)) {
            let list = Networks::new("list", networks).unwrap();
            let again = Networks::parse("list", &list.to_string()).unwrap();
            prop_assert_eq!(list.iter().collect::<Vec<_>>(), again.iter().collect::<Vec<_>>());
        }

        #[test]
        fn the_set_holds_what_one_of_its_networks_holds(
            networks in prop::collection::vec(network(), 0..20),
            address in any::<IpAddr>(),
            at in any::<prop::sample::Index>(),
        ) {
            let set = Networks::new("list", networks.clone()).unwrap();
            // One by chance, and one that is in a network for sure.
            let known = if networks.is_empty() { address } else { at.get(&networks).broadcast() };
            for address in [address, known] {
                let one_holds = networks.iter().any(|network| canonical(*network).contains(&address.to_canonical()));
                prop_assert_eq!(set.contains(address), one_holds);
            }
        }
    }
}
