use health::HealthCheck;
use sqlx::PgPool;

#[derive(HealthCheck)]
struct Nested {
    db: PgPool,
}

#[derive(HealthCheck)]
struct State {
    #[health(skip, optional, timeout = "1s")]
    skipped: PgPool,
    #[health(with = ping, probe)]
    both: PgPool,
    #[health(flatten, name = "part")]
    named: Nested,
}

async fn ping<T>(_: &T) -> Result<(), String> {
    Ok(())
}

fn main() {}
