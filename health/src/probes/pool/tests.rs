//! The rules of the algorithm, on a paused clock, with a fake pool and a fake server.

use std::{collections::VecDeque, fmt, future::pending, pin::Pin, sync::Arc, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use tokio::time::{Instant, advance, sleep, timeout};

use super::{CONNECT_HEDGE_DELAY, Failure, LOST_AFTER, Pool, Query, RELEASE_POLL_INTERVAL, State, TakeError, Usage};
use crate::probes::support::hedge::MIN_DELAY;
use crate::{
    error::{ProbeErrorKind, ProbeErrorKind as Kind},
    observe::observing,
    probes::{classify::Classify, support::label::Label},
};

/// What a server does with a new connection.
#[derive(Clone, Copy, PartialEq)]
enum Server {
    Up,
    Frozen,
    Refuses,
    /// Rejects new connections with an error that shows that it serves those which are open.
    Rejects,
    Full,
}

/// What a connection does with a query.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Works,
    /// Responds after this time.
    Late(Duration),
    Silent,
    Dead,
    /// Is found dead after this time.
    LateDead(Duration),
    /// Responds with an error of this kind.
    Fails(ProbeErrorKind),
}

/// What connections lead to.
#[derive(Clone, Copy, PartialEq)]
enum Connections {
    ToServer,
    /// None can be opened outside the pool.
    OfPoolOnly,
    ToFile,
}

struct World {
    server: Server,
    round_trip: Duration,
    idle: VecDeque<Fate>,
    in_use: usize,
    max: usize,
    /// The number of further attempts of the pool that are lost.
    lost: usize,
    /// When each attempt outside the pool began.
    outside: Vec<Instant>,
    outside_in_flight: usize,
    most_outside_in_flight: usize,
    /// Callers that wait for a connection of the pool.
    acquiring: usize,
    most_acquiring: usize,
    /// Attempts of the pool that were dropped.
    cancelled: usize,
    /// Connections that the pool opened.
    opened: usize,
    /// Whether the pool queries a released connection before it is idle, as sqlx does.
    pings_on_release: bool,
    /// Whether the pool keeps dead connections.
    keeps_dead: bool,
    connections: Connections,
    queries: usize,
}

/// A pool. One that retries returns no error if it cannot connect, and counts attempts to connect as connections, as sqlx does.
/// One whose idle connections are not certain queries one when it is taken, replaces a dead one, and waits for abandoned attempts, as bb8
/// does.
struct Fake<const RETRIES: bool, const CERTAIN: bool>(Arc<Mutex<World>>);

type Retrying = Fake<true, true>;
type Plain = Fake<false, true>;
type Replacing = Fake<false, false>;

impl<const R: bool, const C: bool> Clone for Fake<R, C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct FakeError(ProbeErrorKind);

impl fmt::Display for FakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for FakeError {}

impl Classify for FakeError {
    fn classify(&self) -> ProbeErrorKind {
        self.0
    }

    fn may_serve_others(&self) -> bool {
        self.is_full() || self.0 == Kind::Rejected
    }
}

struct Taken<const R: bool, const C: bool> {
    pool: Fake<R, C>,
    fate: Fate,
    released: bool,
}

impl<const R: bool, const C: bool> Drop for Taken<R, C> {
    fn drop(&mut self) {
        let mut world = self.pool.world();
        if self.released && world.pings_on_release {
            let (pool, fate, round_trip) = (self.pool.clone(), self.fate, world.round_trip);
            tokio::spawn(async move {
                sleep(round_trip).await;
                let mut world = pool.world();
                world.in_use -= 1;
                world.idle.push_back(fate);
            });
            return;
        }
        world.in_use -= 1;
        if self.released || world.keeps_dead {
            world.idle.push_back(self.fate);
        }
    }
}

const CONNECT_ROUND_TRIPS: u32 = 4;
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

impl<const R: bool, const C: bool> Fake<R, C> {
    fn new(max: usize, idle: &[Fate]) -> Self {
        Self(Arc::new(Mutex::new(World {
            server: Server::Up,
            round_trip: Duration::from_millis(1),
            idle: idle.iter().copied().collect(),
            in_use: 0,
            max,
            lost: 0,
            outside: Vec::new(),
            outside_in_flight: 0,
            most_outside_in_flight: 0,
            acquiring: 0,
            most_acquiring: 0,
            cancelled: 0,
            opened: 0,
            pings_on_release: false,
            keeps_dead: false,
            connections: Connections::ToServer,
            queries: 0,
        })))
    }

    fn far(self, round_trip: u64) -> Self {
        self.world().round_trip = Duration::from_millis(round_trip);
        self
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock()
    }

