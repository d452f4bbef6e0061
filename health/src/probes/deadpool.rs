//! deadpool's side of the algorithm for pools.
//!
//! A run gets its connection at once or not at all. deadpool tests an idle connection, or opens one, before it hands it out, and
//! says why it cannot.

use std::{
    future::{Future, pending},
    panic::resume_unwind,
    pin::Pin,
    time::Duration,
};

use deadpool::managed::{HookError, Manager, Object, PoolError, TimeoutType, Timeouts};

use super::{
    pool::{Pool, Query, State, TakeError, Usage},
    pooled::Driver,
};
use crate::{
    error::{ProbeError, ProbeErrorKind},
    probe::DynProbe,
};

/// Without the application's timeouts, which need a runtime that the pool may not have. The check has one.
pub(super) const NO_WAIT: Timeouts = Timeouts { wait: Some(Duration::ZERO), create: None, recycle: None };

/// A pool of deadpool, and what its probe remembers between runs.
pub(super) struct DeadpoolProbe<D, M>
where
    D: Driver,
    M: Manager<Type = D::Connection, Error = D::Error> + 'static,
{
    pool: Deadpool<D, M>,
    state: State<Deadpool<D, M>>,
}

impl<D, M> DeadpoolProbe<D, M>
where
    D: Driver,
    M: Manager<Type = D::Connection, Error = D::Error> + 'static,
{
    /// `name` is what messages call the resource.
    pub(super) fn new<W: From<Object<M>>>(
        driver: D,
        pool: &deadpool::managed::Pool<M, W>,
        name: fn(&M) -> String,
    ) -> Self {
        // The same pool of the objects themselves, and not of what a driver wraps them into.
        let pool = pool.weak().upgrade().expect("the pool is held here");
        Self { pool: Deadpool { driver, pool, name }, state: State::new() }
    }

    pub(super) async fn run(&self) -> Result<(), ProbeError> {
        let query = self.pool.driver;
        self.state.run(&self.pool, &On(query)).await.map_err(|failure| failure.into_probe_error(&self.pool))
    }

    pub(super) fn name(&self) -> String {
        self.pool.name()
    }
}

impl<D, M> DynProbe for DeadpoolProbe<D, M>
where
    D: Driver,
    M: Manager<Type = D::Connection, Error = D::Error> + 'static,
{
    fn probe(&self) -> Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + '_>> {
        Box::pin(self.run())
    }

    fn resource(&self) -> Option<String> {
        Some(self.name())
    }

    fn never_blocks(&self) -> bool {
        true
    }
}

struct Deadpool<D, M: Manager> {
    driver: D,
    pool: deadpool::managed::Pool<M>,
    name: fn(&M) -> String,
}

impl<D: Driver, M: Manager> Clone for Deadpool<D, M> {
    fn clone(&self) -> Self {
        Self { driver: self.driver, pool: self.pool.clone(), name: self.name }
    }
}

/// A connection with a query under way. If that is dropped, the connection is closed: in the pool, the next query would wait
/// for the response to this one.
struct Taken<M: Manager>(Option<Object<M>>);

impl<M: Manager> Drop for Taken<M> {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
    }
}

/// The query of a driver's probe.
#[derive(Clone, Copy)]
struct On<D>(D);

impl<D, M> Query<Deadpool<D, M>> for On<D>
where
    D: Driver,
    M: Manager<Type = D::Connection, Error = D::Error> + 'static,
{
    type Output = ();

    fn run(&self, connection: &mut D::Connection) -> impl Future<Output = Result<(), D::Error>> + Send {
        D::query(connection)
    }
}

