//! `deadpool_redis::Pool`.
//!
//! Each run writes a value and reads it back, in one pipelined round trip on a connection of the application's own pool, as
//! the probes of [`redis`](super::redis) do. Before that the pool sends a `PING`, which cannot be disabled.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, reset, no such host | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | wrong password, no permission | [`ProbeErrorKind::Rejected`] | DOWN |
//! | no response, not on a new connection either | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | an idle connection is silent, and another idle one responds | | UP |
//! | idle connections are silent, and a new one responds | [`ProbeErrorKind::TimedOut`] | DEGRADED |
//! | the pool is exhausted, and the server accepts further connections | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | `READONLY`, `OOM`, `MISCONF`, `NOREPLICAS` | [`ProbeErrorKind::ReadOnly`] | DOWN |
//! | `LOADING`, another value read than written, the pool is closed, anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! The check does not wait for a connection that is in use. A silent connection is closed instead of returned to the pool.
//!
//! A warm pool that is not exhausted is probed only on its own connections. While the pool is exhausted, is slow to open a connection, or
//! has a silent idle one, the check opens a connection outside it, queries and closes it, at most once in 2 s (once in 900 ms while the
//! server cannot be connected to). It opens a second one concurrently only if the first gets no response for 2 s. Each replica of the
//! application does so.
//!
//! The pools for clusters and for Sentinel are not supported.
//!
//! [`ProbeErrorKind::Failed`]: crate::ProbeErrorKind::Failed
//! [`ProbeErrorKind::ReadOnly`]: crate::ProbeErrorKind::ReadOnly
//! [`ProbeErrorKind::Rejected`]: crate::ProbeErrorKind::Rejected
//! [`ProbeErrorKind::Saturated`]: crate::ProbeErrorKind::Saturated
//! [`ProbeErrorKind::TimedOut`]: crate::ProbeErrorKind::TimedOut
//! [`ProbeErrorKind::Unreachable`]: crate::ProbeErrorKind::Unreachable

use deadpool_redis::{Manager, Pool};

use super::{pooled_redis::WriteAndRead, redis::LABEL};
use crate::{
    probe::library_probe,
    probes::{
        pool::deadpool::DeadpoolProbe,
        support::{debug_fields::DebugFields, label::Label},
    },
};

library_probe! { "cache", Pool => |pool: &Pool| DeadpoolProbe::new(WriteAndRead, pool, label) }

/// A manager has no accessor for its client, but its `Debug` output contains the address.
fn label(manager: &Manager) -> Label {
    LABEL.at(DebugFields::of(manager).address("addr: Tcp(", ", "))
}
