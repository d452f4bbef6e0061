//! [`Transition`]s: each change of a check's status, as a stream that users can alert on.

use std::sync::{Arc, LazyLock};

use tokio::sync::broadcast::{self, error::RecvError};

use crate::{check::Check, error::Class, registry::Registry, report::Status};

/// How many transitions are kept for a subscriber that is slow to read them.
const BACKLOG: usize = 256;

static TRANSITIONS: LazyLock<broadcast::Sender<Transition>> = LazyLock::new(|| broadcast::Sender::new(BACKLOG));

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
    pub class: Option<Class>,
    /// The public sentence; `None` when up.
    pub error: Option<Arc<str>>,
}

/// The transitions of a registry's checks, from the moment of [`Registry::subscribe`] on.
#[derive(Debug)]
pub struct Transitions {
    received: broadcast::Receiver<Transition>,
    /// Those of all checks if `None`.
    of: Option<Registry>,
}

impl Transitions {
    pub(crate) fn of(registry: Option<Registry>) -> Self {
        Self { received: TRANSITIONS.subscribe(), of: registry }
    }

    /// Waits for the next transition. It can be cancelled, as in `select!`, without losing one. Of a subscriber that lags
    /// behind by more than 256 transitions, the oldest are lost.
    pub async fn next(&mut self) -> Transition {
        loop {
            match self.received.recv().await {
                Ok(transition) if self.is_of_ours(&transition) => return transition,
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => unreachable!("the sender is a static"),
            }
        }
    }

    fn is_of_ours(&self, transition: &Transition) -> bool {
        let ours = |check: &Check| check.group() == &*transition.group && check.name() == &*transition.name;
        self.of.as_ref().is_none_or(|registry| registry.checks().iter().any(ours))
    }
}

pub(crate) fn publish(transition: impl FnOnce() -> Transition) {
    // Nobody listens to most of them.
    if TRANSITIONS.receiver_count() > 0 {
        let _ = TRANSITIONS.send(transition());
    }
}
