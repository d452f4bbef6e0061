//! Pools in types that are not searched for probes.
use std::collections::VecDeque;

use health::HealthCheck;
use sqlx::PgPool;

#[derive(HealthCheck)]
struct State {
    cache: redis::Client,
    pair: (PgPool, u8),
    replicas: [PgPool; 2],
    queue: VecDeque<PgPool>,
    repository: Repository<::sqlx::AnyPool>,
}

struct Repository<T>(T);

fn main() {}
