//! How a pool whose functions block is probed: one algorithm over the trait [`BlockingPool`].
//!
//! | state of the pool | a run | status |
//! | --- | --- | --- |
//! | it has an idle connection, or may open one | queries it on a thread of tokio's blocking pool | UP or DOWN, by the result |
//! | all connections are in use | waits 100 ms for one | UP if one becomes free; DEGRADED otherwise |
//! | none has become free for as long as the application waits for one | waits until one is free | DOWN |
//! | the query hangs | waits for it | DOWN by the limit of the check |
//! | the query is silent, and may still wait for a writer | waits 600 ms for it | DEGRADED |
//!
//! A blocked query cannot be cancelled. At most one is in flight, so it blocks one thread, however many runs there are. No connection is
//! opened outside the pool: that would be a second query that may block.

use std::{
    panic::resume_unwind,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

use super::{Usage, exhausted, locked, no_connection, none_became_free};
use crate::{
    error::{BoxError, ProbeError, ProbeErrorKind},
    probe::LibraryProbe,
    probes::{
        classify::Classify,
        support::{hedge::HEDGE_DELAY, label::Label},
    },
};

/// How long a query that may wait for a writer is silent before the database is considered locked. r2d2 needs 400 ms for the error of an
/// attempt to connect.
const BUSY_TIMEOUT: Duration = Duration::from_millis(600);

/// A pool whose functions block. Clones share the pool.
pub(in crate::probes) trait BlockingPool: Clone + Send + Sync + 'static {
    type Error: Classify;

    /// Executes the query on a connection of the pool, and sets `waiting` while all connections are in use. Blocks.
    fn query(&self, waiting: &Waiting) -> Result<(), Failure<Self::Error>>;

    /// How many connections the pool may have.
    fn max_size(&self) -> usize;

    /// How long the application waits for a connection.
    fn acquire_timeout(&self) -> Duration;

    /// For how long a silent query is taken to wait for a writer, as on SQLite, whose connections have a `busy_timeout`.
    fn writer_timeout(&self) -> Duration {
        Duration::ZERO
    }

    /// Reports the counters of the pool, as far as it exposes them, as values of the run.
    fn observe(&self);

    /// See [`LibraryProbe::address`].
    fn address(&self) -> Option<usize>;

    /// What messages call the resource.
    fn label(&self) -> Label;
}

/// Why a query fails, before it has a public message.
#[derive(Debug)]
pub(in crate::probes) enum Failure<E> {
    /// The pool returned no connection.
    Pool(BoxError),
    /// The pool has no connection, and the server rejects new ones.
    NoConnection(E),
    Driver(E),
}

/// Since when a query has been waiting for a connection because all are in use. `None` while it does not.
#[derive(Clone, Default)]
pub(in crate::probes) struct Waiting(Arc<Mutex<Option<Instant>>>);

impl Waiting {
    pub(in crate::probes) fn set(&self, all_in_use: bool) {
        let mut since = self.0.lock();
        *since = all_in_use.then(|| since.unwrap_or_else(Instant::now));
    }

    fn time(&self) -> Option<Duration> {
        self.0.lock().map(|since| since.elapsed())
    }
}

/// A blocking pool, and what its probe remembers between runs.
pub(in crate::probes) struct BlockingPoolProbe<P: BlockingPool> {
    pool: P,
    queries: tokio::sync::Mutex<Queries<P::Error>>,
}

struct Queries<E> {
    /// Stays in flight if the run that started it is dropped.
    in_flight: Option<InFlight<E>>,
    /// The last query got no connection for as long as the application would wait for one.
    is_starved: bool,
}

struct InFlight<E> {
    task: JoinHandle<Result<(), Failure<E>>>,
    waiting: Waiting,
    started: Instant,
}

impl<P: BlockingPool> BlockingPoolProbe<P> {
    pub(in crate::probes) fn new(pool: P) -> Self {
        Self { pool, queries: tokio::sync::Mutex::new(Queries { in_flight: None, is_starved: false }) }
    }

