//! `redis::sentinel::SentinelClient`, in an `Arc<tokio::sync::Mutex<…>>`: it can't be asked otherwise by several tasks.
//!
//! Each round writes a fresh value on the master and reads it back, in one round trip, on a connection that the check keeps. If
//! that fails, also because the master has become a replica, the sentinels are asked who the master is, and the question is
//! asked there: after a failover the check follows within a round. The client, which is the application's own, is locked while the
//! sentinels are asked, and only then.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | no sentinel or no master to connect to, or no sentinel knows the master | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | wrong password, no permission | [`ProbeErrorKind::Rejected`] | DOWN |
//! | no answer within the connection's own time | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | the master takes no writes: out of memory, a full disk, too few replicas | [`ProbeErrorKind::ReadOnly`] | DOWN |
//! | another value read than written, anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! While the master answers, the sentinels are not asked: that all of them are gone shows at the next failover, or when the
//! process starts; and an old master that does not know yet that it is none is believed, as the application's own connections
//! to it are. A client of replicas (`SentinelServerType::Replica`) takes no writes, and is DOWN so; it is for
//! [`redis::ping`](super::redis::ping).

use std::{future::Future, pin::Pin, sync::Arc};

use redis::{Client, ConnectionAddr, RedisResult, aio::MultiplexedConnection, sentinel::SentinelClient};
use tokio::sync::Mutex;

use super::{
    driver::Address,
    redis::{Answer, ask, classify, ping_on, sealed::Ping},
};
use crate::{
    error::{ProbeError, ProbeErrorKind},
    probe::{DynProbe, Probe},
};

impl Probe for Arc<Mutex<SentinelClient>> {
    const GROUP: &'static str = "cache";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        Kept::new(self).ask().await
    }

    fn resource(&self) -> Option<String> {
        Some(name(None))
    }

    fn kept(&self) -> Option<Arc<dyn DynProbe>> {
        Some(Arc::new(Kept::new(self)))
    }
}

impl Ping for Mutex<SentinelClient> {
    async fn ping(&self) -> Result<(), ProbeError> {
        let mut asked = Asked::default();
        let answer = async {
            let (mut connection, _) = connect(self, &mut asked).await?;
            ping_on(&mut connection).await
        };
        let answer = answer.await;
        asked.public(answer)
    }
}

/// A client, and a connection to the master as it was.
struct Kept {
    client: Arc<Mutex<SentinelClient>>,
    connection: Mutex<Option<(MultiplexedConnection, Option<Address>)>>,
}

/// Whom the question went to.
#[derive(Default)]
struct Asked {
    address: Option<Address>,
    password: Option<String>,
}

impl Kept {
    fn new(client: &Arc<Mutex<SentinelClient>>) -> Self {
        Self { client: Arc::clone(client), connection: Mutex::new(None) }
    }

    async fn asked(&self, asked: &mut Asked) -> RedisResult<Answer> {
        let mut kept = self.connection.lock().await;
        // Taken out: whatever fails, the next one is the master's of then.
        if let Some((mut connection, address)) = kept.take()
            && let Ok(answer) = ask(&mut connection).await
        {
            asked.address.clone_from(&address);
            *kept = Some((connection, address));
            return Ok(answer);
        }
        let (mut connection, address) = connect(&self.client, asked).await?;
        let answer = ask(&mut connection).await?;
        *kept = Some((connection, address));
        Ok(answer)
    }
}

impl DynProbe for Kept {
    fn ask(&self) -> Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + '_>> {
        Box::pin(async {
            let mut asked = Asked::default();
            let answer = self.asked(&mut asked).await;
            asked.public(answer)
        })
    }

    fn resource(&self) -> Option<String> {
        let known = self.connection.try_lock().ok();
        Some(name(known.as_ref().and_then(|kept| kept.as_ref()?.1.as_ref())))
    }

    fn never_blocks(&self) -> bool {
        true
    }
}

/// Connects to whom the sentinels name.
async fn connect(
    client: &Mutex<SentinelClient>,
    asked: &mut Asked,
) -> RedisResult<(MultiplexedConnection, Option<Address>)> {
    let master = client.lock().await.async_get_client().await?;
    let address = address_of(&master);
    asked.address.clone_from(&address);
    asked.password = master.get_connection_info().redis_settings().password().map(str::to_owned);
    Ok((master.get_multiplexed_async_connection().await?, address))
}

fn address_of(master: &Client) -> Option<Address> {
    match master.get_connection_info().addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            Some(Address { host: host.clone(), port: *port })
        }
        _ => None,
    }
}

fn name(address: Option<&Address>) -> String {
    address.map_or_else(|| "the redis master".to_owned(), |address| format!("redis at {address}"))
}

impl Asked {
    fn public(self, answer: RedisResult<Answer>) -> Result<(), ProbeError> {
        let name = name(self.address.as_ref());
        match answer {
            Ok(Answer::AsWritten) => Ok(()),
            Ok(Answer::Other) => Err(ProbeError::new(ProbeErrorKind::Failed, ProbeErrorKind::Failed.message(&name))
                .with_source("the value read is not the value written")),
            Err(error) => {
                let kind = classify(&error);
                Err(ProbeError::new(kind, kind.message(&name)).with_source(error).with_secret(self.password))
            }
        }
    }
}
