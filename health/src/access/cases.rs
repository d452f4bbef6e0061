//! The table of `cases.txt`, properties of the two headers, and what is too long.

use proptest::prelude::*;

use super::{forwarded::client, *};

fn peer(text: &str) -> Peer {
    match text {
        "unix" => Peer::Unix,
        "unknown" => Peer::Unknown,
        address => Peer::Address(address.parse().unwrap_or_else(|_| panic!("{address}"))),
    }
}

fn networks(text: &str) -> Networks {
    Networks::parse("test", text).unwrap()
}

fn scope(list: &str, trust: &str) -> Policy {
    let proxies = trust.split_once(' ').map(|(header, trusted)| {
        let (unix, trusted): (Vec<_>, Vec<_>) = trusted.split(',').map(str::trim).partition(|&entry| entry == "unix");
        Proxies {
            header: if header == "xff" { Header::XForwardedFor } else { Header::Forwarded },
            networks: if trusted.is_empty() { Networks::default() } else { networks(&trusted.join(",")) },
            unix: !unix.is_empty(),
        }
    });
    Policy { list: Some(AllowList::of(networks(list))), unix: false, proxies, is_default: false }
}

fn judge(policy: &Policy, peer: Peer, lines: &[(Header, Vec<u8>)]) -> String {
    let values = |header| lines.iter().filter(|line| line.0 == header).map(|line| &*line.1).collect();
    match policy.judge(peer, values) {
        Ok(_) => "in".to_owned(),
        Err(Refusal::Peer(judged)) => {
            assert_eq!(judged, peer.to_canonical());
            "peer".to_owned()
        }
        Err(Refusal::Hop { address, .. }) => format!("hop {address}"),
        Err(Refusal::Header { flaw, .. }) => match flaw {
            Flaw::Missing => "missing",
            Flaw::Empty => "empty",
            Flaw::Unknown => "unknown",
            Flaw::Unreadable(_) => "unreadable",
            Flaw::TooLong => "long",
            Flaw::TooManyHops => "hops",
        }
        .to_owned(),
    }
}

#[test]
fn the_table_holds() {
    let mut policy = None;
    let mut cases = 0;
    for row in include_str!("cases.txt").lines().filter(|row| !row.is_empty() && !row.starts_with('#')) {
        let columns: Vec<_> = row.split('|').map(str::trim).collect();
        let [first, second, third] = columns[..] else { panic!("{row}") };
        if first == "scope" {
            policy = Some(scope(second, third));
            continue;
        }
        let line = |line: &str| {
            let (header, value) = line.trim_start().split_at(2);
            let header = if header == "x:" { Header::XForwardedFor } else { Header::Forwarded };
            // As HTTP gives it: without the white space around it.
            (header, value.trim().replace('→', "\t").into_bytes())
        };
        let lines: Vec<_> = second.split('¶').filter(|line| !line.is_empty()).map(line).collect();
        assert_eq!(judge(policy.as_ref().unwrap(), peer(first), &lines), third, "{row}");
        cases += 1;
    }
    assert!(cases >= 200, "{cases}");
}

#[test]
fn everybody_is_let_in_only_where_that_was_said() {
    let any = Policy::new(&Allow::Any, false, None).unwrap();
    let nobody = Policy::new(&Allow::Networks(Vec::new()), false, None).unwrap();
    let unix = Policy { unix: true, ..nobody.clone() };
    let expected =
        [("203.0.113.9", ["in", "peer", "peer"]), ("unix", ["in", "peer", "in"]), ("unknown", ["in", "peer", "peer"])];
    for (peer, expected) in expected {
        let peer = super::cases::peer(peer);
        assert_eq!([&any, &nobody, &unix].map(|policy| judge(policy, peer, &[])), expected);
    }
}

