//! How a connection pool is probed, of any library: one algorithm over the trait [`Pool`].
//!
//! | state of the pool | a run | status |
//! | --- | --- | --- |
//! | it has an idle connection | queries it | UP |
//! | its idle connection is closed | discards it, and queries the next one or a new one | UP |
//! | its idle connection is silent | queries another idle one, and one outside the pool | UP if another idle one responds; DEGRADED if only the new one does; silent ones are discarded |
//! | it may open a connection | acquires a new one and queries it | UP |
//! | it fails to open one | opens one outside the pool for the error, because some pools retry without one | DOWN |
//! | it is exhausted | opens one outside the pool | DEGRADED if the server accepts it or is full; DOWN otherwise |
//! | it has no connection, and the server is full | | DOWN |
//!
//! A connection outside the pool is opened, queried and closed at most once in 2 s, or once in 900 ms while the server cannot be connected to.
//! A second one is opened concurrently if the first has been silent for 2 s. A warm pool that is not exhausted needs none. See [`outside`].
//!
//! An attempt continues after the limit of its check for as long as the run does, so that distance only delays the first `UP`. It is cancelled
//! only when a concurrent one has succeeded.
//!
//! [`State`] is what a probe remembers between runs.
//!
//! The counters of the pool before a run are values of the run: `connections_in_use`, `connections_idle` and `connections_max`.

#[cfg(any(feature = "bb8-postgres", feature = "bb8-redis", feature = "diesel-async"))]
pub(super) mod bb8;
pub(super) mod blocking;
#[cfg(any(
    feature = "deadpool-lapin",
    feature = "deadpool-postgres",
    feature = "deadpool-redis",
    feature = "diesel-async"
))]
pub(super) mod deadpool;
pub(super) mod driver;
mod outside;
#[cfg(any(feature = "diesel", feature = "r2d2_sqlite", feature = "redis-r2d2"))]
pub(super) mod r2d2;
#[cfg(test)]
mod tests;

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{
    StreamExt as _,
    future::{Either, select},
    stream::FuturesUnordered,
};
use parking_lot::Mutex;
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use self::outside::{Outcome, Outside, Wanted};
use super::{
    classify::Classify,
    support::{
        hedge::{HedgeDelay, MAX_ROUND_TRIP},
        label::Label,
    },
};
use crate::{
    error::{BoxError, ProbeError, ProbeErrorKind},
    observe::observe,
};

/// How long a pool that retries silently may take to connect before a connection outside it is opened for the error.
const CONNECT_HEDGE_DELAY: Duration = Duration::from_millis(200);

/// How often a run that waits for a connection outside an exhausted pool checks whether the pool has one again.
const EXHAUSTED_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// After this time, silent attempts of the pool are considered lost if the server accepts other connections.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// The pause between two attempts of the pool to open a connection on a full server.
const FULL_RETRY: Duration = Duration::from_secs(1);

/// How often a run checks whether a connection that an earlier run released is idle again.
const RELEASE_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A pool, and the meaning of its driver's errors. Clones share the pool.
pub(super) trait Pool: Clone + Send + Sync + 'static {
    /// What a query runs on.
    type Connection: Send;

    /// A connection taken from the pool. It is closed when dropped, because a query may be in flight, unless it is
    /// [released](Self::release).
    type Taken: Send;

    type Error: Classify;

    /// Whether the pool retries failed attempts to connect without returning the error.
    const RETRIES_SILENTLY: bool;

    /// How long a run on an idle connection takes, in queries: more than one where the pool tests connections before it returns them.
    const QUERIES: u32 = 1;

    /// Whether [`take_idle`](Self::take_idle) never opens a connection.
    const IDLE_IS_CERTAIN: bool = true;

    /// Whether an attempt to connect ends when it is dropped.
    const CANCEL_SAFE: bool = true;

    /// Whether the pool queries a released connection before it is idle again.
    const PINGS_ON_RELEASE: bool = false;

    fn usage(&self) -> Usage;

    /// See [`DynProbe::address`](crate::probe::DynProbe::address).
    fn address(&self) -> Option<usize> {
        None
    }

    /// Whether there is a server. Connecting to a file may create it, and shows nothing about the pool's connections.
    fn has_server(&self) -> bool {
        true
    }

    /// Whether a connection can be opened outside the pool.
    fn connects_outside(&self) -> bool {
        self.has_server()
    }

    /// Takes an idle connection. Returns `None` if there is none.
    fn take_idle(&self) -> impl Future<Output = Option<Result<Self::Taken, TakeError<Self::Error>>>> + Send;

    /// Takes an idle connection, or waits for the pool to open one.
    fn acquire(&self) -> impl Future<Output = Result<Self::Taken, TakeError<Self::Error>>> + Send;

    /// How long the application waits for a connection, if [`Usage::connected`] is unknown, or no connection can be opened outside the pool.
    fn acquire_timeout(&self) -> Duration {
        Duration::MAX
    }

    /// Opens a connection outside the pool.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection, Self::Error>> + Send;

    fn connection(taken: &mut Self::Taken) -> &mut Self::Connection;

    /// Returns a connection to the pool.
    fn release(taken: Self::Taken);

    /// Closes a dead connection of the pool. Completes when its slot is free.
    fn discard(taken: Self::Taken) -> impl Future<Output = ()> + Send {
        drop(taken);
        async {}
    }

    /// Closes a connection outside the pool.
    fn close(connection: Self::Connection) -> impl Future<Output = ()> + Send {
        drop(connection);
        async {}
    }

    /// Ends an attempt that is silent while others succeed. By default it is dropped.
    fn abandon(_: Pin<Box<dyn Future<Output = ()> + Send>>) {}

    /// What messages call the resource.
    fn label(&self) -> Label;
}

