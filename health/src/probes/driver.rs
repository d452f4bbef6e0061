//! What the probes of several drivers need: where a handle connects to, and why it does not.

use std::{
    fmt::{self, Write as _},
    future::Future,
    pin::pin,
    time::Duration,
};

use futures_util::future::{Either, select};

pub(super) use super::address::Address;

/// How long a driver that connects may be silent before the server is asked itself.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

/// Waits for the driver's answer. Drivers may be silent for long: they retry a refused connection, and wait on one that is
/// dead without knowing it. So after a while another question is asked on the side; if that knows nothing, the driver is
/// waited for.
pub(super) async fn answer_or<T, E>(
    answer: impl Future<Output = Result<T, E>>,
    after: Duration,
    on_the_side: impl Future<Output = Option<Result<T, E>>>,
) -> Result<T, E> {
    let on_the_side = pin!(async {
        tokio::time::sleep(after).await;
        on_the_side.await
    });
    match select(pin!(answer), on_the_side).await {
        Either::Left((answer, _)) | Either::Right((Some(answer), _)) => answer,
        Either::Right((None, answer)) => answer.await,
    }
}

/// A driver's options by what they print of themselves: some have no accessor for where they connect to.
///
/// That form is no promise of the driver's: where it is not as expected, nothing is found, and a message names no address.
/// The tests against real servers look for the addresses. It may hold a password, and is never shown or logged.
#[derive(Default)]
pub(super) struct Described(pub(super) String);

impl Described {
    pub(super) fn by_debug(options: &impl fmt::Debug) -> Self {
        Self(format!("{options:?}"))
    }

    /// The beginning of what prints more than its options.
    pub(super) fn by_start_of_debug(handle: &impl fmt::Debug) -> Self {
        const START: usize = 2048;
        struct Start(String);

        impl fmt::Write for Start {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                self.0.push_str(text);
                if self.0.len() < START { Ok(()) } else { Err(fmt::Error) }
            }
        }

        let mut start = Start(String::new());
        // An error is the end of the beginning.
        let _ = write!(start, "{handle:?}");
        Self(start.0)
    }

    /// Whether it is so, in its own words.
    pub(super) fn says(&self, words: &str) -> bool {
        self.0.contains(words)
    }

    pub(super) fn starts_with(&self, words: &str) -> bool {
        self.0.starts_with(words)
    }

    /// The first quoted text after a field's name.
    pub(super) fn text(&self, field: &str) -> Option<String> {
        let (_, rest) = self.0.split_once(field)?;
        let mut text = String::new();
        let mut chars = rest.strip_prefix('"')?.chars();
        loop {
            match chars.next()? {
                '"' => return Some(text),
                '\\' => match chars.next()? {
                    c @ ('"' | '\'' | '\\') => text.push(c),
                    // Control characters and what is no UTF-8: nothing that a host, a path or a password should have.
                    _ => return None,
                },
                c => text.push(c),
            }
        }
    }

    /// The number after a field's name.
    pub(super) fn number(&self, field: &str) -> Option<u16> {
        let (_, rest) = self.0.split_once(field)?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..digits].parse().ok()
    }

    /// `host:port`, the first of each after their fields' names.
    pub(super) fn address(&self, host: &str, port: &str) -> Option<Address> {
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
    fn a_described_server_has_an_address_and_a_password() {
        let described = Described(format!("host: {:?}, port: 5432, password: {:?}", "::1", Some("a\"b\\c")));
        assert_eq!(described.address("host: ", "port: ").unwrap().to_string(), "[::1]:5432");
        assert_eq!(described.text("password: Some(").unwrap(), "a\"b\\c");
        assert!(Described::default().address("host: ", "port: ").is_none());
        let long = Described::by_start_of_debug(&("blocked: true", "x".repeat(100_000), "blocked: false"));
        assert!(long.says("blocked: true") && !long.says("blocked: false"));
    }
}
