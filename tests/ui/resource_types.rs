//! Types that are written like a resource and cannot be probed: of an unsupported version or crate, or contained in a type that is
//! not searched.
use std::sync::Mutex;

use health::HealthCheck;

mod sqlx_0_7 {
    pub struct PgPool;
    pub struct Pool<T>(T);
}

mod deadpool {
    pub struct Pool;
}

mod bb8 {
    pub struct Pool;
}

#[derive(HealthCheck)]
struct State {
    db: sqlx_0_7::PgPool,
    any: sqlx_0_7::Pool<u8>,
    bb8: bb8::Pool,
    pool: Option<deadpool::Pool>,
    locked: Mutex<redis::aio::ConnectionManager>,
    repository: Repository<::sqlx::SqlitePool>,
}

struct Repository<T>(T);

fn main() {}
