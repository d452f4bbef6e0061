//! [`Transition`]s: each change of a check's status, as a stream for alerts.

use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use tokio::sync::broadcast::{self, error::RecvError};

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

/// A stream of the transitions of a registry's checks, from the call of
/// [`Registry::subscribe`](crate::Registry::subscribe) on.
#[derive(Debug)]
pub struct Transitions(broadcast::Receiver<Transition>);

impl Transitions {
    /// Waits for the next transition.
    ///
    /// It is cancel-safe: no transition is lost if it is a branch of `select!`. A subscriber that is more than 256 transitions
    /// behind loses the oldest ones.
    pub async fn next(&mut self) -> Transition {
        loop {
            match self.0.recv().await {
                Ok(transition) => return transition,
                Err(RecvError::Lagged(_)) => {}
                // The registry and its checks were dropped.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    pub(crate) fn global() -> Self {
        ALL.subscribe()
    }
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
        Transitions(self.0.subscribe())
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
