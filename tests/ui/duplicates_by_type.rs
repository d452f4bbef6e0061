use health::HealthCheck;
use sqlx::{MySqlPool, PgPool};

#[derive(HealthCheck)]
struct State {
    main: PgPool,
    #[health(name = "main")]
    cache: redis::Client,
    #[health(name = "main")]
    orders: Option<MySqlPool>,
}

fn main() {}
