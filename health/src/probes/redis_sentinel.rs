//! `redis::sentinel::SentinelClient`, in an `Arc<tokio::sync::Mutex<…>>`: it can't be used by several tasks otherwise.
//!
//! Each run writes a unique value on the master and reads it back, in one round trip, on a connection that the check keeps. If
//! that fails, also because the master has become a replica, the sentinels are queried for the master, and the run is
//! repeated there: after a failover the check follows within one run. The client, which is the application's own, is locked
//! only while the sentinels are queried.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | no sentinel or no master to connect to, or no sentinel knows the master | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | wrong password, no permission | [`ProbeErrorKind::Rejected`] | DOWN |
//! | no answer within the connection's own time | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | the master takes no writes: out of memory, a full disk, too few replicas | [`ProbeErrorKind::ReadOnly`] | DOWN |
//! | another value read than written, anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! The connection is kept for 30 s, so the sentinels are queried every 30 s too: that none of them responds, or that they name
//! another master while the old one still takes writes, is seen within a minute, as by the application, which queries them for
//! each connection. A client of replicas (`SentinelServerType::Replica`) can't write and is DOWN; it is for
//! [`redis::ping`](super::redis::ping).
//!
//! What a run costs the servers: one pipelined `SET` and `GET`. Every 30 s, and in each run that fails, it also opens one
//! connection to a sentinel and one to the master.

use std::{future::Future, pin::Pin, sync::Arc};

use redis::{Client, RedisError, RedisResult, aio::MultiplexedConnection, sentinel::SentinelClient};
use tokio::sync::Mutex;

use super::{
    driver::Address,
    key,
    redis::{Answer, address_of_client, classify, password_of, ping_on, sealed::Ping, write_and_read_back},
    support::kept::{Connector, KeptConnection},
};
use crate::{
    error::{BoxError, ProbeError, ProbeErrorKind},
    probe::{DynProbe, Probe},
};

impl Probe for Arc<Mutex<SentinelClient>> {
    const GROUP: &'static str = "cache";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        KeptConnection::new(MasterConnector(Arc::clone(self))).probe().await
    }

    fn resource(&self) -> Option<String> {
        Some(name(None))
    }

    fn kept(&self) -> Option<Arc<dyn DynProbe>> {
        Some(Arc::new(KeptConnection::new(MasterConnector(Arc::clone(self)))))
    }
}

impl Ping for Mutex<SentinelClient> {
    async fn ping(&self) -> Result<(), ProbeError> {
        let Master { mut connection, server } = connect(self).await?;
        match ping_on(&mut connection).await {
            Ok(Answer::AsWritten) => Ok(()),
            Ok(Answer::Other) => Err(server.failure(ProbeErrorKind::Failed, "the response to PING is not PONG").into()),
            Err(error) => Err(server.driver_failure(error).into()),
        }
    }
}

/// Connects to the master that the sentinels name.
struct MasterConnector(Arc<Mutex<SentinelClient>>);

/// A connection to the master as it was then.
struct Master {
    connection: MultiplexedConnection,
    server: Server,
}

/// The server that the sentinels named, if they did.
#[derive(Clone, Default)]
struct Server {
    address: Option<Address>,
    password: Option<String>,
}

/// A failure and the server that it is of.
struct Failure {
    server: Server,
    kind: ProbeErrorKind,
    source: BoxError,
}

impl Connector for MasterConnector {
    type Connection = Master;
    type Error = Failure;

    async fn connect(&self) -> Result<Master, Failure> {
        connect(&self.0).await
    }

    async fn query(&self, master: &mut Master) -> Result<bool, Failure> {
        let written = write_and_read_back(&mut master.connection, &key::fresh()).await;
        written.map(|()| true).map_err(|error| master.server.driver_failure(error))
    }
}

impl DynProbe for KeptConnection<MasterConnector> {
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
    let master = named.map_err(|error| Server::default().driver_failure(error))?;
    let server = Server { address: address_of_client(&master), password: password_of(&master) };
    match master.get_multiplexed_async_connection().await {
        Ok(connection) => Ok(Master { connection, server }),
        Err(error) => Err(server.driver_failure(error)),
    }
}

fn name(address: Option<&Address>) -> String {
    address.map_or_else(|| "the redis master".to_owned(), |address| format!("redis at {address}"))
}

impl Server {
    fn driver_failure(&self, error: RedisError) -> Failure {
        self.failure(classify(&error), error)
    }

    fn failure(&self, kind: ProbeErrorKind, source: impl Into<BoxError>) -> Failure {
        Failure { server: self.clone(), kind, source: source.into() }
    }
}

impl From<Failure> for ProbeError {
    fn from(Failure { server, kind, source }: Failure) -> Self {
        Self::new(kind, kind.message(&name(server.address.as_ref()))).with_source(source).with_secret(server.password)
    }
}
