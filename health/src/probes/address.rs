//! A host and a port.

use std::fmt;

/// Displays as `host:port`, or `[host]:port` for an IPv6 address.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Address {
    /// Parses `host:port`, with brackets around an IPv6 address.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let is_v6 = host.starts_with('[') && host.ends_with(']');
        let host = if is_v6 { &host[1..host.len() - 1] } else { host };
        let port = port.parse().ok().filter(|&port| port != 0)?;
        (is_host(host) && is_v6 == host.contains(':')).then(|| Self { host: host.to_owned(), port })
    }
}

/// Whether the text is only a host name or an IP address, without other parts of a URL.
pub(super) fn is_host(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || "/?#@[]\\".contains(c))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') && !host.starts_with('[') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn an_address_consists_of_a_host_and_a_port_only() {
        for text in ["db.internal:5432", "127.0.0.1:1", "[::1]:443", "münchen.example:65535"] {
            assert_eq!(Address::parse(text).map(|address| address.to_string()).as_deref(), Some(text));
        }
        for text in [
            "",
            "db",
            "db:",
            ":5432",
            "db:0",
            "db:65536",
            "::1",
            "::1:443",
            "[db]:1",
            "bob:pw@db:1",
            "tcp://db:1",
            "d b:1",
        ] {
            assert_eq!(Address::parse(text), None, "{text}");
        }
    }
}
