//! Limits how often the same denial is logged.

use std::{collections::HashMap, hash::Hash, time::Duration};

use tokio::time::Instant;

/// How many keys are tracked at a time.
pub(crate) const MAX_TRACKED: usize = 1024;

const PERIOD: Duration = Duration::from_mins(1);

/// Logs each key once per period, in bounded memory however many keys there are.
pub(crate) struct LogThrottle<K> {
    last_logged: HashMap<K, Instant>,
    /// A sweep before this time would remove nothing.
    next_sweep: Option<Instant>,
    last_overflow: Option<Instant>,
}

/// What to do with an event.
#[derive(Debug, PartialEq)]
pub(crate) enum LogDecision {
    Log,
    /// Log once that there are more keys than are tracked; further ones are suppressed.
    Overflow,
    Suppress,
}

impl<K> Default for LogThrottle<K> {
    fn default() -> Self {
        Self { last_logged: HashMap::new(), next_sweep: None, last_overflow: None }
    }
}

impl<K: Eq + Hash> LogThrottle<K> {
    pub(crate) fn decide(&mut self, key: K, now: Instant) -> LogDecision {
        let has_expired = |logged: Instant| now.duration_since(logged) >= PERIOD;
        if let Some(logged) = self.last_logged.get_mut(&key) {
            if has_expired(*logged) {
                *logged = now;
                return LogDecision::Log;
            }
            return LogDecision::Suppress;
        }
        if self.last_logged.len() >= MAX_TRACKED && self.next_sweep.is_none_or(|sweep| now >= sweep) {
            self.last_logged.retain(|_, logged| !has_expired(*logged));
            self.next_sweep = self.last_logged.values().min().map(|&oldest| oldest + PERIOD);
        }
        if self.last_logged.len() < MAX_TRACKED {
            self.last_logged.insert(key, now);
            return LogDecision::Log;
        }
        if self.last_overflow.is_none_or(has_expired) {
            self.last_overflow = Some(now);
            return LogDecision::Overflow;
        }
        LogDecision::Suppress
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn ip(bits: u32) -> IpAddr {
        Ipv4Addr::from(bits).into()
    }

    #[test]
    fn a_key_is_logged_once_a_minute_and_memory_is_bounded() {
        let mut throttle = LogThrottle::default();
        let start = Instant::now();
        let one = ip(0xc000_0201);
        assert_eq!(throttle.decide(one, start), LogDecision::Log);
        assert_eq!(throttle.decide(one, start + Duration::from_secs(59)), LogDecision::Suppress);
        assert_eq!(throttle.decide(one, start + Duration::from_mins(1)), LogDecision::Log);
        let minute_later = start + Duration::from_mins(1);
        let decisions: Vec<_> = (0..100_000).map(|n| throttle.decide(ip(n), minute_later)).collect();
        let count = |expected| decisions.iter().filter(|&decision| *decision == expected).count();
        assert_eq!(count(LogDecision::Log), MAX_TRACKED - 1);
        assert_eq!(count(LogDecision::Overflow), 1);
        assert_eq!(throttle.last_logged.len(), MAX_TRACKED);
        assert_eq!(throttle.decide(ip(0xc633_6401), minute_later + PERIOD), LogDecision::Log);
    }
}
