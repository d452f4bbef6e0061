//! What is common to the pools of deadpool.
//!
//! A question gets its connection at once or not at all. Beside the pool a connection is opened in two cases alone, and closed
//! again: all of the pool's are in use, and the server has to say whether it is alive; or the pool is silent for 300 ms.

use std::time::Duration;

use deadpool::managed::{HookError, Manager, Object, Pool, PoolError, TimeoutType, Timeouts};

use super::{
    driver::answer_or,
    pooled::{Answer, Failure, Question, SILENT_IDLE, connect, is_dead},
};
use crate::error::ProbeErrorKind;

/// Without the application's timeouts, which need a runtime that the pool may not have: the check has one.
const AT_ONCE: Timeouts = Timeouts { wait: Some(Duration::ZERO), create: None, recycle: None };

/// Asks on a connection of the pool.
pub(super) async fn ask<Q, M, W>(pool: &Pool<M, W>) -> Answer<Q>
where
    Q: Question,
    M: Manager<Type = Q::Connection, Error = Q::Error>,
    W: From<Object<M>>,
{
    // The same pool of the objects themselves, and not of what a driver wraps them into.
    let pool = &pool.weak().upgrade().expect("the pool is held here");
    let answer = ask_patiently(pool).await;
    if !matches!(answer, Err(Failure::Saturated(_))) {
        return answer;
    }
    if Q::has_server() {
        // The counters can't tell a busy server from a dead one: on a server that is stopped or frozen, the application's own
        // attempts soon hold every place of the pool. So the server is asked whether it would let one more in.
        match beside::<Q, M>(pool).await {
            Err(error) if !Q::is_full(&error) => return Err(Failure::Driver(error)),
            _ => {}
        }
    }
    // Meanwhile one may have come free.
    ask_patiently(pool).await
}

async fn ask_patiently<Q, M>(pool: &Pool<M>) -> Answer<Q>
where
    Q: Question,
    M: Manager<Type = Q::Connection, Error = Q::Error>,
{
    if !Q::has_server() {
        return ask_on_its_own(pool).await;
    }
    // An idle connection may be dead without saying so: behind a firewall that forgot it, or opened by a thread that is blocked.
    let other_answer = async {
        let mut connection = beside::<Q, M>(pool).await.ok()?;
        Q::ask(&mut connection).await.ok().map(Ok)
    };
    answer_or(ask_on_its_own(pool), SILENT_IDLE, other_answer).await
}

/// Asks on an idle connection, or on one that the pool opens.
async fn ask_on_its_own<Q, M>(pool: &Pool<M>) -> Answer<Q>
where
    Q: Question,
    M: Manager<Type = Q::Connection, Error = Q::Error>,
{
    let mut others = pool.status().size;
    loop {
        let object = pool.timeout_get(&AT_ONCE).await.map_err(|error| failure_of(pool, error))?;
        match Asking::question::<Q>(object).await {
            // After a restart of the server all idle connections are dead, and each says so at once. One that answers is enough.
            Err(error) if others > 0 && Q::classify(&error) == ProbeErrorKind::Unreachable => others -= 1,
            answer => return answer.map_err(Failure::Driver),
        }
    }
}

/// A connection beside the pool.
async fn beside<Q, M>(pool: &Pool<M>) -> Result<Q::Connection, Q::Error>
where
    Q: Question,
    M: Manager<Type = Q::Connection, Error = Q::Error>,
{
    let mut connection = connect(|| pool.manager().create()).await?;
    // The pool never gets it, so the manager need not know of it.
    pool.manager().detach(&mut connection);
    Ok(connection)
}

/// A connection with a question under way. If that is dropped, the connection is closed: given back, whoever comes next would
/// wait for its answer.
struct Asking<M: Manager>(Option<Object<M>>);

impl<M: Manager> Asking<M> {
    async fn question<Q>(object: Object<M>) -> Result<(), Q::Error>
    where
        Q: Question,
        M: Manager<Type = Q::Connection, Error = Q::Error>,
    {
        let mut asking = Self(Some(object));
        let answer = Q::ask(asking.0.as_mut().expect("it was put there")).await;
        if !answer.as_ref().is_err_and(|error| is_dead(Q::classify(error))) {
            asking.0 = None;
        }
        answer
    }
}

impl<M: Manager> Drop for Asking<M> {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
    }
}

fn failure_of<Q, M>(pool: &Pool<M>, error: PoolError<Q::Error>) -> Failure<Q>
where
    Q: Question,
    M: Manager<Type = Q::Connection, Error = Q::Error>,
{
    match error {
        PoolError::Timeout(TimeoutType::Wait) => Failure::Saturated(pool.status().max_size),
        PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => Failure::Driver(error),
        other => Failure::Pool(classify(&other).unwrap_or(ProbeErrorKind::Failed), other.into()),
    }
}

/// The kind of what is the pool's own; the driver's error is in the chain of sources.
pub(super) fn classify<E>(error: &PoolError<E>) -> Option<ProbeErrorKind> {
    match error {
        PoolError::Timeout(_) => Some(ProbeErrorKind::TimedOut),
        PoolError::Backend(_) | PoolError::PostCreateHook(HookError::Backend(_)) => None,
        PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(HookError::Message(_)) => {
            Some(ProbeErrorKind::Failed)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use deadpool::managed::{Metrics, RecycleResult};

    use super::*;
    use crate::error::classify_io;

    /// Connections are numbers.
    #[derive(Default)]
    struct Numbers(AtomicUsize);

    impl Manager for Numbers {
        type Type = usize;
        type Error = io::Error;

        async fn create(&self) -> io::Result<usize> {
            Ok(self.0.fetch_add(1, Ordering::Relaxed))
        }

        async fn recycle(&self, _: &mut usize, _: &Metrics) -> RecycleResult<io::Error> {
            Ok(())
        }
    }

    /// The first two are dead, and the pool does not know.
    struct FirstTwoAreDead;

    impl Question for FirstTwoAreDead {
        type Connection = usize;
        type Error = io::Error;

        async fn ask(number: &mut usize) -> io::Result<()> {
            if *number < 2 { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
        }

        fn classify(error: &io::Error) -> ProbeErrorKind {
            classify_io(error)
        }
    }

    #[tokio::test]
    async fn connections_that_turn_out_dead_are_closed_and_another_one_is_asked() {
        let pool: Pool<Numbers> = Pool::builder(Numbers::default()).max_size(2).build().unwrap();
        drop([pool.get().await.unwrap(), pool.get().await.unwrap()]);
        assert_eq!(pool.status().size, 2);
        assert!(ask::<FirstTwoAreDead, _, _>(&pool).await.is_ok());
        assert_eq!(pool.status().size, 1);
    }
}
