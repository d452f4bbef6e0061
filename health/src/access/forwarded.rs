//! Finds the address of a client behind trusted proxies in `X-Forwarded-For` or `Forwarded` (RFC 7239).
//!
//! Each proxy appends the address of its own client. So the list is read from the right, up to the first address that is not a
//! trusted proxy. Elements further left may be forged, and are not read. A malformed element on the way is a
//! [`ForwardedError`], which denies the request.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use derive_more::Display;

use super::networks::NetworkSet;

/// The header in which trusted proxies forward the address of the client. Defaults to [`ForwardingHeader::XForwardedFor`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ForwardingHeader {
    /// `X-Forwarded-For`: a list of addresses.
    #[default]
    XForwardedFor,
    /// `Forwarded` ([RFC 7239](https://www.rfc-editor.org/rfc/rfc7239)): the `for` parameter of each element.
    Forwarded,
}

impl ForwardingHeader {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "X-Forwarded-For",
            Self::Forwarded => "Forwarded",
        }
    }
}

/// How many addresses of a header are read. If all of them are trusted proxies, and there are more, the request is denied.
pub(super) const MAX_HOPS: usize = 64;

/// The longest element, in bytes. An address has at most 45 characters, a name in `host=` at most 255.
pub(super) const MAX_ELEMENT_LEN: usize = 1024;

/// Why a header has no client address. The text completes the sentence 'its X-Forwarded-For header …'.
#[derive(Clone, Debug, Display, PartialEq, Eq)]
pub(crate) enum ForwardedError {
    #[display("is missing")]
    Missing,
    #[display("has an empty element")]
    Empty,
    /// The proxy did not forward the address: `unknown`, or an obfuscated identifier such as `_hidden`.
    #[display("does not contain the client address")]
    Unknown,
    /// A malformed element; the text is cut.
    #[display("has a malformed element: `{}`", _0.escape_debug())]
    Malformed(Box<str>),
    #[display("has an element of more than {} bytes", MAX_ELEMENT_LEN)]
    TooLong,
    #[display("has more than {} addresses, of which the last {} are trusted proxies", MAX_HOPS, MAX_HOPS)]
    TooManyHops,
}

impl ForwardedError {
    fn malformed(element: &[u8]) -> Self {
        let shown = &element[..element.len().min(64)];
        Self::Malformed(String::from_utf8_lossy(shown).into())
    }
}

/// Returns the first hop from the right that is not trusted; if all are trusted, the leftmost one. `lines` are the values of the
/// header in their order: together they are one list.
pub(super) fn client_address(
    header: ForwardingHeader,
    lines: &[&[u8]],
    trusted: &NetworkSet,
) -> Result<IpAddr, ForwardedError> {
    let mut client = Err(ForwardedError::Missing);
    for (index, hop) in hops(header, lines).enumerate() {
        if index == MAX_HOPS {
            return Err(ForwardedError::TooManyHops);
        }
        let address = hop?.to_canonical();
        client = Ok(address);
        if !trusted.contains(address) {
            break;
        }
    }
    client
}

/// Iterates over the hops from the right. Stop at the first error.
pub(super) fn hops(header: ForwardingHeader, lines: &[&[u8]]) -> impl Iterator<Item = Result<IpAddr, ForwardedError>> {
    lines.iter().rev().flat_map(move |line| {
        let mut rest = Some(*line);
        std::iter::from_fn(move || {
            let (left, element) = match split_last(header, rest?) {
                Ok(split) => split,
                Err(error) => {
                    rest = None;
                    return Some(Err(error));
                }
            };
            rest = left;
            Some(match header {
                ForwardingHeader::XForwardedFor => address(element),
                ForwardingHeader::Forwarded => forwarded_for(element),
            })
        })
    })
}

/// Splits off the last element of a list. Returns the part left of its comma, if there is one, and the element without the
/// white space around it.
///
/// A comma within a quoted string does not separate. Read from the right, a quoted string extends from its closing quote to the
/// nearest quote that is not escaped by a backslash. Its content is validated when the element is parsed.
fn split_last(header: ForwardingHeader, list: &[u8]) -> Result<(Option<&[u8]>, &[u8]), ForwardedError> {
    let window = list.len().saturating_sub(MAX_ELEMENT_LEN + 1);
    let mut quoted = false;
    for at in (window..list.len()).rev() {
        match list[at] {
            b',' if !quoted => return Ok((Some(&list[..at]), list[at + 1..].trim_ascii())),
            b'"' if header == ForwardingHeader::Forwarded => {
                let backslashes = list[window..at].iter().rev().take_while(|&&byte| byte == b'\\').count();
                if !quoted || backslashes % 2 == 0 {
                    quoted = !quoted;
                }
            }
            _ => {}
        }
    }
    match quoted {
        _ if list.len() > MAX_ELEMENT_LEN => Err(ForwardedError::TooLong),
        false => Ok((None, list.trim_ascii())),
        true => Err(ForwardedError::malformed(list)),
    }
}

