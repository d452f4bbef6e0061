//! A Redis, a replica of it, and a sentinel that watches both.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use redis::{Client, FromRedisValue, RedisResult};
use tempfile::TempDir;

use crate::common::{
    PASSWORD, USER,
    process::{Process, give},
    servers::{Faulty, Kind, Server, free_port},
};

/// A master and its replica, as they are at first, and the sentinel. As a whole they are one server to break.
pub(crate) struct Sentinel {
    pub(crate) master: Server,
    pub(crate) replica: Server,
    port: u16,
    folder: TempDir,
    process: Option<Process>,
}

impl Sentinel {
    /// They were never started.
    pub(crate) fn prepared() -> Self {
        let credentials = format!("--masteruser {USER} --masterauth {PASSWORD} --repl-diskless-sync-delay 0");
        let words = |words: &str| words.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let prepared = |args: &str| {
            let args = words(args);
            Server::prepared(Kind::Redis, &args.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let master = prepared(&credentials);
        let replica = prepared(&format!("{credentials} --replicaof 127.0.0.1 {}", master.port()));
        let folder = tempfile::Builder::new().prefix("health-").tempdir().unwrap();
        let port = free_port();
        let config = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor main 127.0.0.1 {} 1\nsentinel auth-user main {USER}\n\
             sentinel auth-pass main {PASSWORD}\nsentinel down-after-milliseconds main 1000\n\
             sentinel failover-timeout main 3000\n",
            folder.path().display(),
            master.port()
        );
        // It writes to the file what it finds out.
        fs::write(folder.path().join("sentinel.conf"), config).unwrap();
        give(folder.path(), "redis");
        Self { master, replica, port, folder, process: None }
    }

    pub(crate) fn start() -> Self {
        let mut servers = Self::prepared();
        servers.restart();
        servers
    }

    /// Of the sentinel, which has no password.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Waits until the sentinel knows a master that works, and its replica.
    pub(crate) fn wait_until_it_is_whole(&self) {
        let started = Instant::now();
        let is_whole = || -> RedisResult<bool> {
            let replicas: redis::Value = ask(&self.url(), "SENTINEL REPLICAS main")?;
            let quorum: String = ask(&self.url(), "SENTINEL CKQUORUM main")?;
            let link: String = ask(&self.replica.url(), "INFO replication")?;
            Ok(matches!(replicas, redis::Value::Array(replicas) if !replicas.is_empty())
                && quorum.starts_with("OK")
                && (link.contains("master_link_status:up") || link.contains("role:master")))
        };
        while !is_whole().unwrap_or(false) {
            assert!(started.elapsed() < Duration::from_secs(60), "the sentinel does not find them");
            thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn stop_sentinel(&mut self) {
        self.process.take().expect("it runs").stop("TERM");
    }

    fn sentinel(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }
}

/// Asks a server of that URL.
pub(crate) fn ask<T: FromRedisValue>(url: &str, words: &str) -> RedisResult<T> {
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    command.arg(words.collect::<Vec<_>>());
    command.query(&mut Client::open(url)?.get_connection_with_timeout(Duration::from_secs(5))?)
}

impl Faulty for Sentinel {
    fn restart(&mut self) {
        self.master.restart();
        self.replica.restart();
        let config = self.folder.path().join("sentinel.conf").display().to_string();
        let args = [config, "--sentinel".to_owned()];
        self.process = Some(Process::start("redis", "redis-server", &args, &self.folder.path().join("log")));
        self.wait_until_it_is_whole();
    }

    fn stop(&mut self) {
        // The sentinel first: it has no failover to begin.
        self.stop_sentinel();
        self.replica.stop();
        self.master.stop();
    }

    fn freeze(&self) {
        self.sentinel().freeze();
        self.replica.freeze();
        self.master.freeze();
    }

    fn thaw(&self) {
        self.master.thaw();
        self.replica.thaw();
        self.sentinel().thaw();
    }
}
