use health::HealthCheck;

#[derive(HealthCheck)]
struct State {
    #[health(flatten)]
    db: sqlx::PgPool,
    #[health(flatten)]
    title: Option<String>,
}

fn main() {}
