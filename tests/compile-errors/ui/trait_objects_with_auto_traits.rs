//! `Probe` is implemented for `dyn Repo`, which is another type than `dyn Repo + Send + Sync`.
#![allow(dead_code)]

use std::sync::Arc;

use health::{HealthCheck, Probe, ProbeError};
use sqlx::PgPool;

trait Repo: Send + Sync {}

impl Probe for dyn Repo {
    const GROUP: &'static str = "database";

    async fn probe(&self) -> Result<(), ProbeError> {
        Ok(())
    }
}

#[derive(HealthCheck)]
struct State {
    db: PgPool,
    orders: Arc<dyn Repo>,
    customers: Arc<dyn Repo + Send + Sync>,
}

fn main() {}
