//! The background runs of an engine.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use super::{CheckEntry, EngineInner};
use crate::runtime::Runtime;

/// The shortest interval, for a check whose maximum age is zero: such a check would run without a pause.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// Runs each check at its interval: its own maximum age, else the interval of the scope.
///
/// Each time is up to a tenth earlier or later, so that replicas that were started at the same time do not run their checks at the
/// same time.
pub(super) async fn refresh(engine: Arc<EngineInner>, interval: Duration, runtime: Arc<Runtime>) {
    let random = RandomState::new();
    // By identity. After a check was removed, another one may have its identity, and then waits for its time.
    let mut due: HashMap<usize, Instant> = HashMap::new();
    for round in 0_u64.. {
        let jitter = random.hash_one(round);
        let now = Instant::now();
        // A check that is registered meanwhile is first run then, at the latest.
        let mut next_round = now + jittered(interval, jitter);
        let entries = engine.entries();
        let mut next_due = HashMap::with_capacity(due.len());
        for check in entries.list().iter().filter_map(CheckEntry::check) {
            let mut next = due.get(&check.identity()).copied().unwrap_or(now);
            if next <= now {
                check.inner().run_if_due(Duration::ZERO, &runtime);
                let interval = check.options().max_age.map_or(interval, |max_age| max_age.max(MIN_INTERVAL));
                next = now + jittered(interval, jitter);
            }
            next_round = next_round.min(next);
            next_due.insert(check.identity(), next);
        }
        due = next_due;
        drop(entries);
        sleep_until(next_round).await;
    }
}

/// Between 90% and 110% of a duration.
fn jittered(duration: Duration, random: u64) -> Duration {
    let per_mille = 900 + u32::try_from(random % 201).expect("it is at most 200");
    duration * per_mille / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_spread_over_a_tenth_to_either_side() {
        let every = Duration::from_secs(10);
        let times: Vec<_> = (0..10_000).map(|round| jittered(every, RandomState::new().hash_one(round))).collect();
        assert!(times.iter().all(|time| (Duration::from_secs(9)..=Duration::from_secs(11)).contains(time)));
        for (low, high) in [(9_000, 9_500), (9_500, 10_000), (10_000, 10_500), (10_500, 11_000)] {
            let count = times.iter().filter(|time| (low..high).contains(&time.as_millis())).count();
            assert!((2_000..3_000).contains(&count), "{count} of 10000 between {low} and {high} ms");
        }
    }
}
