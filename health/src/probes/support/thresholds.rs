//! Limits of a measured value.

use crate::error::ProbeError;

/// The values at which a check is DEGRADED and DOWN.
#[derive(Clone, Copy, Debug)]
pub(in crate::probes) struct Thresholds<T> {
    pub(in crate::probes) degraded: T,
    pub(in crate::probes) down: T,
}

impl<T: Copy> Thresholds<T> {
    /// Returns the failure of the stricter status. `failure` returns an error if the value exceeds the threshold.
    pub(in crate::probes) fn evaluate(self, failure: impl Fn(T) -> Option<ProbeError>) -> Result<(), ProbeError> {
        match failure(self.down) {
            Some(error) => Err(error),
            None => failure(self.degraded).map_or(Ok(()), |error| Err(error.degraded())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::ProbeErrorKind, status::Status};

    #[test]
    fn down_takes_precedence_over_degraded_in_any_order_of_the_thresholds() {
        let status = |thresholds: Thresholds<u32>, left: u32| {
            let too_few = |threshold| (left < threshold).then(|| ProbeError::new(ProbeErrorKind::Failed, "too few"));
            thresholds.evaluate(too_few).err().map(|error| error.status())
        };
        let usual = Thresholds { degraded: 10, down: 2 };
        assert_eq!(
            [10, 9, 2, 1].map(|left| status(usual, left)),
            [None, Some(Status::Degraded), Some(Status::Degraded), Some(Status::Down)]
        );
        let reversed = Thresholds { degraded: 2, down: 10 };
        assert_eq!([10, 9, 1].map(|left| status(reversed, left)), [None, Some(Status::Down), Some(Status::Down)]);
    }
}
