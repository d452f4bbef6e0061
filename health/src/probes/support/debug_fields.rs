//! Reads fields of drivers' types that have no accessor.

use std::fmt::{self, Write as _};

use super::address::Address;

/// The length at which the formatting of a prefix ends.
const MAX_PREFIX_LEN: usize = 2048;

/// The `Debug` output of a driver's type, for fields without an accessor.
///
/// Drivers may change that output. If a field is not found, messages contain no address, which the tests with real servers would
/// notice. The output may contain a password, so it is never logged.
#[derive(Default)]
pub(in crate::probes) struct DebugFields(pub(in crate::probes) String);

impl DebugFields {
    pub(in crate::probes) fn of(value: &impl fmt::Debug) -> Self {
        Self(format!("{value:?}"))
    }

    /// Formats only the beginning of the output.
    pub(in crate::probes) fn of_prefix(value: &impl fmt::Debug) -> Self {
        struct Prefix(String);

        impl fmt::Write for Prefix {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                self.0.push_str(text);
                if self.0.len() < MAX_PREFIX_LEN { Ok(()) } else { Err(fmt::Error) }
            }
        }

        let mut prefix = Prefix(String::new());
        // The error only ends the formatting.
        let _ = write!(prefix, "{value:?}");
        Self(prefix.0)
    }

    pub(in crate::probes) fn contains(&self, text: &str) -> bool {
        self.0.contains(text)
    }

    pub(in crate::probes) fn starts_with(&self, text: &str) -> bool {
        self.0.starts_with(text)
    }

    /// Returns the first quoted text after a field's name.
    pub(in crate::probes) fn text(&self, field: &str) -> Option<String> {
        let (_, rest) = self.0.split_once(field)?;
        let mut text = String::new();
        let mut chars = rest.strip_prefix('"')?.chars();
        loop {
            match chars.next()? {
                '"' => return Some(text),
                '\\' => match chars.next()? {
                    c @ ('"' | '\'' | '\\') => text.push(c),
                    // Other escapes are of control characters and of bytes that are not UTF-8.
                    _ => return None,
                },
                c => text.push(c),
            }
        }
    }

    /// Returns the number after a field's name.
    pub(in crate::probes) fn number(&self, field: &str) -> Option<u16> {
        let (_, rest) = self.0.split_once(field)?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..digits].parse().ok()
    }

    /// Returns the first host and the first port after it, by their fields' names.
    pub(in crate::probes) fn address(&self, host: &str, port: &str) -> Option<Address> {
        let host_name = self.text(host)?;
        let (_, rest) = self.0.split_once(host)?;
        let port = Self(rest[host_name.len()..].to_owned()).number(port)?;
        Some(Address { host: host_name, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_debug_output_of_options_contains_an_address_and_a_password() {
        let fields = DebugFields(format!("host: {:?}, port: 5432, password: {:?}", "::1", Some("a\"b\\c")));
        assert_eq!(fields.address("host: ", "port: ").unwrap().to_string(), "[::1]:5432");
        assert_eq!(fields.text("password: Some(").unwrap(), "a\"b\\c");
        assert!(DebugFields::default().address("host: ", "port: ").is_none());
        assert_eq!(DebugFields::of(&("a", 1)).0, "(\"a\", 1)");
        assert!(fields.starts_with("host: ") && !fields.starts_with("port: "));
    }

    #[test]
    fn the_prefix_ends_with_the_part_that_reaches_its_length() {
        let long = DebugFields::of_prefix(&("blocked: true", "x".repeat(100_000), "blocked: false"));
        assert!(long.contains("blocked: true") && !long.contains("blocked: false"));
        let (first, rest) = ("x".repeat(MAX_PREFIX_LEN), "rest");
        assert_eq!(DebugFields::of_prefix(&format_args!("{first}{rest}")).0, first);
    }
}
