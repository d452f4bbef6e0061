//! Clients of the crate `memcache`: `memcache::exp::AsyncMemcache`, its `AsyncMetaClient`, and the blocking `memcache::Client`.
//!
//! Each run writes unique values that expire after 10 s and reads them back, under keys that begin with `health:` and that no other process
//! uses. With several servers, all are queried, and one that fails is a failure, because its keys are lost to the application.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, reset | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | the server requires credentials, and the client has none | [`ProbeErrorKind::Rejected`] | DOWN |
//! | asynchronous: a connection is silent, and another one responds | [`ProbeErrorKind::TimedOut`] | DEGRADED |
//! | no response within the client's own timeout | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | out of memory, on a server that may not evict (`-M`) | [`ProbeErrorKind::ReadOnly`] | DOWN |
//! | another value read than written, anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! An asynchronous client writes 16 keys in one round trip. It does not expose which server a key belongs to; 16 keys reach all of three
//! servers in 199 of 200 processes. The run does not use the client's policy: with `degrade(true)` the application treats a dead server as an
//! empty one, and the check does not. If all connections of a client with a maximum are in use for longer than the check's limit, it is DOWN,
//! because the client does not expose their number.
//!
//! A blocking client is queried on one thread of the blocking pool, however long it blocks: by default as long as a frozen server is frozen,
//! unless the client has a `with_read_timeout`. A run takes four round trips to each server, one server after the other, because the client's
//! pool sends `version` before each operation, and the client has no function for two operations on one connection. So set the check's
//! `timeout` to at least five round trips if the server is more than 150 ms away, or build the pool with `test_on_check_out(false)`, which
//! halves the number of round trips; such a pool never notices a dead connection. The client does not expose how many of its connections are in use: if none is free for longer than the
//! check's limit, it is DOWN.
//!
//! What a run costs a server: the commands above. No connection is opened outside the client while the servers respond. If a run takes longer
//! than twice the longest one before, and at least 300 ms, an asynchronous client is queried a second time, for which it may open a
//! connection, and for a blocking client a TCP connection to each server is opened and closed, at most every 2 s.

use std::{
    future::Future,
    io,
    panic::resume_unwind,
    pin::{Pin, pin},
    sync::{Arc, OnceLock},
};

use ::memcache::{
    Client, CommandError, MemcacheError, ServerError,
    exp::{AsyncMemcache, AsyncMetaClient, Error, Get, Op, OpResult, Set, Ttl},
};
use futures_util::future::{Either, select, select_ok};
use tokio::{
    net::TcpStream,
    sync::Mutex,
    task::{JoinHandle, spawn_blocking},
    time::{Instant, timeout},
};

use super::{
    support::{
        attempts::{INTERVAL, first_result},
        hedge::HedgeDelay,
        reachability::Reachability,
    },
    unique_key::{nonce, unique_key},
};
use crate::{
    error::{ProbeError, ProbeErrorKind, classify_io},
    probe::{DynProbe, Probe},
};

/// How long a server keeps a written value.
const EXPIRY_S: u32 = 10;

/// The number of keys that a run writes by an asynchronous client.
const KEYS: usize = 16;

#[derive(PartialEq)]
enum RoundTrip {
    Match,
    Mismatch,
}

macro_rules! asynchronous {
    ($client:ty, $meta:expr) => {
        impl Probe for $client {
            const GROUP: &'static str = "cache";
            const NEVER_BLOCKS: bool = true;

            async fn probe(&self) -> Result<(), ProbeError> {
                AsyncProbe::new($meta(self)).probe().await
            }

            fn resource(&self) -> Option<String> {
                Some(name(&[]))
            }

            fn kept(&self) -> Option<Arc<dyn DynProbe>> {
                Some(Arc::new(AsyncProbe::new($meta(self))))
            }
        }
    };
}

asynchronous!(AsyncMemcache, |client: &AsyncMemcache| client.meta().clone());
asynchronous!(AsyncMetaClient, AsyncMetaClient::clone);

/// A client, and the keys that its probe writes. They are the same in each run, so that all runs query the same servers.
struct AsyncProbe {
    client: AsyncMetaClient,
    keys: [String; KEYS],
    delay: HedgeDelay,
}

/// The outcome of a run on an asynchronous client.
enum Queried {
    RoundTrip(RoundTrip),
    /// A connection is silent, and another one responds.
    SilentConnection,
}

impl AsyncProbe {
    fn new(client: AsyncMetaClient) -> Self {
        let prefix = unique_key();
        let keys = std::array::from_fn(|number| format!("{prefix}:{number}"));
        Self { client, keys, delay: HedgeDelay::new() }
    }

