//! The tests of `health` against real servers and over real HTTP, one module per subject.
//!
//! Run them with `tests/run`, which installs what they need.

#![allow(missing_docs, reason = "the names of tests are messages")]

#[allow(dead_code, reason = "the other test binaries use the rest")]
mod common;

mod access;
mod caches;
mod databases;
mod deny;
mod derive;
mod faults;
mod features;
mod fork;
mod herd;
mod isolation;
mod lifecycle;
mod management;
mod metrics;
mod page;
mod paths;
mod proxies;
mod rotation;
mod scope;
mod secrecy;
mod sqlite;
mod states;
mod troubleshooting;