/// Parses an element of `X-Forwarded-For`: an address, which some proxies write with a port, IPv6 then in brackets.
fn address(element: &[u8]) -> Result<IpAddr, ForwardedError> {
    let text = text(element)?;
    if text.is_empty() {
        return Err(ForwardedError::Empty);
    }
    if text.eq_ignore_ascii_case("unknown") {
        return Err(ForwardedError::Unknown);
    }
    let bare = text.parse::<Ipv6Addr>().ok().map(IpAddr::from);
    bare.or_else(|| node(text, is_port)).ok_or_else(|| ForwardedError::malformed(element))
}

/// Parses the address in an element of `Forwarded`: `for=192.0.2.60;proto=http;by="[2001:db8::7]:80"`.
fn forwarded_for(element: &[u8]) -> Result<IpAddr, ForwardedError> {
    if element.is_empty() {
        return Err(ForwardedError::Empty);
    }
    let malformed = || ForwardedError::malformed(element);
    let node_of = parameter_for(element).ok_or_else(malformed)?;
    let text = text(node_of.ok_or(ForwardedError::Unknown)?)?;
    let is_port = |port: &str| is_port(port) || is_hidden(port);
    if let Some(address) = node(text, is_port) {
        return Ok(address);
    }
    let name = text.split_once(':').filter(|(_, port)| is_port(port)).map_or(text, |(name, _)| name);
    Err(if name.eq_ignore_ascii_case("unknown") || is_hidden(name) { ForwardedError::Unknown } else { malformed() })
}

fn text(element: &[u8]) -> Result<&str, ForwardedError> {
    std::str::from_utf8(element).map_err(|_| ForwardedError::malformed(element))
}

/// Returns the value of `for` in an element, if it has one; `None` if the element is malformed.
#[allow(clippy::option_option, reason = "a well-formed element may have no `for`")]
fn parameter_for(element: &[u8]) -> Option<Option<&[u8]>> {
    let mut found = None;
    let mut rest = element;
    loop {
        rest = rest.trim_ascii_start();
        // RFC 7239 allows empty pairs between semicolons.
        if !matches!(rest, [] | [b';', ..]) {
            let (name, value, after) = pair(rest)?;
            rest = after.trim_ascii_start();
            // A parameter must not be repeated in an element.
            if name.eq_ignore_ascii_case(b"for") && found.replace(value).is_some() {
                return None;
            }
        }
        match rest {
            [] => return Some(found),
            [b';', after @ ..] => rest = after,
            _ => return None,
        }
    }
}

/// Parses a pair at the start of a text. Returns its name, its value and the rest. The value of a quoted string is the text
/// between the quotes with its escapes, because a text with escapes is not an address.
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

/// Parses a token (RFC 9110) at the start of a text. Returns it and the rest.
fn token(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let length = text.iter().take_while(|&byte| is_token(byte)).count();
    (length > 0).then(|| text.split_at(length))
}

/// Parses `192.0.2.1` or `[2001:db8::1]`, each with or without a port.
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

/// Whether this is an obfuscated identifier (RFC 7239), which proxies may write instead of an address or a port.
fn is_hidden(name: &str) -> bool {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    name.strip_prefix('_').is_some_and(|name| !name.is_empty() && name.bytes().all(is_valid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_element_of_a_line_has_the_same_length_limit_as_the_others() {
        for (spaces, expected) in [(0, Ok("1.2.3.4".parse().unwrap())), (1, Err(ForwardedError::TooLong))] {
            let element = format!("{}1.2.3.4", " ".repeat(MAX_ELEMENT_LEN - "1.2.3.4".len() + spaces));
            for line in [element.clone(), format!("5.6.7.8,{element}")] {
                assert_eq!(
                    client_address(ForwardingHeader::XForwardedFor, &[line.as_bytes()], &NetworkSet::default()),
                    expected,
                    "{spaces}"
                );
            }
        }
    }

    fn addresses(header: ForwardingHeader, line: &str) -> Vec<Result<IpAddr, ForwardedError>> {
        hops(header, &[line.as_bytes()]).collect()
    }

    #[test]
    fn an_escaped_quote_does_not_end_a_quoted_string() {
        let line = r#"for=192.0.2.1;ext="a\", b", for=192.0.2.2;ext="a\\", for=192.0.2.3"#;
        let expected = ["192.0.2.3", "192.0.2.2", "192.0.2.1"].map(|address| Ok(address.parse().unwrap()));
        assert_eq!(addresses(ForwardingHeader::Forwarded, line), expected);
    }

    #[test]
    fn quotes_have_no_meaning_in_x_forwarded_for() {
        let malformed = |element: &str| Err(ForwardedError::malformed(element.as_bytes()));
        assert_eq!(addresses(ForwardingHeader::XForwardedFor, "192.0.2.1, a\"b")[0], malformed("a\"b"));
    }
}
