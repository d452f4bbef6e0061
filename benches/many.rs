//! The time and the memory per check of 10 to 10,000 checks that return at once.
//!
//! The bounds are ratios within the run: a probe of the library ÷ spawning and joining an empty task, and a user's check ÷ a probe
//! of the library. Each is the median of alternating measurements, because the machine may be busy with something else.

use std::time::{Duration, Instant};

use health::{Check, Probe, ProbeError, Registry, Session};
use stats_alloc::Region;

use crate::{
    ALLOCATOR, Measured, median,
    response::{Connection, settle},
    serve,
};

const CHECKS: u32 = 1_000;
const PAIRS: usize = 9;
/// Enough to fill the history of a check.
const ROUNDS: usize = 61;

/// A probe that runs on the same thread as the library's probes.
#[derive(Clone)]
struct Library;

impl Probe for Library {
    const GROUP: &'static str = "library";

    async fn probe(&self) -> Result<(), ProbeError> {
        Ok(())
    }

    fn session(&self) -> Option<Session> {
        Some(health::__private::library_session(self.clone()))
    }
}

fn library(number: u32) -> Check {
    Check::probe(format!("probe {number}"), Library)
}

fn user(number: u32) -> Check {
    Check::new("user", format!("check {number}"), || async { Ok::<_, String>(()) })
}

pub(crate) async fn measure() -> Vec<Measured> {
    let mut lines = ratios().await;
    for checks in [10_u32, 100, 1_000, 10_000] {
        let (round, memory) = one(checks).await;
        let is_bound = checks == CHECKS;
        lines.push(Measured {
            what: format!("time of {checks} users' checks, per check"),
            value: format!("{round:.2} µs"),
            bound: String::new(),
            holds: None,
        });
        lines.push(Measured {
            what: format!("memory of {checks} checks after {ROUNDS} runs, per check"),
            value: format!("{memory:.0} B"),
            bound: if is_bound { "at most 2048 B".into() } else { String::new() },
            holds: is_bound.then_some(memory <= 2048.0),
        });
    }
    lines
}

async fn ratios() -> Vec<Measured> {
    let (of_library, of_user) = (Served::start().await, Served::start().await);
    let (mut library_rounds, mut user_rounds) = (of_library, of_user);
    library_rounds.add(CHECKS, library);
    user_rounds.add(CHECKS, user);
    let (mut by_task, mut by_library, mut scale) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        let (task, library, user) = (task().await, library_rounds.round().await, user_rounds.round().await);
        by_task.push(library / task);
        by_library.push(user / library);
        scale.push((task, library, user));
    }
    let of = |pick: fn(&(f64, f64, f64)) -> f64| median(scale.iter().map(pick).collect());
    let (task, library, user) = (of(|times| times.0), of(|times| times.1), of(|times| times.2));
    let (by_task, by_library) = (median(by_task), median(by_library));
    library_rounds.stop().await;
    user_rounds.stop().await;
    vec![
        Measured {
            what: format!("with {CHECKS} checks, a probe of the library ÷ spawning and joining an empty task"),
            value: format!("{by_task:.1} ({library:.2} µs, {task:.2} µs)"),
            bound: "at most 15".into(),
            holds: Some(by_task <= 15.0),
        },
        Measured {
            what: format!("with {CHECKS} checks, a user's check ÷ a probe of the library"),
            value: format!("{by_library:.1} ({user:.2} µs, {library:.2} µs)"),
            bound: "at most 3".into(),
            holds: Some(by_library <= 3.0),
        },
    ]
}

/// Microseconds to spawn and join an empty task.
async fn task() -> f64 {
    let mut taken = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let tasks: Vec<_> = (0..CHECKS).map(|_| tokio::spawn(async {})).collect();
        for task in tasks {
            task.await.unwrap();
        }
        taken.push(started.elapsed().as_secs_f64() * 1e6);
    }
    median(taken) / f64::from(CHECKS)
}

/// An application that runs all checks at each request, and a client of it.
struct Served {
    registry: Registry,
    connection: Connection,
    server: actix_web::dev::ServerHandle,
    /// Microseconds of a request without checks.
    empty: f64,
    checks: u32,
}

impl Served {
    async fn start() -> Self {
        let registry = Registry::new();
        let shown = registry.clone();
        let (address, server) = serve(move |app| {
            app.service(health::scope().registry(&shown).max_age(Duration::ZERO).deadline(Duration::from_secs(10)));
        });
        let mut connection = Connection::open(address).await;
        let empty = rounds(&mut connection).await;
        Self { registry, connection, server, empty, checks: 0 }
    }

    fn add(&mut self, checks: u32, check: fn(u32) -> Check) {
        for number in 0..checks {
            self.registry.register(check(number)).unwrap();
        }
        self.checks = checks;
    }

    /// Microseconds of a request per check.
    async fn round(&mut self) -> f64 {
        (rounds(&mut self.connection).await - self.empty) / f64::from(self.checks)
    }

    async fn stop(self) {
        self.server.stop(false).await;
    }
}

/// Microseconds of a request and bytes of memory, per check.
async fn one(checks: u32) -> (f64, f64) {
    let mut served = Served::start().await;
    settle().await;
    let region = Region::new(ALLOCATOR);
    served.add(checks, user);
    let round = served.round().await;
    settle().await;
    let change = region.change();
    let live = f64::from(u32::try_from(change.bytes_allocated.saturating_sub(change.bytes_deallocated)).unwrap());
    served.stop().await;
    (round, live / f64::from(checks))
}

/// The median time of some requests, in microseconds.
async fn rounds(connection: &mut Connection) -> f64 {
    let mut taken = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        connection.request("/health").await;
        taken.push(started.elapsed().as_secs_f64() * 1e6);
    }
    median(taken)
}
