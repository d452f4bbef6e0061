//! `deadpool_lapin::Pool`. `probes::lapin` has connections and channels without a pool.
//!
//! Each run opens a channel on a connection of the pool and closes it, in two round trips, because a pooled connection has to be returned
//! without additional channels.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, reset, no such host | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | wrong password, no such virtual host | [`ProbeErrorKind::Rejected`] | DOWN |
//! | no response, not on a new connection either | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | an idle connection is silent, and another idle one responds | | UP |
//! | idle connections are silent, and a new one responds | [`ProbeErrorKind::TimedOut`] | DEGRADED |
//! | the pool is exhausted, and the broker accepts further connections | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | memory or disk alarm, of which the broker has notified an idle connection | [`ProbeErrorKind::ReadOnly`] | DOWN |
//! | the pool is closed; anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! A warm pool that is not exhausted is probed only on its own connections. While the pool is exhausted, is slow to open a connection, or
//! has a silent idle one, the check opens a connection outside it, queries and closes it, at most once in 2 s (once in 900 ms while the
//! server cannot be connected to). It opens a second one concurrently only if the first gets no response for 2 s. Each replica of the
//! application does so. An attempt to connect that hangs is never cancelled, because lapin would leak its thread, so there are at most two.
//!
//! [`ProbeErrorKind::Failed`]: crate::ProbeErrorKind::Failed
//! [`ProbeErrorKind::ReadOnly`]: crate::ProbeErrorKind::ReadOnly
//! [`ProbeErrorKind::Rejected`]: crate::ProbeErrorKind::Rejected
//! [`ProbeErrorKind::Saturated`]: crate::ProbeErrorKind::Saturated
//! [`ProbeErrorKind::TimedOut`]: crate::ProbeErrorKind::TimedOut
//! [`ProbeErrorKind::Unreachable`]: crate::ProbeErrorKind::Unreachable

use std::sync::Arc;

use deadpool_lapin::{Manager, Pool};
use lapin::{
    Connection,
    uri::{AMQPAuthority, AMQPUri},
};

use super::lapin::{LABEL, REPLY_SUCCESS, blocked};
use crate::{
    error::ProbeError,
    probe::{LibraryProbe, library_probe},
    probes::{
        pool::{deadpool::DeadpoolProbe, driver::Driver},
        support::{address::Address, debug_fields::DebugFields, label::Label, single_flight::SingleFlight},
    },
};

library_probe! { "queue", Pool => PoolProbe::of }

/// A pool and its probe. A run is not cancelled, because lapin leaks a thread and a connection if an attempt to connect is dropped.
struct PoolProbe {
    pool: Pool,
    probe: Arc<DeadpoolProbe<Amqp, Manager>>,
    in_flight: SingleFlight<Result<(), ProbeError>>,
}

impl PoolProbe {
    fn of(pool: &Pool) -> Self {
        let probe = Arc::new(DeadpoolProbe::new(Amqp, pool, label));
        Self { pool: pool.clone(), probe, in_flight: SingleFlight::abandoning_lost_work() }
    }
}

impl LibraryProbe for PoolProbe {
    async fn probe(&self) -> Result<(), ProbeError> {
        // An alarm is for the whole broker, but it notifies only connections that have published since.
        let mut is_blocked = false;
        self.pool.retain(|idle, _| {
            is_blocked |= idle.status().blocked();
            true
        });
        if is_blocked {
            return Err(blocked(&label(self.pool.manager())));
        }
        // The task does not belong to the run, so its values are lost.
        self.probe.usage().observe();
        let probe = Arc::clone(&self.probe);
        self.in_flight.join_or_spawn(async move { probe.probe().await }).await
    }

    fn resource(&self) -> Option<String> {
        self.probe.resource()
    }

    fn address(&self) -> Option<usize> {
        self.probe.address()
    }
}

/// The pool's connections. Each run opens a channel and closes it, so that connections are returned unchanged.
#[derive(Clone, Copy)]
struct Amqp;

impl Driver for Amqp {
    type Connection = Connection;
    type Error = lapin::Error;

    const QUERIES: u32 = 1;
    const CANCEL_SAFE: bool = false;

    async fn query(connection: &mut Connection) -> lapin::Result<()> {
        connection.create_channel().await?.close(REPLY_SUCCESS, "OK".into()).await
    }

    async fn close(connection: Connection) {
        // The result of the run is known.
        let _ = connection.close(REPLY_SUCCESS, "OK".into()).await;
    }
}

/// Returns what messages call the broker of a pool. Its manager has no accessor for that, but its `Debug` output contains the URL, with
/// the password.
fn label(manager: &Manager) -> Label {
    let uri: Option<AMQPUri> = DebugFields::of(manager).text("addr: ").and_then(|uri| uri.parse().ok());
    match uri.map(|uri| uri.authority) {
        Some(AMQPAuthority { host, port, userinfo }) => {
            LABEL.at(Address { host, port }).with_password(Some(userinfo.password))
        }
        None => LABEL,
    }
}
