//! `bb8::Pool<RedisConnectionManager>` of bb8-redis.
//!
//! Each round writes a value and reads it back, in one pipelined round trip on a connection of the application's own pool, as
//! the probes of [`redis`](super::redis) do. The pool asks `PING` of a connection before it gives it, which is a round trip of
//! its own, unless it is built with `test_on_check_out(false)`: but then it never replaces a connection that has died, and once
//! all have it is down for good, for the application as for its check.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, reset, no such host | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | wrong password, no permission | [`ProbeErrorKind::Rejected`] | DOWN |
//! | no answer, also not to a new connection | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | all connections are in use, and the server lets further ones in | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | `READONLY`, `OOM`, `MISCONF`, `NOREPLICAS` | [`ProbeErrorKind::ReadOnly`] | DOWN |
//! | `LOADING`, another value read than written, anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! A pool of bb8 tries again and again to connect, and says nothing until its own time is over. So the server is asked beside
//! the pool, with one connection that is closed again: after 100 ms where the pool has to connect, after 300 ms where it has an
//! idle connection, and at once where all are in use. A pool does not tell where it connects to, and so neither do the
//! messages.
//!
//! bb8 gives no connection away: one whose question was given up goes back to the pool. Its driver keeps answers in order, so
//! who asks next waits for that one's answer, or for the driver's limit.
//!
//! [`ProbeErrorKind::Failed`]: crate::ProbeErrorKind::Failed
//! [`ProbeErrorKind::ReadOnly`]: crate::ProbeErrorKind::ReadOnly
//! [`ProbeErrorKind::Rejected`]: crate::ProbeErrorKind::Rejected
//! [`ProbeErrorKind::Saturated`]: crate::ProbeErrorKind::Saturated
//! [`ProbeErrorKind::TimedOut`]: crate::ProbeErrorKind::TimedOut
//! [`ProbeErrorKind::Unreachable`]: crate::ProbeErrorKind::Unreachable

use std::sync::Arc;

use ::bb8::{Pool, RunError};
use bb8_redis::RedisConnectionManager;
use redis::RedisError;

use super::{bb8::Bb8Probe, pooled_redis::WriteAndRead};
use crate::{
    error::ProbeError,
    probe::{DynProbe, Probe},
};

/// A pool does not expose where it connects to.
const DISPLAY_NAME: &str = "redis";

impl Probe for Pool<RedisConnectionManager> {
    const GROUP: &'static str = "cache";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        Bb8Probe::new(WriteAndRead, self, DISPLAY_NAME).run().await
    }

    fn resource(&self) -> Option<String> {
        Some(DISPLAY_NAME.to_owned())
    }

    fn kept(&self) -> Option<Arc<dyn DynProbe>> {
        Some(Arc::new(Bb8Probe::new(WriteAndRead, self, DISPLAY_NAME)))
    }
}

impl From<RunError<RedisError>> for ProbeError {
    fn from(error: RunError<RedisError>) -> Self {
        Self::from_error(error)
    }
}
