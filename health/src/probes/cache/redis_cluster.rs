//! `redis::cluster_async::ClusterConnection` and `redis::cluster::ClusterClient`.
//!
//! Each run writes a unique value on **each master** and reads it back, concurrently and so in one round trip, and queries one
//! of them for the masters of the next run. The first run has to know the masters before that, and takes two round trips. A
//! cluster that has lost one of three masters is DOWN, because every third key of the application is lost.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | a master refuses connections and no replica was promoted; or all refuse | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | wrong password, no permission | [`ProbeErrorKind::Rejected`] | DOWN |
//! | a master is read-only: out of memory, a full disk | [`ProbeErrorKind::ReadOnly`] | DOWN |
//! | slots without a master; another value read than written; anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! The driver retries a node that fails, and is silent meanwhile, for seconds. So when a run takes longer than twice the longest
//! one before, and at least 300 ms, the nodes are connected to directly, at most every 2 s. That finds a node that refuses
//! connections. It does not find one that is frozen, where the check's limit ends the run.
//!
//! A `ClusterClient` connects for each use, so its check reuses a connection of its own, which is one to each node, for at most 30 s.
//! Only a success counts on it: a failure is retried once on a new one. If connecting takes longer than 2 s, a second connection is
//! opened concurrently. All keys begin with `health:`.
//!
//! What a run costs the servers: one pipelined `SET` and `GET` on each master, and one `CLUSTER SLOTS`. A `ClusterClient`'s
//! check opens one connection to each node every 30 s, and in each run that fails.

use std::{collections::HashSet, io, sync::Arc, time::Duration};

use futures_util::future::{try_join, try_join_all};
use parking_lot::Mutex;
use redis::{
    ErrorKind, RedisError, RedisResult, Value,
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    cluster_routing::{RoutingInfo, SingleNodeRoutingInfo},
    from_redis_value_ref,
};
use tokio::time::timeout;

use super::redis::{LABEL as NODE_LABEL, PING_HEDGE_DELAY, ping_on, sealed::Ping, write_and_read_back};
use crate::{
    error::{ProbeError, ProbeErrorKind},
    probe::{LibraryProbe, library_probe},
    probes::{
        classify::Classify,
        support::{
            address::{Address, common_refusal, first_refusal},
            debug_fields::DebugFields,
            hedge::hedged,
            label::Label,
            reachability::Reachability,
            reused_connection::{Connector, ReusedConnection},
            round_trip::unique_key,
        },
    },
};

const SLOTS: u16 = 16384;

/// How long the nodes may take to report the masters before those of the last run are connected to.
const TOPOLOGY_TIMEOUT: Duration = Duration::from_millis(200);

const LABEL: Label = Label::new("redis cluster");

library_probe! { "cache", ClusterConnection => ClusterProbe::of_connection }
library_probe! { "cache", ClusterClient => ClusterProbe::of_client }

impl Ping for ClusterConnection {
    async fn ping(&self) -> Result<(), ProbeError> {
        // The driver sends it to all masters.
        Ok(ping_on(&mut self.clone()).await.map_err(Failure::from)?)
    }
}

impl Ping for ClusterClient {
    async fn ping(&self) -> Result<(), ProbeError> {
        let ping = async { Ok(ping_on(&mut self.get_async_connection().await?).await?) };
        let refusal = async { all_refused(initial_nodes(self)).await.map(Err) };
        Ok(hedged(ping, PING_HEDGE_DELAY, refusal).await?)
    }
}

/// A cluster, and what its probe remembers between runs.
struct ClusterProbe {
    connections: Connections,
    topology: Arc<Topology>,
    reachability: Reachability,
}

enum Connections {
    /// That of the application.
    Application(ClusterConnection),
    /// That of the probe.
    Probe(ReusedConnection<ClusterConnector>),
}

/// Connects as the application does, for each use.
struct ClusterConnector {
    client: ClusterClient,
    topology: Arc<Topology>,
}

/// What the runs have learned about the cluster.
#[derive(Default)]
struct Topology {
    masters: Mutex<Masters>,
    /// The connection that was used last.
    connection: Mutex<Option<ClusterConnection>>,
}

/// The masters of a cluster, as one of them reported them.
#[derive(Default)]
struct Masters {
    slots: Vec<Slots>,
    /// One key for each master.
    keys: Vec<String>,
}

/// A range of slots and its master.
#[derive(PartialEq)]
struct Slots {
    first: u16,
    last: u16,
    master: Option<(String, u16)>,
}

/// Why a run fails, before it has a public message.
enum Failure {
    Driver(RedisError),
    /// A node cannot be connected to.
    Refused(Address, io::Error),
    /// The number of slots without a master.
    Unserved(u16),
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        Self::Driver(error)
    }
}

impl ClusterProbe {
    fn of_connection(connection: &ClusterConnection) -> Self {
        let connections = Connections::Application(connection.clone());
        Self { connections, topology: Arc::default(), reachability: Reachability::new() }
    }

