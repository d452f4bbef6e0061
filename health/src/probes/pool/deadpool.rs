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
    Pool, TakeError, Usage,
    driver::{Driver, PooledProbe},
};
use crate::{
    error::ProbeErrorKind,
    probes::{classify::Classify, support::label::Label},
};

/// Without the pool's own timeouts, which need a runtime that the pool may not have. The check has a timeout.
pub(in crate::probes) const NO_WAIT: Timeouts = Timeouts { wait: Some(Duration::ZERO), create: None, recycle: None };

pub(in crate::probes) type DeadpoolProbe<D, M> = PooledProbe<Deadpool<D, M>, D>;

impl<D, M> DeadpoolProbe<D, M>
where
    D: Driver,
    M: Manager<Type = D::Connection, Error = D::Error> + 'static,
{
    pub(in crate::probes) fn new<W: From<Object<M>>>(
        driver: D,
        pool: &deadpool::managed::Pool<M, W>,
        label: fn(&M) -> Label,
    ) -> Self {
        // The same pool, with its objects not wrapped into the driver's type.
        let pool = pool.weak().upgrade().expect("the pool is held here");
        Self::of_pool(Deadpool { driver, pool, label }, driver)
    }
}

pub(in crate::probes) struct Deadpool<D, M: Manager> {
    driver: D,
    pool: deadpool::managed::Pool<M>,
    label: fn(&M) -> Label,
}

impl<D: Driver, M: Manager> Clone for Deadpool<D, M> {
    fn clone(&self) -> Self {
        Self { driver: self.driver, pool: self.pool.clone(), label: self.label }
    }
}

/// A connection with a query in flight. Unless it is released, it is closed when it is dropped: in the pool, the next query would wait for
/// the response to this one.
pub(in crate::probes) struct Taken<M: Manager>(Option<Object<M>>);

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
            Err(error) => Err(TakeError::Pool(error.classify(), error.into())),
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

    fn label(&self) -> Label {
        (self.label)(self.pool.manager())
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

impl<E: Classify> Classify for PoolError<E> {
    fn classify(&self) -> ProbeErrorKind {
        match self {
            Self::Timeout(_) => ProbeErrorKind::TimedOut,
            Self::Backend(error) | Self::PostCreateHook(HookError::Backend(error)) => error.classify(),
            Self::Closed | Self::NoRuntimeSpecified | Self::PostCreateHook(HookError::Message(_)) => {
                ProbeErrorKind::Failed
            }
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
    use crate::probe::LibraryProbe as _;

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
    }

    #[tokio::test]
    async fn dead_connections_are_closed_and_another_one_is_queried() {
        let pool: Pool<Numbers> = Pool::builder(Numbers::default()).max_size(2).build().unwrap();
        drop([pool.get().await.unwrap(), pool.get().await.unwrap()]);
        assert_eq!(pool.status().size, 2);
        assert!(DeadpoolProbe::new(FirstTwoAreDead, &pool, |_| Label::new("numbers")).probe().await.is_ok());
        assert_eq!(pool.status().size, 1);
    }

    #[test]
    fn clones_of_a_pool_have_one_address_and_other_pools_have_another() {
        let pool = || -> Pool<Numbers> { Pool::builder(Numbers::default()).build().unwrap() };
        let address = |pool: &Pool<Numbers>| {
            DeadpoolProbe::new(FirstTwoAreDead, pool, |_| Label::new("numbers")).address().expect("it is a pool")
        };
        let (one, other) = (pool(), pool());
        assert_eq!(address(&one), address(&one.clone()));
        assert_ne!(address(&one), address(&other));
    }
}
