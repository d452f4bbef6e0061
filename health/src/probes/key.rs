//! What the probes that write have in common: a key that no other process and no other round has, and a value.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// A key of nobody else's.
pub(super) fn fresh() -> String {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
    static ROUND: AtomicU64 = AtomicU64::new(0);

    format!("health:{:016x}:{}", *PROCESS, ROUND.fetch_add(1, Ordering::Relaxed))
}

/// A value that was not there before.
pub(super) fn nonce() -> u64 {
    RandomState::new().hash_one(())
}
