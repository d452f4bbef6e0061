//! `lapin::Connection` in an `Arc`, `lapin::Channel` and deadpool-lapin's pool; how errors of lapin are told apart; and
//! [`queue`], another way to ask.
//!
//! Each round asks one question that only the broker can answer and that changes nothing: `channel.flow`, on a channel. A
//! passive declaration would not do: if it fails, the broker closes the channel, and lapin declares it anew when it recovers.
//!
//! - Of a `Channel` it is asked on that channel, in one round trip.
//! - Of a `Connection` it is asked on a channel of the check's own, which is opened in the first round and kept, in one round
//!   trip.
//! - Of a pool a connection is taken, and a channel opened on it and closed again, in two round trips: what is pooled
//!   must go back as it came.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, reset, no such host, the connection is closed or connects anew | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | pool: wrong password, no such virtual host | [`ProbeErrorKind::Rejected`] | DOWN |
//! | pool: it is exhausted, and the broker accepts further connections | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | pool: idle connections are silent, and a new one responds | [`ProbeErrorKind::TimedOut`] | DEGRADED |
//! | connection: all channels are in use before the check has its own | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | memory or disk alarm, of which this connection was told | [`ProbeErrorKind::ReadOnly`] | DOWN |
//! | the channel was closed by an error of the application's; anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! For a pool: A warm pool that is not exhausted is probed on its own connections only. What more a probe may cost the server, of each replica
//! of the application: while the pool is exhausted, while it has to open a connection and is slow at it, or while an idle one is
//! silent, one connection is opened outside the pool, queried and closed, at most once in 2 s (once in 900 ms while it cannot
//! connect). A second one is opened beside it only if it gets no response for 2 s.
//! An attempt that hangs is never dropped, because lapin would leave its thread behind, so there are at most two.
//!
//! During an alarm the broker reads nothing more from a connection that publishes, and tells it so; who only consumes is
//! neither told nor disturbed, and is UP. A connection that is lost is down for good, for the application as for its
//! check, unless it was made with `enable_auto_recover`. `Connection` and `Channel` don't tell where they are connected to,
//! so that messages about them have no address.

use std::{future::Future, pin::Pin, sync::Arc};

use deadpool_lapin::{Manager, Pool};
use lapin::{
    Channel, ChannelState, Connection, ErrorKind,
    options::{ChannelFlowOptions, QueueDeclareOptions},
    protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError},
    types::FieldTable,
    uri::AMQPUri,
};
use tokio::sync::Mutex;

use super::{
    deadpool::DeadpoolProbe,
    driver::{Address, Described},
    one_at_a_time::OneAtATime,
    pooled::Driver,
};
use crate::{
    error::{ProbeError, ProbeErrorKind, classify_io},
    probe::{DynProbe, Probe},
};

impl Probe for Connection {
    const GROUP: &'static str = "queue";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        ask_connection(self).await.map_err(|failure| failure.public(WORD))
    }

    fn kept_shared(this: &Arc<Self>) -> Option<Arc<dyn DynProbe>> {
        Some(Arc::new(Kept { connection: Arc::clone(this), channel: Mutex::default() }))
    }
}

impl Probe for Channel {
    const GROUP: &'static str = "queue";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        let asked = async {
            // A channel has no accessor for its connection, but prints it, before the messages that are under way.
            if Described::by_start_of_debug(self).says("blocked: true") {
                return Err(Failure::Blocked);
            }
            Ok(question(self).await?)
        };
        asked.await.map_err(|failure| failure.public(WORD))
    }
}

impl Probe for Pool {
    const GROUP: &'static str = "queue";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        PoolProbe::new(self).ask().await
    }

    fn resource(&self) -> Option<String> {
        Some(name(self.manager()))
    }

    fn kept(&self) -> Option<Arc<dyn DynProbe>> {
        Some(Arc::new(PoolProbe::new(self)))
    }
}

/// A pool, and the run that is under way. That is not dropped: to drop an attempt to connect ends nothing, for lapin leaves a
/// thread and a connection behind.
struct PoolProbe {
    pool: Pool,
    probe: Arc<DeadpoolProbe<Amqp, Manager>>,
    under_way: OneAtATime<Result<(), ProbeError>>,
}

impl PoolProbe {
    fn new(pool: &Pool) -> Self {
        let probe = Arc::new(DeadpoolProbe::new(Amqp, pool, name));
        Self { pool: pool.clone(), probe, under_way: OneAtATime::that_may_be_lost() }
    }
}

