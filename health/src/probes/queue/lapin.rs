//! `lapin::Connection` in an `Arc` and `lapin::Channel`, how errors of lapin are classified, and [`queue`], which checks the length of a
//! queue.
//!
//! Each run sends a request to the broker that changes nothing:
//!
//! - On a `Channel`, `channel.flow` in one round trip. A passive declaration would not do: if it fails, the broker closes the channel,
//!   and lapin repeats it when it recovers.
//! - On a `Connection`, the same on a channel of the check's own, which the first run opens.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, reset, no such host, the connection is closed or reconnecting | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | all channels are in use before the check has its own | [`ProbeErrorKind::Saturated`] | DEGRADED |
//! | memory or disk alarm, of which the broker has notified this connection | [`ProbeErrorKind::ReadOnly`] | DOWN |
//! | the channel was closed because of an error of the application; anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! During an alarm the broker blocks the connections that publish, and notifies them. A connection that only consumes is not affected,
//! and is UP. A lost connection stays DOWN until the application creates a new one, unless it was created with `enable_auto_recover`.
//! `Connection` and `Channel` do not expose their address, so messages do not contain one.
//!
//! What a run costs the broker: the request above. No connection is opened.

use std::sync::Arc;

use lapin::{
    Channel, ChannelState, Connection, ErrorKind,
    options::{ChannelFlowOptions, QueueDeclareOptions},
    protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError},
    types::FieldTable,
};
use tokio::sync::Mutex;

use crate::{
    error::{ProbeError, ProbeErrorKind, classify_io},
    observe::observe,
    probe::{LibraryProbe, Probe, Session, library_probe},
    probes::{
        classify::Classify,
        support::{debug_fields::DebugFields, label::Label},
    },
};

/// What messages call a broker without an address.
pub(super) const LABEL: Label = Label::new("rabbitmq");

library_probe! { "queue", Channel => |channel: &Channel| channel.clone() }

impl Probe for Connection {
    const GROUP: &'static str = "queue";

    async fn probe(&self) -> Result<(), ProbeError> {
        Ok(open_and_close_channel(self).await?)
    }

    fn shared_session(this: &Arc<Self>) -> Option<Session> {
        Some(Session::of_library(ConnectionProbe { connection: Arc::clone(this), channel: Mutex::default() }))
    }
}

impl LibraryProbe for Channel {
    async fn probe(&self) -> Result<(), ProbeError> {
        // A channel has no accessor for its connection, but its `Debug` output contains it, before the messages in flight.
        if DebugFields::of_prefix(self).contains("blocked: true") {
            return Err(Failure::Blocked.into());
        }
        flow(self).await.map_err(|error| LABEL.error(error))
    }

    fn resource(&self) -> Option<String> {
        None
    }
}

/// The limits of [`queue`].
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
    /// Allows any number of messages, and requires one consumer.
    pub const fn new() -> Self {
        Self { degraded: u32::MAX, down: u32::MAX, consumers: 1 }
    }

    /// Sets the number of messages above which the check is DEGRADED. Unlimited by default.
    pub const fn degraded_above(mut self, messages: u32) -> Self {
        self.degraded = messages;
        self
    }

    /// Sets the number of messages above which the check is DOWN. Unlimited by default.
    pub const fn down_above(mut self, messages: u32) -> Self {
        self.down = messages;
        self
    }

    /// Sets the number of consumers below which the check is DOWN. Defaults to 1; with 0, consumers are not checked.
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

