//! Faults for every driver: a far server (`distance`), a name or a load balancer that leads to another server (`failover`), and
//! connections that the server closes (`endings`). Each is a table of `docs/faults.md`.
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

/// A PostgreSQL that authenticates with a clear-text password. In a debug build, SCRAM takes the drivers so long that it would affect the
/// measured times.
fn postgres(args: &[&str]) -> Server {
    let server = Server::prepared(Kind::Postgres, args);
    fs::write(server.path("data/pg_hba.conf"), "host all all 127.0.0.1/32 password\n").unwrap();
    server
}
