use health::HealthCheck;
use sqlx::PgPool;

#[derive(HealthCheck)]
struct State {
    #[health(name = "")]
    a: PgPool,
    #[health(name = ".")]
    b: PgPool,
    #[health(group = "ready")]
    c: PgPool,
    #[health(group = "..")]
    d: PgPool,
    #[health(group = "")]
    e: PgPool,
    #[health(group = "openapi.json")]
    f: PgPool,
}

#[derive(HealthCheck)]
#[health(name = "billing\n")]
struct Billing {
    db: PgPool,
}

fn main() {}
