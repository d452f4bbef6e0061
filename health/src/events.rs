//! [`Transition`]s: each change of a check's status, as a stream for alerts.

use std::{
    pin::Pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll, ready},
};

use futures_util::{Stream, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};

use crate::{error::ProbeErrorKind, status::Status};

/// The number of transitions that are kept for a slow subscriber.
const CHANNEL_CAPACITY: usize = 256;

/// The transitions of all checks of the process.
static ALL: LazyLock<Channel> = LazyLock::new(Channel::default);

/// A change of a check's status.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transition {
    /// The group of the check.
    pub group: Arc<str>,
    /// The name of the check within its group.
    pub name: Arc<str>,
    /// The previous status; `None` for the first result of a check.
    pub from: Option<Status>,
    /// The new status.
    pub to: Status,
    /// The kind of the failure; `None` if the check is up.
    pub kind: Option<ProbeErrorKind>,
    /// The public message of the failure; `None` if the check is up.
    pub error: Option<Arc<str>>,
}

/// A [`Stream`] of transitions: see [`transitions`] and [`Registry::subscribe`](crate::Registry::subscribe).
///
/// It ends when all its checks were dropped; that of the process never ends. A subscriber that is more than 256 transitions behind
/// loses the oldest ones.
#[derive(Debug)]
#[must_use = "transitions are received by polling the stream"]
pub struct Transitions(BroadcastStream<Transition>);

impl Stream for Transitions {
    type Item = Transition;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Transition>> {
        loop {
            match ready!(self.0.poll_next_unpin(context)) {
                Some(Ok(transition)) => return Poll::Ready(Some(transition)),
                Some(Err(BroadcastStreamRecvError::Lagged(_))) => {}
                None => return Poll::Ready(None),
            }
        }
    }
}

/// Subscribes to the transitions of all checks of the process, including those of scopes and states, from now on.
///
/// # Examples
///
/// ```no_run
/// # async fn alert(_: String) {}
/// use futures_util::StreamExt as _;
///
/// # async fn example() {
/// let mut transitions = health::transitions();
/// while let Some(transition) = transitions.next().await {
///     alert(format!("{}.{} is {}", transition.group, transition.name, transition.to)).await;
/// }
/// # }
/// ```
pub fn transitions() -> Transitions {
    ALL.subscribe()
}

/// The sending side of the transitions of some checks.
#[derive(Clone, Debug)]
pub(crate) struct Channel(broadcast::Sender<Transition>);

impl Default for Channel {
    fn default() -> Self {
        Self(broadcast::Sender::new(CHANNEL_CAPACITY))
    }
}

impl Channel {
    pub(crate) fn subscribe(&self) -> Transitions {
        Transitions(self.0.subscribe().into())
    }

    fn send(&self, transition: Transition) {
        // It fails if there is no subscriber.
        let _ = self.0.send(transition);
    }
}

/// The channels of the registries that a check is in, for those that have been subscribed to.
#[derive(Debug, Default)]
pub(crate) struct Subscribers(Mutex<Vec<Channel>>);

impl Subscribers {
    pub(crate) fn add(&self, channel: &Channel) {
        self.0.lock().push(channel.clone());
    }

    pub(crate) fn remove(&self, channel: &Channel) {
        self.0.lock().retain(|known| !known.0.same_channel(&channel.0));
    }

    pub(crate) fn publish(&self, transition: impl FnOnce() -> Transition) {
        let channels = self.0.lock();
        if channels.is_empty() && ALL.0.receiver_count() == 0 {
            return;
        }
        let transition = transition();
        for channel in &*channels {
            channel.send(transition.clone());
        }
        ALL.send(transition);
    }
}
