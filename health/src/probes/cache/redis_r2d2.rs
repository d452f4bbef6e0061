//! `r2d2::Pool<redis::Client>`.
//!
//! Each run writes a value and reads it back, in one pipelined round trip on a connection of the application's own pool, as the probes of
//! [`redis`](super::redis) do, on one thread of tokio's blocking pool. A command that hangs cannot be cancelled: no other one starts until
//! it returns, so it blocks one thread, however often the check is polled. Before that the pool sends a `PING`, which is another round trip,
//! unless it is built with `test_on_check_out(false)`. A check never costs the server a connection outside the pool.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | the pool cannot connect: refused, wrong password | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | the connection breaks, and no other one works | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | no permission | [`ProbeErrorKind::Rejected`] | DOWN |
//! | no response | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | all connections of the pool are in use, for no longer than its own `connection_timeout` | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | `READONLY`, `OOM`, `MISCONF`, `NOREPLICAS` | [`ProbeErrorKind::ReadOnly`] | DOWN |
//! | `LOADING`, another value read than written, anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! A wrong password is [`ProbeErrorKind::Unreachable`] too, because r2d2 exposes only the text of a failed attempt to connect, which is in
//! the log. While all connections are in use, a busy server and a frozen one look the same, until none has become free for the pool's
//! `connection_timeout`. That is 30 s by default, which is also how long a request of the application waits while the server is stopped: set
//! a shorter one. A frozen server blocks a thread for each connection, because the pool's `PING` has no time limit.
//!
//! A pool does not expose its address, so messages do not contain one. The counters of the pool before a run are values of the run:
//! `connections_in_use`, `connections_idle` and `connections_max`.
//!
//! # Examples
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use health::HealthCheck;
//!
//! #[derive(HealthCheck)]
//! struct AppState {
//!     sessions: r2d2::Pool<redis::Client>, // cache.sessions
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = redis::Client::open("redis://10.0.0.7")?;
//! let pool = r2d2::Pool::builder().connection_timeout(Duration::from_secs(2)).build(client)?;
//! let state = AppState { sessions: pool };
//! # drop(state);
//! # Ok(())
//! # }
//! ```
//!
//! [`ProbeErrorKind::Failed`]: crate::ProbeErrorKind::Failed
//! [`ProbeErrorKind::ReadOnly`]: crate::ProbeErrorKind::ReadOnly
//! [`ProbeErrorKind::Rejected`]: crate::ProbeErrorKind::Rejected
//! [`ProbeErrorKind::Saturated`]: crate::ProbeErrorKind::Saturated
//! [`ProbeErrorKind::TimedOut`]: crate::ProbeErrorKind::TimedOut
//! [`ProbeErrorKind::Unreachable`]: crate::ProbeErrorKind::Unreachable

use ::redis::{Client, Connection, RedisError};
use r2d2::Pool;

use super::redis::{LABEL, verify, write_and_read};
use crate::{
    probe::library_probe,
    probes::{
        pool::r2d2::{BlockingDriver, R2d2Probe},
        support::{
            label::Label,
            round_trip::{nonce, unique_key},
        },
    },
};

library_probe! { "cache", Pool<Client> => R2d2Probe::<WriteAndRead>::of }

struct WriteAndRead;

impl BlockingDriver for WriteAndRead {
    type Manager = Client;
    type Error = RedisError;

    fn query(connection: &mut Connection) -> Result<(), RedisError> {
        let nonce = nonce();
        verify(write_and_read(&unique_key(), nonce).query(connection)?, nonce)
    }

    fn label() -> Label {
        LABEL
    }
}
