//! What is fuzzed, and what must hold for any input; see the folder `fuzz`, whose targets call the three public functions.

mod reference;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
};

use super::{
    AllowList,
    forwarded::{Flaw, Header, LONGEST_ELEMENT, MOST_HOPS, client, hops},
    networks::Networks,
};

/// `X-Forwarded-For`; see [`header`].
pub fn x_forwarded_for(data: &[u8]) {
    header(Header::XForwardedFor, data);
}

/// `Forwarded`; see [`header`].
pub fn forwarded(data: &[u8]) {
    header(Header::Forwarded, data);
}

/// A list of networks, as `HEALTHCHECK_IPS` holds it.
pub fn list(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let list: AllowList = match text.parse() {
        Ok(list) => list,
        Err(error) => return assert!(!error.to_string().contains(char::is_control), "{error:?}"),
    };
    let networks = list.networks();
    assert!(networks.is_sorted_by(|one, next| one < next));

    let again: AllowList = list.to_string().parse().unwrap();
    assert_eq!(networks, again.networks());
    let backwards: Vec<_> = text.rsplit(',').collect();
    assert_eq!(networks, backwards.join(",").parse::<AllowList>().unwrap().networks());

    // At the edges of networks the set holds what one of them holds. Not of all of them: each is compared with all.
    for network in networks.iter().take(16) {
        let edges = [network.network(), network.broadcast()];
        for address in [edges[0], edges[1], neighbour(edges[0], u128::MAX), neighbour(edges[1], 1)] {
            let is_held = networks.iter().any(|network| network.contains(&address.to_canonical()));
            assert_eq!(list.contains(address), is_held, "{address}");
            if let IpAddr::V4(address) = address {
                assert_eq!(list.contains(address.to_ipv6_mapped().into()), is_held, "{address}");
            }
        }
    }

    for network in &networks {
        assert!(list.remove(*network) && !list.remove(*network), "{network}");
    }
    assert!(list.networks().is_empty());
    list.set(networks.iter().rev().copied()).unwrap();
    assert_eq!(networks, list.networks());
}

/// The address so many further on, around the end.
fn neighbour(address: IpAddr, distance: u128) -> IpAddr {
    match address {
        #[allow(clippy::cast_possible_truncation, reason = "what is cut off goes around the end")]
        IpAddr::V4(address) => Ipv4Addr::from(address.to_bits().wrapping_add(distance as u32)).into(),
        IpAddr::V6(address) => Ipv6Addr::from(address.to_bits().wrapping_add(distance)).into(),
    }
}

/// The first byte of the input says which of these networks are trusted.
static TRUSTED: LazyLock<[Networks; 4]> = LazyLock::new(|| {
    let networks = |text| Networks::parse("trusted", text).unwrap();
    [
        Networks::default(),
        Networks::loopback(),
        networks("10.0.0.0/8, ::ffff:192.0.2.0/120, fd00::/8"),
        networks("0.0.0.0/0, ::/0"),
    ]
});

/// Nothing further left than this is looked at: so many elements of the greatest length, each with its comma, and a byte
/// that tells that there is more.
const MOST_READ: usize = (MOST_HOPS + 1) * (LONGEST_ELEMENT + 1) + 1;

/// The lines of the input behind its first byte: one that somebody forged, then those that the proxies wrote.
fn header(header: Header, data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    let trusted = &TRUSTED[usize::from(*choice) % TRUSTED.len()];
    let mut lines = data.split(|byte| *byte == b'\n');
    let forged = lines.next().unwrap_or_default();
    let lines: Vec<_> = lines.collect();

    let judged = client(header, &lines, trusted);
    if let Err(flaw) = &judged {
        let text = flaw.to_string();
        assert!(text.len() < 1024 && !text.contains(char::is_control), "{text:?}");
    }
    let ends_before_the_left = match &judged {
        Ok(address) => !trusted.contains(*address),
        Err(flaw) => *flaw != Flaw::Missing,
    };
    if ends_before_the_left {
        assert_eq!(judged, client(header, &[&[forged][..], &lines].concat(), trusted));
    }

    if !lines.is_empty() {
        let line = lines.join(&b","[..]);
        let judged_of_line = client(header, &[&line], trusted);
        let tail = &line[line.len().saturating_sub(MOST_READ)..];
        assert_eq!(judged_of_line, client(header, &[tail], trusted));
        // A quoted string that begins in one line and ends in the next is none, and refuses, until the lines are one.
        if judged.is_ok() || header == Header::XForwardedFor {
            assert_eq!(judged, judged_of_line);
            if ends_before_the_left {
                assert_eq!(judged, client(header, &[&[forged, b",", &line].concat()], trusted));
            }
        }
    }

    for line in lines {
        is_read_as_from_the_left(header, line);
    }
}

/// All hops of a line are those that [`reference`] finds, and the same again when they are printed.
fn is_read_as_from_the_left(header: Header, line: &[u8]) {
    let mut read: Vec<_> = hops(header, &[line]).collect();
    read.reverse();
    let Some(expected) = reference::hops(header, line) else {
        assert!(read.iter().any(|hop| !matches!(hop, Ok(_) | Err(Flaw::Unknown))), "{read:?}");
        return;
    };
    assert_eq!(read, expected);

    let addresses = || read.iter().flatten();
    let in_forwarded = |address: &IpAddr| match address {
        IpAddr::V4(address) => format!("for={address}"),
        IpAddr::V6(address) => format!("proto=https;for=\"[{address}]:443\""),
    };
    for (header, printed) in [
        (Header::XForwardedFor, addresses().map(IpAddr::to_string).collect::<Vec<_>>()),
        (Header::Forwarded, addresses().map(in_forwarded).collect()),
    ] {
        if !printed.is_empty() {
            let again: Result<Vec<_>, _> = hops(header, &[printed.join(", ").as_bytes()]).collect();
            assert!(again.as_ref().is_ok_and(|again| again.iter().rev().eq(addresses())), "{printed:?}: {again:?}");
        }
    }
}
