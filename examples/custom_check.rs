//! Three ways to add a custom check: a `Probe` for a type of your own, a function for any other type, and the registry.

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
};

use actix_web::{App, HttpServer, web};
use health::{Check, HealthCheck, Probe, ProbeError, ProbeErrorKind};

#[derive(HealthCheck)]
struct AppState {
    /// `service.mailer`, because its type implements `Probe`.
    mailer: Mailer,
    /// `system.uploads`, probed by a function.
    #[health(with = is_writable, group = "system")]
    uploads: PathBuf,
}

#[derive(Clone)]
struct Mailer {
    queue: Vec<String>,
}

impl Probe for Mailer {
    const GROUP: &'static str = "service";

    async fn probe(&self) -> Result<(), ProbeError> {
        match self.queue.len() {
            0..1000 => Ok(()),
            // The response contains this message. The text of any other error is only logged.
            queued => Err(ProbeError::new(ProbeErrorKind::Failed, format!("{queued} mails are queued")).degraded()),
        }
    }
}

async fn is_writable(directory: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
    let directory = directory.to_owned();
    // A check must not block its thread.
    let metadata = web::block(move || directory.metadata()).await??;
    let read_only = metadata.permissions().readonly();
    if read_only { Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem).into()) } else { Ok(()) }
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Any code can register checks, at any time.
    health::register(Check::new("queue", "orders", || async { Ok::<_, io::Error>(()) }).optional())?;

    let state = web::Data::new(AppState { mailer: Mailer { queue: Vec::new() }, uploads: std::env::temp_dir() });
    let server =
        HttpServer::new(move || App::new().app_data(state.clone()).service(health::scope())).bind(("127.0.0.1", 0))?;
    println!("listening on http://{0}; try: curl -i http://{0}/health/queue/orders", server.addrs()[0]);
    Ok(server.run().await?)
}
