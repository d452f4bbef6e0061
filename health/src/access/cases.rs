//! The table in `cases.txt`, properties of the two headers, and length limits.

use std::net::IpAddr;

use proptest::prelude::*;

use super::{
    AllowList, AllowSource, ForwardingHeader, NetworkSet, Peer, Policy, TrustedProxies,
    forwarded::{self, ForwardedError, client_address},
    policy::AccessDenied,
};

fn peer(text: &str) -> Peer {
    match text {
        "unix" => Peer::Unix,
        "unknown" => Peer::Unknown,
        address => Peer::Address(address.parse().unwrap_or_else(|_| panic!("{address}"))),
    }
}

fn networks(text: &str) -> NetworkSet {
    NetworkSet::parse("test", text).unwrap()
}

fn policy(list: &str, trust: &str) -> Policy {
    let proxies = trust.split_once(' ').map(|(header, trusted)| {
        let (unix, trusted): (Vec<_>, Vec<_>) = trusted.split(',').map(str::trim).partition(|&entry| entry == "unix");
        TrustedProxies {
            header: if header == "xff" { ForwardingHeader::XForwardedFor } else { ForwardingHeader::Forwarded },
            networks: if trusted.is_empty() { NetworkSet::default() } else { networks(&trusted.join(",")) },
            unix: !unix.is_empty(),
        }
    });
    Policy { list: Some(AllowList::from_set(networks(list))), unix: false, proxies, is_default: false }
}

/// The decision, as written in the table.
fn decide(policy: &Policy, peer: Peer, lines: &[(ForwardingHeader, Vec<u8>)]) -> String {
    let values = |header| lines.iter().filter(|line| line.0 == header).map(|line| &*line.1).collect();
    match policy.evaluate(peer, values) {
        Ok(_) => "allowed".to_owned(),
        Err(AccessDenied::PeerNotAllowed(denied)) => {
            assert_eq!(denied, peer.to_canonical());
            "peer".to_owned()
        }
        Err(AccessDenied::ClientNotAllowed { address, .. }) => format!("hop {address}"),
        Err(AccessDenied::MalformedHeader { error, .. }) => match error {
            ForwardedError::Missing => "missing",
            ForwardedError::Empty => "empty",
            ForwardedError::Unknown => "unknown",
            ForwardedError::Malformed(_) => "malformed",
            ForwardedError::TooLong => "long",
            ForwardedError::TooManyHops => "hops",
        }
        .to_owned(),
    }
}

#[test]
fn each_row_of_the_table_is_decided_as_written() {
    let mut current = None;
    let mut cases = 0;
    for row in include_str!("cases.txt").lines().filter(|row| !row.is_empty() && !row.starts_with('#')) {
        let columns: Vec<_> = row.split('|').map(str::trim).collect();
        let [first, second, third] = columns[..] else { panic!("{row}") };
        if first == "scope" {
            current = Some(policy(second, third));
            continue;
        }
        let line = |line: &str| {
            let (header, value) = line.trim_start().split_at(2);
            let header = if header == "x:" { ForwardingHeader::XForwardedFor } else { ForwardingHeader::Forwarded };
            // HTTP removes the white space around a value.
            (header, value.trim().replace('→', "\t").into_bytes())
        };
        let lines: Vec<_> = second.split('¶').filter(|line| !line.is_empty()).map(line).collect();
        assert_eq!(decide(current.as_ref().unwrap(), peer(first), &lines), third, "{row}");
        cases += 1;
    }
    assert!(cases >= 200, "{cases}");
}

#[test]
fn every_address_is_allowed_only_by_allow_any() {
    let any = Policy::new(&AllowSource::Any, false, None).unwrap();
    let empty = Policy::new(&AllowSource::Networks(Vec::new()), false, None).unwrap();
    let unix = Policy { unix: true, ..empty.clone() };
    let expected = [
        ("203.0.113.9", ["allowed", "peer", "peer"]),
        ("unix", ["allowed", "peer", "allowed"]),
        ("unknown", ["allowed", "peer", "peer"]),
    ];
    for (peer, expected) in expected {
        let peer = self::peer(peer);
        assert_eq!([&any, &empty, &unix].map(|policy| decide(policy, peer, &[])), expected);
    }
}

