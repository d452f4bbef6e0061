//! Algorithms that several probes share.

pub(super) mod address;
pub(super) mod amount;
pub(super) mod attempts;
pub(super) mod blocking_single_flight;
pub(super) mod debug_fields;
pub(super) mod endpoint;
pub(super) mod hedge;
pub(super) mod label;
pub(super) mod reachability;
pub(super) mod reused_connection;
pub(super) mod round_trip;
pub(super) mod single_flight;
pub(super) mod thresholds;