    /// Runs one round trip. If it is silent for longer than those before, runs a second one, for which the client uses other connections,
    /// because those of the first one are in use.
    async fn query(&self) -> Result<Queried, Error> {
        // Both write the same value, because they may overtake each other.
        let nonce = nonce().to_string();
        let started = Instant::now();
        let mut first = pin!(self.round_trip(&nonce));
        let result = match timeout(self.delay.get(), &mut first).await {
            Ok(result) => result,
            Err(_) => match select(first, pin!(first_result(INTERVAL, || self.round_trip(&nonce)))).await {
                Either::Left((result, _)) => result,
                Either::Right((Ok(RoundTrip::Match), _)) => return Ok(Queried::SilentConnection),
                Either::Right((Err(error), _)) if classify(&error) == ProbeErrorKind::Unreachable => Err(error),
                Either::Right((_, first)) => first.await,
            },
        };
        if result.is_ok() {
            self.delay.record(started.elapsed());
        }
        result.map(Queried::RoundTrip)
    }

    async fn round_trip(&self, nonce: &str) -> Result<RoundTrip, Error> {
        let operations = self
            .keys
            .iter()
            .flat_map(|key| [Op::from(Set::new(key, nonce).ttl(Ttl::secs(EXPIRY_S))), Op::from(Get::new(key))]);
        for result in self.client.run_batch(operations).await? {
            match result? {
                OpResult::Mutation(written) if written.applied() => {}
                OpResult::Get(read) if read.value.as_deref() == Some(nonce.as_bytes()) => {}
                _ => return Ok(RoundTrip::Mismatch),
            }
        }
        Ok(RoundTrip::Match)
    }
}

impl DynProbe for AsyncProbe {
    fn probe(&self) -> Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + '_>> {
        Box::pin(async {
            match self.query().await {
                Ok(Queried::SilentConnection) => {
                    let message = "an idle connection to memcached does not respond, another one does";
                    Err(ProbeError::new(ProbeErrorKind::TimedOut, message).degraded())
                }
                Ok(Queried::RoundTrip(round_trip)) => into_probe_result(Ok(round_trip), classify, &[]),
                Err(error) => into_probe_result(Err(error), classify, &[]),
            }
        })
    }

    fn resource(&self) -> Option<String> {
        Some(name(&[]))
    }

    fn never_blocks(&self) -> bool {
        true
    }
}

impl Probe for Client {
    const GROUP: &'static str = "cache";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        BlockingProbe::new(self.clone()).probe().await
    }

    fn resource(&self) -> Option<String> {
        Some(name(&[]))
    }

    fn kept(&self) -> Option<Arc<dyn DynProbe>> {
        Some(Arc::new(BlockingProbe::new(self.clone())))
    }
}

impl From<Error> for ProbeError {
    fn from(error: Error) -> Self {
        Self::from_error(error)
    }
}

impl From<MemcacheError> for ProbeError {
    fn from(error: MemcacheError) -> Self {
        Self::from_error(error)
    }
}

/// A blocking client, and the query in flight. If an earlier run started it, the next run waits for it instead of blocking another thread.
struct BlockingProbe {
    client: Arc<Servers>,
    reachability: Reachability,
    in_flight: Mutex<Option<JoinHandle<Result<RoundTrip, MemcacheError>>>>,
}

/// A client and the addresses of its servers, which are known after the first query.
struct Servers {
    client: Client,
    addresses: OnceLock<Vec<Option<String>>>,
}

impl BlockingProbe {
    fn new(client: Client) -> Self {
        let client = Arc::new(Servers { client, addresses: OnceLock::new() });
        Self { client, reachability: Reachability::new(), in_flight: Mutex::new(None) }
    }

    async fn query(&self) -> Result<RoundTrip, MemcacheError> {
        let mut in_flight = self.in_flight.lock().await;
        if let Some(earlier) = &mut *in_flight {
            // The result of one that ended between the runs is outdated.
            let result = if earlier.is_finished() { None } else { earlier.await.ok() };
            *in_flight = None;
            // A failure may be of that time, too.
            if let Some(Ok(round_trip)) = result {
                return Ok(round_trip);
            }
        }
        let client = Arc::clone(&self.client);
        let result = in_flight.insert(spawn_blocking(move || client.write_and_read_back())).await;
        *in_flight = None;
        result.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(payload) => resume_unwind(payload),
            Err(error) => Err(io::Error::other(error).into()),
        })
    }

    /// Connects to all servers, and returns the error if one refuses: the client's pool retries without an error.
    async fn refusal(&self) -> Option<MemcacheError> {
        let refused = self.client.addresses().iter().flatten().map(|address| {
            Box::pin(async move {
                match TcpStream::connect(address).await {
                    Ok(_) => Err(()),
                    Err(error) => Ok(error),
                }
            })
        });
        let refused: Vec<_> = refused.collect();
        if refused.is_empty() {
            return None;
        }
        select_ok(refused).await.ok().map(|(error, _)| error.into())
    }
}

