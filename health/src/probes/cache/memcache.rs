//! Clients of the crate `memcache`: `memcache::exp::AsyncMemcache`, its `AsyncMetaClient`, and the blocking `memcache::Client`.
//!
//! Each run writes unique values that expire after 10 s and reads them back, under keys that begin with `health:` and that no other process
//! uses. With several servers, all are queried, and one that fails is a failure, because its keys are lost to the application.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, reset | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | the server requires credentials, and the client has none | [`ProbeErrorKind::Rejected`] | DOWN |
//! | asynchronous: no response in time to a request, and one to a later request | [`ProbeErrorKind::TimedOut`] | DEGRADED |
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

use std::sync::{Arc, OnceLock};

use ::memcache::{
    Client, CommandError, MemcacheError, ServerError,
    exp::{AsyncMemcache, AsyncMetaClient, Error, Get, Op, OpResult, Set, Ttl},
};

use crate::{
    error::{ProbeError, ProbeErrorKind, classify_io},
    probe::{LibraryProbe, library_probe},
    probes::{
        classify::Classify,
        support::{
            address::{Address, first_refusal},
            blocking_single_flight::BlockingSingleFlight,
            hedge::{HedgeDelay, RepeatedError, repeated},
            label::Label,
            reachability::Reachability,
            round_trip::{RoundTripError, nonce, unique_key},
        },
    },
};

library_probe! { "cache", AsyncMemcache => |client: &AsyncMemcache| AsyncProbe::new(client.meta().clone()) }
library_probe! { "cache", AsyncMetaClient => |client: &AsyncMetaClient| AsyncProbe::new(client.clone()) }
library_probe! { "cache", Client => BlockingProbe::of }

/// What messages call servers whose addresses are not known.
const LABEL: Label = Label::new("memcached");

/// How long a server keeps a written value.
const EXPIRY_S: u32 = 10;

/// The number of keys that a run writes by an asynchronous client.
const KEYS: usize = 16;

/// A client, and the keys that its probe writes. They are the same in each run, so that all runs query the same servers.
struct AsyncProbe {
    client: AsyncMetaClient,
    keys: [String; KEYS],
    delay: HedgeDelay,
}

impl AsyncProbe {
    fn new(client: AsyncMetaClient) -> Self {
        let prefix = unique_key();
        let keys = std::array::from_fn(|number| format!("{prefix}:{number}"));
        Self { client, keys, delay: HedgeDelay::new() }
    }

    async fn query(&self) -> Result<(), RepeatedError<RoundTripError<Error>>> {
        // All repetitions write the same value, because they may overtake each other.
        let nonce = &nonce().to_string();
        repeated(&self.delay, || self.round_trip(nonce)).await
    }

    async fn round_trip(&self, nonce: &str) -> Result<(), RoundTripError<Error>> {
        let operations = self
            .keys
            .iter()
            .flat_map(|key| [Op::from(Set::new(key, nonce).ttl(Ttl::secs(EXPIRY_S))), Op::from(Get::new(key))]);
        for result in self.client.run_batch(operations).await? {
            match result? {
                OpResult::Mutation(written) if written.applied() => {}
                OpResult::Get(read) if read.value.as_deref() == Some(nonce.as_bytes()) => {}
                _ => return Err(RoundTripError::Mismatch),
            }
        }
        Ok(())
    }
}

impl LibraryProbe for AsyncProbe {
    async fn probe(&self) -> Result<(), ProbeError> {
        let result = self.query().await;
        result.map_err(|failure| failure.into_probe_error(&LABEL, |error| LABEL.error(error)))
    }

    fn resource(&self) -> Option<String> {
        Some(LABEL.to_string())
    }
}

/// A blocking client, whose query in flight is not cancelled.
struct BlockingProbe {
    client: Arc<Servers>,
    reachability: Reachability,
    in_flight: BlockingSingleFlight<Result<(), RoundTripError<MemcacheError>>>,
}

/// A client and the addresses of its servers, which are known after the first query.
struct Servers {
    client: Client,
    addresses: OnceLock<Vec<Option<Address>>>,
}

