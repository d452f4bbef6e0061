//! [`Connect`]: a server that can be connected to.
//!
//! Each run looks up the name, opens a TCP connection and closes it at once. That proves little: the operating system accepts
//! connections for a server that hangs, so such a server is UP. Where the server itself can be queried (`probes::http`, or a
//! [`Probe`] of your own), do that. A server may log a connection that ends without data.
//!
//! What a run costs the server: one connection. Where it is silent, as behind a firewall that drops packets, another one is
//! opened every 2 s.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, reset, no route, no such host | [`ProbeErrorKind::Unreachable`](crate::ProbeErrorKind::Unreachable) | DOWN |
//! | a firewall that swallows it: no answer by the deadline | [`ProbeErrorKind::TimedOut`](crate::ProbeErrorKind::TimedOut) | DOWN |
//! | the own system forbids it | [`ProbeErrorKind::Rejected`](crate::ProbeErrorKind::Rejected) | DOWN |

use std::fmt;

use super::{
    InvalidProbe,
    destination::Destination,
    support::attempts::{INTERVAL, first_result},
};
use crate::{
    error::{ProbeError, classify_io},
    probe::Probe,
};

/// Connects to a host and port: up if the connection is accepted.
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
pub struct Connect(Destination);

impl Connect {
    /// Connects to `host:port`, or `[address]:port` for an IPv6 address.
    ///
    /// # Errors
    ///
    /// It is no such address. Whether there is such a host, the probe finds out.
    pub fn new(address: impl AsRef<str>) -> Result<Self, InvalidProbe> {
        Destination::parse(address.as_ref()).map(Self)
    }
}

impl Probe for Connect {
    const GROUP: &'static str = "service";
    const NEVER_BLOCKS: bool = true;

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