/// A query on a connection.
pub(super) trait Query<P: Pool>: Clone + Send + Sync + 'static {
    type Output: Send + 'static;

    fn run(&self, connection: &mut P::Connection) -> impl Future<Output = Result<Self::Output, P::Error>> + Send;
}

/// The counters of a pool.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Usage {
    /// Used slots: connections in use and, if the pool counts those, attempts to open one.
    pub(super) taken: usize,
    pub(super) idle: usize,
    pub(super) max: usize,
    /// Connections, in use and idle. `None` if the pool counts attempts to connect as connections.
    pub(super) connected: Option<usize>,
}

impl Usage {
    /// Reports the counters of a pool as values of the run.
    pub(super) fn observe(self) {
        for (key, value) in
            [("connections_in_use", self.taken), ("connections_idle", self.idle), ("connections_max", self.max)]
        {
            observe(key, value);
        }
    }

    pub(super) fn is_exhausted(&self) -> bool {
        self.idle == 0 && self.taken >= self.max
    }

    fn size(&self) -> usize {
        self.taken + self.idle
    }
}

/// Why the pool returns no connection.
#[derive(Debug)]
pub(super) enum TakeError<E> {
    /// All are in use.
    Exhausted,
    Driver(E),
    /// An error of the pool itself.
    Pool(ProbeErrorKind, BoxError),
}

/// Why a run fails, before it has a public message.
#[derive(Debug)]
pub(super) enum Failure<E> {
    Driver(Arc<E>),
    Pool(ProbeErrorKind, BoxError),
    /// All connections are in use, and work: their number.
    Exhausted(usize),
    /// All connections have been in use for as long as the application waits for one.
    NoneBecameFree,
    /// The pool has connections that work, and the server rejects further ones.
    Full(Arc<E>),
    /// The pool has no connection, and the server rejects new ones.
    NoConnection(Arc<E>),
    /// An idle connection is silent, and a new one responds.
    SilentConnection,
}

impl<E: Classify> Failure<E> {
    pub(super) fn into_probe_error(self, label: &Label) -> ProbeError {
        match self {
            Self::Driver(error) => label.error_with(error.classify(), error.message(&label.to_string()), error),
            Self::Pool(kind, error) => label.error_of_kind(kind, error),
            Self::Exhausted(connections) => exhausted(connections),
            Self::NoneBecameFree => none_became_free(label, ALL_IN_USE),
            Self::Full(error) => label.error_of_kind(ProbeErrorKind::Saturated, error),
            Self::NoConnection(error) => no_connection(label, error),
            Self::SilentConnection => silent_connection(label),
        }
    }
}

/// The failure of a pool whose connections are all in use.
pub(super) fn exhausted(connections: usize) -> ProbeError {
    ProbeError::new(
        ProbeErrorKind::Saturated,
        format!("connection pool exhausted ({connections} of {connections} in use)"),
    )
}

/// The failure of a pool without any connection whose server rejects new ones.
pub(super) fn no_connection(label: &Label, error: impl Into<BoxError>) -> ProbeError {
    label.error_with(ProbeErrorKind::Unreachable, ProbeErrorKind::Saturated.message(&label.to_string()), error)
}

