//! Algorithms that several probes share, one a file, each with its own tests.

pub(super) mod attempts;
pub(super) mod hedge;
pub(super) mod kept;
pub(super) mod reachability;
