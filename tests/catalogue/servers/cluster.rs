//! A cluster of three Redis, each a master of a third of the slots.

use std::{
    thread,
    time::{Duration, Instant},
};

use redis::{Client, FromRedisValue, RedisResult, Value};

use crate::common::servers::{FaultInjection, Kind, Server, free_port};

const SLOTS: [(u16, u16); 3] = [(0, 5460), (5461, 10922), (10923, 16383)];

/// A cluster of the test's own. As a whole it is one server to break; its nodes can be broken one by one.
pub(crate) struct Cluster {
    pub(crate) nodes: [Server; 3],
    buses: [u16; 3],
    is_made: bool,
}

impl Cluster {
    /// A cluster that was never started.
    pub(crate) fn prepared() -> Self {
        // By default it is the node's port and 10000, which may be no port.
        let buses = [(); 3].map(|()| free_port());
        let nodes = buses.map(|bus| {
            let words = format!(
                "--cluster-enabled yes --cluster-config-file nodes.conf --cluster-node-timeout 1000 --cluster-port {bus} \
                 --appendonly no --maxmemory-policy noeviction"
            );
            Server::prepared(Kind::Redis, &words.split(' ').collect::<Vec<_>>())
        });
        Self { nodes, buses, is_made: false }
    }

    pub(crate) fn start() -> Self {
        let mut cluster = Self::prepared();
        cluster.restart();
        cluster
    }

    pub(crate) fn ports(&self) -> [u16; 3] {
        self.nodes.each_ref().map(Server::port)
    }

    /// Asks one of the nodes.
    pub(crate) fn ask<T: FromRedisValue>(&self, node: usize, words: &str) -> RedisResult<T> {
        let mut words = words.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        command.arg(words.collect::<Vec<_>>());
        let client = Client::open(self.nodes[node].url())?;
        command.query(&mut client.get_connection_with_timeout(Duration::from_secs(5))?)
    }

    /// Starts one of the nodes again, and waits until the cluster is whole.
    pub(crate) fn restart_node(&mut self, node: usize) {
        self.nodes[node].restart();
        self.wait_until_it_is_whole();
    }

    pub(crate) fn wait_until_it_is_whole(&self) {
        let started = Instant::now();
        let is_whole =
            |node| self.ask(node, "CLUSTER INFO").is_ok_and(|info: String| info.contains("cluster_state:ok"));
        while !(0..3).all(is_whole) {
            assert!(started.elapsed() < Duration::from_secs(60), "the nodes don't find one another");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Has the nodes name these ports of proxies as theirs, and waits until each names all of them.
    pub(crate) fn announce(&self, ports: &[u16]) {
        for (node, port) in ports.iter().enumerate() {
            self.ask::<Value>(node, &format!("CONFIG SET cluster-announce-port {port}")).unwrap();
        }
        let started = Instant::now();
        let names_all = |node| {
            let slots: Value = self.ask(node, "CLUSTER SLOTS").unwrap();
            let slots = format!("{slots:?}");
            ports.iter().all(|port| slots.contains(&format!("int({port})")))
        };
        while !(0..3).all(names_all) {
            assert!(started.elapsed() < Duration::from_secs(60), "the nodes don't name their proxies");
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn make(&self) {
        let ports = self.ports();
        for (node, (first, last)) in SLOTS.into_iter().enumerate() {
            self.ask::<Value>(node, &format!("CLUSTER ADDSLOTSRANGE {first} {last}")).unwrap();
            self.ask::<Value>(node, &format!("CLUSTER SET-CONFIG-EPOCH {}", node + 1)).unwrap();
        }
        for (port, bus) in ports.iter().zip(self.buses).skip(1) {
            self.ask::<Value>(0, &format!("CLUSTER MEET 127.0.0.1 {port} {bus}")).unwrap();
        }
    }
}

impl FaultInjection for Cluster {
    fn restart(&mut self) {
        self.nodes.iter_mut().for_each(Server::restart);
        if !self.is_made {
            self.make();
            self.is_made = true;
        }
        self.wait_until_it_is_whole();
    }

    fn stop(&mut self) {
        self.nodes.iter_mut().for_each(Server::stop);
    }

    fn freeze(&self) {
        self.nodes.iter().for_each(Server::freeze);
    }

    fn resume(&self) {
        self.nodes.iter().for_each(Server::resume);
    }
}