/// The failure of a pool whose connections have all been in use for as long as the application waits for one.
pub(super) fn none_became_free(label: &Label, error: impl Into<BoxError>) -> ProbeError {
    label.error_with(ProbeErrorKind::TimedOut, format!("no connection to {label} has become free"), error)
}

/// The cause, where the pool has no error of its own.
pub(super) const ALL_IN_USE: &str = "all connections of the pool are in use";

pub(super) const LOCKED: &str = "sqlite is locked by a writer";

/// The failure of an SQLite that is silent because a connection, perhaps of another process, writes.
pub(super) fn locked() -> ProbeError {
    ProbeError::new(ProbeErrorKind::Saturated, LOCKED)
}

/// The failure of a pool or a client with a connection that is silent, while another one responds.
pub(super) fn silent_connection(label: &Label) -> ProbeError {
    let message = format!("an idle connection to {label} does not respond, a new one does");
    ProbeError::new(ProbeErrorKind::TimedOut, message).degraded()
}

/// What the probe of a pool remembers between runs. Attempts in flight end when it is dropped.
pub(super) struct State<P: Pool> {
    delay: HedgeDelay,
    outside: Outside<P::Error>,
    /// Whether the last run ended because idle connections were silent.
    silent: AtomicBool,
    starvation: Arc<Starvation>,
    /// The task that waits for a connection of a pool.
    waiting: Mutex<Option<AbortHandle>>,
    /// The time by which the connection that the last run released is idle again, if the pool pings it before.
    released_until: Mutex<Option<Instant>>,
}

/// Whether none of the connections of a pool works, if its counters and the server do not show that.
#[derive(Default)]
struct Starvation(AtomicBool);

impl Starvation {
    fn is_starved(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, starved: bool) {
        self.0.store(starved, Ordering::Relaxed);
    }
}

/// The outcome of an attempt of the pool.
enum Attempted<T, E> {
    Responded {
        output: T,
        query: Duration,
        total: Duration,
    },
    /// The connection was dead and has been discarded.
    Dead(E),
    /// There was no idle connection.
    NoneIdle,
    Exhausted,
    /// The pool could not open a connection.
    NotOpened(E),
    /// The query failed.
    Failed(E),
    Pool(ProbeErrorKind, BoxError),
}

/// The outcome of a part of a run.
enum Step<T, E> {
    End(Result<T, Failure<E>>),
    /// The run continues. If the pool has no other connection, this is the error of the run.
    Retry(Option<E>),
    Exhausted,
}

type Attempt<P, T> = Pin<Box<dyn Future<Output = Attempted<T, <P as Pool>::Error>> + Send>>;

impl<P: Pool> State<P> {
    pub(super) fn new() -> Self {
        Self {
            delay: HedgeDelay::new(),
            outside: Outside::new(),
            silent: AtomicBool::new(false),
            starvation: Arc::default(),
            waiting: Mutex::default(),
            released_until: Mutex::default(),
        }
    }

    /// Runs a query on a connection of the pool.
    pub(super) async fn run<Q: Query<P>>(&self, pool: &P, query: &Q) -> Result<Q::Output, Failure<P::Error>> {
        // After a restart of the server all idle connections are dead. One that responds is enough. A pool that does not replace dead
        // connections returns them repeatedly.
        let mut dead_left = pool.usage().size() + 1;
        let mut refused = false;
        loop {
            let usage = pool.usage();
            let released_until = if refused { None } else { self.released_until.lock().take() };
            let step = if usage.idle > 0 && !refused {
                self.run_on_idle(pool, query).await
            } else if let Some(until) = released_until {
                // Otherwise the pool of a far server would open another connection while that one is pinged.
                wait_for_idle(pool, until).await;
                Step::Retry(None)
            } else if usage.is_exhausted() || refused {
                self.run_exhausted(pool, query, refused).await
            } else {
                self.run_on_new(pool, query, usage).await
            };
            match step {
                Step::End(result) => return result,
                Step::Exhausted => refused = true,
                Step::Retry(error) => {
                    refused = false;
                    let Some(error) = error else { continue };
                    dead_left -= 1;
                    if dead_left == 0 {
                        return Err(Failure::Driver(Arc::new(error)));
                    }
                }
            }
        }
    }