    async fn run(&self) -> Result<(), ProbeError> {
        let mut queries = self.queries.lock().await;
        if queries.in_flight.as_ref().is_some_and(|query| query.task.is_finished()) {
            // It ended between the runs, so its result is outdated.
            let _ = queries.finish().await;
        }
        let (waiting, query_started) = queries.start(&self.pool);
        let run_started = Instant::now();
        loop {
            if let Ok(result) = timeout(HEDGE_DELAY, queries.finish()).await {
                return result.map_err(|failure| self.error(failure, queries.is_starved));
            }
            match waiting.time() {
                Some(time) if time < self.pool.acquire_timeout() && !queries.is_starved => {
                    let max = self.pool.max_size();
                    Usage { taken: max, idle: 0, max, connected: Some(max) }.observe();
                    return Err(exhausted(max));
                }
                None if run_started.elapsed() >= BUSY_TIMEOUT
                    && query_started.elapsed() < self.pool.writer_timeout() =>
                {
                    return Err(locked());
                }
                _ => {}
            }
        }
    }

    fn error(&self, failure: Option<Failure<P::Error>>, is_starved: bool) -> ProbeError {
        let label = self.pool.label();
        match failure {
            Some(Failure::Pool(error)) if is_starved => none_became_free(&label, error),
            Some(Failure::Pool(error)) => label.error_of_kind(ProbeErrorKind::Unreachable, error),
            Some(Failure::NoConnection(error)) => no_connection(&label, error),
            Some(Failure::Driver(error)) => label.error(error),
            None => label.error_of_kind(ProbeErrorKind::Failed, "the runtime was shut down"),
        }
    }
}

impl<E: Classify> Queries<E> {
    /// Starts a query, unless one is in flight. Returns what it waits for, and when it started.
    fn start<P: BlockingPool<Error = E>>(&mut self, pool: &P) -> (Waiting, Instant) {
        let query = self.in_flight.get_or_insert_with(|| {
            let (pool, waiting) = (pool.clone(), Waiting::default());
            let task = spawn_blocking({
                let waiting = waiting.clone();
                move || pool.query(&waiting)
            });
            InFlight { task, waiting, started: Instant::now() }
        });
        (query.waiting.clone(), query.started)
    }

    /// Waits for the query in flight. If this future is dropped, the query stays in flight. The error is `None` if the runtime was shut
    /// down.
    async fn finish(&mut self) -> Result<(), Option<Failure<E>>> {
        let Some(query) = &mut self.in_flight else { return Err(None) };
        let result = (&mut query.task).await;
        let is_waiting = query.waiting.time().is_some();
        self.in_flight = None;
        let result = match result {
            Ok(result) => result.map_err(Some),
            Err(error) => match error.try_into_panic() {
                Ok(payload) => resume_unwind(payload),
                Err(_) => Err(None),
            },
        };
        self.is_starved = is_waiting && matches!(result, Err(Some(Failure::Pool(_))));
        result
    }
}

impl<P: BlockingPool> LibraryProbe for BlockingPoolProbe<P> {
    async fn probe(&self) -> Result<(), ProbeError> {
        self.pool.observe();
        self.run().await
    }

    fn resource(&self) -> Option<String> {
        Some(self.pool.label().to_string())
    }

    fn address(&self) -> Option<usize> {
        self.pool.address()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
    };

    use super::*;

    /// What a query does: it waits for a step, and reports it or ends with it.
    enum Step {
        Waits(bool),
        Ends(Result<(), Failure<io::Error>>),
    }

    #[derive(Clone)]
    struct Scripted {
        steps: Arc<Mutex<mpsc::Receiver<Step>>>,
        started: Arc<AtomicUsize>,
        acquire_timeout: Duration,
        writer_timeout: Duration,
    }

