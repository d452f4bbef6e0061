use health::HealthCheck;
use sqlx::{AnyPool, PgPool};

#[derive(HealthCheck)]
struct State {
    main: PgPool,
    #[health(name = "main")]
    cache: redis::Client,
    #[health(name = "main")]
    orders: Option<AnyPool>,
}

fn main() {}
