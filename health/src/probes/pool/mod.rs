//! How a connection pool is probed, whichever library it is of: one algorithm over the trait [`Pool`].
//!
//! | the pool | what a run does | status |
//! | --- | --- | --- |
//! | has an idle connection | queries it | UP |
//! | its idle connection is closed | discards it and tries the next one, or a new one | UP |
//! | its idle connection is silent | queries another idle one, and one outside the pool | UP if another one responds; DEGRADED if only the new one does; silent ones are discarded |
//! | may open a connection | has it open one, and queries that | UP |
//! | cannot open one | opens one outside the pool, which says why, for pools retry in silence | DOWN |
//! | is exhausted | opens one outside the pool | DEGRADED if the server accepts it or is full; DOWN otherwise |
//! | has no connection, and the server is full | | DOWN |
//!
//! A connection outside the pool is opened, queried and closed at most once in 2 s, or once in 900 ms while the server cannot be
//! connected to; a second one is opened beside one that has been silent for 2 s. A warm pool that is not exhausted needs none.
//! See [`outside`].
//!
//! An attempt goes on behind the limit of its check as long as the run does, so that distance only delays the first `UP`. Of two
//! attempts that are under way, one ends only because the other has succeeded.
//!
//! What a probe remembers between runs is in [`State`].

mod outside;
#[cfg(test)]
mod tests;

use std::{
    error::Error,
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
use super::support::hedge::HedgeDelay;
use crate::error::{BoxError, ProbeError, ProbeErrorKind};

/// How long a pool that retries in silence may be silent before a connection outside it shows why.
const CONNECT_PATIENCE: Duration = Duration::from_millis(200);

/// How often a run that waits for a connection outside an exhausted pool looks whether the pool has one again.
const EXHAUSTED_TICK: Duration = Duration::from_millis(100);

/// After that long, attempts of the pool's own that are silent beside a server that accepts connections are lost.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// Between two attempts of the pool to open a connection on a full server.
const FULL_RETRY: Duration = Duration::from_secs(1);

/// How often a run looks whether a connection that an earlier run released is idle again.
const RELEASE_TICK: Duration = Duration::from_millis(20);

/// A round trip that took longer was a fault of the server, and is no measure of its distance.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(1);

/// A pool, and what its driver's errors mean. Clones share the pool.
pub(super) trait Pool: Clone + Send + Sync + 'static {
    /// What a query runs on.
    type Connection: Send;

    /// A connection taken from the pool. If it is dropped it is closed, because a query may be under way; see
    /// [`release`](Self::release).
    type Taken: Send;

    type Error: Error + Send + Sync + 'static;

    /// Whether the pool retries a failed attempt to connect by itself, and does not say why it fails.
    const RETRIES_IN_SILENCE: bool;

    /// How long a run on an idle connection takes, in queries: more than one where the pool tests connections before it returns them.
    const ROUND_TRIPS: u32 = 1;

    /// Whether [`take_idle`](Self::take_idle) never opens a connection.
    const IDLE_IS_CERTAIN: bool = true;

    /// Whether an attempt to connect ends when it is dropped.
    const CANCEL_SAFE: bool = true;

    /// Whether the pool queries a released connection before it is idle again.
    const PINGS_ON_RELEASE: bool = false;

    fn usage(&self) -> Usage;

    /// Whether there is a server. To connect to a file may create it, and shows nothing.
    fn has_server(&self) -> bool {
        true
    }

    /// An idle connection, or `None` if there is none after all.
    fn take_idle(&self) -> impl Future<Output = Option<Result<Self::Taken, TakeError<Self::Error>>>> + Send;

    /// An idle connection, or one that the pool opens.
    fn acquire(&self) -> impl Future<Output = Result<Self::Taken, TakeError<Self::Error>>> + Send;

    /// How long the application waits for a connection, where [`Usage::connected`] is not known.
    fn acquire_timeout(&self) -> Duration {
        Duration::MAX
    }

    /// A connection outside the pool.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection, Self::Error>> + Send;

    fn connection(taken: &mut Self::Taken) -> &mut Self::Connection;

    /// Gives a connection back to the pool.
    fn release(taken: Self::Taken);

    /// Closes a connection of the pool's that is dead. Returns when its place is free.
    fn discard(taken: Self::Taken) -> impl Future<Output = ()> + Send {
        drop(taken);
        async {}
    }

    /// Closes a connection outside the pool.
    fn close(connection: Self::Connection) -> impl Future<Output = ()> + Send {
        drop(connection);
        async {}
    }

    /// Ends an attempt that is silent while others succeed. The default drops it.
    fn abandon(attempt: Pin<Box<dyn Future<Output = ()> + Send>>) {
        drop(attempt);
    }

    fn classify(error: &Self::Error) -> ProbeErrorKind;

    /// Whether a connection is of no more use after this error.
    fn is_dead(error: &Self::Error) -> bool {
        Self::classify(error) == ProbeErrorKind::Unreachable
    }

    /// Whether the driver gave up waiting for a response with this error.
    fn is_overdue(error: &Self::Error) -> bool {
        Self::classify(error) == ProbeErrorKind::TimedOut
    }

    /// Whether the server has as many connections as it takes.
    fn is_full(error: &Self::Error) -> bool {
        Self::classify(error) == ProbeErrorKind::Saturated
    }

    /// Whether a server that does not accept one more connection with this error may well serve those that it has.
    fn may_serve_others(error: &Self::Error) -> bool {
        Self::is_full(error)
    }

    /// What messages call the resource, e.g. `postgres at 127.0.0.1:5432`.
    fn name(&self) -> String;

    /// The public message of an error.
    fn message(error: &Self::Error, name: &str) -> String {
        Self::classify(error).message(name)
    }

    /// A password that the driver's text might repeat.
    fn secret(&self) -> Option<String> {
        None
    }
}

