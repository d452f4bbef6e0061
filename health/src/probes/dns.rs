//! [`Resolve`]: a name that the system can look up.
//!
//! Each round asks the system's resolver (`getaddrinfo`), just as the application's own connections do: `/etc/hosts`, caches and
//! search domains count. So a name that is cached is up for as long as it is. That call blocks a thread for as long as the
//! resolver likes, often for tens of seconds when its servers are silent; a check has one such thread at most.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | no such name, no address for it, the resolver's servers failed | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | the resolver is silent: no answer by the deadline | [`ProbeErrorKind::TimedOut`] | DOWN |
//!
//! The system does not tell a name that is not there from servers that failed in a way that programs can read; its text is in
//! the log.

use std::fmt;

use super::{
    InvalidProbe,
    address::{Address, is_host},
    destination::Destination,
};
use crate::{
    error::{ProbeError, ProbeErrorKind, classify_io},
    probe::Probe,
};

/// Looks a name up: up if it has an address.
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
pub struct Resolve(Destination);

impl Resolve {
    /// Looks up this name.
    ///
    /// # Errors
    ///
    /// It is no name of a host, but an address, or has a port or more of a URL with it.
    pub fn new(host: impl AsRef<str>) -> Result<Self, InvalidProbe> {
        let host = host.as_ref();
        if !is_host(host) || host.contains(':') || host.parse::<std::net::IpAddr>().is_ok() {
            return Err(InvalidProbe::new("expected the name of a host alone, such as `db.internal`"));
        }
        Ok(Self(Destination::new(Address { host: host.to_owned(), port: 0 })))
    }
}

impl Probe for Resolve {
    const GROUP: &'static str = "service";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        let host = &self.0.address.host;
        match self.0.resolve().await {
            Ok(addresses) if addresses.is_empty() => {
                Err(ProbeError::new(ProbeErrorKind::Unreachable, format!("{host} has no address")))
            }
            Ok(_) => Ok(()),
            Err(error) => {
                Err(ProbeError::new(classify_io(&error), format!("unable to resolve {host}")).with_source(error))
            }
        }
    }

    fn resource(&self) -> Option<String> {
        Some(format!("the name {}", self.0.address.host))
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
    fn what_is_no_name_is_told_when_the_probe_is_made() {
        for host in ["", "db:5432", "10.0.0.1", "::1", "http://db", "a b"] {
            Resolve::new(host).unwrap_err();
        }
        Resolve::new("db.internal.").unwrap();
    }
}
