//! A reference implementation that parses the headers from the left and completely, as they are defined, whatever it costs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::access::forwarded::{ForwardedError, ForwardingHeader, MAX_ELEMENT_LEN};

/// The only error is [`ForwardedError::Unknown`]: such a hop is well-formed and has no address.
type Hop = Result<IpAddr, ForwardedError>;

/// `None` if an element of the line is malformed.
pub(super) fn hops(header: ForwardingHeader, line: &[u8]) -> Option<Vec<Hop>> {
    // One character per byte: an address is ASCII.
    let line: String = line.iter().copied().map(char::from).collect();
    let elements = match header {
        ForwardingHeader::XForwardedFor => line.split(',').map(|element| vec![element]).collect(),
        ForwardingHeader::Forwarded => elements(&line)?,
    };
    let hop = |element: Vec<&str>| {
        let length = element.iter().map(|part| part.chars().count()).sum::<usize>() + element.len() - 1;
        let parts: Vec<_> = element.iter().map(|part| trim(part)).collect();
        match (header, &parts[..]) {
            (_, [""]) => None,
            _ if length > MAX_ELEMENT_LEN => None,
            (ForwardingHeader::XForwardedFor, [text]) if text.eq_ignore_ascii_case("unknown") => {
                Some(Err(ForwardedError::Unknown))
            }
            (ForwardingHeader::XForwardedFor, parts) => node(parts[0], is_number).map(Ok),
            (ForwardingHeader::Forwarded, pairs) => forwarded_for(pairs),
        }
    };
    elements.into_iter().map(hop).collect()
}

/// The elements of `Forwarded`, each split into its pairs.
fn elements(line: &str) -> Option<Vec<Vec<&str>>> {
    let mut elements = vec![vec![]];
    let (mut start, mut quoted) = (0, false);
    let mut characters = line.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => quoted = !quoted,
            '\\' if quoted => drop(characters.next()),
            ',' | ';' if !quoted => {
                elements.last_mut()?.push(&line[start..at]);
                start = at + 1;
                if character == ',' {
                    elements.push(vec![]);
                }
            }
            _ => {}
        }
    }
    elements.last_mut()?.push(&line[start..]);
    (!quoted).then_some(elements)
}

fn forwarded_for(pairs: &[&str]) -> Option<Hop> {
    let mut nodes = vec![];
    for pair in pairs.iter().filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=')?;
        let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        let is_value = match quoted {
            Some(text) => !text.replace(r"\\", "").replace("\\\"", "").contains('"'),
            None => is_token(value),
        };
        if !is_value || !is_token(name) {
            return None;
        }
        if name.eq_ignore_ascii_case("for") {
            nodes.push(quoted.unwrap_or(value));
        }
    }
    let is_port = |port: &str| is_number(port) || is_hidden(port);
    match nodes[..] {
        [] => Some(Err(ForwardedError::Unknown)),
        [text] => match node(text, is_port) {
            // In this header, IPv6 is in brackets.
            Some(address) => (address.is_ipv4() || text.starts_with('[')).then_some(Ok(address)),
            None => {
                let name = text.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(text, |(name, _)| name);
                (name.eq_ignore_ascii_case("unknown") || is_hidden(name)).then_some(Err(ForwardedError::Unknown))
            }
        },
        _ => None,
    }
}

fn node(text: &str, is_port: impl Fn(&str) -> bool) -> Option<IpAddr> {
    let has_port = |(address, port): &(&str, &str)| is_port(port) && (address.ends_with(']') || is_ipv4(address));
    let address = text.rsplit_once(':').filter(has_port).map_or(text, |(address, _)| address);
    match address.strip_prefix('[').and_then(|address| address.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        None => address.parse().ok(),
    }
}

fn is_ipv4(text: &str) -> bool {
    text.parse::<Ipv4Addr>().is_ok()
}

fn is_number(text: &str) -> bool {
    (1..=5).contains(&text.len()) && text.chars().all(|character| character.is_ascii_digit())
}

fn is_hidden(text: &str) -> bool {
    text.len() > 1
        && text.starts_with('_')
        && text.chars().all(|character| character.is_ascii_alphanumeric() || "._-".contains(character))
}

fn is_token(text: &str) -> bool {
    let is_part = |character: char| character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(character);
    !text.is_empty() && text.chars().all(is_part)
}

fn trim(text: &str) -> &str {
    text.trim_matches(|character: char| character.is_ascii_whitespace())
}
