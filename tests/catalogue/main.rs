//! The backends behind features, each against its real server and with the suite in `acceptance`.

#![allow(missing_docs, reason = "the names of tests are messages")]

#[allow(dead_code)]
#[path = "../common/mod.rs"]
mod common;

mod acceptance;
mod bb8_postgres;
mod bb8_redis;
mod certificate;
mod chaos;
mod deadpool_postgres;
mod deadpool_redis;
mod diesel;
mod diesel_async;
mod discovery;
mod disk;
mod dns;
mod everything;
mod fred;
mod grpc;
mod lapin;
mod lettre;
mod memcache;
mod memory;
mod mongodb;
mod mysql;
mod mysql_async;
mod nats;
mod pools;
mod rdkafka;
mod redis;
mod redis_cluster;
mod redis_r2d2;
mod redis_sentinel;
mod reqwest;
mod rskafka;
mod rumqttc;
mod rusqlite;
mod sea_orm;
#[allow(dead_code, reason = "`neighbours` uses the rest")]
mod servers;
mod sqlx;
mod sqlx_0_8;
mod storage;
mod tcp;
mod tokio_postgres;
mod tonic;
