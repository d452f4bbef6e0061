//! `bb8::Pool<RedisConnectionManager>` of bb8-redis.
//!
//! Each run writes a value and reads it back, in one pipelined round trip on a connection of the application's own pool, as
//! the probes of [`redis`](super::redis) do. The pool sends a `PING` before it hands a connection out, which is a round trip of
//! its own, unless it is built with `test_on_check_out(false)`: but then it never replaces a connection that has died, and once
//! all have, it is DOWN for good, for the application as for its check.
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
//! | `LOADING`, another value read than written, anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! bb8 retries a failed attempt to connect in silence, so one connection outside the pool shows why it fails. It does not give
//! connections away: a silent one is closed by the pool's own test of it, once the driver has given it up after 500 ms. A pool does
//! not expose where it connects to, so the messages have no address.
//!
//! A warm pool that is not exhausted is probed on its own connections only. What more a probe may cost the server, of each replica
//! of the application: while the pool is exhausted, while it has to open a connection and is slow at it, or while an idle one is
//! silent, one connection is opened outside the pool, queried and closed, at most once in 2 s (once in 900 ms while it cannot
//! connect). A second one is opened beside it only if it gets no response for 2 s.
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
