//! Types that are written like a resource, of a crate or a version that is not supported, or behind an alias. The probed field next to
//! them hides none.
#![allow(dead_code)]

use std::sync::Arc;

mod sqlx_0_7 {
    pub struct PgPool;
}

mod r2d2 {
    pub struct Pool<M>(M);
}

mod rusqlite {
    pub struct Connection;
}

mod mongodb {
    pub struct Client;
    pub struct Collection<T>(T);
}

mod scylla {
    pub struct Session;
}

mod rdkafka {
    pub mod producer {
        pub struct FutureProducer;
    }
}

mod lettre {
    pub struct AsyncSmtpTransport<E>(E);
}

mod aws_sdk_s3 {
    pub struct Client;
}

type DbPool = r2d2::Pool<u8>;

use rdkafka::producer::FutureProducer;

#[derive(health::HealthCheck)]
struct State {
    cache: redis::Client,
    db: sqlx_0_7::PgPool,
    aliased: DbPool,
    file: rusqlite::Connection,
    documents: mongodb::Client,
    orders: Option<mongodb::Collection<u8>>,
    events: Arc<scylla::Session>,
    producer: FutureProducer,
    mail: lettre::AsyncSmtpTransport<u8>,
    files: aws_sdk_s3::Client,
}

fn main() {}
