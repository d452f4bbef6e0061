//! A mail server for one test, of the Python library aiosmtpd, that requires a password.

use std::{
    fs,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::tool;
use crate::common::{
    PASSWORD, USER,
    process::Process,
    servers::{FaultInjection, free_port},
};

pub(crate) struct Smtp {
    port: u16,
    folder: TempDir,
    process: Option<Process>,
}

impl Smtp {
    /// Prepares a server without starting it.
    pub(crate) fn prepared() -> Self {
        let folder = tempfile::Builder::new().prefix("health-").tempdir().unwrap();
        Self { port: free_port(), folder, process: None }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns how often it got a command since its start: `NOOP`, `AUTH` or `DATA`.
    pub(crate) fn received(&self, command: &str) -> u64 {
        self.log_text().lines().filter(|line| *line == command).count().try_into().unwrap()
    }

    /// Makes `NOOP` an unknown command.
    pub(crate) fn refuse_noop(&self) {
        fs::write(self.folder.path().join("no-noop"), "").unwrap();
    }

    /// Delays the response to `NOOP` by a second.
    pub(crate) fn delay_noop(&self) {
        fs::write(self.folder.path().join("slow-noop"), "").unwrap();
    }

    fn log_text(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl FaultInjection for Smtp {
    fn restart(&mut self) {
        assert!(self.process.is_none(), "stop it first");
        let args = [
            &format!("PYTHONPATH={}", tool("python")),
            "python3",
            "-c",
            include_str!("smtp.py"),
            &self.port.to_string(),
            USER,
            PASSWORD,
            &self.folder.path().display().to_string(),
        ]
        .map(str::to_owned);
        self.process = Some(Process::start("root", "env", &args, &self.folder.path().join("log")));
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(60), "it does not start: {}", self.log_text());
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(&mut self) {
        self.process.take().expect("it runs").stop("TERM");
    }

    fn freeze(&self) {
        self.process.as_ref().expect("it runs").freeze();
    }

    fn resume(&self) {
        self.process.as_ref().expect("it runs").resume();
    }
}
