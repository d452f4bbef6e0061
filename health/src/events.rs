//! [`Transition`]s: each change of a check's status, as a stream that users can alert on.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast::{self, error::RecvError};

use crate::{error::ProbeErrorKind, status::Status};

/// How many transitions are kept for a subscriber that is slow to read them.
const BACKLOG: usize = 256;

/// Of all checks of the process.
static ALL: LazyLock<Channel> = LazyLock::new(Channel::default);

/// A check has another status than before.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transition {
    /// The first part of the check's name.
    pub group: Arc<str>,
    /// The second part of the check's name.
    pub name: Arc<str>,
    /// The status before; `None` for a check's first result.
    pub from: Option<Status>,
    /// The status now.
    pub to: Status,
    /// What kind of failure it is; `None` when up.
    pub kind: Option<ProbeErrorKind>,
    /// The public message; `None` when up.
    pub error: Option<Arc<str>>,
}

/// The transitions of a registry's checks, from the moment of [`Registry::subscribe`](crate::Registry::subscribe) on.
#[derive(Debug)]
pub struct Transitions(broadcast::Receiver<Transition>);

impl Transitions {
    /// Waits for the next transition. It can be cancelled, as in `select!`, without losing one. Of a subscriber that lags
    /// behind by more than 256 transitions, the oldest are lost.
    pub async fn next(&mut self) -> Transition {
        loop {
            match self.0.recv().await {
                Ok(transition) => return transition,
                Err(RecvError::Lagged(_)) => {}
                // The registry is gone, and its checks with it.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    pub(crate) fn of_all() -> Self {
        ALL.subscribe()
    }
}

/// Where the transitions of some checks go.
#[derive(Clone, Debug)]
pub(crate) struct Channel(broadcast::Sender<Transition>);

impl Default for Channel {
    fn default() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }
}

impl Channel {
    pub(crate) fn subscribe(&self) -> Transitions {
        Transitions(self.0.subscribe())
    }

    fn send(&self, transition: Transition) {
        // Nobody may listen any more.
        let _ = self.0.send(transition);
    }
}

/// The channels of the registries that a check is in, as far as somebody has subscribed to those.
#[derive(Debug, Default)]
pub(crate) struct Watchers(Mutex<Vec<Channel>>);

impl Watchers {
    pub(crate) fn add(&self, channel: &Channel) {
        self.channels().push(channel.clone());
    }

    pub(crate) fn remove(&self, channel: &Channel) {
        self.channels().retain(|known| !known.0.same_channel(&channel.0));
    }

    pub(crate) fn publish(&self, transition: impl FnOnce() -> Transition) {
        let channels = self.channels();
        // Nobody listens to most of them.
        if channels.is_empty() && ALL.0.receiver_count() == 0 {
            return;
        }
        let transition = transition();
        for channel in &*channels {
            channel.send(transition.clone());
        }
        ALL.send(transition);
    }

    fn channels(&self) -> MutexGuard<'_, Vec<Channel>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
