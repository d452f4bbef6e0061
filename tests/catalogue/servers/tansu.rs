//! A tansu for one test: a broker that speaks the protocol of Kafka, and stores everything in memory.

use std::{
    fs,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::tool;
use crate::common::{
    process::Process,
    servers::{FaultInjection, free_port},
};

pub(crate) struct Tansu {
    port: u16,
    folder: TempDir,
    process: Option<Process>,
}

impl Tansu {
    /// Prepares a broker without starting it.
    pub(crate) fn prepared() -> Self {
        let folder = tempfile::Builder::new().prefix("health-").tempdir().unwrap();
        Self { port: free_port(), folder, process: None }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn log_text(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl FaultInjection for Tansu {
    fn restart(&mut self) {
        assert!(self.process.is_none(), "stop it first");
        let url = format!("tcp://{}", self.address());
        let args = ["broker", "--listener-url", &url, "--advertised-listener-url", &url].map(str::to_owned);
        self.process = Some(Process::start("root", &tool("tansu/bin/tansu"), &args, &self.folder.path().join("log")));
        let started = Instant::now();
        while TcpStream::connect(self.address()).is_err() {
            assert!(started.elapsed() < Duration::from_secs(60), "tansu does not start: {}", self.log_text());
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
