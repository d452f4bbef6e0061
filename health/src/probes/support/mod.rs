//! Algorithms that several probes share, one a file, each with its own tests.

pub(super) mod hedge;
