use health::{HealthCheck, Probe, ProbeError};

struct Mailer;

impl Probe for Mailer {
    const GROUP: &'static str = "service";

    async fn probe(&self) -> Result<(), ProbeError> {
        Ok(())
    }
}

#[derive(HealthCheck)]
struct State {
    db: sqlx::PgPool,
    mailer: Mailer,
    backup: Option<Mailer>,
}

fn main() {}
