//! [`Resolve`]: a host name that the system can resolve.
//!
//! Each run calls the system's resolver (`getaddrinfo`), as the application's own connections do, so `/etc/hosts`, caches and search
//! domains count. A cached name is UP until its entry expires. The call blocks a thread until the resolver returns, often for tens of
//! seconds when its servers are silent. No second call starts while one hangs.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | no such name, no address for it, the resolver's servers failed | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | the resolver is silent: no response by the deadline | [`ProbeErrorKind::TimedOut`] | DOWN |
//!
//! The number of addresses is a value of the run, `addresses`. What a run costs the resolver's servers: one lookup, for IPv4 and for IPv6,
//! if the name is not cached.
//!
//! The resolver's errors do not distinguish a name that does not exist from servers that failed. Its error text is in the log.

use std::fmt;

use crate::{
    error::{ProbeError, ProbeErrorKind, classify_io},
    observe::observe,
    probe::{LibraryProbe, library_probe},
    probes::support::{
        address::{Address, is_host},
        endpoint::{Endpoint, InvalidProbe},
    },
};

/// Resolves a host name: UP if it has an address.
///
/// # Examples
///
/// ```
/// use health::{HealthCheck, probes::{InvalidProbe, dns::Resolve}};
///
/// #[derive(HealthCheck)]
/// struct AppState {
///     partner: Resolve,
/// }
///
/// # fn state() -> Result<AppState, InvalidProbe> {
/// Ok(AppState { partner: Resolve::new("api.partner.example")? })
/// # }
/// # state().unwrap();
/// ```
#[derive(Clone)]
pub struct Resolve(Endpoint);

impl Resolve {
    /// Resolves this name.
    ///
    /// # Errors
    ///
    /// Returns an error for anything but a host name, such as an IP address, or a name with a port.
    pub fn new(host: impl AsRef<str>) -> Result<Self, InvalidProbe> {
        let host = host.as_ref();
        if !is_host(host) || host.contains(':') || host.parse::<std::net::IpAddr>().is_ok() {
            return Err(InvalidProbe::new("expected only a host name, such as `db.internal`"));
        }
        Ok(Self(Endpoint::new(Address { host: host.to_owned(), port: 0 })))
    }
}

library_probe! { "service", Resolve => Resolve::clone }

impl LibraryProbe for Resolve {
    async fn probe(&self) -> Result<(), ProbeError> {
        let host = &self.0.address.host;
        match self.0.resolve().await {
            Ok(addresses) if addresses.is_empty() => {
                Err(ProbeError::new(ProbeErrorKind::Unreachable, format!("{host} has no address")))
            }
            Ok(addresses) => {
                observe("addresses", addresses.len());
                Ok(())
            }
            Err(error) => {
                Err(ProbeError::new(classify_io(&error), format!("unable to resolve {host}")).with_source(error))
            }
        }
    }

    fn resource(&self) -> Option<String> {
        Some(format!("the host name {}", self.0.address.host))
    }
}

impl fmt::Debug for Resolve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Resolve").field(&self.0.address.host).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::Resolve;

    #[test]
    fn anything_but_a_host_name_is_an_error() {
        for host in ["", "db:5432", "10.0.0.1", "::1", "http://db", "a b"] {
            Resolve::new(host).unwrap_err();
        }
        Resolve::new("db.internal.").unwrap();
    }
}
