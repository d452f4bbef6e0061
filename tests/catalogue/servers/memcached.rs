//! memcached, on a free loopback port.

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

/// A server of the test's own, to break.
pub(crate) struct Memcached {
    port: u16,
    folder: TempDir,
    args: Vec<String>,
    process: Option<Process>,
}

impl Memcached {
    /// A server that was never started, with further arguments on its command line.
    pub(crate) fn prepared(args: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("health-").tempdir().unwrap();
        chown(folder.path(), "memcache");
        Self { port: free_port(), folder, args: args.iter().map(|&arg| arg.to_owned()).collect(), process: None }
    }

    pub(crate) fn start(args: &[&str]) -> Self {
        let mut server = Self::prepared(args);
        server.restart();
        server
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// One of its counters, e.g. `cmd_set`.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.looked_up(name).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// How many connections it has, as the system knows: its own counter is a moment late.
    pub(crate) fn connections(&self) -> usize {
        const ESTABLISHED: &str = "01";

        let local = format!("0100007F:{:04X}", self.port);
        let sockets = fs::read_to_string("/proc/net/tcp").unwrap();
        let is_ours = |line: &&str| {
            let words: Vec<_> = line.split_whitespace().collect();
            words.get(1) == Some(&local.as_str()) && words.get(3) == Some(&ESTABLISHED)
        };
        sockets.lines().filter(is_ours).count()
    }

    fn looked_up(&self, name: &str) -> io::Result<u64> {
        let mut connection = TcpStream::connect(self.address())?;
        // One that wants credentials waits for them.
        connection.set_read_timeout(Some(Duration::from_millis(500)))?;
        connection.write_all(b"stats\r\nquit\r\n")?;
        let mut text = String::new();
        connection.read_to_string(&mut text)?;
        let counter = text.lines().find_map(|line| line.strip_prefix(&format!("STAT {name} "))?.parse().ok());
        counter.ok_or(io::ErrorKind::NotFound.into())
    }
}

impl FaultInjection for Memcached {
    fn restart(&mut self) {
        assert!(self.process.is_none(), "stop it first");
        let port = self.port.to_string();
        let mut args: Vec<String> = ["-l", "127.0.0.1", "-p", &port, "-U", "0", "-m", "16"].map(Into::into).into();
        args.extend(self.args.iter().cloned());
        self.process = Some(Process::start("memcache", "memcached", &args, &self.folder.path().join("log")));
        let started = Instant::now();
        while self.looked_up("pid").is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            assert!(started.elapsed() < Duration::from_secs(60), "memcached does not start");
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
