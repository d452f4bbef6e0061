//! `bb8::Pool<RedisConnectionManager>` of bb8-redis.
//!
//! Each run writes a value and reads it back, in one pipelined round trip on a connection of the application's own pool, as the probes
//! of [`redis`](super::redis) do. Before that the pool sends a `PING`, unless it is built with `test_on_check_out(false)`. Then it never
//! replaces a dead connection: once all are dead, the check and every operation of the application fail until a restart.
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
//! | `LOADING`, another value read than written, anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! bb8 retries failed attempts to connect without an error, so a connection outside the pool finds out why they fail. A silent connection
//! is closed by the pool's own test of it, when the driver times out after 500 ms. A pool does not expose its address, so messages do
//! not contain one.
//!
//! A warm pool that is not exhausted is probed only on its own connections. While the pool is exhausted, is slow to open a connection, or
//! has a silent idle one, the check opens a connection outside it, queries and closes it, at most once in 2 s (once in 900 ms while the
//! server cannot be connected to). It opens a second one concurrently only if the first gets no response for 2 s. Each replica of the
//! application does so.
//!
//! [`ProbeErrorKind::Failed`]: crate::ProbeErrorKind::Failed
//! [`ProbeErrorKind::ReadOnly`]: crate::ProbeErrorKind::ReadOnly
//! [`ProbeErrorKind::Rejected`]: crate::ProbeErrorKind::Rejected
//! [`ProbeErrorKind::Saturated`]: crate::ProbeErrorKind::Saturated
//! [`ProbeErrorKind::TimedOut`]: crate::ProbeErrorKind::TimedOut
//! [`ProbeErrorKind::Unreachable`]: crate::ProbeErrorKind::Unreachable

use ::bb8::Pool;
use bb8_redis::RedisConnectionManager;

use super::{pooled_redis::WriteAndRead, redis::LABEL};
use crate::{probe::library_probe, probes::pool::bb8::Bb8Probe};

library_probe! {
    "cache",
    Pool<RedisConnectionManager> => |pool: &Pool<RedisConnectionManager>| Bb8Probe::new(WriteAndRead, pool, LABEL)
}
