//! `redis::Client`, `MultiplexedConnection` and `ConnectionManager`, and how errors of redis are told apart.
//!
//! Each round writes a fresh value with a short expiry and reads it back, in one pipelined round trip, under a key that no
//! other process and no other round has: `health:` and more. Who is let at some keys only needs those: `~health:*`. A `PING` would not do: a replica and a server out of memory
//! answer it. For who may not write at all there is [`ping`].
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, reset, no such host | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | wrong password, no permission | [`ProbeErrorKind::Rejected`] | DOWN |
//! | no answer within the connection's own time | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | `READONLY`, `OOM`, `MISCONF`, `NOREPLICAS` | [`ProbeErrorKind::ReadOnly`] | DOWN |
//! | `LOADING`, another value read than written, anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! A `Client` holds no connection, so its check keeps one of its own from round to round. A connection that turns out
//! broken after it was idle is tried once more. A `MultiplexedConnection` never connects again: once broken it is down for
//! good, for the application as for its check.

use std::{future::Future, pin::Pin, sync::Arc};

use redis::{
    Client, ConnectionAddr, ErrorKind, RedisError, RedisResult, ServerErrorKind,
    aio::{ConnectionLike, ConnectionManager, MultiplexedConnection},
};
use tokio::{net::TcpStream, sync::Mutex};

use super::{
    driver::{Address, Described, PATIENCE, answer_or},
    key,
};
use crate::{
    error::{ProbeError, ProbeErrorKind},
    probe::{DynProbe, Probe},
};

/// How long a written value is kept.
const EXPIRY_MS: u64 = 10_000;

impl Probe for ConnectionManager {
    const GROUP: &'static str = "cache";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        let address = address_of(self);
        // While it connects anew, with growing pauses between its attempts, every command waits for it.
        let answer = answer_or(ask_twice(self.clone()), PATIENCE, refusal(address.as_ref())).await;
        public(answer, address.as_ref(), None)
    }

    fn resource(&self) -> Option<String> {
        Some(name(address_of(self).as_ref()))
    }
}

/// A manager has no accessor for its client, but prints it.
fn address_of(manager: &ConnectionManager) -> Option<Address> {
    Described::by_debug(manager).address("addr: Tcp(", ", ")
}

impl Probe for MultiplexedConnection {
    const GROUP: &'static str = "cache";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        public(ask(&mut self.clone()).await, None, None)
    }
}

impl Probe for Client {
    const GROUP: &'static str = "cache";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        Kept::new(self.clone()).ask().await
    }

    fn kept(&self) -> Option<Arc<dyn DynProbe>> {
        Some(Arc::new(Kept::new(self.clone())))
    }
}

impl From<RedisError> for ProbeError {
    fn from(error: RedisError) -> Self {
        Self::from_error(error)
    }
}

/// A client and the one connection that its check asks on.
struct Kept {
    client: Client,
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl Kept {
    fn new(client: Client) -> Self {
        Self { client, connection: Mutex::new(None) }
    }

    fn address(&self) -> Option<Address> {
        match self.client.get_connection_info().addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Some(Address { host: host.clone(), port: *port })
            }
            _ => None,
        }
    }

    fn password(&self) -> Option<String> {
        self.client.get_connection_info().redis_settings().password().map(str::to_owned)
    }

    async fn asked(&self) -> RedisResult<Answer> {
        let mut kept = self.connection.lock().await;
        // Taken out: if the question fails or is dropped, the next one gets a new connection.
        if let Some(mut connection) = kept.take() {
            let answer = ask(&mut connection).await;
            // Broken, or silent: that may be the connection's fault alone.
            if !answer.as_ref().is_err_and(|error| error.is_unrecoverable_error() || error.is_io_error()) {
                *kept = Some(connection);
                return answer;
            }
        }
        let mut connection = self.client.get_multiplexed_async_connection().await?;
        let answer = ask(&mut connection).await?;
        *kept = Some(connection);
        Ok(answer)
    }
}

impl DynProbe for Kept {
    fn ask(&self) -> Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + '_>> {
        Box::pin(async { public(self.asked().await, self.address().as_ref(), self.password()) })
    }

    fn resource(&self) -> Option<String> {
        Some(name(self.address().as_ref()))
    }

    fn never_blocks(&self) -> bool {
        true
    }
}

/// Asks for a `PING`: for `#[health(with = health::probes::redis::ping)]`, on any handle of redis that is a [`Probe`], where the
/// application may not write keys.
///
/// It sees a server that is gone, frozen, still loading its data or unable to save it, and a wrong password. It does **not** see
/// a replica that takes no writes, a server out of memory, too few replicas to write, permissions that were taken away, nor,
/// of a cluster, slots that nobody serves. So where keys may be written, leave this out: the field is probed without it.
///
/// A [`Client`] holds no connection, so one is opened for each round; `ConnectionManager` and `MultiplexedConnection` are asked
/// on their own.
///
/// # Errors
///
/// The server does not answer, or does not let us in: the kinds are those of this module.
///
/// # Examples
///
/// ```
/// use health::HealthCheck;
///
/// #[derive(HealthCheck)]
/// struct AppState {
///     #[health(with = health::probes::redis::ping, group = "cache")]
///     sessions: redis::aio::ConnectionManager,
/// }
/// ```
pub async fn ping<R: Ping>(redis: &R) -> Result<(), ProbeError> {
    redis.ping().await
}

