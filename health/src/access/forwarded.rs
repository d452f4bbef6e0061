//! The address of who asks behind proxies, from what they say in `X-Forwarded-For` or `Forwarded` (RFC 7239).
//!
//! Each proxy appends the address that it was asked from. So the list is read from the right, and only as far as each next
//! proxy is trusted: what stands further left may be anybody's invention, and is not even looked at. Whatever can't be
//! understood on the way is a [`Flaw`], which refuses: to guess would be to believe.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::networks::Networks;

/// The header that the trusted proxies write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    XForwardedFor,
    Forwarded,
}

impl Header {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "X-Forwarded-For",
            Self::Forwarded => "Forwarded",
        }
    }
}

/// So many proxies one behind the other, all of them trusted, are none.
pub(super) const MOST_HOPS: usize = 64;

/// No element is as long: an address has at most 45 characters, and a name in `host=` at most 255.
pub(super) const LONGEST_ELEMENT: usize = 1024;

/// Why there is no address to judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// The header is not there.
    Missing,
    /// Nothing stands where a hop should.
    Empty,
    /// The proxy does not know, or does not say, who asked it: `unknown`, or a name of its own such as `_hidden`.
    Unknown,
    /// An element that is not what the header is made of; the text, cut short.
    Unreadable(Box<str>),
    TooLong,
    TooManyHops,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is missing"),
            Self::Empty => f.write_str("has an empty element"),
            Self::Unknown => f.write_str("does not tell an address"),
            Self::Unreadable(element) => write!(f, "has an element that can't be read: `{}`", element.escape_debug()),
            Self::TooLong => write!(f, "has an element of more than {LONGEST_ELEMENT} bytes"),
            Self::TooManyHops => write!(f, "names more than {MOST_HOPS} trusted proxies"),
        }
    }
}

impl Flaw {
    fn unreadable(element: &[u8]) -> Self {
        let shown = &element[..element.len().min(64)];
        Self::Unreadable(String::from_utf8_lossy(shown).into())
    }
}

/// The first hop from the right that is not trusted; if all are, the last one. `lines` are the values of the header, in
/// their order: together they are one list.
pub(crate) fn client(header: Header, lines: &[&[u8]], trusted: &Networks) -> Result<IpAddr, Flaw> {
    let mut farthest = Err(Flaw::Missing);
    for (place, hop) in hops(header, lines).enumerate() {
        if place == MOST_HOPS {
            return Err(Flaw::TooManyHops);
        }
        let address = hop?.to_canonical();
        farthest = Ok(address);
        if !trusted.contains(address) {
            break;
        }
    }
    farthest
}

/// The hops from the right. What comes behind a flaw means nothing.
pub(crate) fn hops(header: Header, lines: &[&[u8]]) -> impl Iterator<Item = Result<IpAddr, Flaw>> {
    lines.iter().rev().flat_map(move |line| {
        let mut rest = Some(*line);
        std::iter::from_fn(move || {
            let (left, element) = match split_last(header, rest?) {
                Ok(split) => split,
                Err(flaw) => {
                    rest = None;
                    return Some(Err(flaw));
                }
            };
            rest = left;
            Some(match header {
                Header::XForwardedFor => address(element),
                Header::Forwarded => forwarded_for(element),
            })
        })
    })
}

/// Splits a list before its last element: what is left of the comma, if there is one, and the element without the white
/// space around it.
///
/// A comma within a quoted string separates nothing. Read from the right, such a string is from its closing quote to the
/// nearest one that no backslash escapes; that what lies between is well-formed is looked at when the element is read.
fn split_last(header: Header, list: &[u8]) -> Result<(Option<&[u8]>, &[u8]), Flaw> {
    let window = list.len().saturating_sub(LONGEST_ELEMENT + 1);
    let mut quoted = false;
    for at in (window..list.len()).rev() {
        match list[at] {
            b',' if !quoted => return Ok((Some(&list[..at]), list[at + 1..].trim_ascii())),
            b'"' if header == Header::Forwarded => {
                let backslashes = list[window..at].iter().rev().take_while(|&&byte| byte == b'\\').count();
                if !quoted || backslashes % 2 == 0 {
                    quoted = !quoted;
                }
            }
            _ => {}
        }
    }
    match quoted {
        _ if list.len() > LONGEST_ELEMENT => Err(Flaw::TooLong),
        false => Ok((None, list.trim_ascii())),
        true => Err(Flaw::unreadable(list)),
    }
}