/// What runs on a connection.
pub(super) trait Query<P: Pool>: Clone + Send + Sync + 'static {
    type Output: Send + 'static;

    fn run(&self, connection: &mut P::Connection) -> impl Future<Output = Result<Self::Output, P::Error>> + Send;
}

/// The counters of a pool.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Usage {
    /// Places that are taken: by connections in use, and where the pool counts those, by attempts to open one.
    pub(super) taken: usize,
    pub(super) idle: usize,
    pub(super) max: usize,
    /// Connections, in use and idle, where the pool does not count attempts as such.
    pub(super) connected: Option<usize>,
}

impl Usage {
    fn is_exhausted(&self) -> bool {
        self.idle == 0 && self.taken >= self.max
    }

    fn size(&self) -> usize {
        self.taken + self.idle
    }
}

/// Why the pool gives no connection.
#[derive(Debug)]
pub(super) enum TakeError<E> {
    /// All are in use.
    Exhausted,
    Driver(E),
    /// The pool's own reason.
    Pool(ProbeErrorKind, BoxError),
}

/// Why a run fails, before it has a public message.
#[derive(Debug)]
pub(super) enum Failure<E> {
    Driver(Arc<E>),
    Pool(ProbeErrorKind, BoxError),
    /// That many connections are all in use, and they work.
    Exhausted(usize),
    /// The pool has connections that work, and the server accepts no more.
    Full(Arc<E>),
    /// The pool has no connection, and the server accepts none.
    NoConnection(Arc<E>),
    /// An idle connection is silent, and a new one responds.
    SilentConnection,
}

impl<E: Error + Send + Sync + 'static> Failure<E> {
    pub(super) fn into_probe_error<P: Pool<Error = E>>(self, pool: &P) -> ProbeError {
        let name = pool.name();
        let error = match self {
            Self::Driver(error) => {
                let message = P::message(&error, &name);
                ProbeError::new(P::classify(&error), message).with_source(error)
            }
            Self::Pool(kind, error) => ProbeError::new(kind, kind.message(&name)).with_source(error),
            Self::Exhausted(connections) => exhausted(connections),
            Self::Full(error) => {
                let kind = ProbeErrorKind::Saturated;
                ProbeError::new(kind, kind.message(&name)).with_source(error)
            }
            Self::NoConnection(error) => {
                let message = ProbeErrorKind::Saturated.message(&name);
                ProbeError::new(ProbeErrorKind::Unreachable, message).with_source(error)
            }
            Self::SilentConnection => {
                let message = format!("an idle connection to {name} does not respond, a new one does");
                ProbeError::new(ProbeErrorKind::TimedOut, message).degraded()
            }
        };
        error.with_secret(pool.secret())
    }
}

/// The failure of a pool whose connections are all in use.
pub(super) fn exhausted(connections: usize) -> ProbeError {
    ProbeError::new(
        ProbeErrorKind::Saturated,
        format!("connection pool exhausted ({connections} of {connections} in use)"),
    )
}

/// What the probe of a pool remembers between runs. Attempts that are under way end when it is dropped.
pub(super) struct State<P: Pool> {
    delay: HedgeDelay,
    outside: Outside<P::Error>,
    /// The last run ended because idle connections were silent.
    silent: AtomicBool,
    starvation: Arc<Starvation>,
    /// Waits for a connection of a pool whose server is full.
    waiting: Mutex<Option<AbortHandle>>,
    /// When the connection that the last run released is idle again at the latest, where the pool queries it before.
    released_until: Mutex<Option<Instant>>,
}

/// Whether a pool that counts attempts as connections has none that works.
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

