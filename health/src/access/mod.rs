//! Access control by address, without HTTP and without checks.
//!
//! [`Policy::evaluate`] takes the peer of a connection and the values of the forwarding header, and returns the address of the
//! client or the reason to deny it. `scope::guard` calls it for each request.

mod allow_list;
mod forwarded;
#[cfg(fuzzing)]
pub mod fuzzing;
mod log_throttle;
mod networks;
mod policy;

#[cfg(test)]
mod cases;

pub use self::{allow_list::AllowList, forwarded::ForwardingHeader, networks::ListError};
pub(crate) use self::{
    log_throttle::{LogDecision, LogThrottle, MAX_TRACKED},
    networks::NetworkSet,
    policy::{AccessDenied, AllowSource, Peer, Policy, TrustedProxies},
};
