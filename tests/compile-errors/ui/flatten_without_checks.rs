use health::HealthCheck;

#[derive(HealthCheck)]
struct State {
    db: sqlx::PgPool,
    #[health(flatten)]
    title: Option<String>,
}

fn main() {}