/// What the pool's own attempt came to.
enum Attempted<T, E> {
    Responded {
        output: T,
        query: Duration,
        total: Duration,
    },
    /// The connection was dead, and is discarded.
    Dead(E),
    /// There was no idle connection after all.
    NoneIdle,
    Exhausted,
    /// The pool could not open a connection.
    NotOpened(E),
    /// The query failed.
    Failed(E),
    Pool(ProbeErrorKind, BoxError),
}

/// How a part of a run ends.
enum Step<T, E> {
    End(Result<T, Failure<E>>),
    /// With this error if the pool has no other connection.
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
        // After a restart of the server all idle connections are dead. One that responds is enough; and a pool that does not
        // replace dead ones gives them again and again.
        let mut dead_left = pool.usage().size() + 1;
        let mut refused = false;
        loop {
            let usage = pool.usage();
            let released_until = if refused { None } else { self.released_until.lock().take() };
            let step = if usage.idle > 0 && !refused {
                self.run_on_idle(pool, query).await
            } else if let Some(until) = released_until {
                // Otherwise the pool of a far server would open another connection while that one is returned.
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

    /// Queries an idle connection; if it is silent, another one and one outside the pool.
    async fn run_on_idle<Q: Query<P>>(&self, pool: &P, query: &Q) -> Step<Q::Output, P::Error> {
        let begun = Instant::now();
        let mut attempts = Attempts::<P, Q::Output>::new();
        attempts.push(idle_attempt(pool, query));
        let delay = self.delay.get();
        if !pool.has_server() {
            let attempted = attempts.next().await;
            return self.settle(pool, attempted, None);
        }
        if let Ok(attempted) = timeout(delay, attempts.next()).await {
            return self.settle(pool, attempted, None);
        }
        // It may be dead without having been closed: behind a firewall that lost its state, or opened by a blocked thread. Then
        // another one may work. It gets the time that a round trip may take.
        let mut silent_at = begun + delay;
        if pool.usage().idle > 0 {
            attempts.push(idle_attempt(pool, query));
            silent_at += delay / 2;
        }
        // That a new one responded earlier says nothing about a server that may be frozen now, unless idle ones were silent then.
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
                    let step = self.settle(pool, attempted, None);
                    if matches!(step, Step::Retry(_)) && !attempts.is_empty() {
                        continue;
                    }
                    step
                }
                // What is waited for is a new connection.
                Either::Right(Outcome::Works(_)) if !P::IDLE_IS_CERTAIN && pool.usage().size() == 0 => {
                    Step::Retry(None)
                }
                Either::Right(Outcome::Works(_)) => {
                    self.silent.store(true, Ordering::Relaxed);
                    Step::End(Err(Failure::SilentConnection))
                }
                Either::Right(Outcome::Failed(error)) if !P::IDLE_IS_CERTAIN => Step::End(Err(Failure::Driver(error))),
                // The idle connection may still be served: only its own response counts, or that of a new one later on.
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

    /// Queries a connection that the pool opens; if that is silent, looks outside for the reason.
    async fn run_on_new<Q: Query<P>>(&self, pool: &P, query: &Q, before: Usage) -> Step<Q::Output, P::Error> {
        let begun = Instant::now();
        let mut attempts = Attempts::<P, Q::Output>::new();
        attempts.push(new_attempt(pool, query));
        if !pool.has_server() {
            let attempted = attempts.next().await;
            return self.settle(pool, attempted, Some(before));
        }
        let patience = if P::RETRIES_IN_SILENCE { CONNECT_PATIENCE } else { self.delay.get() };
        if let Ok(attempted) = timeout(patience, attempts.next()).await {
            return self.settle(pool, attempted, Some(before));
        }
        let outcome = self.outside.outcome(pool, query, Wanted::Since(begun));
        let outcome = match select(pin!(attempts.next()), pin!(outcome)).await {
            Either::Left((attempted, _)) => return self.settle(pool, attempted, Some(before)),
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
        // The server accepts connections. The pool's own attempt takes as long as the one outside did, by the same way, or it
        // waits: for a place in the pool, for the pause between two attempts of the pool's own, or because it was lost.
        let late_at = begun + patience + took + took / 2 + CONNECT_PATIENCE;
        if let Ok(attempted) = timeout_at(late_at, attempts.next()).await {
            return self.settle(pool, attempted, Some(before));
        }
        if pool.usage().is_exhausted() {
            attempts.abandon();
            return Step::End(Err(Failure::Exhausted(before.max)));
        }
        attempts.push(new_attempt(pool, query));
        let lost_at = Instant::now() + LOST_AFTER;
        let step = loop {
            // Meanwhile the server may stop.
            let outcome = self.outside.outcome(pool, query, Wanted::After(Instant::now()));
            let first = match timeout_at(lost_at, select(pin!(attempts.next()), pin!(outcome))).await {
                Ok(Either::Left((attempted, _))) => Some(Either::Left(attempted)),
                Ok(Either::Right((outcome, _))) => Some(Either::Right(outcome)),
                Err(_) => None,
            };
            break match first {
                Some(Either::Left(attempted)) => self.settle(pool, attempted, Some(before)),
                Some(Either::Right(Outcome::Works(_))) => continue,
                Some(Either::Right(Outcome::Full(error))) => Step::End(Err(self.full(pool, before, error))),
                Some(Either::Right(Outcome::Failed(error))) => Step::End(Err(Failure::Driver(error))),
                None => Step::Retry(None),
            };
        };
        attempts.abandon();
        step
    }

    /// Finds out whether the connections that are all in use work. The counters do not tell a busy server from a dead one: the
    /// application's own attempts to connect to one that is frozen soon take every place of the pool.
    async fn run_exhausted<Q: Query<P>>(&self, pool: &P, query: &Q, refused: bool) -> Step<Q::Output, P::Error> {
        let usage = pool.usage();
        if !pool.has_server() {
            return Step::End(Err(Failure::Exhausted(usage.max)));
        }
        let mut outcome = pin!(self.outside.outcome(pool, query, Wanted::Recent));
        let outcome = loop {
            match select(outcome.as_mut(), pin!(sleep(EXHAUSTED_TICK))).await {
                Either::Left((outcome, _)) => break outcome,
                // One came free.
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
            Outcome::Failed(error) if !P::may_serve_others(&error) => return Step::End(Err(Failure::Driver(error))),
            Outcome::Failed(error) | Outcome::Full(error) => error,
        };
        Step::End(Err(match self.full(pool, usage, error) {
            Failure::Full(_) => Failure::Exhausted(usage.max),
            failure => failure,
        }))
    }

    /// What the end of the pool's own attempt means; `before` are the counters before the pool was to open a connection.
    fn settle<T>(
        &self,
        pool: &P,
        attempted: Option<Attempted<T, P::Error>>,
        before: Option<Usage>,
    ) -> Step<T, P::Error> {
        match attempted.expect("an attempt is under way") {
            Attempted::Responded { output, query, total } => {
                let round_trip = if before.is_some() { query * P::ROUND_TRIPS } else { total };
                if round_trip <= MAX_ROUND_TRIP {
                    self.delay.record(round_trip);
                }
                self.starvation.set(false);
                if P::PINGS_ON_RELEASE {
                    let ping = query.min(MAX_ROUND_TRIP);
                    *self.released_until.lock() = Some(Instant::now() + ping + ping / 2 + 5 * RELEASE_TICK);
                }
                Step::End(Ok(output))
            }
            Attempted::Dead(error) => Step::Retry(Some(error)),
            Attempted::NoneIdle => Step::Retry(None),
            Attempted::Exhausted => Step::Exhausted,
            Attempted::NotOpened(error) if P::is_full(&error) && pool.has_server() => {
                Step::End(Err(self.full(pool, before.unwrap_or_else(|| pool.usage()), Arc::new(error))))
            }
            Attempted::NotOpened(error) | Attempted::Failed(error) => Step::End(Err(Failure::Driver(Arc::new(error)))),
            Attempted::Pool(kind, error) => Step::End(Err(Failure::Pool(kind, error))),
        }
    }

    /// The server accepts no more connections, and the pool has none idle: do those that it has work?
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

    /// Where the pool counts attempts as connections, only waiting for one as the application does shows whether it has any. That
    /// goes on between the runs.
    fn wait_for_connection(&self, pool: &P) {
        let mut waiting = self.waiting.lock();
        if waiting.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let (pool, starvation) = (pool.clone(), Arc::clone(&self.starvation));
        *waiting = Some(
            tokio::spawn(async move {
                let came_free = async {
                    loop {
                        match pool.acquire().await {
                            Ok(taken) => return P::release(taken),
                            Err(_) => sleep(FULL_RETRY).await,
                        }
                    }
                };
                let came_free = timeout(pool.acquire_timeout(), Box::pin(came_free)).await;
                starvation.set(came_free.is_err());
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

/// Returns when the pool has an idle connection, or at that time.
async fn wait_for_idle<P: Pool>(pool: &P, until: Instant) {
    while pool.usage().idle == 0 && Instant::now() < until {
        sleep(RELEASE_TICK).await;
    }
}

/// The pool's own attempts that are under way.
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

    /// Ends those that are silent.
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
        Err(error) if P::is_dead(&error) => {
            P::discard(taken).await;
            Attempted::Dead(error)
        }
        // A reply may still come: what is dropped here is closed.
        Err(error) if P::is_overdue(&error) => Attempted::Failed(error),
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
