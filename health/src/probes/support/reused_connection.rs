//! The connection of a probe for a client that has none of its own.
//!
//! A client such as `redis::Client` connects for each use. Connecting in every run would load the server, so the probe reuses one connection,
//! by rules that make its result that of the application's next connection:
//!
//! - On a reused connection only a success counts. Any failure closes it, and the result is that of one query on a new connection, which
//!   DNS or a load balancer may lead to another server.
//! - A reused connection that is silent for longer than its round trips took so far is hedged: the query is also sent on a new one, and the
//!   first result counts. There are at least two seconds between two hedges.
//! - A connection is renewed when it is as old as the probe says: a run opens its successor concurrently. If that fails, the run fails, because
//!   the application could not connect either. If it is slow, because the server is far away, the old connection is used until it is open.
//!
//! So a run sends one query, or two when a connection is hedged or renewed. A new connection is opened when the old one is renewed, and in
//! each run that fails.

use std::{
    future::Future,
    panic::resume_unwind,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::{Either, select};
use tokio::{
    sync::Mutex,
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};

use super::{
    attempts::{INTERVAL, first_result},
    hedge::HedgeDelay,
};

/// How old a connection is when it is renewed, where connecting means several connections or a lock of the application.
const RENEWAL_AGE: Duration = Duration::from_secs(30);

/// A connection that is older is closed unused: no run has renewed it in time, and a firewall may have dropped it.
const MAX_AGE: Duration = Duration::from_secs(60);

/// How long a run that has succeeded on the old connection waits for its successor.
const RENEWAL_GRACE: Duration = Duration::from_millis(100);

/// Opens connections and queries them.
pub(in crate::probes) trait Connector: Send + Sync + 'static {
    type Connection: Send + 'static;
    type Error: Send + 'static;

    fn connect(&self) -> impl Future<Output = Result<Self::Connection, Self::Error>> + Send;

    /// Makes the server do real work. Returns whether the connection can be reused.
    fn query(&self, connection: &mut Self::Connection) -> impl Future<Output = Result<bool, Self::Error>> + Send;
}

/// A connector, and the connection that its runs reuse.
pub(in crate::probes) struct ReusedConnection<C: Connector> {
    shared: Arc<Shared<C>>,
    renewal_age: Duration,
    state: Mutex<State<C>>,
}

struct Shared<C> {
    connector: C,
    round_trips: HedgeDelay,
}

struct State<C: Connector> {
    reused: Option<Opened<C::Connection>>,
    renewal: Option<Renewal<C>>,
    last_hedge: Option<Instant>,
}

/// A connection on which a query has succeeded.
struct Opened<T> {
    connection: T,
    at: Instant,
}

/// The outcome of a new connection: `None` if it cannot be reused.
type OpenResult<C> = Result<Option<Opened<<C as Connector>::Connection>>, <C as Connector>::Error>;

impl<C: Connector> ReusedConnection<C> {
    pub(in crate::probes) fn new(connector: C) -> Self {
        Self::renewed_after(RENEWAL_AGE, connector)
    }

    pub(in crate::probes) fn renewed_after(renewal_age: Duration, connector: C) -> Self {
        let shared = Arc::new(Shared { connector, round_trips: HedgeDelay::new() });
        Self { shared, renewal_age, state: Mutex::new(State { reused: None, renewal: None, last_hedge: None }) }
    }

    pub(in crate::probes) fn connector(&self) -> &C {
        &self.shared.connector
    }

    /// Returns what `read` reads from the connection, if there is one and it is not in use.
    pub(in crate::probes) fn inspect<T>(&self, read: impl FnOnce(&C::Connection) -> T) -> Option<T> {
        let state = self.state.try_lock().ok()?;
        state.reused.as_ref().map(|reused| read(&reused.connection))
    }