impl BlockingProbe {
    fn of(client: &Client) -> Self {
        let client = Arc::new(Servers { client: client.clone(), addresses: OnceLock::new() });
        Self { client, reachability: Reachability::new(), in_flight: BlockingSingleFlight::new() }
    }

    async fn query(&self) -> Result<(), RoundTripError<MemcacheError>> {
        // A failure of an earlier query may be outdated, and its success is not.
        if let Some(Ok(Ok(()))) = self.in_flight.join().await {
            return Ok(());
        }
        let client = Arc::clone(&self.client);
        self.in_flight.run(move || client.write_and_read_back()).await.map_err(MemcacheError::from)?
    }

    /// Connects to all servers, and returns the error if one refuses: the client's pool retries without an error.
    async fn refusal(&self) -> Option<RoundTripError<MemcacheError>> {
        let addresses: Vec<_> = self.client.addresses().iter().flatten().cloned().collect();
        first_refusal(&addresses).await.map(|(_, error)| MemcacheError::from(error).into())
    }
}

impl LibraryProbe for BlockingProbe {
    async fn probe(&self) -> Result<(), ProbeError> {
        let result = self.reachability.or_refusal(self.query(), || self.refusal()).await;
        result.map_err(|error| self.client.label().error(error))
    }

    fn resource(&self) -> Option<String> {
        Some(self.client.label().to_string())
    }
}

impl Servers {
    /// Blocks.
    fn write_and_read_back(&self) -> Result<(), RoundTripError<MemcacheError>> {
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
                return Err(RoundTripError::Mismatch);
            }
        }
        Ok(())
    }

    fn addresses(&self) -> &[Option<Address>] {
        self.addresses.get().map_or(&[], Vec::as_slice)
    }

    /// The label of a single server contains its address.
    fn label(&self) -> Label {
        match self.addresses() {
            [address] => LABEL.at(address.clone()),
            _ => LABEL,
        }
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
fn address_of(url: &str) -> Option<Address> {
    let (scheme, rest) = url.split_once("://")?;
    if scheme.contains("udp") || url.contains("udp=true") {
        return None;
    }
    let authority = rest.split(['/', '?', '#']).next()?;
    let address = authority.rsplit_once('@').map_or(authority, |(_, address)| address);
    Address::parse(address)
}

impl Classify for Error {
    fn classify(&self) -> ProbeErrorKind {
        match self {
            Self::Io(error) => classify_io(error),
            Self::Timeout { .. } => ProbeErrorKind::TimedOut,
            // The request was sent, and its outcome is unknown.
            Self::Ambiguous { source, .. } => source.classify(),
            // The protocol has no codes.
            Self::Server(text) if text.starts_with("out of memory") => ProbeErrorKind::ReadOnly,
            Self::Rejected(text) if text.starts_with("unauthenticated") => ProbeErrorKind::Rejected,
            _ => ProbeErrorKind::Failed,
        }
    }
}

impl Classify for MemcacheError {
    fn classify(&self) -> ProbeErrorKind {
        /// The code of the binary protocol.
        const OUT_OF_MEMORY: u16 = 0x82;

        match self {
            Self::IOError(error) => classify_io(error),
            // The pool could not connect; only the text contains the reason.
            Self::PoolError(_) => ProbeErrorKind::Unreachable,
            Self::CommandError(CommandError::AuthenticationRequired) => ProbeErrorKind::Rejected,
            Self::CommandError(CommandError::Unknown(OUT_OF_MEMORY)) => ProbeErrorKind::ReadOnly,
            Self::ServerError(ServerError::Error(text)) if text.contains("out of memory") => ProbeErrorKind::ReadOnly,
            _ => ProbeErrorKind::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_url_contains_no_credentials() {
        let address = |url| address_of(url).map(|address| address.to_string());
        assert_eq!(address("memcache://user:p%40ss@[::1]:11211/?protocol=ascii").unwrap(), "[::1]:11211");
        assert_eq!(address("memcache+tls://cache.internal:11211?verify_mode=none").unwrap(), "cache.internal:11211");
        assert_eq!(address("memcache:///tmp/memcached.sock"), None);
        assert_eq!(address("memcache://127.0.0.1:11211?udp=true"), None);
    }
}
