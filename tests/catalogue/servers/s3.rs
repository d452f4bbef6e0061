//! A server of S3 for one test, with one bucket and one pair of keys.

use std::{
    fs,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::common::{
    PASSWORD, USER,
    process::Process,
    servers::{FaultInjection, free_port},
};

/// The bucket that exists.
pub(crate) const BUCKET: &str = "canary-bucket";

pub(crate) struct S3 {
    port: u16,
    folder: TempDir,
    process: Option<Process>,
}

impl S3 {
    /// Prepares a server without starting it.
    pub(crate) fn prepared() -> Self {
        let folder = tempfile::Builder::new().prefix("health-").tempdir().unwrap();
        fs::create_dir_all(folder.path().join("buckets").join(BUCKET)).unwrap();
        Self { port: free_port(), folder, process: None }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Deletes the bucket.
    pub(crate) fn delete_bucket(&self) {
        fs::remove_dir_all(self.folder.path().join("buckets").join(BUCKET)).unwrap();
    }

    /// Returns how many requests it got since its start.
    pub(crate) fn requests(&self) -> u64 {
        self.log_text().lines().count().try_into().unwrap()
    }

    fn log_text(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl FaultInjection for S3 {
    fn restart(&mut self) {
        assert!(self.process.is_none(), "stop it first");
        let port = self.port.to_string();
        let buckets = self.folder.path().join("buckets").display().to_string();
        let args = [&port, USER, PASSWORD, &buckets].map(ToString::to_string);
        let log = self.folder.path().join("log");
        self.process = Some(Process::start("root", env!("CARGO_BIN_EXE_s3-server"), &args, &log));
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