impl DynProbe for BlockingProbe {
    fn probe(&self) -> Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + '_>> {
        Box::pin(async {
            let result = self.reachability.or_refusal(self.query(), || self.refusal()).await;
            into_probe_result(result, classify_blocking, self.client.addresses())
        })
    }

    fn resource(&self) -> Option<String> {
        Some(name(self.client.addresses()))
    }

    fn never_blocks(&self) -> bool {
        true
    }
}

impl Servers {
    /// Blocks.
    fn write_and_read_back(&self) -> Result<RoundTrip, MemcacheError> {
        if self.addresses.get().is_none() {
            let versions = self.client.version()?;
            self.addresses.get_or_init(|| versions.iter().map(|(url, _)| address_of(url)).collect());
        }
        let servers = self.addresses().len();
        for server in 0..servers {
            let Some(key) = self.key_of(server, servers) else { continue };
            let nonce = nonce();
            self.client.set(&key, nonce, EXPIRY_S)?;
            if self.client.get::<u64>(&key)? != Some(nonce) {
                return Ok(RoundTrip::Mismatch);
            }
        }
        Ok(RoundTrip::Match)
    }

    fn addresses(&self) -> &[Option<String>] {
        self.addresses.get().map_or(&[], Vec::as_slice)
    }

    /// Returns a key that the client's hash function maps to the server of that index, if one of the first keys is.
    fn key_of(&self, server: usize, servers: usize) -> Option<String> {
        let prefix = unique_key();
        let keys = (0..servers * KEYS).map(|number| format!("{prefix}:{number}"));
        #[allow(clippy::cast_possible_truncation, reason = "as the client does it")]
        keys.into_iter().find(|key| (self.client.hash_function)(key) as usize % servers == server)
    }
}

/// Returns the `host:port` of a server's URL, which may contain a password. `None` for Unix sockets, and for UDP, which has no connections.
fn address_of(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    if scheme.contains("udp") || url.contains("udp=true") {
        return None;
    }
    let authority = rest.split(['/', '?', '#']).next()?;
    let address = authority.rsplit_once('@').map_or(authority, |(_, address)| address);
    (!address.is_empty()).then(|| address.to_owned())
}

fn name(addresses: &[Option<String>]) -> String {
    match addresses {
        [Some(address)] => format!("memcached at {address}"),
        _ => "memcached".to_owned(),
    }
}

fn into_probe_result<E>(
    result: Result<RoundTrip, E>,
    classify: fn(&E) -> ProbeErrorKind,
    addresses: &[Option<String>],
) -> Result<(), ProbeError>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let name = name(addresses);
    match result {
        Ok(RoundTrip::Match) => Ok(()),
        Ok(RoundTrip::Mismatch) => Err(ProbeError::new(ProbeErrorKind::Failed, ProbeErrorKind::Failed.message(&name))
            .with_source("the value read is not the value written")),
        Err(error) => {
            let kind = classify(&error);
            Err(ProbeError::new(kind, kind.message(&name)).with_source(error))
        }
    }
}

/// Returns the kind of an error of the asynchronous clients.
pub(crate) fn classify(error: &Error) -> ProbeErrorKind {
    match error {
        Error::Io(error) => classify_io(error),
        Error::Timeout { .. } => ProbeErrorKind::TimedOut,
        // The request was sent, and its outcome is unknown.
        Error::Ambiguous { source, .. } => classify(source),
        // The protocol has no codes.
        Error::Server(text) if text.starts_with("out of memory") => ProbeErrorKind::ReadOnly,
        Error::Rejected(text) if text.starts_with("unauthenticated") => ProbeErrorKind::Rejected,
        _ => ProbeErrorKind::Failed,
    }
}

/// Returns the kind of an error of the blocking client.
pub(crate) fn classify_blocking(error: &MemcacheError) -> ProbeErrorKind {
    /// The code of the binary protocol.
    const OUT_OF_MEMORY: u16 = 0x82;

    match error {
        MemcacheError::IOError(error) => classify_io(error),
        // The pool could not connect; only the text contains the reason.
        MemcacheError::PoolError(_) => ProbeErrorKind::Unreachable,
        MemcacheError::CommandError(CommandError::AuthenticationRequired) => ProbeErrorKind::Rejected,
        MemcacheError::CommandError(CommandError::Unknown(OUT_OF_MEMORY)) => ProbeErrorKind::ReadOnly,
        MemcacheError::ServerError(ServerError::Error(text)) if text.contains("out of memory") => {
            ProbeErrorKind::ReadOnly
        }
        _ => ProbeErrorKind::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_url_contains_no_credentials() {
        let address = |url| address_of(url);
        assert_eq!(address("memcache://user:p%40ss@[::1]:11211/?protocol=ascii").unwrap(), "[::1]:11211");
        assert_eq!(address("memcache+tls://cache.internal:11211?verify_mode=none").unwrap(), "cache.internal:11211");
        assert_eq!(address("memcache:///tmp/memcached.sock"), None);
        assert_eq!(address("memcache://127.0.0.1:11211?udp=true"), None);
    }
}