    fn set(&self, server: Server) {
        self.world().server = server;
    }

    fn outside(&self) -> usize {
        self.world().outside.len()
    }

    /// The application takes all connections that the pool may have.
    fn exhaust(&self) {
        let mut world = self.world();
        world.idle.clear();
        let max = world.max;
        world.in_use = max;
    }

    /// The server's response to one request.
    async fn respond(&self) -> Result<(), FakeError> {
        loop {
            let (server, round_trip) = {
                let world = self.world();
                (world.server, world.round_trip)
            };
            match server {
                Server::Frozen => sleep(Duration::from_millis(1)).await,
                Server::Refuses => return Err(FakeError(Kind::Unreachable)),
                Server::Rejects => return Err(FakeError(Kind::Rejected)),
                Server::Up | Server::Full => {
                    sleep(round_trip).await;
                    return Ok(());
                }
            }
        }
    }

    /// Never returns if the attempt is one of those that are lost.
    async fn lose(&self) {
        let is_lost = {
            let mut world = self.world();
            let is_lost = world.lost > 0;
            world.lost = world.lost.saturating_sub(1);
            is_lost
        };
        if is_lost {
            pending::<()>().await;
        }
    }

    async fn open(&self) -> Result<Fate, FakeError> {
        for _ in 0..CONNECT_ROUND_TRIPS {
            self.respond().await?;
        }
        if self.world().server == Server::Full { Err(FakeError(Kind::Saturated)) } else { Ok(Fate::Works) }
    }
}

/// Calls `ended` when it is dropped.
struct OnDrop<F: FnMut(bool)> {
    ended: F,
    finished: bool,
}

impl<F: FnMut(bool)> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.ended)(self.finished);
    }
}

impl<const R: bool, const C: bool> Pool for Fake<R, C> {
    type Connection = Fate;
    type Taken = Taken<R, C>;
    type Error = FakeError;

    const RETRIES_SILENTLY: bool = R;
    const PINGS_ON_RELEASE: bool = R;
    const IDLE_IS_CERTAIN: bool = C;
    const QUERIES: u32 = if C { 1 } else { 2 };

    fn usage(&self) -> Usage {
        let world = self.world();
        Usage {
            taken: world.in_use,
            idle: world.idle.len(),
            max: world.max,
            connected: (!R).then_some(world.in_use + world.idle.len()),
        }
    }

    fn has_server(&self) -> bool {
        self.world().connections != Connections::ToFile
    }

    fn connects_outside(&self) -> bool {
        self.world().connections == Connections::ToServer
    }

    async fn take_idle(&self) -> Option<Result<Taken<R, C>, TakeError<FakeError>>> {
        let fate = self.world().idle.pop_front()?;
        if !C && fate == Fate::Dead {
            self.lose().await;
            let opened = self.open().await.map(|fate| {
                self.world().in_use += 1;
                Taken { pool: self.clone(), fate, released: false }
            });
            return Some(opened.map_err(TakeError::Driver));
        }
        self.world().in_use += 1;
        let taken = Taken { pool: self.clone(), fate, released: false };
        if !C && fate == Fate::Works {
            let tested = self.respond().await;
            return Some(tested.map(|()| taken).map_err(TakeError::Driver));
        }
        Some(Ok(taken))
    }

    async fn acquire(&self) -> Result<Taken<R, C>, TakeError<FakeError>> {
        let waited = Instant::now();
        {
            let mut world = self.world();
            world.acquiring += 1;
            world.most_acquiring = world.most_acquiring.max(world.acquiring);
        }
        let pool = self.clone();
        let _on_drop = OnDrop { ended: move |_| pool.world().acquiring -= 1, finished: true };
        loop {
            if let Some(taken) = self.take_idle().await {
                return taken;
            }
            if !self.usage().is_exhausted() {
                break;
            }
            if !R {
                return Err(TakeError::Exhausted);
            }
            if waited.elapsed() >= ACQUIRE_TIMEOUT {
                return Err(TakeError::Driver(FakeError(Kind::TimedOut)));
            }
            sleep(Duration::from_millis(5)).await;
        }
        self.world().in_use += 1;
        let mut taken = Taken { pool: self.clone(), fate: Fate::Works, released: false };
        let pool = self.clone();
        let mut on_drop = OnDrop {
            ended: move |finished| {
                if !finished {
                    pool.world().cancelled += 1;
                }
            },
            finished: false,
        };
        self.lose().await;
        loop {
            match self.open().await {
                Ok(fate) => {
                    on_drop.finished = true;
                    self.world().opened += 1;
                    taken.fate = fate;
                    return Ok(taken);
                }
                Err(_) if R && waited.elapsed() < ACQUIRE_TIMEOUT => sleep(Duration::from_millis(50)).await,
                Err(error) => {
                    on_drop.finished = true;
                    return Err(TakeError::Driver(error));
                }
            }
        }
    }

