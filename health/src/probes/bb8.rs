//! What is common to the pools of bb8.
//!
//! bb8 tries again and again to connect, and says nothing until its own time is over. So the server is asked beside the pool,
//! with a connection that is closed again: after 100 ms where the pool has to connect, after 300 ms where it has an idle
//! connection; and at once where all are in use, for then it has to say whether it is alive.

use std::future::pending;

use bb8::{ManageConnection, Pool, PooledConnection, RunError};

use super::{
    driver::{PATIENCE, answer_or},
    pooled::{Answer, Failure, Question, SILENT_IDLE, connect, is_dead},
};
use crate::error::ProbeErrorKind;

/// Asks on a connection of the pool.
pub(super) async fn ask<Q, M>(pool: &Pool<M>) -> Answer<Q>
where
    Q: Question,
    M: ManageConnection<Connection = Q::Connection, Error = Q::Error>,
{
    if let Some(all) = all_in_use(pool) {
        if Q::has_server() {
            // The counters can't tell a busy server from one that froze meanwhile.
            match connect(|| pool.dedicated_connection()).await {
                Err(error) if !Q::is_full(&error) => return Err(Failure::Driver(error)),
                _ => {}
            }
        }
        // Meanwhile one may have come free.
        if all_in_use(pool).is_some() {
            return Err(Failure::Saturated(all));
        }
    }
    if !Q::has_server() {
        // A question to a file must not be dropped, and another one tells no more. Why there is no connection, only who connects
        // beside the pool is told.
        return if pool.state().idle_connections > 0 { ask_on_its_own(pool).await } else { ask_aside(pool).await };
    }
    let after = if pool.state().idle_connections > 0 { SILENT_IDLE } else { PATIENCE };
    answer_or(ask_on_its_own(pool), after, ask_beside(pool)).await
}

/// Asks on an idle connection, or on one that the pool opens.
async fn ask_on_its_own<Q, M>(pool: &Pool<M>) -> Answer<Q>
where
    Q: Question,
    M: ManageConnection<Connection = Q::Connection, Error = Q::Error>,
{
    let mut others = pool.state().connections;
    loop {
        let connection = match pool.get().await {
            Ok(connection) => connection,
            Err(RunError::User(error)) => return Err(Failure::Driver(error)),
            Err(error @ RunError::TimedOut) if !Q::has_server() => {
                return Err(Failure::Pool(ProbeErrorKind::TimedOut, error.into()));
            }
            // It keeps the reason for itself: who asks beside it knows more.
            Err(RunError::TimedOut) => return pending().await,
        };
        match Asking::question::<Q>(connection).await {
            // After a restart of the server all idle connections are dead, and each says so at once. One that answers is enough.
            Err(error) if others > 0 && Q::classify(&error) == ProbeErrorKind::Unreachable => others -= 1,
            answer => return answer.map_err(Failure::Driver),
        }
    }
}

/// Asks on a connection beside the pool, while that is silent.
async fn ask_beside<Q, M>(pool: &Pool<M>) -> Option<Answer<Q>>
where
    Q: Question,
    M: ManageConnection<Connection = Q::Connection, Error = Q::Error>,
{
    let answer = async { Q::ask(&mut connect(|| pool.dedicated_connection()).await?).await }.await;
    Some(answer.map_err(Failure::Driver))
}

/// Asks on a connection beside the pool, for as long as that takes.
async fn ask_aside<Q, M>(pool: &Pool<M>) -> Answer<Q>
where
    Q: Question,
    M: ManageConnection<Connection = Q::Connection, Error = Q::Error>,
{
    let answer = async { Q::ask(&mut pool.dedicated_connection().await?).await }.await;
    answer.map_err(Failure::Driver)
}

/// So many connections there are, if none of them is free.
fn all_in_use<M: ManageConnection>(pool: &Pool<M>) -> Option<usize> {
    let (state, all) = (pool.state(), pool.config().max_size);
    (state.connections >= all && state.idle_connections == 0).then_some(all as usize)
}

/// A connection with a question under way. If that is dropped, or has shown that the connection is dead, it is spoilt: bb8 gives
/// no connection away.
struct Asking<'a, M: ManageConnection> {
    connection: PooledConnection<'a, M>,
    spoil: Option<fn(&mut M::Connection)>,
}

impl<'a, M: ManageConnection> Asking<'a, M> {
    async fn question<Q>(connection: PooledConnection<'a, M>) -> Result<(), Q::Error>
    where
        Q: Question<Connection = M::Connection, Error = M::Error>,
    {
        let mut asking = Self { connection, spoil: Some(Q::spoil) };
        let answer = Q::ask(&mut asking.connection).await;
        if !answer.as_ref().is_err_and(|error| is_dead(Q::classify(error))) {
            asking.spoil = None;
        }
        answer
    }
}

impl<M: ManageConnection> Drop for Asking<'_, M> {
    fn drop(&mut self) {
        if let Some(spoil) = self.spoil {
            spoil(&mut self.connection);
        }
    }
}

/// The kind of what is the pool's own; the driver's error is in the chain of sources.
pub(super) fn classify<E>(error: &RunError<E>) -> Option<ProbeErrorKind> {
    match error {
        RunError::TimedOut => Some(ProbeErrorKind::TimedOut),
        RunError::User(_) => None,
    }
}