    impl Scripted {
        fn new(acquire_timeout: Duration) -> (mpsc::Sender<Step>, Self) {
            let (sender, steps) = mpsc::channel();
            let steps = Arc::new(Mutex::new(steps));
            (sender, Self { steps, started: Arc::default(), acquire_timeout, writer_timeout: Duration::ZERO })
        }

        fn started(&self) -> usize {
            self.started.load(Ordering::SeqCst)
        }
    }

    impl BlockingPool for Scripted {
        type Error = io::Error;

        fn query(&self, waiting: &Waiting) -> Result<(), Failure<io::Error>> {
            self.started.fetch_add(1, Ordering::SeqCst);
            loop {
                // Ends with the test.
                match self.steps.lock().recv() {
                    Ok(Step::Waits(all_in_use)) => waiting.set(all_in_use),
                    Ok(Step::Ends(result)) => return result,
                    Err(_) => return Ok(()),
                }
            }
        }

        fn max_size(&self) -> usize {
            2
        }

        fn acquire_timeout(&self) -> Duration {
            self.acquire_timeout
        }

        fn writer_timeout(&self) -> Duration {
            self.writer_timeout
        }

        fn observe(&self) {}

        fn address(&self) -> Option<usize> {
            Some(Arc::as_ptr(&self.started).addr())
        }

        fn label(&self) -> Label {
            Label::new("mysql")
        }
    }

    const MINUTE: Duration = Duration::from_secs(60);
    const LIMIT: Duration = Duration::from_millis(300);

    async fn message<P: BlockingPool>(probe: &BlockingPoolProbe<P>) -> String {
        probe.probe().await.unwrap_err().to_string()
    }