    fn acquire_timeout(&self) -> Duration {
        ACQUIRE_TIMEOUT
    }

    async fn connect(&self) -> Result<Fate, FakeError> {
        {
            let mut world = self.world();
            world.outside.push(Instant::now());
            world.outside_in_flight += 1;
            world.most_outside_in_flight = world.most_outside_in_flight.max(world.outside_in_flight);
        }
        let pool = self.clone();
        let _on_drop = OnDrop { ended: move |_| pool.world().outside_in_flight -= 1, finished: true };
        self.open().await
    }

    fn connection(taken: &mut Taken<R, C>) -> &mut Fate {
        &mut taken.fate
    }

    fn release(mut taken: Taken<R, C>) {
        taken.released = true;
    }

    fn abandon(attempt: Pin<Box<dyn Future<Output = ()> + Send>>) {
        if !C {
            tokio::spawn(attempt);
        }
    }

    fn label(&self) -> Label {
        Label::new("fake")
    }
}

#[derive(Clone)]
struct Ping<const R: bool, const C: bool>(Fake<R, C>);

impl<const R: bool, const C: bool> Query<Fake<R, C>> for Ping<R, C> {
    type Output = ();

    async fn run(&self, connection: &mut Fate) -> Result<(), FakeError> {
        self.0.world().queries += 1;
        match connection {
            Fate::Works => self.0.respond().await,
            Fate::Late(time) => {
                sleep(*time).await;
                Ok(())
            }
            Fate::Silent => pending().await,
            Fate::Dead => Err(FakeError(Kind::Unreachable)),
            Fate::LateDead(time) => {
                sleep(*time).await;
                Err(FakeError(Kind::Unreachable))
            }
            Fate::Fails(kind) => Err(FakeError(*kind)),
        }
    }
}

/// The outcome of a poll.
#[derive(Debug, PartialEq)]
enum Shown {
    Up,
    /// Exhausted, and works.
    Exhausted,
    /// The server is full, and the pool has connections.
    Full,
    /// The server is full, and the pool has none.
    NoConnection,
    SilentConnection,
    Down(ProbeErrorKind),
    /// No result by the limit. The run continues.
    Overdue,
}

const LIMIT: Duration = Duration::from_millis(800);

type Run = Pin<Box<dyn Future<Output = Shown>>>;

/// Polls as the engine does: one run at a time, which continues after the limit.
struct Check<const R: bool, const C: bool> {
    pool: Fake<R, C>,
    state: Arc<State<Fake<R, C>>>,
    run: Option<Run>,
}

impl<const R: bool, const C: bool> Check<R, C> {
    fn of(pool: &Fake<R, C>) -> Self {
        Self { pool: pool.clone(), state: Arc::new(State::new()), run: None }
    }

    async fn poll(&mut self) -> Shown {
        let mut run = self.run.take().unwrap_or_else(|| {
            let (pool, state) = (self.pool.clone(), Arc::clone(&self.state));
            Box::pin(async move {
                match state.run(&pool, &Ping(pool.clone())).await {
                    Ok(()) => Shown::Up,
                    Err(Failure::Exhausted(_)) => Shown::Exhausted,
                    Err(Failure::Full(_)) => Shown::Full,
                    Err(Failure::NoConnection(_)) => Shown::NoConnection,
                    Err(Failure::SilentConnection) => Shown::SilentConnection,
                    Err(Failure::Driver(error)) => Shown::Down(error.0),
                    Err(Failure::Pool(kind, _)) => Shown::Down(kind),
                    Err(Failure::NoneBecameFree) => Shown::Down(Kind::TimedOut),
                }
            })
        });
        let Ok(shown) = timeout(LIMIT, &mut run).await else {
            self.run = Some(run);
            return Shown::Overdue;
        };
        shown
    }

    /// Polls twice a second for this time, and returns each outcome with its time.
    async fn poll_for(&mut self, seconds: u64) -> Vec<(Duration, Shown)> {
        let begun = Instant::now();
        let mut shown = Vec::new();
        while begun.elapsed() < Duration::from_secs(seconds) {
            let next = Instant::now() + Duration::from_millis(500);
            let seen = self.poll().await;
            shown.push((begun.elapsed(), seen));
            tokio::time::sleep_until(next).await;
        }
        shown
    }

    async fn always_shows(&mut self, expected: &Shown, seconds: u64) {
        let shown = self.poll_for(seconds).await;
        assert!(shown.iter().all(|(_, shown)| shown == expected), "not always {expected:?}: {shown:?}");
    }
}

