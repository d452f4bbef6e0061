//! memcached, on a free loopback port.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use crate::common::{daemon::Daemon, servers::FaultInjection as _};

/// A server for one test.
pub(crate) type Memcached = Daemon<Kind>;

pub(crate) struct Kind;

impl Memcached {
    /// Prepares a server with further command line arguments, without starting it.
    pub(crate) fn prepared(args: &[&str]) -> Self {
        let mut server = Self::new(Kind, "memcache", "memcached");
        server.add_args(&["-l", "127.0.0.1", "-p", &server.port().to_string(), "-U", "0", "-m", "16"]);
        server.add_args(args);
        server.serves =
            |server| !server.looked_up("pid").is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        server
    }

    pub(crate) fn start(args: &[&str]) -> Self {
        let mut server = Self::prepared(args);
        server.restart();
        server
    }

    /// Returns one of its counters, e.g. `cmd_set`.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.looked_up(name).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Returns the number of connections from the kernel, because the counter of the server is updated later.
    pub(crate) fn connections(&self) -> usize {
        const ESTABLISHED: &str = "01";

        let local = format!("0100007F:{:04X}", self.port());
        let sockets = fs::read_to_string("/proc/net/tcp").unwrap();
        let is_ours = |line: &&str| {
            let words: Vec<_> = line.split_whitespace().collect();
            words.get(1) == Some(&local.as_str()) && words.get(3) == Some(&ESTABLISHED)
        };
        sockets.lines().filter(is_ours).count()
    }

    fn looked_up(&self, name: &str) -> io::Result<u64> {
        let mut connection = TcpStream::connect(self.address())?;
        // A server with credentials waits for them.
        connection.set_read_timeout(Some(Duration::from_millis(500)))?;
        connection.write_all(b"stats\r\nquit\r\n")?;
        let mut text = String::new();
        connection.read_to_string(&mut text)?;
        let counter = text.lines().find_map(|line| line.strip_prefix(&format!("STAT {name} "))?.parse().ok());
        counter.ok_or(io::ErrorKind::NotFound.into())
    }
}