#[test]
fn headers_of_any_length_are_read_only_up_to_the_first_untrusted_hop() {
    let policies = [(policy("192.0.2.0/24", "xff 10.0.0.0/8"), ""), (policy("192.0.2.0/24", "rfc 10.0.0.0/8"), "for=")];
    for (policy, before) in policies {
        let header = policy.proxies.as_ref().unwrap().header;
        let decide = |value: String| decide(&policy, peer("10.0.0.1"), &[(header, value.into_bytes())]);
        let left = "x".repeat(64 << 10);
        assert_eq!(decide(format!("{left},{before}192.0.2.7")), "allowed");
        assert_eq!(decide(format!("{left}, {before}203.0.113.9")), "hop 203.0.113.9");
        assert_eq!(decide(left.clone()), "long");
        assert_eq!(decide(format!("{before}192.0.2.7, {left}")), "long");
        assert_eq!(decide(" ".repeat(64 << 10) + "192.0.2.7"), "long");
        assert_eq!(decide(",".repeat(64 << 10)), "empty");
        assert_eq!(decide("\"".repeat(64 << 10)), "long");
        assert_eq!(decide("\\".repeat(64 << 10)), "long");
        let trusted = |hops: usize| vec![format!("{before}10.1.1.1"); hops].join(",");
        assert_eq!(decide(format!("{before}192.0.2.7,{}", trusted(63))), "allowed");
        assert_eq!(decide(format!("{before}192.0.2.7,{}", trusted(64))), "hops");
        assert_eq!(decide(trusted(10_000)), "hops");
    }
}

#[test]
fn a_log_line_quotes_a_short_part_of_the_header_and_escapes_line_ends() {
    let policy = policy("192.0.2.0/24", "xff 10.0.0.1");
    let value = [&b"\x1b[31m\"\n"[..], &[b'x'; 500], "é".as_bytes()].concat();
    let denied = policy.evaluate(peer("10.0.0.1"), |_| vec![&*value]).unwrap_err().to_string();
    assert!(denied.len() < 400 && !denied.contains(char::is_control), "{denied}");
}

#[test]
fn a_denial_names_the_peer_the_client_and_the_setting_that_allows_it() {
    let by_unix = policy("192.0.2.0/24", "rfc unix");
    let by_address = policy("192.0.2.0/24", "xff 10.0.0.1");
    let none: &[&[u8]] = &[];
    let expected = [
        (
            &by_address,
            "203.0.113.9",
            none,
            "denied 203.0.113.9: the peer address is not on the allow-list (Scope::allow, ",
        ),
        (&by_address, "unix", none, "denied a client on a Unix socket: call Scope::allow_unix "),
        (&by_address, "unknown", none, "denied a connection without a peer address: the client reset it, "),
        (
            &by_address,
            "10.0.0.1",
            &[b"203.0.113.9"],
            "denied 203.0.113.9: the address that the trusted proxy 10.0.0.1 forwarded in X-Forwarded-For is not ",
        ),
        (
            &by_unix,
            "unix",
            none,
            "denied a request from the trusted proxy on a Unix socket: its Forwarded header is missing; ",
        ),
    ];
    for (policy, peer, values, begin) in expected {
        let denied = policy.evaluate(self::peer(peer), |_| values.to_vec()).unwrap_err().to_string();
        assert!(denied.starts_with(begin), "{denied}");
    }
}

#[test]
fn a_policy_with_a_list_or_a_proxy_is_not_the_default() {
    let default = Policy { is_default: true, ..policy("127.0.0.0/8", "-") };
    let behind_proxy = Policy { is_default: true, ..policy("127.0.0.0/8", "xff 10.0.0.1") };
    assert!(default.is_default_loopback());
    assert!(!policy("127.0.0.0/8", "-").is_default_loopback());
    assert!(!behind_proxy.is_default_loopback());
}

