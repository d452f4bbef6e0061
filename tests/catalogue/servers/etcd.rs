//! An etcd for one test, which serves the gRPC health service and counts its calls.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::common::{
    process::{Process, chown},
    servers::{FaultInjection, free_port},
};

/// The user of Debian's package.
const OWNER: &str = "etcd";

pub(crate) struct Etcd {
    port: u16,
    peer_port: u16,
    folder: TempDir,
    process: Option<Process>,
}

impl Etcd {
    /// Prepares a server without starting it.
    pub(crate) fn prepared() -> Self {
        let folder = tempfile::Builder::new().prefix("health-").tempdir().unwrap();
        chown(folder.path(), OWNER);
        Self { port: free_port(), peer_port: free_port(), folder, process: None }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns how many calls of `Check` it has handled since its start.
    pub(crate) fn checks(&self) -> u64 {
        let metrics = self.get("/metrics").unwrap();
        let counts = metrics.lines().filter_map(|line| {
            let (labels, count) = line.strip_prefix("grpc_server_handled_total{")?.split_once("} ")?;
            let is_check = labels.contains("grpc_method=\"Check\",grpc_service=\"grpc.health.v1.Health\"");
            is_check.then(|| count.parse::<u64>().unwrap())
        });
        counts.sum()
    }

    fn get(&self, path: &str) -> io::Result<String> {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port))?;
        write!(connection, "GET {path} HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\n\r\n")?;
        let mut response = String::new();
        connection.read_to_string(&mut response)?;
        Ok(response)
    }
}

impl FaultInjection for Etcd {
    fn restart(&mut self) {
        assert!(self.process.is_none(), "stop it first");
        let log = self.folder.path().join("log");
        let data = self.folder.path().join("data").display().to_string();
        let [client, peer] = [self.port, self.peer_port].map(|port| format!("http://127.0.0.1:{port}"));
        let cluster = format!("default={peer}");
        let args = [
            ["--data-dir", &data],
            ["--listen-client-urls", &client],
            ["--advertise-client-urls", &client],
            ["--listen-peer-urls", &peer],
            ["--initial-advertise-peer-urls", &peer],
            ["--initial-cluster", &cluster],
        ];
        let args: Vec<String> = args.into_iter().flatten().map(Into::into).collect();
        self.process = Some(Process::start(OWNER, "etcd", &args, &log));
        let started = Instant::now();
        while !self.get("/health").is_ok_and(|response| response.contains("{\"health\":\"true\"}")) {
            let log = fs::read_to_string(&log).unwrap_or_default();
            assert!(started.elapsed() < Duration::from_secs(60), "etcd does not start: {log}");
            thread::sleep(Duration::from_millis(50));
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
