//! deadpool's side of the algorithm for pools.
//!
//! deadpool tests an idle connection or opens a new one, and returns the error if that fails. A run does not wait for a connection that
//! is in use.

use std::{
    future::{Future, pending},
    panic::resume_unwind,
    time::Duration,
};

use deadpool::managed::{HookError, Manager, Object, PoolError, TimeoutType, Timeouts};

use super::{
    pool::{Pool, TakeError, Usage},
    pooled::{Driver, PooledProbe},
};
use crate::error::ProbeErrorKind;

/// Without the pool's own timeouts, which need a runtime that the pool may not have. The check has a timeout.
pub(super) const NO_WAIT: Timeouts = Timeouts { wait: Some(Duration::ZERO), create: None, recycle: None };

pub(super) type DeadpoolProbe<D, M> = PooledProbe<Deadpool<D, M>, D>;

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
        // The same pool, with its objects not wrapped into the driver's type.
        let pool = pool.weak().upgrade().expect("the pool is held here");
        Self::of_pool(Deadpool { driver, pool, name }, driver)
    }
}

pub(super) struct Deadpool<D, M: Manager> {
    driver: D,
    pool: deadpool::managed::Pool<M>,
    name: fn(&M) -> String,
}

impl<D: Driver, M: Manager> Clone for Deadpool<D, M> {
    fn clone(&self) -> Self {
        Self { driver: self.driver, pool: self.pool.clone(), name: self.name }
    }
}

/// A connection with a query in flight. Unless it is released, it is closed when it is dropped: in the pool, the next query would wait for
/// the response to this one.
pub(super) struct Taken<M: Manager>(Option<Object<M>>);

impl<M: Manager> Drop for Taken<M> {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
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

    const RETRIES_SILENTLY: bool = false;
    const QUERIES: u32 = D::QUERIES;
    const CANCEL_SAFE: bool = D::CANCEL_SAFE;

    fn usage(&self) -> Usage {
        let status = self.pool.status();
        Usage {
            // Attempts to open a connection hold a slot.
            taken: status.size.saturating_sub(status.available) + status.waiting,
            idle: status.available,
            max: status.max_size,
            connected: Some(status.size),
        }
    }

    fn address(&self) -> Option<usize> {
        Some(std::ptr::from_ref(self.pool.manager()).addr())
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
        match uncancelled::<D, _>(async move { pool.timeout_get(&NO_WAIT).await }).await {
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
            // It is never in the pool, so the manager does not have to track it.
            pool.manager().detach(&mut connection);
            Ok(connection)
        };
        uncancelled::<D, _>(connecting).await
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

/// Runs an attempt to connect, in a task if it must not be cancelled.
async fn uncancelled<D: Driver, T: Send + 'static>(attempt: impl Future<Output = T> + Send + 'static) -> T {
    if D::CANCEL_SAFE {
        return attempt.await;
    }
    match tokio::spawn(attempt).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(payload) => resume_unwind(payload),
            // The runtime is shutting down.
            Err(_) => pending().await,
        },
    }
}

/// Returns the kind of an error of the pool itself; that of the driver is in the chain of sources.
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
    use crate::{error::classify_io, probe::DynProbe as _};

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

    /// The first two connections are dead, which the pool does not notice.
    #[derive(Clone, Copy)]
    struct FirstTwoAreDead;

    impl Driver for FirstTwoAreDead {
        type Connection = usize;
        type Error = io::Error;

        const QUERIES: u32 = 1;

        async fn query(number: &mut usize) -> io::Result<()> {
            if *number < 2 { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
        }

        fn classify(error: &io::Error) -> ProbeErrorKind {
            classify_io(error)
        }
    }

    #[tokio::test]
    async fn dead_connections_are_closed_and_another_one_is_queried() {
        let pool: Pool<Numbers> = Pool::builder(Numbers::default()).max_size(2).build().unwrap();
        drop([pool.get().await.unwrap(), pool.get().await.unwrap()]);
        assert_eq!(pool.status().size, 2);
        assert!(DeadpoolProbe::new(FirstTwoAreDead, &pool, |_| "numbers".to_owned()).run().await.is_ok());
        assert_eq!(pool.status().size, 1);
    }

    #[test]
    fn clones_of_a_pool_have_one_address_and_other_pools_have_another() {
        let pool = || -> Pool<Numbers> { Pool::builder(Numbers::default()).build().unwrap() };
        let address = |pool: &Pool<Numbers>| {
            DeadpoolProbe::new(FirstTwoAreDead, pool, |_| "numbers".to_owned()).address().expect("it is a pool")
        };
        let (one, other) = (pool(), pool());
        assert_eq!(address(&one), address(&one.clone()));
        assert_ne!(address(&one), address(&other));
    }
}
