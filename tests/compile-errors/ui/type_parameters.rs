use health::HealthCheck;

#[derive(HealthCheck)]
struct State<T, R, D> {
    db: sqlx::PgPool,
    repository: T,
    replicas: Option<Vec<R>>,
    client: Client<D>,
}

struct Client<D>(D);

fn main() {}
