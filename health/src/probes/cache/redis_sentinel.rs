//! `redis::sentinel::SentinelClient`, in an `Arc<tokio::sync::Mutex<…>>`: it can't be used by several tasks otherwise.
//!
//! Each run writes a unique value on the master and reads it back, in one round trip, on a connection that the check reuses. If that
//! fails, for example because the master has become a replica, the run queries the sentinels for the master and is repeated there, so
//! the check follows a failover within one run. The application's client is locked only while the sentinels are queried.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | no sentinel or no master can be connected to, or no sentinel knows the master | [`ProbeErrorKind::Unreachable`](crate::ProbeErrorKind::Unreachable) | DOWN |
//! | wrong password, no permission | [`ProbeErrorKind::Rejected`](crate::ProbeErrorKind::Rejected) | DOWN |
//! | no response within the connection's own time | [`ProbeErrorKind::TimedOut`](crate::ProbeErrorKind::TimedOut) | DOWN |
//! | the master is read-only: out of memory, a full disk, too few replicas | [`ProbeErrorKind::ReadOnly`](crate::ProbeErrorKind::ReadOnly) | DOWN |
//! | another value read than written, anything else | [`ProbeErrorKind::Failed`](crate::ProbeErrorKind::Failed) | DOWN |
//!
//! The connection is reused for 30 s, then the sentinels are queried for the next one. So the check notices within a minute that none of
//! them responds, or that they name another master while the old one still accepts writes. A client of replicas
//! (`SentinelServerType::Replica`) cannot write and is DOWN; use [`redis::ping`](super::redis::ping) for it.
//!
//! What a run costs the servers: one pipelined `SET` and `GET`. Every 30 s, and in each run that fails, it also opens one
//! connection to a sentinel and one to the master.

use std::sync::Arc;

use redis::{Client, RedisResult, aio::MultiplexedConnection, sentinel::SentinelClient};
use tokio::sync::Mutex;

use super::redis::{label_of_client, ping_on, sealed::Ping, write_and_read_back};
use crate::{
    error::ProbeError,
    probe::{LibraryProbe, library_probe},
    probes::support::{
        label::Label,
        reused_connection::{Connector, ReusedConnection},
        round_trip::unique_key,
    },
};

/// What messages call a master that the sentinels have not named.
const LABEL: Label = Label::new("the redis master");

library_probe! {
    "cache",
    Arc<Mutex<SentinelClient>> => |client: &Arc<Mutex<SentinelClient>>| ReusedConnection::new(MasterConnector(Arc::clone(client)))
}

impl Ping for Mutex<SentinelClient> {
    async fn ping(&self) -> Result<(), ProbeError> {
        let Master { mut connection, label } = connect(self).await?;
        ping_on(&mut connection).await.map_err(|error| label.error(error))
    }
}

/// Connects to the master that the sentinels name.
struct MasterConnector(Arc<Mutex<SentinelClient>>);

/// A connection to the server that was the master when it was opened.
struct Master {
    connection: MultiplexedConnection,
    label: Label,
}

impl Connector for MasterConnector {
    type Connection = Master;
    type Error = ProbeError;

    async fn connect(&self) -> Result<Master, ProbeError> {
        connect(&self.0).await
    }

    async fn query(&self, master: &mut Master) -> Result<bool, ProbeError> {
        let written = write_and_read_back(&mut master.connection, &unique_key()).await;
        written.map(|()| true).map_err(|error| master.label.error(error))
    }
}

impl LibraryProbe for ReusedConnection<MasterConnector> {
    async fn probe(&self) -> Result<(), ProbeError> {
        self.query().await
    }

    fn resource(&self) -> Option<String> {
        Some(self.inspect(|master| master.label.to_string()).unwrap_or_else(|| LABEL.to_string()))
    }
}

async fn connect(client: &Mutex<SentinelClient>) -> Result<Master, ProbeError> {
    let named: RedisResult<Client> = client.lock().await.async_get_client().await;
    let master = named.map_err(|error| LABEL.error(error))?;
    let label = label_of_client(&master);
    match master.get_multiplexed_async_connection().await {
        Ok(connection) => Ok(Master { connection, label }),
        Err(error) => Err(label.error(error)),
    }
}
