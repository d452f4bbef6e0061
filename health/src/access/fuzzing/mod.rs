//! Fuzz tests: the properties of any input. The targets in the folder `fuzz` call the three public functions.

mod reference;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
};

use super::{
    allow_list::AllowList,
    forwarded::{ForwardedError, ForwardingHeader, MAX_ELEMENT_LEN, MAX_HOPS, client_address, hops},
    networks::NetworkSet,
};

/// `X-Forwarded-For`; see [`header`].
pub fn x_forwarded_for(data: &[u8]) {
    header(ForwardingHeader::XForwardedFor, data);
}

/// `Forwarded`; see [`header`].
pub fn forwarded(data: &[u8]) {
    header(ForwardingHeader::Forwarded, data);
}

/// A list of networks, as in `HEALTHCHECK_IPS`.
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

    // At the edges of networks, the list contains the addresses that one of its networks contains. Only of some networks, because
    // each is compared with all.
    for network in networks.iter().take(16) {
        let edges = [network.network(), network.broadcast()];
        for address in [edges[0], edges[1], neighbour(edges[0], u128::MAX), neighbour(edges[1], 1)] {
            let is_contained = networks.iter().any(|network| network.contains(&address.to_canonical()));
            assert_eq!(list.contains(address), is_contained, "{address}");
            if let IpAddr::V4(address) = address {
                assert_eq!(list.contains(address.to_ipv6_mapped().into()), is_contained, "{address}");
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

/// The address at a distance, wrapping at the end.
fn neighbour(address: IpAddr, distance: u128) -> IpAddr {
    match address {
        #[allow(clippy::cast_possible_truncation, reason = "the address wraps at the end")]
        IpAddr::V4(address) => Ipv4Addr::from(address.to_bits().wrapping_add(distance as u32)).into(),
        IpAddr::V6(address) => Ipv6Addr::from(address.to_bits().wrapping_add(distance)).into(),
    }
}

/// The trusted networks, selected by the first byte of the input.
static TRUSTED: LazyLock<[NetworkSet; 4]> = LazyLock::new(|| {
    let networks = |text| NetworkSet::parse("trusted", text).unwrap();
    [
        NetworkSet::default(),
        NetworkSet::loopback(),
        networks("10.0.0.0/8, ::ffff:192.0.2.0/120, fd00::/8"),
        networks("0.0.0.0/0, ::/0"),
    ]
});

/// The most bytes that are read of a header, from the right: the most elements of the greatest length, each with its comma, and
/// one byte that shows that there is more.
const MAX_READ: usize = (MAX_HOPS + 1) * (MAX_ELEMENT_LEN + 1) + 1;

/// The lines of the input after its first byte: a forged one, then those that the proxies wrote.
fn header(header: ForwardingHeader, data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    let trusted = &TRUSTED[usize::from(*choice) % TRUSTED.len()];
    let mut lines = data.split(|byte| *byte == b'\n');
    let forged = lines.next().unwrap_or_default();
    let lines: Vec<_> = lines.collect();

    let result = client_address(header, &lines, trusted);
    if let Err(error) = &result {
        let text = error.to_string();
        assert!(text.len() < 1024 && !text.contains(char::is_control), "{text:?}");
    }
    let ends_before_the_left = match &result {
        Ok(address) => !trusted.contains(*address),
        Err(error) => *error != ForwardedError::Missing,
    };
    if ends_before_the_left {
        assert_eq!(result, client_address(header, &[&[forged][..], &lines].concat(), trusted));
    }

    if !lines.is_empty() {
        let line = lines.join(&b","[..]);
        let result_of_line = client_address(header, &[&line], trusted);
        let tail = &line[line.len().saturating_sub(MAX_READ)..];
        assert_eq!(result_of_line, client_address(header, &[tail], trusted));
        // A quoted string that starts in one line and ends in the next is malformed, and well-formed once the lines are joined.
        if result.is_ok() || header == ForwardingHeader::XForwardedFor {
            assert_eq!(result, result_of_line);
            if ends_before_the_left {
                assert_eq!(result, client_address(header, &[&[forged, b",", &line].concat()], trusted));
            }
        }
    }

    for line in lines {
        assert_equal_to_reference(header, line);
    }
}

/// The hops of a line are those that [`reference`] finds, and the same when they are printed and parsed again.
fn assert_equal_to_reference(header: ForwardingHeader, line: &[u8]) {
    let mut read: Vec<_> = hops(header, &[line]).collect();
    read.reverse();
    let Some(expected) = reference::hops(header, line) else {
        assert!(read.iter().any(|hop| !matches!(hop, Ok(_) | Err(ForwardedError::Unknown))), "{read:?}");
        return;
    };
    assert_eq!(read, expected);

    let addresses = || read.iter().flatten();
    let in_forwarded = |address: &IpAddr| match address {
        IpAddr::V4(address) => format!("for={address}"),
        IpAddr::V6(address) => format!("proto=https;for=\"[{address}]:443\""),
    };
    for (header, printed) in [
        (ForwardingHeader::XForwardedFor, addresses().map(IpAddr::to_string).collect::<Vec<_>>()),
        (ForwardingHeader::Forwarded, addresses().map(in_forwarded).collect()),
    ] {
        if !printed.is_empty() {
            let again: Result<Vec<_>, _> = hops(header, &[printed.join(", ").as_bytes()]).collect();
            assert!(again.as_ref().is_ok_and(|again| again.iter().rev().eq(addresses())), "{printed:?}: {again:?}");
        }
    }
}
