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

use std::{future::Future, pin::Pin, sync::Arc};

use redis::{Client, RedisError, RedisResult, aio::MultiplexedConnection, sentinel::SentinelClient};
use tokio::sync::Mutex;

use super::{
    driver::Address,
    redis::{address_of_client, classify, password_of, ping_on, sealed::Ping, write_and_read_back},
    support::reused_connection::{Connector, ReusedConnection},
    unique_key::unique_key,
};
use crate::{
    error::ProbeError,
    probe::{DynProbe, Probe},
};

impl Probe for Arc<Mutex<SentinelClient>> {
    const GROUP: &'static str = "cache";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        ReusedConnection::new(MasterConnector(Arc::clone(self))).probe().await
    }

    fn resource(&self) -> Option<String> {
        Some(name(None))
    }

    fn kept(&self) -> Option<Arc<dyn DynProbe>> {
        Some(Arc::new(ReusedConnection::new(MasterConnector(Arc::clone(self)))))
    }
}

impl Ping for Mutex<SentinelClient> {
    async fn ping(&self) -> Result<(), ProbeError> {
        let Master { mut connection, server } = connect(self).await?;
        Ok(ping_on(&mut connection).await.map_err(|error| server.failure(error))?)
    }
}

/// Connects to the master that the sentinels name.
struct MasterConnector(Arc<Mutex<SentinelClient>>);

/// A connection to the server that was the master when it was opened.
struct Master {
    connection: MultiplexedConnection,
    server: Server,
}

/// The server that the sentinels named, if any.
#[derive(Clone, Default)]
struct Server {
    address: Option<Address>,
    password: Option<String>,
}

/// A failure of a server.
struct Failure {
    server: Server,
    error: RedisError,
}

impl Connector for MasterConnector {
    type Connection = Master;
    type Error = Failure;

    async fn connect(&self) -> Result<Master, Failure> {
        connect(&self.0).await
    }

    async fn query(&self, master: &mut Master) -> Result<bool, Failure> {
        let written = write_and_read_back(&mut master.connection, &unique_key()).await;
        written.map(|()| true).map_err(|error| master.server.failure(error))
    }
}

impl DynProbe for ReusedConnection<MasterConnector> {
    fn probe(&self) -> Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + '_>> {
        Box::pin(async { Ok(self.query().await?) })
    }

    fn resource(&self) -> Option<String> {
        let address = self.inspect(|master| master.server.address.clone());
        Some(name(address.flatten().as_ref()))
    }

    fn never_blocks(&self) -> bool {
        true
    }
}

async fn connect(client: &Mutex<SentinelClient>) -> Result<Master, Failure> {
    let named: RedisResult<Client> = client.lock().await.async_get_client().await;
    let master = named.map_err(|error| Server::default().failure(error))?;
    let server = Server { address: address_of_client(&master), password: password_of(&master) };
    match master.get_multiplexed_async_connection().await {
        Ok(connection) => Ok(Master { connection, server }),
        Err(error) => Err(server.failure(error)),
    }
}

fn name(address: Option<&Address>) -> String {
    address.map_or_else(|| "the redis master".to_owned(), |address| format!("redis at {address}"))
}

impl Server {
    fn failure(&self, error: RedisError) -> Failure {
        Failure { server: self.clone(), error }
    }
}

impl From<Failure> for ProbeError {
    fn from(Failure { server, error }: Failure) -> Self {
        let kind = classify(&error);
        Self::new(kind, kind.message(&name(server.address.as_ref()))).with_source(error).with_secret(server.password)
    }
}