#[tokio::test]
async fn the_counters_of_a_pool_are_values_of_the_run() {
    let pool = Plain::new(5, &[Fate::Works, Fate::Works]);
    pool.world().in_use = 3;
    let ((), observed) = observing(async { pool.usage().observe() }).await;
    let observed: Vec<_> = observed.iter().map(|(key, value)| (key, value.to_string())).collect();
    let expected = [("connections_in_use", "3"), ("connections_idle", "2"), ("connections_max", "5")];
    assert_eq!(observed, expected.map(|(key, value)| (key, value.to_owned())));
}

#[test]
fn a_pool_is_not_recognized_unless_it_exposes_what_its_clones_share() {
    assert_eq!(Plain::new(1, &[]).address(), None);
}

const DISTANCES: [u64; 4] = [80, 150, 250, 350];

#[tokio::test(start_paused = true)]
async fn a_warm_pool_is_probed_on_its_own_connections_however_far_its_server_is() {
    for distance in DISTANCES {
        let pool = Retrying::new(2, &[Fate::Works, Fate::Works]).far(distance);
        let mut check = Check::of(&pool);
        check.poll().await;
        let opened = pool.outside();
        assert!(opened <= 1, "before any round trip is known");
        check.always_shows(&Shown::Up, 20).await;
        assert_eq!(pool.outside(), opened, "{distance} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cold_pool_of_a_far_server_is_up_as_soon_as_it_can_respond_to_the_query() {
    async fn cold<const R: bool, const C: bool>(distance: u64) {
        let pool = Fake::<R, C>::new(2, &[]).far(distance);
        let mut check = Check::of(&pool);
        let (begun, answered) = (Instant::now(), Duration::from_millis(distance * u64::from(CONNECT_ROUND_TRIPS + 1)));
        while check.poll().await != Shown::Up {
            assert!(begun.elapsed() < answered, "{distance} ms");
        }
        assert!(begun.elapsed() <= answered + Duration::from_millis(1), "{distance} ms: {:?}", begun.elapsed());
        check.always_shows(&Shown::Up, 10).await;
        assert_eq!(pool.world().cancelled, 0, "no attempt that makes progress is cancelled");
        assert!(pool.outside() <= 1, "{distance} ms: {}", pool.outside());
    }

    for distance in DISTANCES {
        cold::<true, true>(distance).await;
        cold::<false, true>(distance).await;
        cold::<false, false>(distance).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_cold_pool_that_pings_released_connections_opens_no_second_one_for_the_next_run() {
    for distance in DISTANCES {
        let pool = Retrying::new(2, &[]).far(distance);
        pool.world().pings_on_release = true;
        let mut check = Check::of(&pool);
        let begun = Instant::now();
        // The next run begins as soon as this one has ended.
        while check.poll().await == Shown::Overdue {}
        check.always_shows(&Shown::Up, 10).await;
        assert_eq!(pool.world().opened, 1, "{distance} ms, after {:?}", begun.elapsed());
        assert!(pool.outside() <= 1, "{distance} ms: {}", pool.outside());
    }
}

#[tokio::test(start_paused = true)]
async fn a_released_connection_that_does_not_become_idle_is_waited_for_as_long_as_its_ping_may_take() {
    let pool = Retrying::new(2, &[Fate::Works]).far(40);
    let mut check = Check::of(&pool);
    assert_eq!(check.poll().await, Shown::Up);
    // The application takes it.
    {
        let mut world = pool.world();
        world.idle.clear();
        world.in_use = 1;
    }
    let begun = Instant::now();
    assert_eq!(check.poll().await, Shown::Up);
    let waited = Duration::from_millis(60) + 5 * RELEASE_POLL_INTERVAL;
    assert_eq!(begun.elapsed(), waited + Duration::from_millis(40 * u64::from(CONNECT_ROUND_TRIPS + 1)));
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_query_is_the_result_and_its_connection_is_kept_unless_the_response_may_still_arrive() {
    for (kind, size) in [(Kind::Failed, 2), (Kind::TimedOut, 1)] {
        let pool = Plain::new(2, &[Fate::Fails(kind), Fate::Works]);
        assert_eq!(Check::of(&pool).poll().await, Shown::Down(kind));
        assert_eq!(pool.usage().size(), size, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn dead_idle_connections_are_discarded_and_the_next_one_is_queried() {
    let pool = Plain::new(4, &[Fate::Dead, Fate::Dead, Fate::Works]);
    let mut check = Check::of(&pool);
    assert_eq!(check.poll().await, Shown::Up);
    assert_eq!((pool.usage().size(), pool.outside()), (1, 0));
    let all_dead = Plain::new(2, &[Fate::Dead, Fate::Dead]);
    assert_eq!(Check::of(&all_dead).poll().await, Shown::Up, "a new one is opened");
}

#[tokio::test(start_paused = true)]
async fn silent_idle_connections_are_degraded_while_a_new_one_responds_and_are_discarded() {
    let pool = Plain::new(2, &[Fate::Silent, Fate::Silent]);
    let mut check = Check::of(&pool);
    assert_eq!(check.poll().await, Shown::SilentConnection);
    assert_eq!(pool.usage().size(), 0);
    check.always_shows(&Shown::Up, 5).await;
    assert_eq!(pool.outside(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_next_to_one_that_responds_is_up_and_is_discarded() {
    let pool = Plain::new(2, &[Fate::Silent, Fate::Works]);
    let mut check = Check::of(&pool);
    check.always_shows(&Shown::Up, 5).await;
    assert_eq!(pool.usage().size(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_degraded_as_soon_as_it_has_been_silent_for_the_delay_and_a_new_one_responds() {
    let pool = Plain::new(2, &[Fate::Silent]);
    let begun = Instant::now();
    assert_eq!(Check::of(&pool).poll().await, Shown::SilentConnection);
    let connected = Duration::from_millis(u64::from(CONNECT_ROUND_TRIPS) + 1);
    assert_eq!(begun.elapsed(), MIN_DELAY + connected);
}

#[tokio::test(start_paused = true)]
async fn a_second_idle_connection_gets_time_to_respond_before_a_new_one_counts() {
    let late = |delay| Plain::new(2, &[Fate::Silent, Fate::Late(delay)]);
    assert_eq!(Check::of(&late(MIN_DELAY * 9 / 20)).poll().await, Shown::Up);
    assert_eq!(Check::of(&late(MIN_DELAY * 11 / 20)).poll().await, Shown::SilentConnection);
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_counts_also_if_another_idle_one_is_dead() {
    let pool = Plain::new(2, &[Fate::Silent, Fate::Dead]);
    let mut check = Check::of(&pool);
    assert_eq!(check.poll().await, Shown::SilentConnection);
    assert_eq!(check.poll().await, Shown::Up);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_was_silent_and_is_dead_is_replaced_by_a_new_one() {
    let dead_at = MIN_DELAY + Duration::from_millis(10);
    let pool = Plain::new(2, &[Fate::LateDead(dead_at)]).far(50);
    let begun = Instant::now();
    assert_eq!(Check::of(&pool).poll().await, Shown::Up);
    assert_eq!(begun.elapsed(), dead_at + Duration::from_millis(50 * u64::from(CONNECT_ROUND_TRIPS + 1)));
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_keeps_dead_connections_is_down_with_their_error() {
    let pool = Plain::new(2, &[Fate::Dead, Fate::Dead]);
    pool.world().keeps_dead = true;
    assert_eq!(Check::of(&pool).poll().await, Shown::Down(Kind::Unreachable));
    assert_eq!(pool.world().queries, 3);
    assert_eq!(pool.outside(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_opening_a_connection_in_place_of_its_only_one_opens_another_one() {
    let pool = Replacing::new(2, &[Fate::Dead]);
    pool.world().lost = 1;
    assert_eq!(Check::of(&pool).poll().await, Shown::Up);
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_of_a_pool_that_replaces_dead_ones_is_degraded_and_down_while_new_ones_fail() {
    let pool = Replacing::new(2, &[Fate::Silent, Fate::Silent, Fate::Silent]);
    let mut check = Check::of(&pool);
    assert_eq!(check.poll().await, Shown::SilentConnection);
    let pool = Replacing::new(2, &[Fate::Silent]);
    pool.set(Server::Refuses);
    assert_eq!(Check::of(&pool).poll().await, Shown::Down(Kind::Unreachable));
}

#[tokio::test(start_paused = true)]
async fn no_connection_outside_the_pool_is_opened_to_a_file() {
    let file = |idle: &[Fate]| {
        let pool = Plain::new(2, idle);
        pool.world().connections = Connections::ToFile;
        pool
    };
    let slow = Fate::Late(MIN_DELAY * 2);
    let pool = file(&[slow]);
    assert_eq!(Check::of(&pool).poll().await, Shown::Up);
    let exhausted = file(&[]);
    exhausted.exhaust();
    assert_eq!(Check::of(&exhausted).poll().await, Shown::Exhausted);
    let cold = file(&[]).far(100);
    assert_eq!(Check::of(&cold).poll().await, Shown::Up);
    // SQLite reports a full disk as any other failure.
    let full = file(&[]);
    full.set(Server::Full);
    assert_eq!(Check::of(&full).poll().await, Shown::Down(Kind::Saturated));
    assert_eq!([pool, exhausted, cold, full].map(|pool| pool.outside()), [0; 4]);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_cannot_be_bypassed_is_exhausted_for_as_long_as_the_application_waits_for_a_connection() {
    let pool = Plain::new(2, &[]);
    pool.world().connections = Connections::OfPoolOnly;
    pool.exhaust();
    let mut check = Check::of(&pool);
    let shown = check.poll_for(6).await;
    let down = shown.iter().position(|(_, shown)| *shown == Shown::Down(Kind::TimedOut)).expect("it is down");
    assert!(shown[..down].iter().all(|(_, shown)| *shown == Shown::Exhausted), "{shown:?}");
    assert!(shown[down..].iter().all(|(_, shown)| *shown == Shown::Down(Kind::TimedOut)), "{shown:?}");
    assert!((3..5).contains(&shown[down].0.as_secs()), "{shown:?}");
    pool.world().in_use = 1;
    assert_eq!(check.poll().await, Shown::Up);
    // The connections work, so it is only busy.
    pool.exhaust();
    assert_eq!(check.poll().await, Shown::Exhausted);

    let without_connections = Plain::new(2, &[]);
    without_connections.world().connections = Connections::OfPoolOnly;
    without_connections.set(Server::Full);
    assert_eq!(Check::of(&without_connections).poll().await, Shown::NoConnection);
    assert_eq!([pool, without_connections].map(|pool| pool.outside()), [0; 2]);
}

#[tokio::test(start_paused = true)]
async fn many_silent_connections_are_never_down_while_new_ones_respond() {
    let pool = Plain::new(10, &[Fate::Silent; 10]);
    let shown = Check::of(&pool).poll_for(10).await;
    assert!(shown.iter().all(|(_, shown)| matches!(shown, Shown::SilentConnection | Shown::Up)), "{shown:?}");
    assert_eq!(shown.last().unwrap().1, Shown::Up);
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_down_while_new_ones_fail_and_recovers_within_a_second() {
    let pool = Plain::new(2, &[Fate::Silent]);
    let mut check = Check::of(&pool);
    pool.set(Server::Refuses);
    check.always_shows(&Shown::Overdue, 5).await;
    let attempts = pool.world().outside.clone();
    assert!(attempts.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_millis(900)), "{attempts:?}");
    pool.set(Server::Up);
    let back = Instant::now();
    assert!(matches!(check.poll().await, Shown::SilentConnection | Shown::Overdue));
    while check.poll().await != Shown::Up {}
    assert!(back.elapsed() <= Duration::from_millis(1_050), "{:?} {:?}", back.elapsed(), pool.world().outside);
}

#[tokio::test(start_paused = true)]
async fn a_frozen_server_is_overdue_and_gets_two_attempts_at_a_time_every_two_seconds() {
    let pool = Plain::new(2, &[Fate::Works]);
    let mut check = Check::of(&pool);
    assert_eq!(check.poll().await, Shown::Up);
    pool.set(Server::Frozen);
    check.always_shows(&Shown::Overdue, 20).await;
    {
        let world = pool.world();
        assert_eq!(world.most_outside_in_flight, 2);
        assert!(
            world.outside.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_secs(2)),
            "{:?}",
            world.outside
        );
        assert!(world.outside.len() >= 9);
    }
    pool.set(Server::Up);
    let shown = check.poll().await;
    assert!(matches!(shown, Shown::Up), "its own connection responds again: {shown:?}");
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_pool_is_degraded_and_opens_a_connection_every_two_seconds_at_most() {
    for distance in [1, 80, 150, 250, 350] {
        let pool = Retrying::new(2, &[]).far(distance);
        pool.exhaust();
        let mut check = Check::of(&pool);
        while check.poll().await != Shown::Exhausted {}
        check.always_shows(&Shown::Exhausted, 30).await;
        let attempts = pool.world().outside.clone();
        assert!(attempts.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_secs(2)), "{attempts:?}");
        assert_eq!(pool.world().most_outside_in_flight, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_pool_of_a_far_server_does_not_flap_when_it_is_polled_rarely() {
    let pool = Retrying::new(2, &[]).far(350);
    pool.exhaust();
    let mut check = Check::of(&pool);
    while check.poll().await != Shown::Exhausted {}
    for _ in 0..20 {
        sleep(Duration::from_secs(10)).await;
        assert_eq!(check.poll().await, Shown::Exhausted);
    }
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_pool_is_down_within_seconds_when_its_server_freezes() {
    for distance in [1, 350] {
        let pool = Retrying::new(2, &[]).far(distance);
        pool.exhaust();
        let mut check = Check::of(&pool);
        while check.poll().await != Shown::Exhausted {}
        pool.set(Server::Frozen);
        let shown = check.poll_for(20).await;
        let down = shown.iter().find(|(_, shown)| *shown == Shown::Overdue).expect("it is down").0;
        assert!(down < Duration::from_secs(6), "{distance} ms: {down:?}");
        assert!(shown.iter().all(|(at, shown)| *at <= down || *shown == Shown::Overdue), "{shown:?}");
        pool.set(Server::Up);
        while check.poll().await != Shown::Exhausted {}
    }
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_pool_whose_server_refuses_is_down() {
    let pool = Plain::new(2, &[]);
    pool.exhaust();
    pool.set(Server::Refuses);
    let mut check = Check::of(&pool);
    check.always_shows(&Shown::Down(Kind::Unreachable), 5).await;
    let attempts = pool.world().outside.clone();
    assert!(attempts.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_millis(900)), "{attempts:?}");
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_pool_is_degraded_if_the_error_of_a_new_connection_shows_that_its_server_works() {
    let pool = Plain::new(2, &[]);
    pool.exhaust();
    pool.set(Server::Rejects);
    Check::of(&pool).always_shows(&Shown::Exhausted, 5).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_becomes_free_is_queried_although_the_server_was_silent_or_accepts_no_new_ones() {
    for (server, connection) in [(Server::Up, Fate::Works), (Server::Frozen, Fate::Late(Duration::from_millis(1)))] {
        let pool = Plain::new(1, &[]);
        pool.exhaust();
        pool.set(Server::Frozen);
        let mut check = Check::of(&pool);
        assert_eq!(check.poll().await, Shown::Overdue);
        pool.set(server);
        {
            let mut world = pool.world();
            world.in_use = 0;
            world.idle.push_back(connection);
        }
        assert_eq!(check.poll().await, Shown::Up);
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_server_is_degraded_while_the_pool_has_connections_and_down_without_any() {
    let pool = Plain::new(2, &[]);
    pool.set(Server::Full);
    let mut check = Check::of(&pool);
    check.always_shows(&Shown::NoConnection, 5).await;
    pool.world().in_use = 1;
    check.always_shows(&Shown::Full, 5).await;
    pool.exhaust();
    check.always_shows(&Shown::Exhausted, 5).await;
    pool.world().in_use = 0;
    pool.set(Server::Up);
    sleep(Duration::from_secs(2)).await;
    check.always_shows(&Shown::Up, 5).await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_counts_attempts_is_down_once_none_became_free_for_as_long_as_the_application_waits() {
    let pool = Retrying::new(2, &[]);
    pool.exhaust();
    pool.set(Server::Full);
    let mut check = Check::of(&pool);
    let shown = check.poll_for(10).await;
    let down = shown.iter().position(|(_, shown)| *shown == Shown::NoConnection).expect("it is down");
    let (at, _) = shown[down];
    assert!(at > ACQUIRE_TIMEOUT && at < ACQUIRE_TIMEOUT + Duration::from_secs(2), "{at:?}");
    assert!(shown[..down].iter().all(|(_, shown)| *shown == Shown::Exhausted), "{shown:?}");
    assert!(shown[down..].iter().all(|(_, shown)| *shown == Shown::NoConnection), "{shown:?}");

    // A connection that works becomes free and is taken again, so those in use work.
    {
        let mut world = pool.world();
        world.in_use -= 1;
        world.idle.push_back(Fate::Works);
    }
    sleep(Duration::from_secs(1)).await;
    pool.exhaust();
    assert_eq!(check.poll().await, Shown::Exhausted);
}

#[tokio::test(start_paused = true)]
async fn a_pool_whose_connections_are_in_use_for_long_stays_degraded_where_the_server_accepts_more() {
    let pool = Retrying::new(2, &[]);
    pool.exhaust();
    Check::of(&pool).always_shows(&Shown::Exhausted, 60).await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_without_any_connection_is_down_at_once_on_a_full_server() {
    let pool = Retrying::new(2, &[]);
    pool.set(Server::Full);
    Check::of(&pool).always_shows(&Shown::NoConnection, 10).await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_retries_silently_is_down_with_the_error_of_the_server_and_up_when_it_is_back() {
    let pool = Retrying::new(2, &[]);
    pool.set(Server::Refuses);
    let mut check = Check::of(&pool);
    check.always_shows(&Shown::Down(Kind::Unreachable), 5).await;
    let attempts = pool.world().outside.clone();
    assert!(attempts.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_millis(900)), "{attempts:?}");
    pool.set(Server::Up);
    assert_eq!(check.poll().await, Shown::Up);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_of_the_pool_that_is_lost_is_overtaken_by_another_one() {
    let pool = Retrying::new(2, &[]);
    pool.world().lost = 1;
    let mut check = Check::of(&pool);
    check.always_shows(&Shown::Up, 5).await;

    // If it uses the only slot, the pool is exhausted, once.
    let one = Retrying::new(1, &[]);
    one.world().lost = 1;
    let mut check = Check::of(&one);
    assert_eq!(check.poll().await, Shown::Exhausted);
    check.always_shows(&Shown::Up, 5).await;
}

#[tokio::test(start_paused = true)]
async fn an_attempt_of_the_pool_is_overtaken_once_it_takes_half_as_long_again_as_one_outside() {
    let pool = Retrying::new(2, &[]).far(20);
    pool.world().lost = 1;
    let begun = Instant::now();
    assert_eq!(Check::of(&pool).poll().await, Shown::Up);
    let opened = Duration::from_millis(20 * u64::from(CONNECT_ROUND_TRIPS + 1));
    assert_eq!(begun.elapsed(), CONNECT_HEDGE_DELAY + opened * 3 / 2 + CONNECT_HEDGE_DELAY + opened);
    assert_eq!(pool.world().cancelled, 1);

    let pool = Replacing::new(2, &[]);
    pool.world().lost = 1;
    assert_eq!(Check::of(&pool).poll().await, Shown::Up);
    tokio::task::yield_now().await;
    assert_eq!(pool.world().cancelled, 0, "a pool may wait for abandoned attempts");
}

#[tokio::test(start_paused = true)]
async fn attempts_of_the_pool_that_are_silent_for_ten_seconds_are_lost() {
    let pool = Retrying::new(3, &[]).far(20);
    pool.world().lost = 2;
    let begun = Instant::now();
    let mut check = Check::of(&pool);
    while check.poll().await != Shown::Up {}
    let opened = Duration::from_millis(20 * u64::from(CONNECT_ROUND_TRIPS + 1));
    assert_eq!(begun.elapsed(), CONNECT_HEDGE_DELAY + opened * 3 / 2 + CONNECT_HEDGE_DELAY + LOST_AFTER + opened);
}

#[tokio::test(start_paused = true)]
async fn one_task_waits_for_a_connection_of_an_exhausted_pool_and_ends_with_the_state() {
    let pool = Retrying::new(2, &[]);
    pool.exhaust();
    pool.set(Server::Full);
    let mut check = Check::of(&pool);
    check.always_shows(&Shown::Exhausted, 2).await;
    assert_eq!(pool.world().acquiring, 1);
    assert_eq!(pool.world().most_acquiring, 1);
    drop(check);
    tokio::task::yield_now().await;
    assert_eq!(pool.world().acquiring, 0);
}

#[tokio::test(start_paused = true)]
async fn attempts_end_with_the_state() {
    let pool = Retrying::new(2, &[]);
    pool.exhaust();
    pool.set(Server::Frozen);
    let mut check = Check::of(&pool);
    assert_eq!(check.poll().await, Shown::Overdue);
    assert_eq!(pool.world().outside_in_flight, 1);
    drop(check);
    advance(Duration::from_millis(1)).await;
    tokio::task::yield_now().await;
    assert_eq!(pool.world().outside_in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_run_is_one_query_on_an_idle_connection() {
    let pool = Plain::new(2, &[Fate::Works, Fate::Works]);
    Check::of(&pool).always_shows(&Shown::Up, 5).await;
    assert_eq!(pool.world().queries, 10);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_soon_after_a_connection_outside_worked_is_down() {
    let pool = Retrying::new(2, &[]).far(80);
    let mut check = Check::of(&pool);
    assert_eq!(check.poll().await, Shown::Up);
    assert_eq!(pool.outside(), 1);
    {
        let mut world = pool.world();
        world.server = Server::Refuses;
        world.idle.clear();
    }
    let shown = check.poll_for(10).await;
    assert!(
        shown.iter().all(|(_, shown)| matches!(shown, Shown::Down(Kind::Unreachable) | Shown::Overdue)),
        "{shown:?}"
    );
    assert!(shown[3..].iter().all(|(_, shown)| *shown == Shown::Down(Kind::Unreachable)), "{shown:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_freezes_soon_after_a_connection_outside_worked_is_overdue() {
    let pool = Retrying::new(2, &[]).far(80);
    let mut check = Check::of(&pool);
    assert_eq!(check.poll().await, Shown::Up);
    assert_eq!(pool.outside(), 1);
    pool.set(Server::Frozen);
    check.always_shows(&Shown::Overdue, 5).await;
}
