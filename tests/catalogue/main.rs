//! The backends behind features, each against its real server and by one suite: `acceptance`.

#![allow(missing_docs, reason = "the names of tests are messages")]

#[allow(dead_code)]
#[path = "../common/mod.rs"]
mod common;

mod acceptance;
mod bb8_redis;
mod deadpool_postgres;
mod deadpool_redis;
mod diesel;
mod diesel_async;
mod discovery;
mod disk;
mod dns;
mod everything;
mod fred;
mod http;
mod lapin;
mod memcached;
mod memory;
mod mqtt;
mod nats;
mod pools;
mod redis;
mod redis_cluster;
mod redis_sentinel;
mod sea_orm;
#[allow(dead_code, reason = "`neighbours` uses the rest")]
mod servers;
mod sqlx;
mod sqlx_0_8;
mod tcp;
mod tls;
mod tokio_postgres;