/// Checks the number of messages that wait in a queue, and the number of its consumers. Messages that were delivered but not yet
/// acknowledged do not count.
///
/// Both numbers are values of the run, `messages` and `consumers`.
///
/// It sends a passive declaration on a channel of its own, which it closes afterwards, in three round trips: the broker closes the channel
/// if the queue does not exist. No permission is needed.
///
/// # Errors
///
/// Returns an error if a limit is exceeded, if the queue does not exist, or if the broker does not respond.
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
    let query = async {
        let channel = open_channel(connection).await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare(name.into(), options, FieldTable::default()).await?;
        channel.close(REPLY_SUCCESS, "OK".into()).await?;
        Ok((queue.message_count(), queue.consumer_count()))
    };
    let (messages, consumers) = match query.await {
        Ok(counts) => counts,
        Err(Failure::Driver(error)) if soft(&error) == Some(&AMQPSoftError::NOTFOUND) => {
            return Err(ProbeError::new(ProbeErrorKind::Failed, "the queue does not exist").with_source(error));
        }
        Err(failure) => return Err(failure.into()),
    };
    let failed = |message| {
        let source = format!("queue {name:?} has {messages} messages and {consumers} consumers");
        ProbeError::new(ProbeErrorKind::Failed, message).with_source(source)
    };
    observe("messages", messages);
    observe("consumers", consumers);
    if messages > limits.down {
        return Err(failed(format!("{messages} messages wait, more than {}", limits.down)));
    }
    if consumers < limits.consumers {
        return Err(failed(match consumers {
            0 => "the queue has no consumers".to_owned(),
            _ => format!("too few consumers: {consumers}, expected at least {}", limits.consumers),
        }));
    }
    if messages > limits.degraded {
        return Err(failed(format!("{messages} messages wait, more than {}", limits.degraded)).degraded());
    }
    Ok(())
}

/// The reply code of a normal closure.
pub(super) const REPLY_SUCCESS: u16 = 200;

/// Why a run fails, before it has a public message.
enum Failure {
    Driver(lapin::Error),
    /// All channels are in use: their number.
    Saturated(u16),
    /// The broker blocks this connection because of an alarm.
    Blocked,
}

impl From<lapin::Error> for Failure {
    fn from(error: lapin::Error) -> Self {
        Self::Driver(error)
    }
}

impl From<Failure> for ProbeError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Driver(error) => LABEL.error(error),
            Failure::Saturated(channels) => {
                Self::new(ProbeErrorKind::Saturated, format!("all {channels} channels are in use"))
            }
            Failure::Blocked => blocked(&LABEL),
        }
    }
}

/// The failure of a connection that the broker blocks because of an alarm.
pub(super) fn blocked(label: &Label) -> ProbeError {
    label.error_of_kind(ProbeErrorKind::ReadOnly, "the connection is blocked by an alarm of the broker")
}

/// Sends a request that changes nothing: the channel is active already.
async fn flow(channel: &Channel) -> lapin::Result<()> {
    channel.channel_flow(ChannelFlowOptions { active: true }).await.map(drop)
}

async fn open_channel(connection: &Connection) -> Result<Channel, Failure> {
    if connection.status().blocked() {
        return Err(Failure::Blocked);
    }
    connection.create_channel().await.map_err(|error| match error.kind() {
        ErrorKind::ChannelsLimitReached => Failure::Saturated(connection.configuration().channel_max()),
        _ => error.into(),
    })
}

async fn open_and_close_channel(connection: &Connection) -> Result<(), Failure> {
    let channel = open_channel(connection).await?;
    Ok(channel.close(REPLY_SUCCESS, "OK".into()).await?)
}

/// A connection, and the channel of its probe.
struct ConnectionProbe {
    connection: Arc<Connection>,
    channel: Mutex<Option<Channel>>,
}

impl ConnectionProbe {
    async fn query(&self) -> Result<(), Failure> {
        if self.connection.status().blocked() {
            return Err(Failure::Blocked);
        }
        // Also used again if this run is dropped, because the broker responds in the order of the requests.
        let mut channel = self.channel.lock().await;
        if let Some(open) = &*channel
            && open.status().connected()
        {
            match flow(open).await {
                // It was closed since.
                Err(error) if matches!(error.kind(), ErrorKind::InvalidChannelState(..)) => {}
                result => return Ok(result?),
            }
        }
        Ok(flow(channel.insert(open_channel(&self.connection).await?)).await?)
    }
}

impl LibraryProbe for ConnectionProbe {
    async fn probe(&self) -> Result<(), ProbeError> {
        Ok(self.query().await?)
    }

    fn resource(&self) -> Option<String> {
        None
    }
}

/// Returns the error with which the broker closed a channel.
fn soft(error: &lapin::Error) -> Option<&AMQPSoftError> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Soft(error) => Some(error),
            AMQPErrorKind::Hard(_) => None,
        },
        _ => None,
    }
}

impl Classify for lapin::Error {
    fn classify(&self) -> ProbeErrorKind {
        match self.kind() {
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
}
