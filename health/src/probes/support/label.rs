//! What messages call a resource.

use std::fmt;

use super::address::Address;
use crate::{
    error::{BoxError, ProbeError, ProbeErrorKind},
    probes::classify::Classify,
};

/// A resource in messages: its display name and, if it is known, its address, as in `redis at 10.0.0.7:6379`. Contains the password, too,
/// which error texts of the driver may contain.
#[derive(Clone, Debug)]
pub(in crate::probes) struct Label {
    name: &'static str,
    address: Option<Address>,
    password: Option<String>,
}

impl Label {
    pub(in crate::probes) const fn new(name: &'static str) -> Self {
        Self { name, address: None, password: None }
    }

    pub(in crate::probes) fn at(self, address: impl Into<Option<Address>>) -> Self {
        Self { address: address.into(), ..self }
    }

    /// Sets the address if there is only one: with several servers, a message does not name any.
    pub(in crate::probes) fn at_only(self, servers: &[Address]) -> Self {
        match servers {
            [server] => self.at(server.clone()),
            _ => self,
        }
    }

    pub(in crate::probes) fn with_password(self, password: Option<String>) -> Self {
        Self { password, ..self }
    }

    pub(in crate::probes) fn address(&self) -> Option<&Address> {
        self.address.as_ref()
    }

    /// Converts an error of the resource's driver.
    pub(in crate::probes) fn error(&self, error: impl Classify) -> ProbeError {
        self.error_with(error.classify(), error.message(&self.to_string()), error)
    }

    /// Creates an error of that kind, with the public message of the kind.
    pub(in crate::probes) fn error_of_kind(&self, kind: ProbeErrorKind, source: impl Into<BoxError>) -> ProbeError {
        self.error_with(kind, kind.message(&self.to_string()), source)
    }

    /// Creates an error with that public message.
    pub(in crate::probes) fn error_with(
        &self,
        kind: ProbeErrorKind,
        message: String,
        source: impl Into<BoxError>,
    ) -> ProbeError {
        ProbeError::new(kind, message).with_source(source).with_secret(self.password.clone())
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Some(address) => write!(f, "{} at {address}", self.name),
            None => f.write_str(self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_contains_the_address_if_it_is_known_and_never_the_password() {
        let label = Label::new("redis").with_password(Some("sesame".to_owned()));
        assert_eq!(label.to_string(), "redis");
        let label = label.at(Address { host: "::1".to_owned(), port: 6379 });
        assert_eq!(label.to_string(), "redis at [::1]:6379");
        assert_eq!(label.address().map(|address| address.port), Some(6379));
        let several = [Address { host: "a".to_owned(), port: 1 }, Address { host: "b".to_owned(), port: 1 }];
        assert_eq!(Label::new("kafka").at_only(&several[..1]).to_string(), "kafka at a:1");
        assert_eq!(Label::new("kafka").at_only(&several).to_string(), "kafka");
        let error = label.error_of_kind(ProbeErrorKind::Failed, "AUTH sesame failed");
        assert_eq!(error.to_string(), "unexpected response from redis at [::1]:6379");
        assert!(!error.log_text().contains("sesame"), "{}", error.log_text());
    }
}
