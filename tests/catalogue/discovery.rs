//! Every type that a feature probes, as the applications write it. A field that cannot be probed does not compile.
#![allow(dead_code, reason = "compiling is the test")]

include!("../compile-errors/ui/shared/every_backend.rs");
