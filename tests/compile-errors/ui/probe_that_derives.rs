//! The field has no error of its own.
use std::sync::{Arc, Mutex};

use health::{HealthCheck, Probe, ProbeError};

#[derive(Clone, HealthCheck)]
struct Db {
    pool: sqlx::PgPool,
}

impl Probe for Db {
    const GROUP: &'static str = "database";

    async fn probe(&self) -> Result<(), ProbeError> {
        Ok(())
    }
}

#[derive(HealthCheck)]
struct State {
    db: Db,
    replicas: Option<Arc<Db>>,
    #[health(skip)]
    skipped: Mutex<Db>,
}

fn main() {}