pub(super) mod sealed {
    /// A handle of redis that [`ping`](super::ping) can ask.
    pub trait Ping: Send + Sync {
        #[doc(hidden)]
        fn ping(&self) -> impl Future<Output = Result<(), crate::ProbeError>> + Send;
    }
}

use sealed::Ping;

impl<R: Ping> Ping for Arc<R> {
    async fn ping(&self) -> Result<(), ProbeError> {
        R::ping(self).await
    }
}

impl Ping for ConnectionManager {
    async fn ping(&self) -> Result<(), ProbeError> {
        let address = address_of(self);
        let asked = async {
            match ping_on(&mut self.clone()).await {
                Err(error) if error.is_unrecoverable_error() => ping_on(&mut self.clone()).await,
                answer => answer,
            }
        };
        let answer = answer_or(asked, PATIENCE, refusal(address.as_ref())).await;
        public(answer, address.as_ref(), None)
    }
}

impl Ping for MultiplexedConnection {
    async fn ping(&self) -> Result<(), ProbeError> {
        public(ping_on(&mut self.clone()).await, None, None)
    }
}

impl Ping for Client {
    async fn ping(&self) -> Result<(), ProbeError> {
        let kept = Kept::new(self.clone());
        let asked = async { ping_on(&mut self.get_multiplexed_async_connection().await?).await };
        public(asked.await, kept.address().as_ref(), kept.password())
    }
}

/// Asks for a `PING` alone.
pub(super) async fn ping_on(connection: &mut impl ConnectionLike) -> RedisResult<Answer> {
    let answer: String = redis::cmd("PING").query_async(connection).await?;
    Ok(if answer == "PONG" { Answer::AsWritten } else { Answer::Other })
}

#[derive(PartialEq)]
pub(super) enum Answer {
    AsWritten,
    Other,
}

/// Writes and reads back.
pub(super) async fn ask(connection: &mut impl ConnectionLike) -> RedisResult<Answer> {
    ask_for(connection, &key::fresh()).await
}

/// Writes and reads back under that key.
pub(super) async fn ask_for(connection: &mut impl ConnectionLike, key: &str) -> RedisResult<Answer> {
    let nonce = key::nonce();
    let (read,): (Option<u64>,) = redis::pipe()
        .cmd("SET")
        .arg(key)
        .arg(nonce)
        .arg("PX")
        .arg(EXPIRY_MS)
        .ignore()
        .cmd("GET")
        .arg(key)
        .query_async(connection)
        .await?;
    Ok(if read == Some(nonce) { Answer::AsWritten } else { Answer::Other })
}

/// A connection that was closed while it was idle shows that at the first question, and is replaced by the second.
async fn ask_twice(mut connection: impl ConnectionLike) -> RedisResult<Answer> {
    match ask(&mut connection).await {
        Err(error) if error.is_unrecoverable_error() => ask(&mut connection).await,
        answer => answer,
    }
}

/// Why the server can't be connected to, if it can't.
async fn refusal(address: Option<&Address>) -> Option<RedisResult<Answer>> {
    let Address { host, port } = address?;
    TcpStream::connect((host.as_str(), *port)).await.err().map(|error| Err(error.into()))
}

pub(super) fn name(address: Option<&Address>) -> String {
    address.map_or_else(|| "redis".to_owned(), |address| format!("redis at {address}"))
}

fn public(answer: RedisResult<Answer>, address: Option<&Address>, password: Option<String>) -> Result<(), ProbeError> {
    match answer {
        Ok(Answer::AsWritten) => Ok(()),
        Ok(Answer::Other) => {
            Err(ProbeError::new(ProbeErrorKind::Failed, ProbeErrorKind::Failed.message(&name(address)))
                .with_source("the value read is not the value written"))
        }
        Err(error) => {
            let kind = classify(&error);
            Err(ProbeError::new(kind, kind.message(&name(address))).with_source(error).with_secret(password))
        }
    }
}

/// The kind of an error, by its kind and, where the server sent one, its code.
pub(crate) fn classify(error: &RedisError) -> ProbeErrorKind {
    match error.kind() {
        ErrorKind::Io if error.is_timeout() => ProbeErrorKind::TimedOut,
        ErrorKind::Io | ErrorKind::ClusterConnectionNotFound | ErrorKind::MasterNameNotFoundBySentinel => {
            ProbeErrorKind::Unreachable
        }
        ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm) => ProbeErrorKind::Rejected,
        ErrorKind::Server(ServerErrorKind::ReadOnly) => ProbeErrorKind::ReadOnly,
        // The code of a failure inside a pipeline is to be had only so.
        _ => match error
            .clone()
            .into_server_errors()
            .iter()
            .flat_map(|errors| errors.iter())
            .map(|(_, error)| error.code())
            .next()
        {
            Some("OOM" | "MISCONF" | "NOREPLICAS") => ProbeErrorKind::ReadOnly,
            Some("NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED") => ProbeErrorKind::Rejected,
            _ => ProbeErrorKind::Failed,
        },
    }
}