    async fn is_ended<P: BlockingPool>(probe: &BlockingPoolProbe<P>) {
        while !probe.queries.lock().await.in_flight.as_ref().is_none_or(|query| query.task.is_finished()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Runs a probe whose query is in flight, and ends the query during the run.
    async fn run_until_it_ends(probe: &BlockingPoolProbe<Scripted>, steps: &mpsc::Sender<Step>) {
        let end = async { steps.send(Step::Ends(Ok(()))).unwrap() };
        tokio::join!(biased; probe.probe(), end).0.unwrap();
    }

    #[tokio::test]
    async fn the_result_of_the_query_is_that_of_the_run() {
        let (steps, pool) = Scripted::new(MINUTE);
        let probe = BlockingPoolProbe::new(pool);
        steps.send(Step::Ends(Ok(()))).unwrap();
        probe.probe().await.unwrap();
        steps.send(Step::Ends(Err(Failure::Driver(io::ErrorKind::TimedOut.into())))).unwrap();
        assert_eq!(probe.probe().await.unwrap_err().kind(), ProbeErrorKind::TimedOut);
        steps.send(Step::Ends(Err(Failure::Pool("refused".into())))).unwrap();
        assert_eq!(message(&probe).await, "unable to connect to mysql");
    }

    #[test]
    fn the_probe_has_the_name_and_the_address_of_its_pool() {
        let (_steps, pool) = Scripted::new(MINUTE);
        let probe = BlockingPoolProbe::new(pool.clone());
        assert_eq!(probe.resource().as_deref(), Some("mysql"));
        assert_eq!(LibraryProbe::address(&probe), Some(Arc::as_ptr(&pool.started).addr()));
    }

    #[tokio::test]
    async fn a_pool_whose_connections_are_all_in_use_is_exhausted_until_one_becomes_free() {
        let (steps, pool) = Scripted::new(MINUTE);
        let probe = BlockingPoolProbe::new(pool.clone());
        steps.send(Step::Waits(true)).unwrap();
        for _ in 0..3 {
            let error = probe.probe().await.unwrap_err();
            assert_eq!(error.kind(), ProbeErrorKind::Saturated);
            assert_eq!(error.to_string(), "connection pool exhausted (2 of 2 in use)");
        }
        assert_eq!(pool.started(), 1);
        // It hangs on the connection that became free.
        steps.send(Step::Waits(false)).unwrap();
        while probe.queries.lock().await.in_flight.as_ref().unwrap().waiting.time().is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        timeout(LIMIT, probe.probe()).await.unwrap_err();
        run_until_it_ends(&probe, &steps).await;
        assert_eq!(pool.started(), 1);
    }

    #[tokio::test]
    async fn a_pool_that_had_no_free_connection_for_as_long_as_the_application_waits_is_not_exhausted_any_more() {
        let (steps, pool) = Scripted::new(Duration::from_millis(150));
        let probe = BlockingPoolProbe::new(pool);
        steps.send(Step::Waits(true)).unwrap();
        assert_eq!(message(&probe).await, "connection pool exhausted (2 of 2 in use)");
        tokio::time::sleep(Duration::from_millis(150)).await;
        timeout(LIMIT, probe.probe()).await.unwrap_err();
        let (shown, ()) = tokio::join!(biased; message(&probe), async {
            steps.send(Step::Ends(Err(Failure::Pool("timed out".into())))).unwrap();
        });
        assert_eq!(shown, "no connection to mysql has become free");
        // Nor is it while the next query waits.
        steps.send(Step::Waits(true)).unwrap();
        timeout(LIMIT, probe.probe()).await.unwrap_err();
        steps.send(Step::Waits(false)).unwrap();
        run_until_it_ends(&probe, &steps).await;
        steps.send(Step::Waits(true)).unwrap();
        assert_eq!(message(&probe).await, "connection pool exhausted (2 of 2 in use)");
    }

    #[tokio::test]
    async fn a_pool_is_exhausted_while_a_query_waits_whatever_ended_the_one_before() {
        for (was_waiting, result) in [(false, Err(Failure::Pool("refused".into()))), (true, Ok(()))] {
            let (steps, pool) = Scripted::new(MINUTE);
            let probe = BlockingPoolProbe::new(pool);
            steps.send(Step::Waits(was_waiting)).unwrap();
            steps.send(Step::Ends(result)).unwrap();
            let _ = probe.probe().await;
            steps.send(Step::Waits(true)).unwrap();
            let exhausted = timeout(LIMIT, message(&probe)).await.unwrap();
            assert_eq!(exhausted, "connection pool exhausted (2 of 2 in use)");
        }
    }

    #[tokio::test]
    async fn a_query_that_hangs_blocks_one_thread_and_its_late_result_is_not_used() {
        let (steps, pool) = Scripted::new(MINUTE);
        let probe = BlockingPoolProbe::new(pool.clone());
        for _ in 0..5 {
            timeout(Duration::from_millis(20), probe.probe()).await.unwrap_err();
        }
        assert_eq!(pool.started(), 1);
        steps.send(Step::Ends(Err(Failure::Pool("late".into())))).unwrap();
        is_ended(&probe).await;
        steps.send(Step::Ends(Ok(()))).unwrap();
        probe.probe().await.unwrap();
        assert_eq!(pool.started(), 2);
    }

    #[tokio::test]
    async fn a_silent_query_is_saturated_for_as_long_as_it_may_wait_for_a_writer_and_waits_for_no_connection() {
        let (steps, pool) = Scripted::new(Duration::ZERO);
        let probe = BlockingPoolProbe::new(Scripted { writer_timeout: MINUTE, ..pool });
        for _ in 0..2 {
            assert_eq!(message(&probe).await, "sqlite is locked by a writer");
        }
        run_until_it_ends(&probe, &steps).await;
        // The application waits for a connection for no time, so the pool is not exhausted.
        steps.send(Step::Waits(true)).unwrap();
        timeout(BUSY_TIMEOUT + LIMIT, probe.probe()).await.unwrap_err();

        let (_steps, pool) = Scripted::new(MINUTE);
        let probe = BlockingPoolProbe::new(Scripted { writer_timeout: BUSY_TIMEOUT, ..pool });
        timeout(BUSY_TIMEOUT + LIMIT, probe.probe()).await.unwrap_err();
    }
}
