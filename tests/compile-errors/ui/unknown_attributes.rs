//! One compilation reports all errors, each at its own span.
use health::HealthCheck;
use sqlx::PgPool;

#[derive(HealthCheck)]
#[health(strickt, timeout = "1s")]
struct State {
    #[health(optionl)]
    db: PgPool,
    #[health(strict)]
    other: PgPool,
    #[health(name = orders, timeout = 250, skip = true)]
    third: PgPool,
    #[health()]
    fourth: PgPool,
    #[health(optional, optional)]
    fifth: PgPool,
    #[health(with = "ping")]
    sixth: String,
    #[health = "skip"]
    seventh: String,
}

fn main() {}