    /// Queries an idle connection. If it is silent, queries another one, and one outside the pool.
    async fn run_on_idle<Q: Query<P>>(&self, pool: &P, query: &Q) -> Step<Q::Output, P::Error> {
        let begun = Instant::now();
        let mut attempts = Attempts::<P, Q::Output>::new();
        attempts.push(idle_attempt(pool, query));
        let delay = self.delay.get();
        if !pool.connects_outside() {
            let attempted = attempts.next().await;
            return self.evaluate(pool, attempted, None);
        }
        if let Ok(attempted) = timeout(delay, attempts.next()).await {
            return self.evaluate(pool, attempted, None);
        }
        // It may be dead without having been closed, behind a firewall that lost its state, or driven by a blocked thread. Another one may
        // work, and gets as much time as a round trip may take.
        let mut silent_at = begun + delay;
        if pool.usage().idle > 0 {
            attempts.push(idle_attempt(pool, query));
            silent_at += delay / 2;
        }
        // An earlier outcome does not count, because the server may be frozen since, unless idle connections were silent then, too.
        let mut wanted =
            if self.silent.swap(false, Ordering::Relaxed) { Wanted::Since(begun) } else { Wanted::After(begun) };
        loop {
            let outside = async {
                let outcome = self.outside.outcome(pool, query, wanted).await;
                sleep_until(silent_at).await;
                outcome
            };
            let first = match select(pin!(attempts.next()), pin!(outside)).await {
                Either::Left((attempted, _)) => Either::Left(attempted),
                Either::Right((outcome, _)) => Either::Right(outcome),
            };
            let step = match first {
                Either::Left(attempted) => {
                    let step = self.evaluate(pool, attempted, None);
                    if matches!(step, Step::Retry(_)) && !attempts.is_empty() {
                        continue;
                    }
                    step
                }
                // The attempt is opening a new connection.
                Either::Right(Outcome::Works(_)) if !P::IDLE_IS_CERTAIN && pool.usage().size() == 0 => {
                    Step::Retry(None)
                }
                Either::Right(Outcome::Works(_)) => {
                    self.silent.store(true, Ordering::Relaxed);
                    Step::End(Err(Failure::SilentConnection))
                }
                Either::Right(Outcome::Failed(error)) if !P::IDLE_IS_CERTAIN => Step::End(Err(Failure::Driver(error))),
                // The idle connection may still work: only its response counts, or that of a later connection.
                Either::Right(_) => {
                    silent_at = Instant::now() + outside::RETRY_INTERVAL;
                    wanted = Wanted::After(Instant::now());
                    continue;
                }
            };
            attempts.abandon();
            return step;
        }
    }

    /// Queries a connection that the pool opens. If that is silent, opens one outside the pool for the error.
    async fn run_on_new<Q: Query<P>>(&self, pool: &P, query: &Q, before: Usage) -> Step<Q::Output, P::Error> {
        let begun = Instant::now();
        let mut attempts = Attempts::<P, Q::Output>::new();
        attempts.push(new_attempt(pool, query));
        if !pool.connects_outside() {
            let attempted = attempts.next().await;
            return self.evaluate(pool, attempted, Some(before));
        }
        let delay = if P::RETRIES_SILENTLY { CONNECT_HEDGE_DELAY } else { self.delay.get() };
        if let Ok(attempted) = timeout(delay, attempts.next()).await {
            return self.evaluate(pool, attempted, Some(before));
        }
        let outcome = self.outside.outcome(pool, query, Wanted::Since(begun));
        let outcome = match select(pin!(attempts.next()), pin!(outcome)).await {
            Either::Left((attempted, _)) => return self.evaluate(pool, attempted, Some(before)),
            Either::Right((outcome, _)) => outcome,
        };
        let took = match outcome {
            Outcome::Works(took) => took,
            Outcome::Full(error) => {
                attempts.abandon();
                return Step::End(Err(self.full(pool, before, error)));
            }
            Outcome::Failed(error) => {
                attempts.abandon();
                return Step::End(Err(Failure::Driver(error)));
            }
        };
        // The server accepts connections. The attempt of the pool takes as long as the one outside, or it waits: for a slot of the pool, for
        // the pause between two attempts of the pool, or because it is lost.
        let late_at = begun + delay + took + took / 2 + CONNECT_HEDGE_DELAY;
        if let Ok(attempted) = timeout_at(late_at, attempts.next()).await {
            return self.evaluate(pool, attempted, Some(before));
        }
        if pool.usage().is_exhausted() {
            attempts.abandon();
            return Step::End(Err(Failure::Exhausted(before.max)));
        }
        attempts.push(new_attempt(pool, query));
        let lost_at = Instant::now() + LOST_AFTER;
        let step = loop {
            // The server may stop meanwhile.
            let outcome = self.outside.outcome(pool, query, Wanted::After(Instant::now()));
            let first = match timeout_at(lost_at, select(pin!(attempts.next()), pin!(outcome))).await {
                Ok(Either::Left((attempted, _))) => Some(Either::Left(attempted)),
                Ok(Either::Right((outcome, _))) => Some(Either::Right(outcome)),
                Err(_) => None,
            };
            break match first {
                Some(Either::Left(attempted)) => self.evaluate(pool, attempted, Some(before)),
                Some(Either::Right(Outcome::Works(_))) => continue,
                Some(Either::Right(Outcome::Full(error))) => Step::End(Err(self.full(pool, before, error))),
                Some(Either::Right(Outcome::Failed(error))) => Step::End(Err(Failure::Driver(error))),
                None => Step::Retry(None),
            };
        };
        attempts.abandon();
        step
    }