#[test]
fn the_mark_of_unix_sockets_matters_only_where_they_are_allowed_or_trusted() {
    let any = Policy::new(&AllowSource::Any, true, None).unwrap();
    let allowed = Policy { unix: true, ..policy("192.0.2.0/24", "-") };
    for (policy, expected) in [
        (policy("192.0.2.0/24", "-"), false),
        (allowed, true),
        (policy("192.0.2.0/24", "rfc unix"), true),
        (policy("192.0.2.0/24", "rfc 10.0.0.1"), false),
        (any, false),
    ] {
        assert_eq!(policy.distinguishes_unix(), expected, "{policy:?}");
    }
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<IpAddr>(),
        // Some in the trusted networks, and some IPv4-mapped ones.
        (0..=255_u8).prop_map(|last| IpAddr::from([10, 0, 1, last])),
        any::<std::net::Ipv4Addr>().prop_map(|address| address.to_ipv6_mapped().into()),
    ]
}

fn header() -> impl Strategy<Value = ForwardingHeader> {
    prop_oneof![Just(ForwardingHeader::XForwardedFor), Just(ForwardingHeader::Forwarded)]
}

fn print(header: ForwardingHeader, hop: IpAddr) -> String {
    match (header, hop) {
        (ForwardingHeader::XForwardedFor, hop) => hop.to_string(),
        (ForwardingHeader::Forwarded, IpAddr::V4(hop)) => format!("for={hop}"),
        (ForwardingHeader::Forwarded, IpAddr::V6(hop)) => format!("for=\"[{hop}]\""),
    }
}

/// Malformed text made of the pieces that the parser distinguishes.
fn junk() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop_oneof![
        Just(b",".to_vec()),
        Just(b"\"".to_vec()),
        Just(b"\\".to_vec()),
        Just(b";".to_vec()),
        Just(b"for=".to_vec()),
        Just(b"10.0.1.5".to_vec()),
        Just(b"192.0.2.7".to_vec()),
        Just(b"unknown".to_vec()),
        any::<u8>().prop_map(|byte| vec![byte]),
    ];
    prop::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat())
}

const TRUSTED: &str = "10.0.0.1, 10.0.1.0/24, fd00::/64";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_header_from_an_untrusted_peer_never_changes_the_decision(
        peer in any::<IpAddr>(), header in header(), value in junk(), more in junk(),
    ) {
        let name = if header == ForwardingHeader::Forwarded { "rfc" } else { "xff" };
        let policy = policy("0.0.0.0/1, 8000::/1", &format!("{name} {TRUSTED}"));
        prop_assume!(!networks(TRUSTED).contains(peer));
        let peer = Peer::Address(peer);
        let lines = [(header, value), (header, more)];
        prop_assert_eq!(decide(&policy, peer, &lines), decide(&policy, peer, &[]));
    }

    #[test]
    fn elements_left_of_an_untrusted_hop_never_change_the_decision(
        header in header(), left in junk(), right in prop::collection::vec(0..=255_u8, 0..4), hop in any::<IpAddr>(),
    ) {
        let trusted = networks(TRUSTED);
        prop_assume!(!trusted.contains(hop));
        let proxies = right.into_iter().map(|last| IpAddr::from([10, 0, 1, last]));
        let list: Vec<_> = std::iter::once(hop).chain(proxies).map(|hop| print(header, hop)).collect();
        let list = list.join(", ").into_bytes();
        let expected = Ok(hop.to_canonical());
        prop_assert_eq!(&client_address(header, &[&list], &trusted), &expected);
        prop_assert_eq!(&client_address(header, &[&[&*left, b",", &list].concat()], &trusted), &expected);
        prop_assert_eq!(&client_address(header, &[&left, &list], &trusted), &expected);
    }

    #[test]
    fn printed_hops_parse_to_the_same_hops(header in header(), hops in prop::collection::vec(address(), 1..20)) {
        let printed: Vec<_> = hops.iter().map(|&hop| print(header, hop)).collect();
        let list = printed.join(", ");
        let parsed: Result<Vec<_>, _> = forwarded::hops(header, &[list.as_bytes()]).collect();
        let expected: Vec<_> = hops.iter().rev().copied().collect();
        prop_assert_eq!(parsed, Ok(expected.clone()));
        // The same list spread over several lines.
        let lines: Vec<_> = printed.iter().map(String::as_bytes).collect();
        prop_assert_eq!(forwarded::hops(header, &lines).collect::<Result<Vec<_>, _>>(), Ok(expected));
    }
}