impl DynProbe for PoolProbe {
    fn ask(&self) -> Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + '_>> {
        Box::pin(async {
            // An alarm is all the broker's, but only connections that have published since know of it.
            let mut blocked = false;
            self.pool.retain(|idle, _| {
                blocked |= idle.status().blocked();
                true
            });
            if blocked {
                return Err(Failure::Blocked.public(&name(self.pool.manager())));
            }
            let probe = Arc::clone(&self.probe);
            let result = self.under_way.answer(async move { probe.run().await }).await;
            result
                .map_err(|error| error.with_secret(uri(self.pool.manager()).map(|uri| uri.authority.userinfo.password)))
        })
    }

    fn resource(&self) -> Option<String> {
        Some(self.probe.name())
    }

    fn never_blocks(&self) -> bool {
        true
    }
}

/// Connections of a pool. What is pooled must go back as it came, so that each run opens a channel and closes it.
#[derive(Clone, Copy)]
struct Amqp;

impl Driver for Amqp {
    type Connection = Connection;
    type Error = lapin::Error;

    const ROUND_TRIPS: u32 = 1;
    const CANCEL_SAFE: bool = false;

    async fn query(connection: &mut Connection) -> lapin::Result<()> {
        connection.create_channel().await?.close(REPLY_SUCCESS, "OK".into()).await
    }

    async fn close(connection: Connection) {
        // How it closes does not matter.
        let _ = connection.close(REPLY_SUCCESS, "OK".into()).await;
    }

    fn classify(error: &lapin::Error) -> ProbeErrorKind {
        classify(error)
    }
}

impl From<lapin::Error> for ProbeError {
    fn from(error: lapin::Error) -> Self {
        Self::from_error(error)
    }
}

/// What [`queue`] takes for healthy.
///
/// # Examples
///
/// ```
/// use health::probes::lapin::Limits;
///
/// let limits = Limits::new().degraded_above(1_000).down_above(50_000).consumers(2);
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Limits {
    degraded: u32,
    down: u32,
    consumers: u32,
}

impl Limits {
    /// Any depth, and one consumer.
    pub const fn new() -> Self {
        Self { degraded: u32::MAX, down: u32::MAX, consumers: 1 }
    }

    /// More messages than that, and the check is DEGRADED. Default is no limit.
    pub const fn degraded_above(mut self, messages: u32) -> Self {
        self.degraded = messages;
        self
    }

    /// More messages than that, and the check is DOWN. Default is no limit.
    pub const fn down_above(mut self, messages: u32) -> Self {
        self.down = messages;
        self
    }

    /// Fewer consumers than that, and the check is DOWN. Default is 1: a queue that nobody reads is DOWN. 0 if that is no matter.
    pub const fn consumers(mut self, at_least: u32) -> Self {
        self.consumers = at_least;
        self
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new()
    }
}

/// Asks how many messages wait in a queue, and who consumes them: those that were delivered and not yet acknowledged don't
/// count.
///
/// It is asked by a passive declaration, on a channel that is opened for it and closed again, in three round trips: the broker
/// closes the channel if there is no such queue, and it must not be the application's. No permission is needed.
///
/// # Errors
///
/// There are more messages or fewer consumers than the limits allow; there is no such queue; or the broker does not answer.
///
/// # Examples
///
/// ```no_run
/// use std::sync::Arc;
///
/// use health::{
///     HealthCheck, ProbeError,
///     probes::lapin::{Limits, queue},
/// };
/// use lapin::Connection;
///
/// #[derive(HealthCheck)]
/// struct AppState {
///     #[health(with = orders_are_shipped, group = "queue")]
///     orders: Arc<Connection>,
/// }
///
/// async fn orders_are_shipped(connection: &Arc<Connection>) -> Result<(), ProbeError> {
///     queue(connection, "orders", Limits::new().degraded_above(1_000).down_above(50_000)).await
/// }
/// ```
pub async fn queue(connection: &Connection, name: &str, limits: Limits) -> Result<(), ProbeError> {
    let asked = async {
        let channel = open(connection).await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare(name.into(), options, FieldTable::default()).await?;
        channel.close(REPLY_SUCCESS, "OK".into()).await?;
        Ok((queue.message_count(), queue.consumer_count()))
    };
    let (messages, consumers) = match asked.await {
        Ok(counts) => counts,
        Err(Failure::Driver(error)) if soft(&error) == Some(&AMQPSoftError::NOTFOUND) => {
            return Err(ProbeError::new(ProbeErrorKind::Failed, "there is no such queue").with_source(error));
        }
        Err(failure) => return Err(failure.public(WORD)),
    };
    let failed = |message| {
        let seen = format!("queue {name:?} has {messages} messages and {consumers} consumers");
        ProbeError::new(ProbeErrorKind::Failed, message).with_source(seen)
    };
    if messages > limits.down {
        return Err(failed(format!("{messages} messages wait, more than {}", limits.down)));
    }
    if consumers < limits.consumers {
        return Err(failed(match consumers {
            0 => "nobody consumes the queue".to_owned(),
            _ => format!("{consumers} consume the queue, fewer than {}", limits.consumers),
        }));
    }
    if messages > limits.degraded {
        return Err(failed(format!("{messages} messages wait, more than {}", limits.degraded)).degraded());
    }
    Ok(())
}

