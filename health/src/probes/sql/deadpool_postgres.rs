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
//! | the pool is closed; anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! The check does not wait for a connection that is in use. A silent connection is closed instead of returned to the pool.
//!
//! A warm pool that is not exhausted is probed only on its own connections. While the pool is exhausted, is slow to open a connection, or
//! has a silent idle one, the check opens a connection outside it, queries and closes it, at most once in 2 s (once in 900 ms while the
//! server cannot be connected to). It opens a second one concurrently only if the first gets no response for 2 s. Each replica of the
//! application does so.

use ::tokio_postgres::Error;
use deadpool_postgres::{ClientWrapper, Manager, Pool};

use super::tokio_postgres::select_one;
#[cfg(doc)]
use crate::ProbeErrorKind;
use crate::{
    probe::library_probe,
    probes::{
        pool::{deadpool::DeadpoolProbe, driver::Driver},
        support::{address::Address, debug_fields::DebugFields, label::Label},
    },
};

library_probe! { "database", Pool => |pool: &Pool| DeadpoolProbe::new(Postgres, pool, label) }

#[derive(Clone, Copy)]
struct Postgres;

impl Driver for Postgres {
    type Connection = ClientWrapper;
    type Error = Error;

    // A pool that verifies connections runs a query of its own before.
    const QUERIES: u32 = 2;

    async fn query(client: &mut ClientWrapper) -> Result<(), Error> {
        select_one(client).await
    }
}

/// A manager has no accessor for its address, but its `Debug` output contains it.
fn label(manager: &Manager) -> Label {
    let fields = DebugFields::of(manager);
    let default_port =
        || Some(Address { host: fields.text("host: [Tcp(")?, port: 5432 }).filter(|_| fields.contains("port: []"));
    Label::new("postgres").at(fields.address("host: [Tcp(", "port: [").or_else(default_port))
}

#[cfg(test)]
mod tests {
    use ::tokio_postgres::{Config, NoTls};

    use super::*;
    use crate::probe::Probe as _;

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
