//! `deadpool_postgres::Pool`.
//!
//! Each run executes `SELECT 1` on a connection of the application's own pool, with the simple protocol: one round trip, without a
//! prepared statement. A pool that verifies connections (`RecyclingMethod::Verified` or `Clean`) takes another round trip before that.
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
//! | disk full | [`ProbeErrorKind::ReadOnly`] | DOWN |
//! | the pool is closed; anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! The check does not wait for a connection that is in use. A silent connection is closed instead of returned to the pool.
//!
//! A warm pool that is not exhausted is probed only on its own connections. While the pool is exhausted, is slow to open a connection, or
//! has a silent idle one, the check opens a connection outside it, queries and closes it, at most once in 2 s (once in 900 ms while the
//! server cannot be connected to). It opens a second one concurrently only if the first gets no response for 2 s. Each replica of the
//! application does so.

use std::sync::Arc;

use ::tokio_postgres::Error;
use deadpool_postgres::{ClientWrapper, Manager, Pool, PoolError};

use super::{
    deadpool::DeadpoolProbe,
    driver::{Address, DebugFields},
    pooled::Driver,
    tokio_postgres,
};
use crate::{
    error::{ProbeError, ProbeErrorKind},
    probe::{DynProbe, Probe},
};

impl Probe for Pool {
    const GROUP: &'static str = "database";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        DeadpoolProbe::new(Postgres, self, name).run().await
    }

    fn resource(&self) -> Option<String> {
        Some(name(self.manager()))
    }

    fn kept(&self) -> Option<Arc<dyn DynProbe>> {
        Some(Arc::new(DeadpoolProbe::new(Postgres, self, name)))
    }
}

impl From<PoolError> for ProbeError {
    fn from(error: PoolError) -> Self {
        Self::from_error(error)
    }
}

#[derive(Clone, Copy)]
struct Postgres;

impl Driver for Postgres {
    type Connection = ClientWrapper;
    type Error = Error;

    // A pool that verifies connections runs a query of its own before.
    const QUERIES: u32 = 2;

    async fn query(client: &mut ClientWrapper) -> Result<(), Error> {
        tokio_postgres::select_one(client).await
    }

    fn classify(error: &Error) -> ProbeErrorKind {
        tokio_postgres::classify(error)
    }
}

/// A manager has no accessor for its address, but its `Debug` output contains it.
fn name(manager: &Manager) -> String {
    let fields = DebugFields::of(manager);
    let default_port =
        || Some(Address { host: fields.text("host: [Tcp(")?, port: 5432 }).filter(|_| fields.0.contains("port: []"));
    fields
        .address("host: [Tcp(", "port: [")
        .or_else(default_port)
        .map_or_else(|| "postgres".to_owned(), |address| format!("postgres at {address}"))
}

#[cfg(test)]
mod tests {
    use ::tokio_postgres::{Config, NoTls};

    use super::*;

    #[test]
    fn a_name_contains_a_host_and_a_port_but_no_path() {
        let named =
            |config: &Config| Pool::builder(Manager::new(config.clone(), NoTls)).build().unwrap().resource().unwrap();
        let config = || Config::new().user("a/b@c").password("p").clone();
        assert_eq!(named(config().host("db.internal").port(5433)), "postgres at db.internal:5433");
        assert_eq!(named(config().host("db.internal")), "postgres at db.internal:5432");
        assert_eq!(named(config().host("::1").port(5433)), "postgres at [::1]:5433");
        assert_eq!(named(config().host("/run/postgresql").port(5433)), "postgres");
        // A user name cannot forge the address.
        assert_eq!(named(config().user("host: [Tcp(\"h\")], port: [1]").host("::1").port(5433)), "postgres");
    }
}