#[test]
fn headers_of_any_length_are_read_only_as_far_as_they_are_believed() {
    let policies = [(scope("192.0.2.0/24", "xff 10.0.0.0/8"), ""), (scope("192.0.2.0/24", "rfc 10.0.0.0/8"), "for=")];
    for (policy, before) in policies {
        let header = policy.proxies.as_ref().unwrap().header;
        let judge = |value: String| judge(&policy, peer("10.0.0.1"), &[(header, value.into_bytes())]);
        let left = "x".repeat(64 << 10);
        assert_eq!(judge(format!("{left},{before}192.0.2.7")), "in");
        assert_eq!(judge(format!("{left}, {before}203.0.113.9")), "hop 203.0.113.9");
        assert_eq!(judge(left.clone()), "long");
        assert_eq!(judge(format!("{before}192.0.2.7, {left}")), "long");
        assert_eq!(judge(" ".repeat(64 << 10) + "192.0.2.7"), "long");
        assert_eq!(judge(",".repeat(64 << 10)), "empty");
        assert_eq!(judge("\"".repeat(64 << 10)), "long");
        assert_eq!(judge("\\".repeat(64 << 10)), "long");
        let trusted = |hops: usize| vec![format!("{before}10.1.1.1"); hops].join(",");
        assert_eq!(judge(format!("{before}192.0.2.7,{}", trusted(63))), "in");
        assert_eq!(judge(format!("{before}192.0.2.7,{}", trusted(64))), "hops");
        assert_eq!(judge(trusted(10_000)), "hops");
    }
}

#[test]
fn what_a_log_line_quotes_is_short_and_has_no_line_end() {
    let policy = scope("192.0.2.0/24", "xff 10.0.0.1");
    let value = [&b"\x1b[31m\"\n"[..], &[b'x'; 500], "é".as_bytes()].concat();
    let refusal = policy.judge(peer("10.0.0.1"), |_| vec![&*value]).unwrap_err().to_string();
    assert!(refusal.len() < 400 && !refusal.contains(char::is_control), "{refusal}");
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<IpAddr>(),
        // Some that the trusted networks hold, and some that are mapped.
        (0..=255_u8).prop_map(|last| IpAddr::from([10, 0, 1, last])),
        any::<std::net::Ipv4Addr>().prop_map(|address| address.to_ipv6_mapped().into()),
    ]
}

fn header() -> impl Strategy<Value = Header> {
    prop_oneof![Just(Header::XForwardedFor), Just(Header::Forwarded)]
}

fn print(header: Header, hop: IpAddr) -> String {
    match (header, hop) {
        (Header::XForwardedFor, hop) => hop.to_string(),
        (Header::Forwarded, IpAddr::V4(hop)) => format!("for={hop}"),
        (Header::Forwarded, IpAddr::V6(hop)) => format!("for=\"[{hop}]\""),
    }
}

/// Text as somebody would make it who knows how such headers are read.
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
    fn a_header_from_an_untrusted_peer_never_changes_the_verdict(
        peer in any::<IpAddr>(), header in header(), value in junk(), more in junk(),
    ) {
        let name = if header == Header::Forwarded { "rfc" } else { "xff" };
        let policy = scope("0.0.0.0/1, 8000::/1", &format!("{name} {TRUSTED}"));
        prop_assume!(!networks(TRUSTED).contains(peer));
        let peer = Peer::Address(peer);
        let lines = [(header, value), (header, more)];
        prop_assert_eq!(judge(&policy, peer, &lines), judge(&policy, peer, &[]));
    }

    #[test]
    fn what_stands_left_of_an_untrusted_hop_never_changes_the_verdict(
        header in header(), left in junk(), right in prop::collection::vec(0..=255_u8, 0..4), hop in any::<IpAddr>(),
    ) {
        let trusted = networks(TRUSTED);
        prop_assume!(!trusted.contains(hop));
        let proxies = right.into_iter().map(|last| IpAddr::from([10, 0, 1, last]));
        let list: Vec<_> = std::iter::once(hop).chain(proxies).map(|hop| print(header, hop)).collect();
        let list = list.join(", ").into_bytes();
        let expected = Ok(hop.to_canonical());
        prop_assert_eq!(&client(header, &[&list], &trusted), &expected);
        prop_assert_eq!(&client(header, &[&[&*left, b",", &list].concat()], &trusted), &expected);
        prop_assert_eq!(&client(header, &[&left, &list], &trusted), &expected);
    }

    #[test]
    fn hops_that_are_printed_and_parsed_are_the_same(header in header(), hops in prop::collection::vec(address(), 1..20)) {
        let printed: Vec<_> = hops.iter().map(|&hop| print(header, hop)).collect();
        let list = printed.join(", ");
        let parsed: Result<Vec<_>, _> = forwarded::hops(header, &[list.as_bytes()]).collect();
        let expected: Vec<_> = hops.iter().rev().copied().collect();
        prop_assert_eq!(parsed, Ok(expected.clone()));
        // However many lines it is spread over.
        let lines: Vec<_> = printed.iter().map(String::as_bytes).collect();
        prop_assert_eq!(forwarded::hops(header, &lines).collect::<Result<Vec<_>, _>>(), Ok(expected));
    }
}
