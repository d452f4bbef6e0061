//! A mongod for one test, with a user, alone or as the member of a replica set.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use ::mongodb::{
    Client,
    bson::{Document, doc},
};

use super::tool;
use crate::common::{PASSWORD, USER, daemon::Daemon, servers::FaultInjection as _};

const SET_NAME: &str = "canaryset";

pub(crate) type Mongod = Daemon<Kind>;

pub(crate) struct Kind;

impl Mongod {
    /// Prepares a server that requires a password, without starting it.
    pub(crate) fn prepared() -> Self {
        let mut mongod = Self::without_password();
        // While there is no user, a local client may create one.
        mongod.restart();
        let create = doc! { "createUser": USER, "pwd": PASSWORD, "roles": ["root"] };
        mongod.run(create).expect("the first user is created");
        mongod.stop();
        mongod.add_args(&["--auth"]);
        mongod
    }

    /// Prepares a server that requires no password, without starting it.
    pub(crate) fn without_password() -> Self {
        Self::with_args(&[])
    }

    /// Starts the members of a replica set, without passwords, and waits until the first one is the primary.
    pub(crate) fn replica_set<const N: usize>() -> [Self; N] {
        let members = [(); N].map(|()| {
            let mut member = Self::with_args(&["--replSet", SET_NAME]);
            member.restart();
            member
        });
        let configured: Vec<_> = (0..)
            .zip(&members)
            .map(|(id, member)| doc! { "_id": id, "host": member.address(), "priority": if id == 0 { 2 } else { 1 } })
            .collect();
        // The first one is elected, and steps down without a majority, within a second.
        let settings =
            doc! { "electionTimeoutMillis": 1000, "heartbeatIntervalMillis": 200, "heartbeatTimeoutSecs": 1 };
        let initiate = doc! { "replSetInitiate": { "_id": SET_NAME, "members": configured, "settings": settings } };
        members[0].run(initiate).expect("the replica set is initiated");
        let started = Instant::now();
        while members[0].run(doc! { "hello": 1 }).is_ok_and(|hello| hello.get_bool("isWritablePrimary") != Ok(true)) {
            assert!(started.elapsed() < Duration::from_secs(60), "no primary: {}", members[0].log_text());
            thread::sleep(Duration::from_millis(50));
        }
        members
    }

    fn with_args(args: &[&str]) -> Self {
        let mut mongod = Self::new(Kind, "root", &tool("mongodb/bin/mongod"));
        let [data, port] = [mongod.path("data"), mongod.port().to_string()];
        fs::create_dir(&data).unwrap();
        mongod.add_args(&["--dbpath", &data, "--port", &port, "--bind_ip", "127.0.0.1", "--nounixsocket"]);
        // Two megabytes of data instead of 300, and a shutdown that does not wait for clients.
        mongod.add_args(&["--wiredTigerCacheSizeGB", "0.25"]);
        mongod.add_args(&["--wiredTigerEngineConfigString", "log=(prealloc=false,file_max=2MB)"]);
        mongod.add_args(&["--setParameter", "shutdownTimeoutMillisForSignaledShutdown=0"]);
        // The least, because the hashes of a password are slow without optimization.
        mongod.add_args(&["--setParameter", "scramSHA256IterationCount=5000"]);
        mongod.add_args(&["--setParameter", "scramIterationCount=5000"]);
        // Each command is logged.
        mongod.add_args(&["--slowms", "-1"]);
        mongod.add_args(args);
        mongod
    }

    pub(crate) fn url(&self, password: &str) -> String {
        format!("mongodb://{USER}:{password}@{}/", self.address())
    }

    /// Returns how often it has executed a command since its start.
    pub(crate) fn received(&self, command: &str) -> u64 {
        let command = format!("\"command\":{{\"{command}\":");
        self.log_text().lines().filter(|line| line.contains(&command)).count().try_into().unwrap()
    }

    /// Runs a command on this server, also if it is a secondary.
    fn run(&self, command: Document) -> ::mongodb::error::Result<Document> {
        let url = format!("mongodb://{}/?directConnection=true", self.address());
        // A thread of its own, because the caller may be a task.
        let run = async move { Client::with_uri_str(url).await?.database("admin").run_command(command).await };
        thread::spawn(|| actix_web::rt::System::new().block_on(run)).join().unwrap()
    }
}
