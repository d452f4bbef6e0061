//! `bb8::Pool<PostgresConnectionManager<_>>` of bb8-postgres.
//!
//! Each run executes `SELECT 1` on a connection of the application's own pool, with the simple protocol: one round trip, without a
//! prepared statement. Before that the pool executes an empty query, which is another round trip, unless it is built with
//! `test_on_check_out(false)`.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, reset, no such host, shutting down or starting up | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | wrong password, no such database, no permission, TLS | [`ProbeErrorKind::Rejected`] | DOWN |
//! | no response, not on a new connection either | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | an idle connection is silent, and another idle one responds | | UP |
//! | idle connections are silent, and a new one responds | [`ProbeErrorKind::TimedOut`] | DEGRADED |
//! | the pool is exhausted, and the server accepts further connections, or is full | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | the server is full, and the pool has no connection | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! bb8 retries failed attempts to connect without an error, so a connection outside the pool finds out why they fail. A silent connection
//! stays in the pool, because a client has no method that closes it: the check is DEGRADED until the operating system closes the
//! connection, after the `tcp_user_timeout` of the application's `Config`. A pool does not expose its address, so messages do not contain
//! one.
//!
//! A warm pool that is not exhausted is probed only on its own connections. While the pool is exhausted, is slow to open a connection, or
//! has a silent idle one, the check opens a connection outside it, queries and closes it, at most once in 2 s (once in 900 ms while the
//! server cannot be connected to). It opens a second one concurrently only if the first gets no response for 2 s. Each replica of the
//! application does so.

use ::{
    bb8::{ManageConnection, Pool},
    tokio_postgres::{Client, Error, Socket, tls::MakeTlsConnect},
};
use bb8_postgres::PostgresConnectionManager;

use super::tokio_postgres::{LABEL, select_one};
#[cfg(doc)]
use crate::ProbeErrorKind;
use crate::{
    probe::library_probe,
    probes::pool::{bb8::Bb8Probe, driver::Driver},
};

library_probe! {
    "database" <T>,
    Pool<PostgresConnectionManager<T>> where {
        T: MakeTlsConnect<Socket> + 'static,
        PostgresConnectionManager<T>: ManageConnection<Connection = Client, Error = Error>,
    } => |pool: &Pool<PostgresConnectionManager<T>>| Bb8Probe::new(Postgres, pool, LABEL)
}

#[derive(Clone, Copy)]
struct Postgres;

impl Driver for Postgres {
    type Connection = Client;
    type Error = Error;

    // A pool that tests connections executes an empty query before.
    const QUERIES: u32 = 2;

    async fn query(client: &mut Client) -> Result<(), Error> {
        select_one(client).await
    }
}
