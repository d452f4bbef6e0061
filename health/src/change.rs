//! Counts whatever can change an answer: a result, a check that comes or goes, the beginning of a drain.
//!
//! An answer that was rendered is served again for as long as the count stands. One count for the process will do: changes
//! are a few a second, and one too many costs one rendering.

use std::sync::atomic::{AtomicU64, Ordering};

static CHANGES: AtomicU64 = AtomicU64::new(0);

/// Something has changed.
pub(crate) fn happened() {
    CHANGES.fetch_add(1, Ordering::Release);
}

/// The count so far. Read it before what is rendered: then a change in between is seen at the next look.
pub(crate) fn count() -> u64 {
    CHANGES.load(Ordering::Acquire)
}
