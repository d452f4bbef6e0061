//! The neighbours of each fault: every driver of the catalogue at a distance (`distance`), behind a name that leads to another
//! server (`failover`), and on connections that their server ends (`endings`). Each is a table of `docs/faults.md`.
//!
//! A separate binary, because it takes as long to compile as `catalogue`, and the tests whose names begin with `long_` run for minutes.

#![allow(missing_docs, reason = "the names of tests are messages")]

#[allow(dead_code)]
#[path = "../../common/mod.rs"]
mod common;
#[allow(dead_code)]
#[path = "../servers/mod.rs"]
mod servers;

mod agreement;
mod application;
mod distance;
mod drivers;
mod endings;
mod failover;
mod table;

use std::fs;

use common::servers::{Kind, Server};

/// A PostgreSQL with the password in clear text. In a test's build the drivers spend so much time on SCRAM that a machine of two
/// cores is late by itself.
fn postgres(args: &[&str]) -> Server {
    let server = Server::prepared(Kind::Postgres, args);
    fs::write(server.folder().join("data/pg_hba.conf"), "host all all 127.0.0.1/32 password\n").unwrap();
    server
}
