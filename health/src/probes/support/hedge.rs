//! How long a connection may stay silent before another one is tried concurrently.
//!
//! A connection can be dead without either end noticing, so a silent one is hedged with another. A fixed delay would open a connection in
//! nearly every run if the server is far away, so the delay follows the round trips of earlier runs.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// The shortest delay, and the delay before any round trip is known: longer than a query to another continent takes.
const MIN_DELAY: Duration = Duration::from_millis(300);

/// Longer round trips exceed the limit of any check.
const MAX_DELAY: Duration = Duration::from_secs(5);

/// The delay before a silent connection is hedged, from the round trips of one resource.
#[derive(Debug, Default)]
pub(in crate::probes) struct HedgeDelay {
    /// The longest recent round trip, in microseconds.
    longest_us: AtomicU32,
}

impl HedgeDelay {
    pub(in crate::probes) const fn new() -> Self {
        Self { longest_us: AtomicU32::new(0) }
    }

    /// Returns twice the longest recent round trip, within [`MIN_DELAY`] and [`MAX_DELAY`].
    pub(in crate::probes) fn get(&self) -> Duration {
        let longest = Duration::from_micros(self.longest_us.load(Ordering::Relaxed).into());
        (longest * 2).clamp(MIN_DELAY, MAX_DELAY)
    }

    /// Records the duration of a successful round trip. A longer one from before decays by an eighth.
    pub(in crate::probes) fn record(&self, round_trip: Duration) {
        let round_trip_us = u32::try_from(round_trip.as_micros()).unwrap_or(u32::MAX);
        let decayed = |longest: u32| Some(round_trip_us.max(longest - longest / 8));
        // The runs of one check do not overlap, so relaxed ordering is enough.
        let _ = self.longest_us.fetch_update(Ordering::Relaxed, Ordering::Relaxed, decayed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_is_longer_than_earlier_round_trips() {
        let delay = HedgeDelay::new();
        assert_eq!(delay.get(), MIN_DELAY);
        delay.record(Duration::from_millis(2));
        assert_eq!(delay.get(), MIN_DELAY);
        delay.record(Duration::from_millis(350));
        assert_eq!(delay.get(), Duration::from_millis(700));
        delay.record(Duration::from_secs(60));
        assert_eq!(delay.get(), MAX_DELAY);
    }

    #[test]
    fn a_single_slow_round_trip_decays() {
        let delay = HedgeDelay::new();
        delay.record(Duration::from_millis(700));
        assert_eq!(delay.get(), Duration::from_millis(1_400));
        for _ in 0..20 {
            delay.record(Duration::from_millis(1));
        }
        assert_eq!(delay.get(), MIN_DELAY);
    }
}
