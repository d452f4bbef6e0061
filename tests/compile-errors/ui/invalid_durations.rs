use health::HealthCheck;
use sqlx::PgPool;

#[derive(HealthCheck)]
struct State {
    #[health(timeout = "250")]
    a: PgPool,
    #[health(timeout = "1.5s")]
    b: PgPool,
    #[health(timeout = "0ms")]
    c: PgPool,
    #[health(timeout = "2m")]
    d: PgPool,
    #[health(timeout = "99999999999999999999s")]
    e: PgPool,
    #[health(max_age = "30")]
    f: PgPool,
    #[health(max_age = 30)]
    g: PgPool,
}

fn main() {}
