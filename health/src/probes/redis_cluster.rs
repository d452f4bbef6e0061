//! `redis::cluster_async::ClusterConnection` and `redis::cluster::ClusterClient`.
//!
//! Each round writes a fresh value on **each master** and reads it back, all at once and so in one round trip, and asks one of
//! them who the masters are, for the next round. The first round needs to know that before, and is two. A cluster that has
//! lost one of three masters is DOWN: every third key of the application's is.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | a master refuses connections and nobody has taken its place; or all do | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | wrong password, no permission | [`ProbeErrorKind::Rejected`] | DOWN |
//! | a master takes no writes: out of memory, a full disk | [`ProbeErrorKind::ReadOnly`] | DOWN |
//! | slots that no master has; another value read than written; anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! The driver asks a node that fails again and again and is silent meanwhile, for seconds. So after 100 ms the nodes are looked
//! at on the side; on one that is frozen, that tells nothing, and the check's limit ends the waiting.
//!
//! A `ClusterClient` holds no connection, so its check keeps one of its own, which is one to each node, from round to round.
//! Keys are `health:` and more.

use std::{collections::HashSet, future::Future, pin::Pin, sync::Arc, time::Duration};

use futures_util::future::{join_all, select_ok, try_join, try_join_all};
use redis::{
    ErrorKind, RedisError, RedisResult, Value,
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    cluster_routing::{RoutingInfo, SingleNodeRoutingInfo},
    from_redis_value_ref,
};
use tokio::{net::TcpStream, sync::Mutex, time::timeout};

use super::{
    driver::{Address, Described, PATIENCE, answer_or},
    key,
    redis::{Answer, ask_for, classify, ping_on, sealed::Ping},
};
use crate::{
    error::{ProbeError, ProbeErrorKind},
    probe::{DynProbe, Probe},
};

const SLOTS: u16 = 16384;

/// How long the driver may look for somebody who knows the masters, before those that were known are looked at.
const SILENCE: Duration = Duration::from_millis(200);

const NAME: &str = "redis cluster";

impl Probe for ClusterConnection {
    const GROUP: &'static str = "cache";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        Cluster::of_connection(self).ask().await
    }

    fn resource(&self) -> Option<String> {
        Some(NAME.to_owned())
    }

    fn kept(&self) -> Option<Arc<dyn DynProbe>> {
        Some(Arc::new(Cluster::of_connection(self)))
    }
}

impl Probe for ClusterClient {
    const GROUP: &'static str = "cache";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        Cluster::of_client(self).ask().await
    }

    fn resource(&self) -> Option<String> {
        Some(NAME.to_owned())
    }

    fn kept(&self) -> Option<Arc<dyn DynProbe>> {
        Some(Arc::new(Cluster::of_client(self)))
    }
}

impl Ping for ClusterConnection {
    async fn ping(&self) -> Result<(), ProbeError> {
        // The driver sends it to all masters.
        let answer = ping_on(&mut self.clone()).await;
        public(answer.map_err(Failure::from))
    }
}

impl Ping for ClusterClient {
    async fn ping(&self) -> Result<(), ProbeError> {
        let asked = async { Ok(ping_on(&mut self.get_async_connection().await?).await?) };
        public(answer_or(asked, PATIENCE, all_refused(initial_nodes(self))).await)
    }
}

/// What a check keeps of a cluster.
struct Cluster {
    client: Option<ClusterClient>,
    /// The application's, or, of a client, one of the check's own.
    connection: Mutex<Option<ClusterConnection>>,
    masters: Mutex<Masters>,
}

/// The masters of a cluster, as one of them described it.
#[derive(Default)]
struct Masters {
    slots: Vec<Slots>,
    /// One for each master.
    keys: Vec<String>,
}

/// A range of slots, and whose they are.
#[derive(PartialEq)]
struct Slots {
    first: u16,
    last: u16,
    master: Option<(String, u16)>,
}

/// Why the question has no answer, before it has a public message.
enum Failure {
    Driver(RedisError),
    /// That node can't be connected to.
    Refused(Address, RedisError),
    /// So many slots are nobody's.
    Unserved(u16),
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        Self::Driver(error)
    }
}

impl Cluster {
    fn of_connection(connection: &ClusterConnection) -> Self {
        Self { client: None, connection: Mutex::new(Some(connection.clone())), masters: Mutex::default() }
    }

