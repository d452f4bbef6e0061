//! Thresholds for free space and memory.

/// A part of a disk or of the memory, in bytes or in percent.
///
/// # Examples
///
/// ```
/// use health::probes::Amount;
///
/// let tenth = Amount::percent(10);
/// let gibibyte = Amount::bytes(1 << 30);
/// // On a large disk, a tenth is more than needed.
/// let enough = Amount::percent(10).at_most(1 << 30);
/// # let _ = (tenth, gibibyte, enough);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    percent: Option<u8>,
    bytes: u64,
}

impl Amount {
    /// An absolute number of bytes.
    pub const fn bytes(bytes: u64) -> Self {
        Self { percent: None, bytes }
    }

    /// A percentage of the whole.
    pub const fn percent(percent: u8) -> Self {
        Self { percent: Some(percent), bytes: u64::MAX }
    }

    /// Limits the amount to this number of bytes.
    #[must_use]
    pub const fn at_most(self, bytes: u64) -> Self {
        Self { bytes: if bytes < self.bytes { bytes } else { self.bytes }, ..self }
    }

    /// Returns the amount in bytes, for a whole of that size.
    pub(in crate::probes) fn of(self, whole: u64) -> u64 {
        let part = self.percent.map_or(u64::MAX, |percent| {
            u64::try_from(u128::from(whole) * u128::from(percent) / 100).unwrap_or(u64::MAX)
        });
        part.min(self.bytes)
    }
}

/// Formats what is left of a whole: `3% (1.5 GiB)`.
pub(in crate::probes) fn format_left(left: u64, whole: u64) -> String {
    format!("{}% ({})", percent(left, whole), format_bytes(left))
}

/// Returns the percentage of a part, rounded down.
pub(in crate::probes) fn percent(part: u64, whole: u64) -> u64 {
    let percent = u128::from(part) * 100 / u128::from(whole.max(1));
    u64::try_from(percent).unwrap_or(u64::MAX)
}

fn format_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // In tenths, rounded down, so that no more appears to be left than there is. The largest number is 15.9 EiB.
    let mut unit = 0;
    let mut tenths = u128::from(bytes) * 10 / 1024;
    while tenths >= 10 * 1024 {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::{Amount, format_left};

    #[test]
    fn an_amount_is_the_smallest_of_its_limits() {
        assert_eq!(Amount::percent(10).of(1000), 100);
        assert_eq!(Amount::percent(10).at_most(30).of(1000), 30);
        assert_eq!(Amount::percent(10).at_most(300).of(1000), 100);
        assert_eq!(Amount::bytes(70).of(50), 70);
        assert_eq!(Amount::bytes(70).at_most(60).of(50), 60);
        assert_eq!(Amount::percent(u8::MAX).of(u64::MAX), u64::MAX);
    }

    #[test]
    fn bytes_are_formatted_in_binary_units() {
        assert_eq!(format_left(0, 0), "0% (0 B)");
        assert_eq!(format_left(1023, 2048), "49% (1023 B)");
        assert_eq!(format_left(1024, 2048), "50% (1.0 KiB)");
        assert_eq!(format_left(1 << 20, 1 << 20), "100% (1.0 MiB)");
        assert_eq!(format_left(1536, 1 << 20), "0% (1.5 KiB)");
        assert_eq!(format_left((1 << 30) - 1, 1 << 30), "99% (1023.9 MiB)");
        assert_eq!(format_left(u64::MAX, u64::MAX), "100% (15.9 EiB)");
    }
}
