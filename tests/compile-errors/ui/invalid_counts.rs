use health::HealthCheck;
use sqlx::PgPool;

#[derive(HealthCheck)]
struct State {
    #[health(rise = 0)]
    a: PgPool,
    #[health(fall = 0)]
    b: PgPool,
    #[health(rise = -1)]
    c: PgPool,
    #[health(fall = "3")]
    d: PgPool,
    #[health(fall)]
    e: PgPool,
    #[health(rise = 4294967296)]
    f: PgPool,
}

fn main() {}
