//! `deadpool_postgres::Pool`.
//!
//! Each run executes `SELECT 1` on a connection of the application's own pool: the simple protocol, so one round trip, and
//! nothing is prepared. A pool that verifies connections (`RecyclingMethod::Verified` or `Clean`) takes a round trip of its own
//! before that.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, reset, no such host, shutting down or starting up | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | wrong password, no such database, no permission, TLS | [`ProbeErrorKind::Rejected`] | DOWN |
//! | no answer, also not to a new connection | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | an idle connection is silent, and another idle one responds | | UP |
//! | idle connections are silent, and a new one responds | [`ProbeErrorKind::TimedOut`] | DEGRADED |
//! | the pool is exhausted, and the server accepts further connections, or is full | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | the server is full, and the pool has no connection | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | disk full | [`ProbeErrorKind::ReadOnly`] | DOWN |
//! | the pool is closed; anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! The query waits for no connection. One that is silent is closed, and not given back.
//!
//! A warm pool that is not exhausted is probed on its own connections only. What more a probe may cost the server, of each replica
//! of the application: while the pool is exhausted, while it has to open a connection and is slow at it, or while an idle one is
//! silent, one connection is opened outside the pool, queried and closed, at most once in 2 s (once in 900 ms while it cannot
//! connect). A second one is opened beside it only if it gets no response for 2 s.

use std::sync::Arc;

use ::tokio_postgres::Error;
use deadpool_postgres::{ClientWrapper, Manager, Pool, PoolError};

use super::{
    deadpool::DeadpoolProbe,
    driver::{Address, Described},
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

    // The pool's `SELECT 1` or empty query before ours, where it verifies connections.
    const ROUND_TRIPS: u32 = 2;

    async fn query(client: &mut ClientWrapper) -> Result<(), Error> {
        tokio_postgres::ask(client).await
    }

    fn classify(error: &Error) -> ProbeErrorKind {
        tokio_postgres::classify(error)
    }
}

/// A manager has no accessor for where it connects to, but prints it.
fn name(manager: &Manager) -> String {
    let described = Described::by_debug(manager);
    let default_port = || {
        Some(Address { host: described.text("host: [Tcp(")?, port: 5432 }).filter(|_| described.0.contains("port: []"))
    };
    described
        .address("host: [Tcp(", "port: [")
        .or_else(default_port)
        .map_or_else(|| "postgres".to_owned(), |address| format!("postgres at {address}"))
}

#[cfg(test)]
mod tests {
    use ::tokio_postgres::{Config, NoTls};

    use super::*;

    #[test]
    fn a_sentence_names_a_host_and_a_port_and_no_path() {
        let named =
            |config: &Config| Pool::builder(Manager::new(config.clone(), NoTls)).build().unwrap().resource().unwrap();
        let config = || Config::new().user("a/b@c").password("p").clone();
        assert_eq!(named(config().host("db.internal").port(5433)), "postgres at db.internal:5433");
        assert_eq!(named(config().host("db.internal")), "postgres at db.internal:5432");
        assert_eq!(named(config().host("::1").port(5433)), "postgres at [::1]:5433");
        assert_eq!(named(config().host("/run/postgresql").port(5433)), "postgres");
        // Whoever may choose the user's name does not choose what is told.
        assert_eq!(named(config().user("host: [Tcp(\"h\")], port: [1]").host("::1").port(5433)), "postgres");
    }
}
