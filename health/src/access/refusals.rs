//! Which refusals the log has had lately.

use std::{collections::HashMap, hash::Hash, time::Duration};

use tokio::time::Instant;

/// So many are remembered.
pub(crate) const REMEMBERED: usize = 1024;

const PERIOD: Duration = Duration::from_mins(1);

/// Each address (with the reason, as `K` has it) once a period, in bounded memory however many knock.
pub(crate) struct Refusals<K> {
    logged: HashMap<K, Instant>,
    /// Before that time, none of them is a period old.
    next_sweep: Option<Instant>,
    /// When it was last told that there are too many.
    flooded: Option<Instant>,
}

/// What the log is told of a refusal.
#[derive(Debug, PartialEq)]
pub(crate) enum News {
    Refused,
    /// More addresses knock than are remembered, and those beyond are not told.
    Flooded,
    Nothing,
}

impl<K> Default for Refusals<K> {
    fn default() -> Self {
        Self { logged: HashMap::new(), next_sweep: None, flooded: None }
    }
}

impl<K: Eq + Hash> Refusals<K> {
    pub(crate) fn news(&mut self, address: K, now: Instant) -> News {
        let past = |logged: Instant| now.duration_since(logged) >= PERIOD;
        if let Some(logged) = self.logged.get_mut(&address) {
            if past(*logged) {
                *logged = now;
                return News::Refused;
            }
            return News::Nothing;
        }
        if self.logged.len() >= REMEMBERED && self.next_sweep.is_none_or(|sweep| now >= sweep) {
            self.logged.retain(|_, logged| !past(*logged));
            self.next_sweep = self.logged.values().min().map(|&oldest| oldest + PERIOD);
        }
        if self.logged.len() < REMEMBERED {
            self.logged.insert(address, now);
            return News::Refused;
        }
        if self.flooded.is_none_or(past) {
            self.flooded = Some(now);
            return News::Flooded;
        }
        News::Nothing
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn ip(last: u32) -> IpAddr {
        Ipv4Addr::from(last).into()
    }

    #[test]
    fn a_refusal_is_news_once_a_minute_and_memory_is_bounded() {
        let mut refusals = Refusals::default();
        let start = Instant::now();
        let one = Some(ip(0xc000_0201));
        assert_eq!(refusals.news(one, start), News::Refused);
        assert_eq!(refusals.news(one, start + Duration::from_secs(59)), News::Nothing);
        assert_eq!(refusals.news(one, start + Duration::from_mins(1)), News::Refused);
        let minute_later = start + Duration::from_mins(1);
        let knocks: Vec<_> = (0..100_000).map(|n| refusals.news(Some(ip(n)), minute_later)).collect();
        let told = knocks.iter().filter(|&news| *news == News::Refused).count();
        assert_eq!(told, REMEMBERED - 1);
        assert_eq!(knocks.iter().filter(|&news| *news == News::Flooded).count(), 1);
        assert_eq!(refusals.logged.len(), REMEMBERED);
        assert_eq!(refusals.news(Some(ip(0xc633_6401)), minute_later + PERIOD), News::Refused);
    }
}
