//! `deadpool_redis::Pool`.
//!
//! Each round writes a value and reads it back, in one pipelined round trip on a connection of the application's own pool, as
//! the probes of [`redis`](super::redis) do. The pool asks `PING` of a connection before it gives it, which is a round trip of
//! its own, and not to be switched off.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, reset, no such host | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | wrong password, no permission | [`ProbeErrorKind::Rejected`] | DOWN |
//! | no answer, also not to a new connection | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | all connections are in use, and the server lets further ones in | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | `READONLY`, `OOM`, `MISCONF`, `NOREPLICAS` | [`ProbeErrorKind::ReadOnly`] | DOWN |
//! | `LOADING`, another value read than written, the pool is closed, anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! The question waits for no connection. Whether a pool that is all in use belongs to a busy server or to a frozen one is found
//! out with one connection beside it, which is closed again; the same is done where the pool is silent for 300 ms. A connection
//! whose question was given up is closed, and not given back.
//!
//! The pools for clusters and for Sentinel are no probes.
//!
//! [`ProbeErrorKind::Failed`]: crate::ProbeErrorKind::Failed
//! [`ProbeErrorKind::ReadOnly`]: crate::ProbeErrorKind::ReadOnly
//! [`ProbeErrorKind::Rejected`]: crate::ProbeErrorKind::Rejected
//! [`ProbeErrorKind::Saturated`]: crate::ProbeErrorKind::Saturated
//! [`ProbeErrorKind::TimedOut`]: crate::ProbeErrorKind::TimedOut
//! [`ProbeErrorKind::Unreachable`]: crate::ProbeErrorKind::Unreachable

use std::sync::Arc;

use deadpool_redis::{Manager, Pool, PoolError};

use super::{deadpool::DeadpoolProbe, driver::Described, pooled_redis::WriteAndRead};
use crate::{
    error::ProbeError,
    probe::{DynProbe, Probe},
};

impl Probe for Pool {
    const GROUP: &'static str = "cache";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        DeadpoolProbe::new(WriteAndRead, self, name).run().await
    }

    fn resource(&self) -> Option<String> {
        Some(name(self.manager()))
    }

    fn kept(&self) -> Option<Arc<dyn DynProbe>> {
        Some(Arc::new(DeadpoolProbe::new(WriteAndRead, self, name)))
    }
}

impl From<PoolError> for ProbeError {
    fn from(error: PoolError) -> Self {
        Self::from_error(error)
    }
}

/// A manager has no accessor for its client, but prints it.
fn name(manager: &Manager) -> String {
    super::redis::name(Described::by_debug(manager).address("addr: Tcp(", ", ").as_ref())
}
