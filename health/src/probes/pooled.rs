//! What deadpool and bb8 have in common: pools of any driver's connections, on which one query runs.

use std::{error::Error, future::Future};

use crate::error::ProbeErrorKind;

/// A driver whose connections are pooled: the query of its probe, and what its errors mean.
pub(super) trait Driver: Clone + Copy + Send + Sync + 'static {
    type Connection: Send + 'static;
    type Error: Error + Send + Sync + 'static;

    /// The round trips of a run on an idle connection, with those of the pool's own test before it hands one out.
    const ROUND_TRIPS: u32;

    /// Whether an attempt to connect ends when it is dropped.
    const CANCEL_SAFE: bool = true;

    fn query(connection: &mut Self::Connection) -> impl Future<Output = Result<(), Self::Error>> + Send;

    fn classify(error: &Self::Error) -> ProbeErrorKind;

    /// The public message of an error.
    fn message(error: &Self::Error, name: &str) -> String {
        Self::classify(error).message(name)
    }

    /// Whether there is a server, which may be frozen while the pool's connections are in use. To connect to a file may create
    /// it, and shows nothing.
    fn has_server() -> bool {
        true
    }

    /// Whether a server that does not accept one more connection with this error may well serve those that it has.
    fn may_serve_others(error: &Self::Error) -> bool {
        Self::classify(error) == ProbeErrorKind::Saturated
    }

    /// Closes a connection outside the pool.
    fn close(connection: Self::Connection) -> impl Future<Output = ()> + Send {
        drop(connection);
        async {}
    }

    /// Has the pool close a connection instead of keeping it, where it does not give connections away.
    fn invalidate(_: &mut Self::Connection) {}
}
