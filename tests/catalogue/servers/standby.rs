//! A standby of PostgreSQL, which streams from a primary of the harness.

#![allow(dead_code, reason = "only the tests of the catalogue use it")]

use std::fs;

use crate::common::{
    PASSWORD, USER,
    process::{as_user, run},
    servers::{FaultInjection as _, Kind, Server, postgres_program},
};

/// A running standby of a running primary.
pub(crate) fn standby_of(primary: &Server, args: &[&str]) -> Server {
    let mut standby = Server::prepared(Kind::Postgres, args);
    let data = standby.path("data");
    fs::remove_dir_all(&data).unwrap();
    let origin = format!("host=127.0.0.1 port={} user={USER} password={PASSWORD}", primary.port());
    // With all that makes it a standby of its origin.
    run(as_user("postgres", &postgres_program("pg_basebackup"))
        .args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--dbname", &origin, "--pgdata"])
        .arg(&data));
    standby.restart();
    standby
}
