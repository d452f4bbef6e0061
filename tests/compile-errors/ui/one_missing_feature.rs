//! The state of README.md with one of its two features, so that one type does not implement `Probe`: one error, at that field.

mod without_sqlx {
    mod sqlx {
        pub struct PgPool;
    }

    #[derive(health::HealthCheck)]
    struct AppState {
        db: sqlx::PgPool,
        sessions: redis::aio::ConnectionManager,
        title: String,
    }
}

mod without_redis {
    mod redis {
        pub mod aio {
            pub struct ConnectionManager;
        }
    }

    #[derive(health::HealthCheck)]
    struct AppState {
        db: sqlx::PgPool,
        sessions: redis::aio::ConnectionManager,
        title: String,
    }
}

fn main() {}