    fn of_client(client: &ClusterClient) -> Self {
        let topology = Arc::<Topology>::default();
        let connector = ClusterConnector { client: client.clone(), topology: Arc::clone(&topology) };
        let connections = Connections::Probe(ReusedConnection::new(connector));
        Self { connections, topology, reachability: Reachability::new() }
    }

    async fn query(&self) -> Result<(), Failure> {
        match &self.connections {
            Connections::Application(connection) => self.topology.write_on_all_masters(connection).await,
            Connections::Probe(reused) => reused.query().await,
        }
    }

    /// The first run has to know the masters before it can query them. That is a round trip of its own, so that the nodes of a far
    /// cluster are not taken for silent ones.
    async fn learn_masters(&self) -> Result<(), Failure> {
        match &self.connections {
            Connections::Application(connection) if self.topology.masters.lock().keys.is_empty() => {
                let learn = async {
                    self.topology.update(slots(connection).await?);
                    Ok(())
                };
                self.reachability.or_refusal(learn, || self.refusal()).await
            }
            _ => Ok(()),
        }
    }

    /// Connects to the nodes directly while the driver is silent.
    async fn refusal(&self) -> Option<Failure> {
        let connection = self.topology.connection.lock().clone();
        let known = match connection {
            // A replica may have been promoted in place of a failed master.
            Some(connection) => timeout(TOPOLOGY_TIMEOUT, slots(&connection)).await.ok().and_then(Result::ok),
            None => None,
        };
        let masters = addresses(known.as_ref().unwrap_or(&self.topology.masters.lock().slots));
        match &self.connections {
            Connections::Probe(reused) if masters.is_empty() => {
                all_refused(initial_nodes(&reused.connector().client)).await
            }
            _ => one_refused(masters).await,
        }
    }
}

impl Connector for ClusterConnector {
    type Connection = ClusterConnection;
    type Error = Failure;

    async fn connect(&self) -> Result<ClusterConnection, Failure> {
        Ok(self.client.get_async_connection().await?)
    }

    async fn query(&self, connection: &mut ClusterConnection) -> Result<bool, Failure> {
        self.topology.write_on_all_masters(connection).await.map(|()| true)
    }
}

impl Topology {
    async fn write_on_all_masters(&self, connection: &ClusterConnection) -> Result<(), Failure> {
        *self.connection.lock() = Some(connection.clone());
        let keys = self.masters.lock().keys.clone();
        let keys = if keys.is_empty() { self.update(slots(connection).await?) } else { keys };
        let written = keys.iter().map(|key| {
            let mut connection = connection.clone();
            async move { write_and_read_back(&mut connection, key).await }
        });
        let (_, slots) = try_join(try_join_all(written), slots(connection)).await?;
        let length = |range: &Slots| range.last.saturating_sub(range.first).saturating_add(1);
        let served = slots.iter().map(length).fold(0, u16::saturating_add);
        self.update(slots);
        if served < SLOTS { Err(Failure::Unserved(SLOTS - served)) } else { Ok(()) }
    }

    /// Remembers the masters, and returns a key for each.
    fn update(&self, slots: Vec<Slots>) -> Vec<String> {
        let mut masters = self.masters.lock();
        if masters.slots != slots {
            masters.keys = keys(&slots);
            masters.slots = slots;
        }
        masters.keys.clone()
    }
}

impl LibraryProbe for ClusterProbe {
    async fn probe(&self) -> Result<(), ProbeError> {
        let queried = async {
            self.learn_masters().await?;
            self.reachability.or_refusal(self.query(), || self.refusal()).await
        };
        let result = match queried.await {
            // The driver's error does not name the node.
            Err(Failure::Driver(error)) if !is_rejected(&error) && error.classify() == ProbeErrorKind::Unreachable => {
                Err(self.reachability.refusal(self.refusal()).await.unwrap_or(Failure::Driver(error)))
            }
            result => result,
        };
        Ok(result?)
    }

    fn resource(&self) -> Option<String> {
        Some(LABEL.to_string())
    }
}

/// Queries one of the masters for all.
async fn slots(connection: &ClusterConnection) -> RedisResult<Vec<Slots>> {
    let mut connection = connection.clone();
    let mut command = redis::cmd("CLUSTER");
    command.arg("SLOTS");
    let one = RoutingInfo::SingleNode(SingleNodeRoutingInfo::RandomPrimary);
    let response = connection.route_command(command, one).await?;
    let ranges: Vec<Vec<Value>> = from_redis_value_ref(&response)?;
    ranges.iter().map(|range| Slots::parse(range)).collect()
}

impl Slots {
    /// Identifies the master of the range. One without an address is identified by the range.
    fn owner(&self) -> (Option<&(String, u16)>, u16) {
        self.master.as_ref().map_or((None, self.first), |master| (Some(master), 0))
    }