/// An element of `X-Forwarded-For`: an address, as some proxies write it with a port, and then IPv6 in brackets.
fn address(element: &[u8]) -> Result<IpAddr, Flaw> {
    let text = text(element)?;
    if text.is_empty() {
        return Err(Flaw::Empty);
    }
    if text.eq_ignore_ascii_case("unknown") {
        return Err(Flaw::Unknown);
    }
    let bare = text.parse::<Ipv6Addr>().ok().map(IpAddr::from);
    bare.or_else(|| node(text, is_port)).ok_or_else(|| Flaw::unreadable(element))
}

/// The node of an element of `Forwarded`: `for=192.0.2.60;proto=http;by="[2001:db8::7]:80"`.
fn forwarded_for(element: &[u8]) -> Result<IpAddr, Flaw> {
    if element.is_empty() {
        return Err(Flaw::Empty);
    }
    let unreadable = || Flaw::unreadable(element);
    let node_of = parameter_for(element).ok_or_else(unreadable)?;
    let text = text(node_of.ok_or(Flaw::Unknown)?)?;
    let is_port = |port: &str| is_port(port) || is_hidden(port);
    if let Some(address) = node(text, is_port) {
        return Ok(address);
    }
    let name = text.split_once(':').filter(|(_, port)| is_port(port)).map_or(text, |(name, _)| name);
    Err(if name.eq_ignore_ascii_case("unknown") || is_hidden(name) { Flaw::Unknown } else { unreadable() })
}

fn text(element: &[u8]) -> Result<&str, Flaw> {
    std::str::from_utf8(element).map_err(|_| Flaw::unreadable(element))
}

/// The value of `for` in an element, if it has one; `None` if that is no element.
#[allow(clippy::option_option, reason = "an element may be well-formed and say nothing of whom it is for")]
fn parameter_for(element: &[u8]) -> Option<Option<&[u8]>> {
    let mut found = None;
    let mut rest = element;
    loop {
        rest = rest.trim_ascii_start();
        // RFC 7239 lets a pair be left out between semicolons.
        if !matches!(rest, [] | [b';', ..]) {
            let (name, value, behind) = pair(rest)?;
            rest = behind.trim_ascii_start();
            // A parameter stands at most once in an element.
            if name.eq_ignore_ascii_case(b"for") && found.replace(value).is_some() {
                return None;
            }
        }
        match rest {
            [] => return Some(found),
            [b';', behind @ ..] => rest = behind,
            _ => return None,
        }
    }
}

/// A pair at the beginning of a text, and what is behind it. The value of a quoted string is what is between its quotes, with
/// its escapes as they stand: what escapes anything is no address.
fn pair(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (name, rest) = token(text)?;
    let rest = rest.strip_prefix(b"=")?;
    if let Some(quoted) = rest.strip_prefix(b"\"") {
        let mut at = 0;
        loop {
            match quoted.get(at)? {
                b'"' => return Some((name, &quoted[..at], &quoted[at + 1..])),
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
    }
    let (value, rest) = token(rest)?;
    Some((name, value, rest))
}

/// A token of RFC 9110 at the beginning of a text, and what is behind it.
fn token(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let length = text.iter().take_while(|&byte| is_token(byte)).count();
    (length > 0).then(|| text.split_at(length))
}

/// `192.0.2.1` or `[2001:db8::1]`, both with or without a port.
fn node(text: &str, is_port: impl Fn(&str) -> bool) -> Option<IpAddr> {
    let (address, port) = match text.strip_prefix('[') {
        Some(text) => {
            let (address, rest) = text.split_once(']')?;
            let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) };
            (address.parse::<Ipv6Addr>().ok()?.into(), port)
        }
        None => {
            let (address, port) = text.split_once(':').map_or((text, None), |(address, port)| (address, Some(port)));
            (address.parse::<Ipv4Addr>().ok()?.into(), port)
        }
    };
    port.is_none_or(is_port).then_some(address)
}

fn is_port(text: &str) -> bool {
    matches!(text.len(), 1..=5) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// What a proxy gives instead of an address or a port that it does not tell.
fn is_hidden(name: &str) -> bool {
    let is_obscure = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    name.strip_prefix('_').is_some_and(|name| !name.is_empty() && name.bytes().all(is_obscure))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_element_of_a_line_may_be_as_long_as_any_other() {
        for (spaces, judged) in [(0, Ok("1.2.3.4".parse().unwrap())), (1, Err(Flaw::TooLong))] {
            let element = format!("{}1.2.3.4", " ".repeat(LONGEST_ELEMENT - "1.2.3.4".len() + spaces));
            for line in [element.clone(), format!("5.6.7.8,{element}")] {
                assert_eq!(client(Header::XForwardedFor, &[line.as_bytes()], &Networks::default()), judged, "{spaces}");
            }
        }
    }
}
