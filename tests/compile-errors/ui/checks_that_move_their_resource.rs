use health::Check;
use sqlx::PgPool;

fn main() {
    let pool = PgPool::connect_lazy("postgres://localhost").unwrap();
    // Each run needs a clone of its own.
    let _ = Check::new("database", "db", move || async move { pool.acquire().await.map(drop) });
}
