//! Types of these names that are no probes: of another version, of a crate that is not known, or inside of something.
use std::sync::Mutex;

use health::HealthCheck;

mod sqlx_0_7 {
    pub struct PgPool;
    pub struct Pool<T>(T);
}

mod deadpool {
    pub struct Pool;
}

#[derive(HealthCheck)]
struct State {
    db: sqlx_0_7::PgPool,
    any: sqlx_0_7::Pool<u8>,
    pool: Option<deadpool::Pool>,
    locked: Mutex<redis::aio::ConnectionManager>,
    repository: Repository<::sqlx::SqlitePool>,
}

struct Repository<T>(T);

fn main() {}
