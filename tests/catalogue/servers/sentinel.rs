//! A Redis, a replica of it, and a sentinel that watches both.

use std::{
    collections::HashMap,
    fs, thread,
    time::{Duration, Instant},
};

use redis::{Client, FromRedisValue, RedisResult};
use tempfile::TempDir;

use crate::common::{
    PASSWORD, USER,
    process::{Process, chown},
    servers::{FaultInjection, Kind, Server, free_port},
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
        chown(folder.path(), "redis");
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

    /// Of the sentinel.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Waits until the sentinel knows the master, and a replica that could take its place.
    fn wait_until_it_is_whole(&self) {
        wait("the sentinel does not find them", || {
            let replicas: Vec<HashMap<String, String>> = ask(&self.url(), "SENTINEL REPLICAS main")?;
            let quorum: String = ask(&self.url(), "SENTINEL CKQUORUM main")?;
            let is_fit = |replica: &HashMap<String, String>| {
                replica.get("flags").is_some_and(|flags| flags == "slave")
                    && replica.get("master-link-status").is_some_and(|status| status == "ok")
            };
            Ok(quorum.starts_with("OK") && replicas.iter().any(is_fit))
        });
    }

    /// Waits until the replica follows its master. What the sentinel sees before that, it believes for ten seconds.
    fn wait_until_it_is_followed(&self) {
        wait("the replica does not follow its master", || {
            let state: String = ask(&self.replica.url(), "INFO replication")?;
            Ok(state.contains("master_link_status:up"))
        });
    }

    pub(crate) fn stop_sentinel(&mut self) {
        self.process.take().expect("it runs").stop("TERM");
    }

    fn sentinel(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }
}

fn wait(what: &str, holds: impl Fn() -> RedisResult<bool>) {
    let started = Instant::now();
    while !holds().unwrap_or(false) {
        assert!(started.elapsed() < Duration::from_secs(60), "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Asks a server of that URL.
pub(crate) fn ask<T: FromRedisValue>(url: &str, words: &str) -> RedisResult<T> {
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    command.arg(words.collect::<Vec<_>>());
    command.query(&mut Client::open(url)?.get_connection_with_timeout(Duration::from_secs(5))?)
}

impl FaultInjection for Sentinel {
    fn restart(&mut self) {
        self.master.restart();
        self.replica.restart();
        self.wait_until_it_is_followed();
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

    fn resume(&self) {
        self.master.resume();
        self.replica.resume();
        self.sentinel().resume();
    }
}