    /// Finds out whether the connections, which are all in use, work. The counters do not distinguish a busy server from a dead one: the
    /// application's attempts to connect to a frozen server soon use all slots of the pool.
    async fn run_exhausted<Q: Query<P>>(&self, pool: &P, query: &Q, refused: bool) -> Step<Q::Output, P::Error> {
        let usage = pool.usage();
        if !pool.has_server() {
            return Step::End(Err(Failure::Exhausted(usage.max)));
        }
        if !pool.connects_outside() {
            // Only a connection that becomes free shows that they work.
            self.wait_for_connection(pool);
            let failure =
                if self.starvation.is_starved() { Failure::NoneBecameFree } else { Failure::Exhausted(usage.max) };
            return Step::End(Err(failure));
        }
        let mut outcome = pin!(self.outside.outcome(pool, query, Wanted::Recent));
        let outcome = loop {
            match select(outcome.as_mut(), pin!(sleep(EXHAUSTED_POLL_INTERVAL))).await {
                Either::Left((outcome, _)) => break outcome,
                // A connection became free.
                Either::Right(_) if !pool.usage().is_exhausted() => return Step::Retry(None),
                Either::Right(_) => {}
            }
        };
        let usage = pool.usage();
        if !usage.is_exhausted() && !refused {
            return Step::Retry(None);
        }
        let error = match outcome {
            Outcome::Works(_) => return Step::End(Err(Failure::Exhausted(usage.max))),
            Outcome::Failed(error) if !error.may_serve_others() => return Step::End(Err(Failure::Driver(error))),
            Outcome::Failed(error) | Outcome::Full(error) => error,
        };
        Step::End(Err(match self.full(pool, usage, error) {
            Failure::Full(_) => Failure::Exhausted(usage.max),
            failure => failure,
        }))
    }

    /// Evaluates the outcome of an attempt of the pool. `before` are the counters before it, if the pool had to open a connection.
    fn evaluate<T>(
        &self,
        pool: &P,
        attempted: Option<Attempted<T, P::Error>>,
        before: Option<Usage>,
    ) -> Step<T, P::Error> {
        match attempted.expect("an attempt is in flight") {
            Attempted::Responded { output, query, total } => {
                let round_trip = if before.is_some() { query * P::QUERIES } else { total };
                if round_trip <= MAX_ROUND_TRIP {
                    self.delay.record(round_trip);
                }
                self.starvation.set(false);
                if P::PINGS_ON_RELEASE {
                    let ping = query.min(MAX_ROUND_TRIP);
                    *self.released_until.lock() = Some(Instant::now() + ping + ping / 2 + 5 * RELEASE_POLL_INTERVAL);
                }
                Step::End(Ok(output))
            }
            Attempted::Dead(error) => Step::Retry(Some(error)),
            Attempted::NoneIdle => Step::Retry(None),
            Attempted::Exhausted => Step::Exhausted,
            Attempted::NotOpened(error) if error.is_full() && pool.has_server() => {
                Step::End(Err(self.full(pool, before.unwrap_or_else(|| pool.usage()), Arc::new(error))))
            }
            Attempted::NotOpened(error) | Attempted::Failed(error) => Step::End(Err(Failure::Driver(Arc::new(error)))),
            Attempted::Pool(kind, error) => Step::End(Err(Failure::Pool(kind, error))),
        }
    }

