//! A Redis, a replica of it, and a sentinel that watches both.

use std::{
    collections::HashMap,
    thread,
    time::{Duration, Instant},
};

use redis::{Client, FromRedisValue, RedisResult};

use crate::common::{
    PASSWORD, USER,
    daemon::Daemon,
    servers::{FaultInjection, Kind, Server},
};

/// A master, its replica and the sentinel, by their initial roles. All of them can be stopped and frozen together.
pub(crate) struct Sentinel {
    pub(crate) master: Server,
    pub(crate) replica: Server,
    pub(crate) monitor: Daemon<()>,
}

impl Sentinel {
    /// Prepares them without starting them.
    pub(crate) fn prepared() -> Self {
        let credentials = format!("--masteruser {USER} --masterauth {PASSWORD} --repl-diskless-sync-delay 0");
        let words = |words: &str| words.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let prepared = |args: &str| {
            let args = words(args);
            Server::prepared(Kind::Redis, &args.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let master = prepared(&credentials);
        let replica = prepared(&format!("{credentials} --replicaof 127.0.0.1 {}", master.port()));
        let mut monitor = Daemon::new((), "redis", "redis-server");
        let config = format!(
            "port {}\nbind 127.0.0.1\ndir {}\nsentinel monitor main 127.0.0.1 {} 1\nsentinel auth-user main {USER}\n\
             sentinel auth-pass main {PASSWORD}\nsentinel down-after-milliseconds main 1000\n\
             sentinel failover-timeout main 3000\n",
            monitor.port(),
            monitor.path(""),
            master.port()
        );
        // The sentinel writes its state to the file.
        monitor.write("sentinel.conf", &config);
        monitor.add_args(&[&monitor.path("sentinel.conf"), "--sentinel"]);
        Self { master, replica, monitor }
    }

    pub(crate) fn start() -> Self {
        let mut servers = Self::prepared();
        servers.restart();
        servers
    }

    /// Returns the URL of the sentinel, which has no password.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}/", self.monitor.address())
    }

    /// Waits until the sentinel knows the master and a replica to promote.
    fn wait_until_it_is_whole(&self) {
        wait("the sentinel does not find them", || {
            let replicas: Vec<HashMap<String, String>> = query(&self.url(), "SENTINEL REPLICAS main")?;
            let quorum: String = query(&self.url(), "SENTINEL CKQUORUM main")?;
            let is_fit = |replica: &HashMap<String, String>| {
                replica.get("flags").is_some_and(|flags| flags == "slave")
                    && replica.get("master-link-status").is_some_and(|status| status == "ok")
            };
            Ok(quorum.starts_with("OK") && replicas.iter().any(is_fit))
        });
    }

    /// Waits until the replica follows its master, because the sentinel caches what it sees before for ten seconds.
    fn wait_until_it_is_followed(&self) {
        wait("the replica does not follow its master", || {
            let state: String = query(&self.replica.url(), "INFO replication")?;
            Ok(state.contains("master_link_status:up"))
        });
    }
}

fn wait(what: &str, holds: impl Fn() -> RedisResult<bool>) {
    let started = Instant::now();
    while !holds().unwrap_or(false) {
        assert!(started.elapsed() < Duration::from_secs(60), "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Executes a command on the server at a URL.
pub(crate) fn query<T: FromRedisValue>(url: &str, words: &str) -> RedisResult<T> {
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
        self.monitor.restart();
        self.wait_until_it_is_whole();
    }

    fn stop(&mut self) {
        // The sentinel first, so that it begins no failover.
        self.monitor.stop();
        self.replica.stop();
        self.master.stop();
    }

    fn freeze(&self) {
        self.monitor.freeze();
        self.replica.freeze();
        self.master.freeze();
    }

    fn resume(&self) {
        self.master.resume();
        self.replica.resume();
        self.monitor.resume();
    }
}
