//! `deadpool_redis::Pool`.
//!
//! Each run writes a value and reads it back, in one pipelined round trip on a connection of the application's own pool, as
//! the probes of [`redis`](super::redis) do. The pool sends a `PING` before it hands a connection out, which is a round trip of
//! its own and cannot be switched off.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, reset, no such host | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | wrong password, no permission | [`ProbeErrorKind::Rejected`] | DOWN |
//! | no answer, also not to a new connection | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | an idle connection is silent, and another idle one responds | | UP |
//! | idle connections are silent, and a new one responds | [`ProbeErrorKind::TimedOut`] | DEGRADED |
//! | the pool is exhausted, and the server accepts further connections | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | `READONLY`, `OOM`, `MISCONF`, `NOREPLICAS` | [`ProbeErrorKind::ReadOnly`] | DOWN |
//! | `LOADING`, another value read than written, the pool is closed, anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! The query waits for no connection. One that is silent is closed, and not given back.
//!
//! A warm pool that is not exhausted is probed on its own connections only. What more a probe may cost the server, of each replica
//! of the application: while the pool is exhausted, while it has to open a connection and is slow at it, or while an idle one is
//! silent, one connection is opened outside the pool, queried and closed, at most once in 2 s (once in 900 ms while it cannot
//! connect). A second one is opened beside it only if it gets no response for 2 s.
//!
//! The pools for clusters and for Sentinel are not probes.
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