    fn of_client(client: &ClusterClient) -> Self {
        Self { client: Some(client.clone()), connection: Mutex::new(None), masters: Mutex::default() }
    }

    async fn connection(&self) -> RedisResult<ClusterConnection> {
        let mut kept = self.connection.lock().await;
        match (&*kept, &self.client) {
            (Some(connection), _) => Ok(connection.clone()),
            (None, Some(client)) => Ok(kept.insert(client.get_async_connection().await?).clone()),
            (None, None) => unreachable!("what there is no client for has a connection"),
        }
    }

    async fn asked(&self) -> Result<Answer, Failure> {
        let connection = self.connection().await?;
        let answer = self.ask_all(&connection).await;
        if self.client.is_some() && matches!(&answer, Err(Failure::Driver(error)) if error.is_unrecoverable_error()) {
            // The driver connects again by itself, but it may have ended.
            *self.connection.lock().await = None;
        }
        answer
    }

    async fn ask_all(&self, connection: &ClusterConnection) -> Result<Answer, Failure> {
        let keys = self.masters.lock().await.keys.clone();
        let keys = if keys.is_empty() { self.learn(slots(connection).await?).await } else { keys };
        let asked = keys.iter().map(|key| {
            let mut connection = connection.clone();
            async move { ask_for(&mut connection, key).await }
        });
        let (answers, slots) = try_join(try_join_all(asked), slots(connection)).await?;
        let length = |range: &Slots| range.last.saturating_sub(range.first).saturating_add(1);
        let served = slots.iter().map(length).fold(0, u16::saturating_add);
        self.learn(slots).await;
        if answers.contains(&Answer::Other) {
            Ok(Answer::Other)
        } else if served < SLOTS {
            Err(Failure::Unserved(SLOTS - served))
        } else {
            Ok(Answer::AsWritten)
        }
    }

    /// Remembers who the masters are, and a key for each.
    async fn learn(&self, slots: Vec<Slots>) -> Vec<String> {
        let mut masters = self.masters.lock().await;
        if masters.slots != slots {
            masters.keys = keys(&slots);
            masters.slots = slots;
        }
        masters.keys.clone()
    }

    /// What can be found out of the nodes while the driver is silent.
    async fn other_answer(&self) -> Option<Result<Answer, Failure>> {
        let known = {
            let connection = self.connection.try_lock().ok().and_then(|kept| kept.clone());
            match connection {
                // Who failed may have been replaced meanwhile.
                Some(connection) => timeout(SILENCE, slots(&connection)).await.ok().and_then(Result::ok),
                None => None,
            }
        };
        let masters = match known {
            Some(slots) => addresses(&slots),
            None => addresses(&self.masters.lock().await.slots),
        };
        match &self.client {
            Some(client) if masters.is_empty() => all_refused(initial_nodes(client)).await,
            _ => one_refused(masters).await,
        }
    }
}

impl DynProbe for Cluster {
    fn ask(&self) -> Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + '_>> {
        Box::pin(async {
            let answer = match answer_or(self.asked(), PATIENCE, self.other_answer()).await {
                // Which node it is the driver does not say.
                Err(Failure::Driver(error))
                    if !is_rejected(&error) && classify(&error) == ProbeErrorKind::Unreachable =>
                {
                    self.other_answer().await.unwrap_or(Err(Failure::Driver(error)))
                }
                answer => answer,
            };
            public(answer)
        })
    }

    fn resource(&self) -> Option<String> {
        Some(NAME.to_owned())
    }

    fn never_blocks(&self) -> bool {
        true
    }
}

/// Asks one of the masters who they are.
async fn slots(connection: &ClusterConnection) -> RedisResult<Vec<Slots>> {
    let mut connection = connection.clone();
    let mut command = redis::cmd("CLUSTER");
    command.arg("SLOTS");
    let one = RoutingInfo::SingleNode(SingleNodeRoutingInfo::RandomPrimary);
    let answer = connection.route_command(command, one).await?;
    let ranges: Vec<Vec<Value>> = from_redis_value_ref(&answer)?;
    ranges.iter().map(|range| Slots::told(range)).collect()
}