impl<D, M> Pool for Deadpool<D, M>
where
    D: Driver,
    M: Manager<Type = D::Connection, Error = D::Error> + 'static,
{
    type Connection = D::Connection;
    type Taken = Taken<M>;
    type Error = D::Error;

    const RETRIES_IN_SILENCE: bool = false;
    const ROUND_TRIPS: u32 = D::ROUND_TRIPS;
    const CANCEL_SAFE: bool = D::CANCEL_SAFE;

    fn usage(&self) -> Usage {
        let status = self.pool.status();
        Usage {
            // Those that wait for a connection to be opened hold a place.
            taken: status.size.saturating_sub(status.available) + status.waiting,
            idle: status.available,
            max: status.max_size,
            connected: Some(status.size),
        }
    }

    fn has_server(&self) -> bool {
        D::has_server()
    }

    async fn take_idle(&self) -> Option<Result<Self::Taken, TakeError<D::Error>>> {
        if self.pool.status().available == 0 {
            return None;
        }
        Some(self.acquire().await)
    }

    async fn acquire(&self) -> Result<Self::Taken, TakeError<D::Error>> {
        let pool = self.pool.clone();
        match to_the_end::<D, _>(async move { pool.timeout_get(&NO_WAIT).await }).await {
            Ok(object) => Ok(Taken(Some(object))),
            Err(PoolError::Timeout(TimeoutType::Wait)) => Err(TakeError::Exhausted),
            Err(PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error))) => {
                Err(TakeError::Driver(error))
            }
            Err(error) => Err(TakeError::Pool(classify(&error).unwrap_or(ProbeErrorKind::Failed), error.into())),
        }
    }

    async fn connect(&self) -> Result<D::Connection, D::Error> {
        let pool = self.pool.clone();
        let connecting = async move {
            let mut connection = pool.manager().create().await?;
            // The pool never gets it, so the manager need not know of it.
            pool.manager().detach(&mut connection);
            Ok(connection)
        };
        to_the_end::<D, _>(connecting).await
    }

    fn connection(taken: &mut Self::Taken) -> &mut D::Connection {
        taken.0.as_mut().expect("it is taken until it is released")
    }

    fn release(mut taken: Self::Taken) {
        taken.0 = None;
    }

    async fn close(connection: D::Connection) {
        D::close(connection).await;
    }

    fn classify(error: &D::Error) -> ProbeErrorKind {
        D::classify(error)
    }

    fn may_serve_others(error: &D::Error) -> bool {
        D::may_serve_others(error)
    }

    fn name(&self) -> String {
        (self.name)(self.pool.manager())
    }

    fn message(error: &D::Error, name: &str) -> String {
        D::message(error, name)
    }
}

/// Runs an attempt to connect, in a task where it must not be dropped.
async fn to_the_end<D: Driver, T: Send + 'static>(attempt: impl Future<Output = T> + Send + 'static) -> T {
    if D::CANCEL_SAFE {
        return attempt.await;
    }
    match tokio::spawn(attempt).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(payload) => resume_unwind(payload),
            // The runtime ends, and the run with it.
            Err(_) => pending().await,
        },
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

    use deadpool::managed::{Metrics, Pool, RecycleResult};

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
    #[derive(Clone, Copy)]
    struct FirstTwoAreDead;

    impl Driver for FirstTwoAreDead {
        type Connection = usize;
        type Error = io::Error;

        const ROUND_TRIPS: u32 = 1;

        async fn query(number: &mut usize) -> io::Result<()> {
            if *number < 2 { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
        }

        fn classify(error: &io::Error) -> ProbeErrorKind {
            classify_io(error)
        }
    }

    #[tokio::test]
    async fn connections_that_turn_out_dead_are_closed_and_another_one_is_queried() {
        let pool: Pool<Numbers> = Pool::builder(Numbers::default()).max_size(2).build().unwrap();
        drop([pool.get().await.unwrap(), pool.get().await.unwrap()]);
        assert_eq!(pool.status().size, 2);
        assert!(DeadpoolProbe::new(FirstTwoAreDead, &pool, |_| "numbers".to_owned()).run().await.is_ok());
        assert_eq!(pool.status().size, 1);
    }
}
