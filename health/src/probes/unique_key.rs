//! Keys and values for the probes that write.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// Returns a key that no other process and no earlier call uses.
pub(super) fn unique_key() -> String {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
    static COUNTER: AtomicU64 = AtomicU64::new(0);

    format!("health:{:016x}:{}", *PROCESS, COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// Returns a random value.
pub(super) fn nonce() -> u64 {
    RandomState::new().hash_one(())
}
