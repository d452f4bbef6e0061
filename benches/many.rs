//! 10 to 10,000 checks that answer at once: what a round costs a check, and what a check costs in memory.

use std::time::{Duration, Instant};

use health::{Check, Registry};
use stats_alloc::Region;

use crate::{
    ALLOCATOR, Measured,
    answer::{Connection, settle},
    median, serve,
};

pub(crate) async fn measure() -> Vec<Measured> {
    let mut lines = Vec::new();
    for checks in [10_u32, 100, 1_000, 10_000] {
        let (round, memory) = one(checks).await;
        let judged = checks == 1_000;
        lines.push(Measured {
            what: format!("a round of {checks} checks, a check"),
            value: format!("{round:.2} µs"),
            bound: if judged { "at most 5 µs".into() } else { String::new() },
            holds: judged.then_some(round <= 5.0),
        });
        lines.push(Measured {
            what: format!("memory of {checks} checks after 60 rounds, a check"),
            value: format!("{memory:.0} B"),
            bound: if judged { "at most 2048 B".into() } else { String::new() },
            holds: judged.then_some(memory <= 2048.0),
        });
    }
    lines
}

/// Microseconds of a round and bytes of memory, a check.
async fn one(checks: u32) -> (f64, f64) {
    let registry = Registry::new();
    let shown = registry.clone();
    let (address, handle) = serve(move |app| {
        app.service(health::scope().registry(&shown).max_age(Duration::ZERO).deadline(Duration::from_secs(10)));
    });
    let mut connection = Connection::open(address).await;
    // What is there before the checks are: the round without them, and the memory.
    let nothing = rounds(&mut connection).await;
    settle().await;

    let region = Region::new(ALLOCATOR);
    for number in 0..checks {
        registry.register(Check::new("many", format!("check {number}"), || async { Ok::<_, String>(()) })).unwrap();
    }
    let all = rounds(&mut connection).await;
    settle().await;
    let change = region.change();
    let live = f64::from(u32::try_from(change.bytes_allocated.saturating_sub(change.bytes_deallocated)).unwrap());
    handle.stop(false).await;
    ((all - nothing) / f64::from(checks), live / f64::from(checks))
}

/// The median of as many rounds as a check's history is long.
async fn rounds(connection: &mut Connection) -> f64 {
    let mut taken = Vec::new();
    for _ in 0..61 {
        let started = Instant::now();
        connection.ask("/health").await;
        taken.push(started.elapsed().as_secs_f64() * 1e6);
    }
    median(taken)
}