impl Slots {
    /// Whose a range is: a master without a name owns nothing else.
    fn owner(&self) -> (Option<&(String, u16)>, u16) {
        self.master.as_ref().map_or((None, self.first), |master| (Some(master), 0))
    }

    /// First, last, master, and replicas; a node is host, port and more.
    fn told(range: &[Value]) -> RedisResult<Self> {
        let [first, last, master, ..] = range else {
            return Err((ErrorKind::UnexpectedReturnType, "CLUSTER SLOTS has a range of nobody's").into());
        };
        let node: Vec<Value> = from_redis_value_ref(master)?;
        let master = match node.as_slice() {
            [host, port, ..] => {
                let host: Option<String> = from_redis_value_ref(host)?;
                // A node that does not know its own name says nothing, or a question mark.
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

/// A key for each master.
fn keys(slots: &[Slots]) -> Vec<String> {
    let prefix = key::fresh();
    let mut left: HashSet<_> = slots.iter().map(Slots::owner).collect();
    let mut keys = Vec::with_capacity(left.len());
    // Enough that also a master of a single slot gets its key, and an end in any case.
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

/// The slot of a key, as <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/> has it: CRC16, XMODEM.
fn slot_of(key: &str) -> u16 {
    let crc = key.bytes().fold(0_u16, |crc, byte| {
        (0..8)
            .fold(crc ^ (u16::from(byte) << 8), |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 })
    });
    crc % SLOTS
}

/// Where a client looks for the cluster. It has no accessor for that, but prints it.
fn initial_nodes(client: &ClusterClient) -> Vec<Address> {
    const NODE: &str = "addr: Tcp(";
    let printed = Described::by_debug(client).0;
    printed.split(NODE).skip(1).filter_map(|node| Described(format!("{NODE}{node}")).address(NODE, ", ")).collect()
}

/// Why a node can't be connected to, if one can't.
async fn one_refused(nodes: Vec<Address>) -> Option<Result<Answer, Failure>> {
    if nodes.is_empty() {
        return None;
    }
    let refused = nodes.into_iter().map(|node| Box::pin(async { refused(node).await.ok_or(()) }));
    select_ok(refused).await.ok().map(|(failure, _)| Err(failure))
}

/// Why no node can be connected to, if none can.
async fn all_refused(nodes: Vec<Address>) -> Option<Result<Answer, Failure>> {
    let refused = join_all(nodes.into_iter().map(refused)).await;
    refused.into_iter().collect::<Option<Vec<_>>>()?.into_iter().next().map(Err)
}

async fn refused(node: Address) -> Option<Failure> {
    match TcpStream::connect((node.host.as_str(), node.port)).await {
        Ok(_) => None,
        Err(error) => Some(Failure::Refused(node, error.into())),
    }
}

fn public(answer: Result<Answer, Failure>) -> Result<(), ProbeError> {
    let failed =
        |message: String, source: String| Err(ProbeError::new(ProbeErrorKind::Failed, message).with_source(source));
    match answer {
        Ok(Answer::AsWritten) => Ok(()),
        Ok(Answer::Other) => {
            failed(ProbeErrorKind::Failed.message(NAME), "the value read is not the value written".to_owned())
        }
        Err(Failure::Unserved(slots)) => failed(
            format!("{slots} slots of {NAME} have no master"),
            format!("{slots} of {SLOTS} slots are unassigned"),
        ),
        Err(Failure::Refused(node, error)) => {
            let kind = classify(&error);
            Err(ProbeError::new(kind, kind.message(&format!("redis at {node}"))).with_source(error))
        }
        Err(Failure::Driver(error)) => {
            let kind = if is_rejected(&error) { ProbeErrorKind::Rejected } else { classify(&error) };
            Err(ProbeError::new(kind, kind.message(NAME)).with_source(error))
        }
    }
}

/// Whether the nodes did not let us in. That one can't be connected to, the driver tells by the kind of its error, whatever
/// it was; that of the node's own error is in the text alone, where it prints it.
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
    fn the_slot_of_a_key_is_the_drivers() {
        for key in ["", "123456789", "health:0123456789abcdef:17:3"] {
            assert_eq!(Slot::new(slot_of(key)), Some(Slot::for_key(key)), "{key}");
        }
    }

    #[test]
    fn each_master_has_one_key_also_one_of_a_single_slot() {
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