    /// Parses a range: first, last, master, and replicas. A node is host, port and more.
    fn parse(range: &[Value]) -> RedisResult<Self> {
        let [first, last, master, ..] = range else {
            return Err((ErrorKind::UnexpectedReturnType, "CLUSTER SLOTS returned a range without a master").into());
        };
        let node: Vec<Value> = from_redis_value_ref(master)?;
        let master = match node.as_slice() {
            [host, port, ..] => {
                let host: Option<String> = from_redis_value_ref(host)?;
                // A node that does not know its own host name reports none, or a question mark.
                host.filter(|host| !host.is_empty() && host != "?").zip(Some(from_redis_value_ref(port)?))
            }
            _ => None,
        };
        Ok(Self { first: from_redis_value_ref(first)?, last: from_redis_value_ref(last)?, master })
    }
}

fn addresses(slots: &[Slots]) -> Vec<Address> {
    let mut masters: Vec<_> = slots.iter().filter_map(|range| range.master.clone()).collect();
    masters.sort();
    masters.dedup();
    masters.into_iter().map(|(host, port)| Address { host, port }).collect()
}

/// Finds a key for each master.
fn keys(slots: &[Slots]) -> Vec<String> {
    let prefix = unique_key();
    let mut left: HashSet<_> = slots.iter().map(Slots::owner).collect();
    let mut keys = Vec::with_capacity(left.len());
    // Bounded, and enough to find a key for a master with a single slot.
    for number in 0..u32::from(SLOTS) * 16 {
        if left.is_empty() {
            break;
        }
        let key = format!("{prefix}:{number}");
        let slot = slot_of(&key);
        let range = slots.iter().find(|range| (range.first..=range.last).contains(&slot));
        if range.is_some_and(|range| left.remove(&range.owner())) {
            keys.push(key);
        }
    }
    keys
}

/// Returns the slot of a key, as <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/> specifies it: CRC16, XMODEM.
fn slot_of(key: &str) -> u16 {
    let crc = key.bytes().fold(0_u16, |crc, byte| {
        (0..8)
            .fold(crc ^ (u16::from(byte) << 8), |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 })
    });
    crc % SLOTS
}

/// Returns the initial nodes of a client. It has no accessor for them, but its `Debug` output contains them.
fn initial_nodes(client: &ClusterClient) -> Vec<Address> {
    const NODE: &str = "addr: Tcp(";
    let output = DebugFields::of(client).0;
    output.split(NODE).skip(1).filter_map(|node| DebugFields(format!("{NODE}{node}")).address(NODE, ", ")).collect()
}

/// Connects to all nodes, and returns the failure if one of them refuses.
async fn one_refused(nodes: Vec<Address>) -> Option<Failure> {
    first_refusal(&nodes).await.map(|(node, error)| Failure::Refused(node, error))
}

/// Connects to all nodes, and returns a failure if all of them refuse.
async fn all_refused(nodes: Vec<Address>) -> Option<Failure> {
    common_refusal(&nodes).await.map(|(node, error)| Failure::Refused(node, error))
}

impl From<Failure> for ProbeError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unserved(slots) => {
                let message = format!("{slots} slots of {LABEL} have no master");
                Self::new(ProbeErrorKind::Failed, message)
                    .with_source(format!("{slots} of {SLOTS} slots are unassigned"))
            }
            Failure::Refused(node, error) => NODE_LABEL.at(node).error(error),
            Failure::Driver(error) if is_rejected(&error) => LABEL.error_of_kind(ProbeErrorKind::Rejected, error),
            Failure::Driver(error) => LABEL.error(error),
        }
    }
}

/// Whether the nodes rejected the credentials. The driver's error has the kind of a failed connection; the kind of the node's own error
/// is only in its text.
fn is_rejected(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Io && error.detail().is_some_and(|detail| detail.contains("AuthenticationFailed"))
}

#[cfg(test)]
mod tests {
    use redis::cluster_routing::Slot;

    use super::*;

    fn range(first: u16, last: u16, port: u16) -> Slots {
        Slots { first, last, master: Some(("127.0.0.1".to_owned(), port)) }
    }

    #[test]
    fn the_slot_of_a_key_is_that_of_the_driver() {
        for key in ["", "123456789", "health:0123456789abcdef:17:3"] {
            assert_eq!(Slot::new(slot_of(key)), Some(Slot::for_key(key)), "{key}");
        }
    }

    #[test]
    fn each_master_has_one_key_including_one_with_a_single_slot() {
        let slots = [range(0, 99, 1), range(100, 100, 2), range(101, 16000, 3), range(16001, 16383, 1)];
        let keys = keys(&slots);
        assert_eq!(keys.len(), 3, "{keys:?}");
        let of = |first: u16, last: u16| keys.iter().filter(|key| (first..=last).contains(&slot_of(key))).count();
        assert_eq!((of(0, 99) + of(16001, 16383), of(100, 100), of(101, 16000)), (1, 1, 1));
    }

    #[test]
    fn a_client_has_the_addresses_of_its_initial_nodes() {
        let client = ClusterClient::new(["redis://u:secret@10.0.0.1:7000/", "redis://u:secret@[::1]:7001/"]).unwrap();
        let nodes: Vec<_> = initial_nodes(&client).iter().map(ToString::to_string).collect();
        assert_eq!(nodes, ["10.0.0.1:7000", "[::1]:7001"]);
    }
}
