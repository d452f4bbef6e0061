use health::HealthCheck;

#[derive(HealthCheck)]
struct State<T, R> {
    db: sqlx::PgPool,
    repository: T,
    replicas: Option<Vec<R>>,
}

fn main() {}
