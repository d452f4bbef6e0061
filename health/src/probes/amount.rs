//! A threshold for what is left of something.

/// So much of the whole, in bytes or in per cent: a threshold for disks and memory.
///
/// # Examples
///
/// ```
/// use health::probes::Amount;
///
/// let a_tenth = Amount::percent(10);
/// let a_gibibyte = Amount::bytes(1 << 30);
/// // A tenth of a large disk is plenty.
/// let enough = Amount::percent(10).at_most(1 << 30);
/// # let _ = (a_tenth, a_gibibyte, enough);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    percent: Option<u8>,
    bytes: u64,
}

impl Amount {
    /// So many bytes.
    pub const fn bytes(bytes: u64) -> Self {
        Self { percent: None, bytes }
    }

    /// So many hundredths of the whole.
    pub const fn percent(percent: u8) -> Self {
        Self { percent: Some(percent), bytes: u64::MAX }
    }

    /// This, but never more than so many bytes.
    #[must_use]
    pub const fn at_most(self, bytes: u64) -> Self {
        Self { bytes: if bytes < self.bytes { bytes } else { self.bytes }, ..self }
    }

    /// In bytes, of a whole.
    pub(super) fn of(self, whole: u64) -> u64 {
        let part = self.percent.map_or(u64::MAX, |percent| {
            u64::try_from(u128::from(whole) * u128::from(percent) / 100).unwrap_or(u64::MAX)
        });
        part.min(self.bytes)
    }
}

/// What is left of a whole, for people: `3% (1.5 GiB)`.
pub(super) fn left_of(left: u64, whole: u64) -> String {
    let percent = u128::from(left) * 100 / u128::from(whole.max(1));
    format!("{percent}% ({})", in_units(left))
}

fn in_units(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // In tenths, and cut off, for what is left should not seem to be more.
    let mut unit = 0;
    let mut tenths = u128::from(bytes) * 10 / 1024;
    while tenths >= 10 * 1024 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::{Amount, left_of};

    #[test]
    fn an_amount_is_the_least_of_what_was_said() {
        assert_eq!(Amount::percent(10).of(1000), 100);
        assert_eq!(Amount::percent(10).at_most(30).of(1000), 30);
        assert_eq!(Amount::percent(10).at_most(300).of(1000), 100);
        assert_eq!(Amount::bytes(70).of(50), 70);
        assert_eq!(Amount::bytes(70).at_most(60).of(50), 60);
        assert_eq!(Amount::percent(u8::MAX).of(u64::MAX), u64::MAX);
    }

    #[test]
    fn what_is_left_is_told_in_units_that_people_use() {
        assert_eq!(left_of(0, 0), "0% (0 B)");
        assert_eq!(left_of(1023, 2048), "49% (1023 B)");
        assert_eq!(left_of(1536, 1 << 20), "0% (1.5 KiB)");
        assert_eq!(left_of((1 << 30) - 1, 1 << 30), "99% (1023.9 MiB)");
        assert_eq!(left_of(u64::MAX, u64::MAX), "100% (15.9 EiB)");
    }
}