    /// The failure of a pool without idle connections whose server is full, by whether it has connections that work.
    fn full(&self, pool: &P, before: Usage, error: Arc<P::Error>) -> Failure<P::Error> {
        let works = match before.connected {
            Some(connected) => connected > 0,
            None => {
                if before.size() == 0 {
                    self.starvation.set(true);
                }
                self.wait_for_connection(pool);
                !self.starvation.is_starved()
            }
        };
        if works { Failure::Full(error) } else { Failure::NoConnection(error) }
    }

    /// Finds out whether a pool has connections that work, by waiting for one as the application does, also between the runs.
    fn wait_for_connection(&self, pool: &P) {
        let mut waiting = self.waiting.lock();
        if waiting.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let (pool, starvation) = (pool.clone(), Arc::clone(&self.starvation));
        *waiting = Some(
            tokio::spawn(async move {
                let became_free = async {
                    loop {
                        match pool.acquire().await {
                            Ok(taken) => return P::release(taken),
                            Err(_) => sleep(FULL_RETRY).await,
                        }
                    }
                };
                let became_free = timeout(pool.acquire_timeout(), Box::pin(became_free)).await;
                starvation.set(became_free.is_err());
            })
            .abort_handle(),
        );
    }
}

impl<P: Pool> Drop for State<P> {
    fn drop(&mut self) {
        if let Some(task) = self.waiting.get_mut().take() {
            task.abort();
        }
    }
}

/// Waits until the pool has an idle connection, but not longer than `until`.
async fn wait_for_idle<P: Pool>(pool: &P, until: Instant) {
    while pool.usage().idle == 0 && Instant::now() < until {
        sleep(RELEASE_POLL_INTERVAL).await;
    }
}

/// The attempts of the pool in flight.
struct Attempts<P: Pool, T>(FuturesUnordered<Attempt<P, T>>);

impl<P: Pool, T: Send + 'static> Attempts<P, T> {
    fn new() -> Self {
        Self(FuturesUnordered::new())
    }

    fn push(&self, attempt: Attempt<P, T>) {
        self.0.push(attempt);
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    async fn next(&mut self) -> Option<Attempted<T, P::Error>> {
        self.0.next().await
    }

    /// Ends all attempts.
    fn abandon(self) {
        for attempt in self.0 {
            P::abandon(Box::pin(async move { drop(attempt.await) }));
        }
    }
}

fn idle_attempt<P: Pool, Q: Query<P>>(pool: &P, query: &Q) -> Attempt<P, Q::Output> {
    let (pool, query) = (pool.clone(), query.clone());
    Box::pin(async move {
        let begun = Instant::now();
        match pool.take_idle().await {
            Some(Ok(taken)) => run_on::<P, Q>(taken, &query, begun).await,
            Some(Err(error)) => Attempted::from(error),
            None => Attempted::NoneIdle,
        }
    })
}

fn new_attempt<P: Pool, Q: Query<P>>(pool: &P, query: &Q) -> Attempt<P, Q::Output> {
    let (pool, query) = (pool.clone(), query.clone());
    Box::pin(async move {
        let begun = Instant::now();
        match pool.acquire().await {
            Ok(taken) => run_on::<P, Q>(taken, &query, begun).await,
            Err(error) => Attempted::from(error),
        }
    })
}

async fn run_on<P: Pool, Q: Query<P>>(
    mut taken: P::Taken,
    query: &Q,
    begun: Instant,
) -> Attempted<Q::Output, P::Error> {
    let queried = Instant::now();
    match query.run(P::connection(&mut taken)).await {
        Ok(output) => {
            P::release(taken);
            Attempted::Responded { output, query: queried.elapsed(), total: begun.elapsed() }
        }
        Err(error) if error.breaks_connection() => {
            P::discard(taken).await;
            Attempted::Dead(error)
        }
        // The response may still arrive, so the connection is dropped, which closes it.
        Err(error) if error.is_timeout() => Attempted::Failed(error),
        Err(error) => {
            P::release(taken);
            Attempted::Failed(error)
        }
    }
}

impl<T, E> From<TakeError<E>> for Attempted<T, E> {
    fn from(error: TakeError<E>) -> Self {
        match error {
            TakeError::Exhausted => Self::Exhausted,
            TakeError::Driver(error) => Self::NotOpened(error),
            TakeError::Pool(kind, error) => Self::Pool(kind, error),
        }
    }
}
