//! Attributes of a check on a field that is not probed.
#![allow(dead_code)]

use health::HealthCheck;
use sqlx::PgPool;

struct Search;

#[derive(HealthCheck)]
struct State {
    db: PgPool,
    #[health(optional, timeout = "250ms")]
    search: Search,
}

fn main() {}
