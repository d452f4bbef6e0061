//! [`Connect`]: a server that accepts TCP connections.
//!
//! Each run resolves the name, opens a TCP connection and closes it at once. The operating system accepts connections for a server
//! that hangs, so such a server is UP. Prefer a probe that sends a request (`probes::reqwest`, or a
//! [`Probe`](crate::Probe) of your own). A server may log a connection that ends without data.
//!
//! What a run costs the server: one connection. If it is silent, as behind a firewall that drops packets, another one is opened every
//! 2 s.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, reset, no route, no such host | [`ProbeErrorKind::Unreachable`](crate::ProbeErrorKind::Unreachable) | DOWN |
//! | packets are dropped: no response by the deadline | [`ProbeErrorKind::TimedOut`](crate::ProbeErrorKind::TimedOut) | DOWN |
//! | this system forbids the connection | [`ProbeErrorKind::Rejected`](crate::ProbeErrorKind::Rejected) | DOWN |

use std::fmt;

use crate::{
    error::{ProbeError, classify_io},
    probe::{LibraryProbe, library_probe},
    probes::support::{
        attempts::{INTERVAL, first_result},
        endpoint::{Endpoint, InvalidProbe},
    },
};

/// Connects to a host and port: UP if the connection is accepted.
///
/// # Examples
///
/// ```
/// use health::{HealthCheck, probes::{InvalidProbe, tcp::Connect}};
///
/// #[derive(HealthCheck)]
/// struct AppState {
///     mail: Connect,
/// }
///
/// # fn state() -> Result<AppState, InvalidProbe> {
/// Ok(AppState { mail: Connect::new("smtp.internal:25")? })
/// # }
/// # state().unwrap();
/// ```
#[derive(Clone)]
pub struct Connect(Endpoint);

impl Connect {
    /// Connects to `host:port`, or `[address]:port` for an IPv6 address.
    ///
    /// # Errors
    ///
    /// Returns an error for any other format. The host is resolved only by the runs.
    pub fn new(address: impl AsRef<str>) -> Result<Self, InvalidProbe> {
        Endpoint::parse(address.as_ref()).map(Self)
    }
}

library_probe! { "service", Connect => Connect::clone }

impl LibraryProbe for Connect {
    async fn probe(&self) -> Result<(), ProbeError> {
        match first_result(INTERVAL, || self.0.connect()).await {
            Ok(_) => Ok(()),
            Err(error) => {
                let kind = classify_io(&error);
                Err(ProbeError::new(kind, kind.message(&self.0.address.to_string())).with_source(error))
            }
        }
    }

    fn resource(&self) -> Option<String> {
        Some(self.0.address.to_string())
    }
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connect").field(&self.0.address.to_string()).finish()
    }
}
