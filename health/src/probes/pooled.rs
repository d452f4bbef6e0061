//! What the probes of pools have in common: one question on a connection of the application's own, and why it has no answer.

use std::{error::Error, future::Future, time::Duration};

use tokio::time::timeout;

use crate::error::{BoxError, ProbeError, ProbeErrorKind};

/// How long a server may be silent to a new connection before it is asked with another one.
const SILENCE: Duration = Duration::from_secs(2);

/// How long a pool may be silent that has idle connections before the server is asked beside it: longer than a question takes
/// to a server at the other end of the world, so that none is opened in vain round for round.
pub(super) const SILENT_IDLE: Duration = Duration::from_millis(300);

/// What is asked on a connection, and how its driver's errors are told apart.
pub(super) trait Question {
    type Connection: Send;
    type Error: Error + Send + Sync + 'static;

    fn ask(connection: &mut Self::Connection) -> impl Future<Output = Result<(), Self::Error>> + Send;

    fn classify(error: &Self::Error) -> ProbeErrorKind;

    /// The public message of an error.
    fn message(error: &Self::Error, name: &str) -> String {
        Self::classify(error).message(name)
    }

    /// Whether there is a server, which may be frozen while the pool's connections are in use. To connect to a file may create
    /// it, and tells nothing.
    fn has_server() -> bool {
        true
    }

    /// Whether a server that refuses a further connection so serves those that it has.
    fn is_full(error: &Self::Error) -> bool {
        Self::classify(error) == ProbeErrorKind::Saturated
    }

    /// Has the pool close a connection instead of keeping it, where it keeps it else.
    fn spoil(_: &mut Self::Connection) {}
}

pub(super) type Answer<Q> = Result<(), Failure<Q>>;

/// Why the question has no answer, before it has a public message.
pub(super) enum Failure<Q: Question> {
    Driver(Q::Error),
    /// Of so many connections, none is free.
    Saturated(usize),
    /// The pool itself gives none.
    Pool(ProbeErrorKind, BoxError),
}

impl<Q: Question> Failure<Q> {
    /// The failure of a resource of that name.
    pub(super) fn public(self, name: &str) -> ProbeError {
        match self {
            Self::Driver(error) => {
                let message = Q::message(&error, name);
                ProbeError::new(Q::classify(&error), message).with_source(error)
            }
            Self::Saturated(connections) => saturated(connections),
            Self::Pool(kind, error) => ProbeError::new(kind, kind.message(name)).with_source(error),
        }
    }
}

pub(super) fn saturated(connections: usize) -> ProbeError {
    ProbeError::new(
        ProbeErrorKind::Saturated,
        format!("connection pool exhausted ({connections} of {connections} in use)"),
    )
}

/// Whether a connection is of no more use after that.
pub(super) fn is_dead(kind: ProbeErrorKind) -> bool {
    matches!(kind, ProbeErrorKind::Unreachable | ProbeErrorKind::TimedOut)
}

/// Connects beside the pool; anew where there is no answer, for an attempt may be lost on the way.
pub(super) async fn connect<T, F: Future<Output = T>>(attempt: impl Fn() -> F) -> T {
    loop {
        // In a box: it is large, and rarely made.
        if let Ok(answer) = timeout(SILENCE, Box::pin(attempt())).await {
            return answer;
        }
    }
}
