//! An etcd for one test, which serves the gRPC health service and counts its calls.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
};

use crate::common::{daemon::Daemon, servers::free_port};

pub(crate) type Etcd = Daemon<Kind>;

pub(crate) struct Kind;

impl Etcd {
    /// Prepares a server without starting it.
    pub(crate) fn prepared() -> Self {
        // The user of Debian's package.
        let mut etcd = Self::new(Kind, "etcd", "etcd");
        let [client, peer] = [etcd.port(), free_port()].map(|port| format!("http://127.0.0.1:{port}"));
        etcd.add_args(&["--data-dir", &etcd.path("data")]);
        etcd.add_args(&["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        etcd.add_args(&["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        etcd.add_args(&["--initial-cluster", &format!("default={peer}")]);
        etcd.serves = |etcd| etcd.get("/health").is_ok_and(|response| response.contains("{\"health\":\"true\"}"));
        etcd
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
        let mut connection = TcpStream::connect(self.address())?;
        write!(connection, "GET {path} HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\n\r\n")?;
        let mut response = String::new();
        connection.read_to_string(&mut response)?;
        Ok(response)
    }
}