    /// Runs a query on the reused connection, or on a new one.
    pub(in crate::probes) async fn query(&self) -> Result<(), C::Error> {
        let mut state = self.state.lock().await;
        let State { reused, renewal, last_hedge } = &mut *state;
        if let Some(ended) = renewal.take_if(|renewal| renewal.is_finished()) {
            // A failure is outdated, and this run connects again.
            *reused = ended.await.ok().flatten();
        }
        // Taken, so that the next run opens a connection if this one is dropped.
        let Some(mut old) = reused.take().filter(|old| old.at.elapsed() < MAX_AGE) else {
            *reused = self.replacement(renewal).await?;
            return Ok(());
        };
        if old.at.elapsed() >= self.renewal_age && renewal.is_none() {
            *renewal = Some(Renewal::spawn(&self.shared));
        }

        let started = Instant::now();
        let reusable = {
            let mut query = pin!(self.shared.connector.query(&mut old.connection));
            let silent = started + self.shared.round_trips.get();
            let hedge_at = last_hedge.map_or(silent, |last| silent.max(last + INTERVAL));
            match timeout_at(hedge_at, &mut query).await {
                Ok(Ok(reusable)) => reusable,
                Ok(Err(_)) => {
                    *reused = self.replacement(renewal).await?;
                    return Ok(());
                }
                Err(_) => {
                    *last_hedge = Some(Instant::now());
                    match select(query, pin!(self.replacement(renewal))).await {
                        Either::Left((Ok(reusable), _)) => reusable,
                        Either::Left((Err(_), replacement)) => {
                            *reused = replacement.await?;
                            return Ok(());
                        }
                        Either::Right((replacement, _)) => {
                            *reused = replacement?;
                            return Ok(());
                        }
                    }
                }
            }
        };
        self.shared.round_trips.record(started.elapsed());

        *reused = reusable.then_some(old);
        if let Some(new) = renewal
            && let Ok(renewed) = timeout(RENEWAL_GRACE, new).await
        {
            *renewal = None;
            *reused = None;
            *reused = renewed?;
        }
        Ok(())
    }

    /// Opens a new connection, or waits for the one that is being opened already.
    async fn replacement(&self, renewal: &mut Option<Renewal<C>>) -> OpenResult<C> {
        let interval = INTERVAL.max(self.shared.round_trips.get());
        first_result(interval, || match renewal.take() {
            Some(renewal) => Either::Left(renewal),
            None => Either::Right(self.shared.open()),
        })
        .await
    }
}

impl<C: Connector> Shared<C> {
    async fn open(&self) -> OpenResult<C> {
        let mut connection = self.connector.connect().await?;
        let started = Instant::now();
        let reusable = self.connector.query(&mut connection).await?;
        self.round_trips.record(started.elapsed());
        Ok(reusable.then(|| Opened { connection, at: Instant::now() }))
    }
}

/// A new connection that is being opened while the old one is in use. Dropping it closes the connection.
struct Renewal<C: Connector>(JoinHandle<OpenResult<C>>);

impl<C: Connector> Renewal<C> {
    fn spawn(shared: &Arc<Shared<C>>) -> Self {
        let shared = Arc::clone(shared);
        Self(tokio::spawn(async move { shared.open().await }))
    }

    fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl<C: Connector> Future for Renewal<C> {
    type Output = OpenResult<C>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<OpenResult<C>> {
        // The task is aborted only on drop, so an error is a panic.
        let joined = Pin::new(&mut self.0).poll(context);
        joined.map(|joined| joined.unwrap_or_else(|error| resume_unwind(error.into_panic())))
    }
}

impl<C: Connector> Drop for Renewal<C> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst},
    };

    use tokio::time::sleep;

    use super::*;

    /// A fake server, whose connections are numbered.
    #[derive(Default)]
    struct Server {
        opened: AtomicU32,
        queries: AtomicU32,
        dropped: AtomicU32,
        /// Connections up to these numbers fail or are silent.
        broken: AtomicU32,
        silent: AtomicU32,
        rejects: AtomicBool,
        connect_ms: AtomicU64,
        query_ms: AtomicU64,
        closes_afterwards: AtomicBool,
    }

    struct Connection(Arc<Server>, u32);

    impl Drop for Connection {
        fn drop(&mut self) {
            self.0.dropped.fetch_add(1, SeqCst);
        }
    }

    struct Client(Arc<Server>);

    impl Connector for Client {
        type Connection = Connection;
        type Error = &'static str;

        async fn connect(&self) -> Result<Connection, &'static str> {
            sleep(Duration::from_millis(self.0.connect_ms.load(SeqCst))).await;
            if self.0.rejects.load(SeqCst) {
                return Err("rejected");
            }
            Ok(Connection(Arc::clone(&self.0), self.0.opened.fetch_add(1, SeqCst) + 1))
        }

        async fn query(&self, connection: &mut Connection) -> Result<bool, &'static str> {
            self.0.queries.fetch_add(1, SeqCst);
            sleep(Duration::from_millis(self.0.query_ms.load(SeqCst))).await;
            if connection.1 <= self.0.broken.load(SeqCst) {
                return Err("broken");
            }
            if connection.1 <= self.0.silent.load(SeqCst) {
                return pending().await;
            }
            Ok(!self.0.closes_afterwards.load(SeqCst))
        }
    }

    fn reused() -> (Arc<Server>, ReusedConnection<Client>) {
        let server = Arc::new(Server::default());
        (Arc::clone(&server), ReusedConnection::new(Client(server)))
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_works_is_reused() {
        let (server, reused) = reused();
        for _ in 0..20 {
            reused.query().await.unwrap();
            sleep(SECOND).await;
        }
        assert_eq!((server.opened.load(SeqCst), server.queries.load(SeqCst)), (1, 20));
        assert_eq!(reused.inspect(|connection| connection.1), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_failure_on_a_reused_connection_the_result_is_that_of_a_new_one() {
        let (server, reused) = reused();
        reused.query().await.unwrap();
        server.broken.store(1, SeqCst);
        for _ in 0..3 {
            reused.query().await.unwrap();
        }
        assert_eq!((server.opened.load(SeqCst), server.dropped.load(SeqCst)), (2, 1), "the new one is reused");

        server.broken.store(3, SeqCst);
        assert_eq!(reused.query().await, Err("broken"));
        assert_eq!((server.opened.load(SeqCst), server.dropped.load(SeqCst)), (3, 3), "failed ones are closed");
        reused.query().await.unwrap();
        server.rejects.store(true, SeqCst);
        server.broken.store(4, SeqCst);
        assert_eq!(reused.query().await, Err("rejected"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_is_hedged_and_replaced() {
        let (server, reused) = reused();
        reused.query().await.unwrap();
        server.silent.store(1, SeqCst);
        let started = Instant::now();
        reused.query().await.unwrap();
        assert!(started.elapsed() < Duration::from_millis(400), "{:?}", started.elapsed());
        assert_eq!((server.opened.load(SeqCst), server.dropped.load(SeqCst)), (2, 1));

        // The failure of the hedge is the result, because the reused connection may stay silent forever.
        sleep(INTERVAL).await;
        server.silent.store(2, SeqCst);
        server.rejects.store(true, SeqCst);
        assert_eq!(reused.query().await, Err("rejected"));
    }

    #[tokio::test(start_paused = true)]
    async fn hedges_are_two_seconds_apart() {
        let (server, reused) = reused();
        for silent in 0..6 {
            server.silent.store(silent, SeqCst);
            reused.query().await.unwrap();
        }
        // The first run connects, and five are hedged.
        let started = Instant::now();
        server.silent.store(6, SeqCst);
        reused.query().await.unwrap();
        assert!(started.elapsed() + Duration::from_millis(400) >= INTERVAL, "{:?}", started.elapsed());
        assert_eq!(server.opened.load(SeqCst), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_far_away_is_not_hedged() {
        for round_trip in [80, 150, 250, 350, 700, 2_000] {
            let (server, reused) = reused();
            server.connect_ms.store(round_trip, SeqCst);
            server.query_ms.store(round_trip, SeqCst);
            for _ in 0..8 {
                reused.query().await.unwrap();
            }
            assert_eq!((server.opened.load(SeqCst), server.queries.load(SeqCst)), (1, 8), "{round_trip} ms away");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_connection_is_renewed_while_it_is_in_use() {
        let (server, reused) = reused();
        for _ in 0..=90 {
            reused.query().await.unwrap();
            sleep(SECOND).await;
        }
        assert_eq!((server.opened.load(SeqCst), server.dropped.load(SeqCst)), (4, 3));
        assert_eq!(server.queries.load(SeqCst), 91 + 3, "two queries in the runs that renew it");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_rejects_new_connections_is_reported_when_the_reused_one_is_old() {
        let (server, reused) = reused();
        reused.query().await.unwrap();
        server.rejects.store(true, SeqCst);
        for _ in 0..29 {
            sleep(SECOND).await;
            reused.query().await.unwrap();
        }
        sleep(SECOND).await;
        for _ in 0..3 {
            assert_eq!(reused.query().await, Err("rejected"), "and in the runs after that");
        }
        server.rejects.store(false, SeqCst);
        reused.query().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_renewal_delays_no_run() {
        let (server, reused) = reused();
        reused.query().await.unwrap();
        server.connect_ms.store(3_000, SeqCst);
        server.query_ms.store(200, SeqCst);
        for _ in 0..40 {
            sleep(SECOND).await;
            let started = Instant::now();
            reused.query().await.unwrap();
            assert!(started.elapsed() <= Duration::from_millis(300), "{:?}", started.elapsed());
        }
        assert_eq!((server.opened.load(SeqCst), server.dropped.load(SeqCst)), (2, 1));

        // A renewal that fails after its run is noticed by the next one.
        server.rejects.store(true, SeqCst);
        let mut results = Vec::new();
        for _ in 0..30 {
            sleep(SECOND).await;
            results.push(reused.query().await);
        }
        assert_eq!(results.last(), Some(&Err("rejected")));
    }

    #[tokio::test(start_paused = true)]
    async fn the_result_of_a_renewal_that_failed_between_two_runs_is_outdated() {
        let (server, reused) = reused();
        reused.query().await.unwrap();
        sleep(RENEWAL_AGE).await;
        server.connect_ms.store(3_000, SeqCst);
        server.rejects.store(true, SeqCst);
        reused.query().await.unwrap();
        sleep(SECOND * 4).await;
        server.rejects.store(false, SeqCst);
        reused.query().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_renewed_in_each_run_if_the_runs_are_further_apart_than_its_age() {
        let server = Arc::new(Server::default());
        let reused = ReusedConnection::renewed_after(SECOND * 5, Client(Arc::clone(&server)));
        // Connecting takes longer than a check may, so only the old connection can have the result of its run.
        server.connect_ms.store(700, SeqCst);
        server.query_ms.store(150, SeqCst);
        reused.query().await.unwrap();
        for opened in 1..4 {
            let started = Instant::now();
            sleep(SECOND * 10).await;
            reused.query().await.unwrap();
            assert_eq!(
                started.elapsed(),
                SECOND * 10 + Duration::from_millis(250),
                "a query, and the wait for the successor"
            );
            assert_eq!(server.opened.load(SeqCst), opened);
        }
        sleep(SECOND).await;
        server.rejects.store(true, SeqCst);
        sleep(SECOND * 9).await;
        reused.query().await.unwrap();
        sleep(SECOND * 10).await;
        assert_eq!(reused.query().await, Err("rejected"), "the successor failed after its run");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_was_idle_for_long_is_not_queried() {
        let (server, reused) = reused();
        reused.query().await.unwrap();
        sleep(MAX_AGE).await;
        reused.query().await.unwrap();
        assert_eq!((server.opened.load(SeqCst), server.queries.load(SeqCst)), (2, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_the_server_closes_after_each_query_is_not_reused() {
        let (server, reused) = reused();
        server.closes_afterwards.store(true, SeqCst);
        for _ in 0..3 {
            reused.query().await.unwrap();
        }
        assert_eq!((server.opened.load(SeqCst), server.dropped.load(SeqCst)), (3, 3));
        assert_eq!(reused.inspect(|connection| connection.1), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_is_dropped_leaves_no_connection_behind() {
        let (server, reused) = reused();
        reused.query().await.unwrap();
        server.silent.store(u32::MAX, SeqCst);
        timeout(MAX_AGE, reused.query()).await.unwrap_err();
        assert_eq!(server.opened.load(SeqCst), server.dropped.load(SeqCst));
        server.silent.store(0, SeqCst);
        reused.query().await.unwrap();

        sleep(RENEWAL_AGE).await;
        server.connect_ms.store(10_000, SeqCst);
        reused.query().await.unwrap();
        let opened = server.opened.load(SeqCst);
        drop(reused);
        sleep(MAX_AGE).await;
        assert_eq!(
            (server.opened.load(SeqCst), server.dropped.load(SeqCst)),
            (opened, opened),
            "the renewal has ended"
        );
    }
}
