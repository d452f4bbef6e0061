use health::HealthCheck;
use sqlx::PgPool;

#[derive(HealthCheck)]
struct State {
    #[health(optional, timeout = "1s", shared)]
    a: PgPool,
    #[health(shared)]
    #[health(optional)]
    b: PgPool,
    #[health(critical, optional)]
    c: PgPool,
}

fn main() {}