/// What messages call it, where there is no address.
const WORD: &str = "rabbitmq";

/// The reply code of who closes a channel for no bad reason.
const REPLY_SUCCESS: u16 = 200;

/// Why there is no answer, before it has a public message.
enum Failure {
    Driver(lapin::Error),
    /// All so many channels are in use.
    Saturated(u16),
    /// The broker told this connection of an alarm, and reads nothing more from it.
    Blocked,
}

impl From<lapin::Error> for Failure {
    fn from(error: lapin::Error) -> Self {
        Self::Driver(error)
    }
}

impl Failure {
    fn public(self, name: &str) -> ProbeError {
        let of_class = |kind: ProbeErrorKind| ProbeError::new(kind, kind.message(name));
        match self {
            Self::Driver(error) => of_class(classify(&error)).with_source(error),
            Self::Saturated(channels) => {
                ProbeError::new(ProbeErrorKind::Saturated, format!("all {channels} channels are in use"))
            }
            Self::Blocked => {
                of_class(ProbeErrorKind::ReadOnly).with_source("the connection is blocked by an alarm of the broker's")
            }
        }
    }
}

/// The broker answers it without doing anything.
async fn question(channel: &Channel) -> lapin::Result<()> {
    channel.channel_flow(ChannelFlowOptions { active: true }).await.map(drop)
}

/// A channel for a question that may be asked.
async fn open(connection: &Connection) -> Result<Channel, Failure> {
    if connection.status().blocked() {
        return Err(Failure::Blocked);
    }
    connection.create_channel().await.map_err(|error| match error.kind() {
        ErrorKind::ChannelsLimitReached => Failure::Saturated(connection.configuration().channel_max()),
        _ => error.into(),
    })
}

async fn ask_connection(connection: &Connection) -> Result<(), Failure> {
    let channel = open(connection).await?;
    Ok(channel.close(REPLY_SUCCESS, "OK".into()).await?)
}

/// A connection and the one channel that its check asks on.
struct Kept {
    connection: Arc<Connection>,
    channel: Mutex<Option<Channel>>,
}

impl Kept {
    async fn asked(&self) -> Result<(), Failure> {
        if self.connection.status().blocked() {
            return Err(Failure::Blocked);
        }
        // It stays there if the question is dropped: answers come in the order of the questions.
        let mut kept = self.channel.lock().await;
        if let Some(channel) = &*kept
            && channel.status().connected()
        {
            match question(channel).await {
                // Closed meanwhile.
                Err(error) if matches!(error.kind(), ErrorKind::InvalidChannelState(..)) => {}
                answer => return Ok(answer?),
            }
        }
        Ok(question(kept.insert(open(&self.connection).await?)).await?)
    }
}

impl DynProbe for Kept {
    fn ask(&self) -> Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + '_>> {
        Box::pin(async { self.asked().await.map_err(|failure| failure.public(WORD)) })
    }

    fn never_blocks(&self) -> bool {
        true
    }
}

/// Where a pool connects to. Its manager has no accessor for that, but prints it, password and all.
fn uri(manager: &Manager) -> Option<AMQPUri> {
    Described::by_debug(manager).text("addr: ")?.parse().ok()
}

fn name(manager: &Manager) -> String {
    match uri(manager) {
        Some(uri) => format!("{WORD} at {}", Address { host: uri.authority.host, port: uri.authority.port }),
        None => WORD.to_owned(),
    }
}

/// The error that the broker closed a channel with.
fn soft(error: &lapin::Error) -> Option<&AMQPSoftError> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Soft(error) => Some(error),
            AMQPErrorKind::Hard(_) => None,
        },
        _ => None,
    }
}

/// The kind of an error, by its kind and, where the broker sent one, its code.
pub(crate) fn classify(error: &lapin::Error) -> ProbeErrorKind {
    match error.kind() {
        ErrorKind::IOError(error) => classify_io(error),
        ErrorKind::InvalidConnectionState(_)
        | ErrorKind::InvalidChannelState(ChannelState::Reconnecting | ChannelState::Error, _)
        | ErrorKind::MissingHeartbeatError => ProbeErrorKind::Unreachable,
        ErrorKind::AuthProviderError(_) => ProbeErrorKind::Rejected,
        ErrorKind::ChannelsLimitReached => ProbeErrorKind::Saturated,
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => {
                ProbeErrorKind::Rejected
            }
            AMQPErrorKind::Hard(AMQPHardError::CONNECTIONFORCED) => ProbeErrorKind::Unreachable,
            _ => ProbeErrorKind::Failed,
        },
        _ => ProbeErrorKind::Failed,
    }
}
