//! Writing a unique value and reading it back.

use std::{
    error::Error,
    fmt,
    hash::{BuildHasher as _, RandomState},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{error::ProbeErrorKind, probes::classify::Classify};

/// The text of the failure, for the log.
pub(in crate::probes) const MISMATCH: &str = "the value read is not the value written";

/// Returns a key that no other process and no earlier call uses.
pub(in crate::probes) fn unique_key() -> String {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
    static COUNTER: AtomicU64 = AtomicU64::new(0);

    format!("health:{:016x}:{}", *PROCESS, COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// Returns a random value.
pub(in crate::probes) fn nonce() -> u64 {
    RandomState::new().hash_one(())
}

/// Why a round trip fails.
#[derive(Debug)]
pub(in crate::probes) enum RoundTripError<E> {
    Driver(E),
    /// The value read is not the value written.
    Mismatch,
}

impl<E> From<E> for RoundTripError<E> {
    fn from(error: E) -> Self {
        Self::Driver(error)
    }
}

impl<E: fmt::Display> fmt::Display for RoundTripError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Driver(error) => error.fmt(f),
            Self::Mismatch => f.write_str(MISMATCH),
        }
    }
}

impl<E: Error> Error for RoundTripError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Driver(error) => error.source(),
            Self::Mismatch => None,
        }
    }
}

impl<E: Classify> Classify for RoundTripError<E> {
    fn classify(&self) -> ProbeErrorKind {
        match self {
            Self::Driver(error) => error.classify(),
            Self::Mismatch => ProbeErrorKind::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, error::Error as _, io};

    use derive_more::Display;

    use super::{MISMATCH, RoundTripError, nonce, unique_key};

    #[derive(Debug, Display, derive_more::Error)]
    #[display("cut")]
    struct Cut {
        source: io::Error,
    }

    #[test]
    fn the_text_and_the_source_of_a_failed_round_trip_are_those_of_the_driver() {
        let mismatch = RoundTripError::<io::Error>::Mismatch;
        assert_eq!((mismatch.to_string(), mismatch.source().is_none()), (MISMATCH.to_owned(), true));
        let failed = RoundTripError::Driver(Cut { source: io::ErrorKind::BrokenPipe.into() });
        assert_eq!(failed.to_string(), "cut");
        assert_eq!(failed.source().unwrap().to_string(), "broken pipe");
    }

    #[test]
    fn keys_are_unique_and_nonces_differ() {
        let keys: HashSet<_> = (0..1000).map(|_| unique_key()).collect();
        assert_eq!(keys.len(), 1000);
        assert!(keys.iter().all(|key| key.starts_with("health:")));
        assert_ne!(nonce(), nonce());
    }
}
