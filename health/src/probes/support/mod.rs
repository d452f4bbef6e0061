//! Algorithms that several probes share.

pub(super) mod attempts;
pub(super) mod hedge;
pub(super) mod reachability;
pub(super) mod reused_connection;
