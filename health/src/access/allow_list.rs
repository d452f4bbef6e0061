//! [`AllowList`], which can be changed while the server runs.

use std::{
    env::{self, VarError},
    fmt, mem,
    net::IpAddr,
    str::FromStr,
    sync::Arc,
};

use ipnet::IpNet;
use parking_lot::RwLock;

use super::networks::{ListError, NetworkSet};

/// The environment variable that holds the default list.
const ENV_VAR: &str = "HEALTHCHECK_IPS";

/// How errors name a list that was made by the methods of [`AllowList`].
const NAME: &str = "AllowList";

/// A list of allowed networks that can be changed while the server runs.
///
/// Cloning an `AllowList` is shallow: all clones share one list, and the next request is checked against the changed list. An
/// IPv4-mapped IPv6 address is treated as the IPv4 address, in the list and in lookups. An empty list contains no address.
///
/// # Examples
///
/// ```
/// use actix_web::App;
/// use health::AllowList;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let list: AllowList = "10.0.0.0/8, 192.0.2.7".parse()?;
/// let served = list.clone();
/// let app = move || App::new().service(health::scope().allow_list(&served));
///
/// // Later, in an administrator's handler:
/// list.insert("198.51.100.0/24".parse()?)?;
/// assert!(list.contains("198.51.100.20".parse()?));
/// # drop(app);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct AllowList(Arc<RwLock<NetworkSet>>);

impl AllowList {
    /// Creates a list of the given networks.
    ///
    /// # Errors
    ///
    /// Returns an error if a network has bits set after its prefix, such as `10.0.0.5/8`.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Result<Self, ListError> {
        NetworkSet::new(NAME, networks).map(Self::from_set)
    }

    /// Creates the default list of a scope: the addresses and networks in the environment variable `HEALTHCHECK_IPS`, separated
    /// by commas; if it is not set or blank, loopback (`127.0.0.0/8` and `::1`).
    ///
    /// # Errors
    ///
    /// Returns an error if an entry of the variable is not an address or a network, or if a network has bits set after its
    /// prefix.
    pub fn from_env() -> Result<Self, ListError> {
        networks_of(env::var(ENV_VAR)).map(Self::from_set)
    }

    pub(super) fn from_set(networks: NetworkSet) -> Self {
        Self(Arc::new(RwLock::new(networks)))
    }

    /// Replaces all networks at once: no request is checked against a part of them.
    ///
    /// # Errors
    ///
    /// Returns an error if a network has bits set after its prefix. The list is then unchanged.
    pub fn set(&self, networks: impl IntoIterator<Item = IpNet>) -> Result<(), ListError> {
        // Built before the lock is taken, and the old set is dropped after it is released, so that no request waits for either.
        let networks = NetworkSet::new(NAME, networks)?;
        let old = mem::replace(&mut *self.0.write(), networks);
        drop(old);
        Ok(())
    }

    /// Adds a network. Returns whether the list did not contain it yet.
    ///
    /// # Errors
    ///
    /// Returns an error if the network has bits set after its prefix. The list is then unchanged.
    pub fn insert(&self, network: IpNet) -> Result<bool, ListError> {
        self.0.write().insert(NAME, network)
    }

    /// Removes a network. Returns whether the list contained exactly this network; a wider one that includes it is not changed.
    pub fn remove(&self, network: IpNet) -> bool {
        self.0.write().remove(network)
    }

    /// Whether a network of the list contains the address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.read().contains(address)
    }

    /// The networks, ordered by address.
    pub fn networks(&self) -> Vec<IpNet> {
        self.0.read().iter().collect()
    }
}

impl FromStr for AllowList {
    type Err = ListError;

    /// Parses addresses and networks, separated by commas, as in `HEALTHCHECK_IPS`. Blank text is an empty list.
    fn from_str(text: &str) -> Result<Self, ListError> {
        if text.trim().is_empty() {
            return Self::new([]);
        }
        NetworkSet::parse(NAME, text).map(Self::from_set)
    }
}

impl fmt::Display for AllowList {
    /// Writes the list as [`FromStr`] parses it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.read().fmt(f)
    }
}

impl fmt::Debug for AllowList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AllowList").field(&*self.0.read()).finish()
    }
}

/// The networks in the value of the environment variable.
fn networks_of(variable: Result<String, VarError>) -> Result<NetworkSet, ListError> {
    match variable {
        Ok(list) if !list.trim().is_empty() => NetworkSet::parse(ENV_VAR, &list),
        Ok(_) | Err(VarError::NotPresent) => Ok(NetworkSet::loopback()),
        Err(VarError::NotUnicode(list)) => Err(ListError::invalid(ENV_VAR, &list.to_string_lossy())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_blank_or_not_set_allows_loopback_only() {
        for value in [Ok(String::new()), Ok(" \t".to_owned()), Err(VarError::NotPresent)] {
            let networks = networks_of(value).unwrap();
            assert!(networks.contains("127.0.0.1".parse().unwrap()));
            assert!(!networks.contains("10.0.0.1".parse().unwrap()));
        }
        let networks = networks_of(Ok("10.0.0.0/8".to_owned())).unwrap();
        assert!(networks.contains("10.0.0.1".parse().unwrap()));
        assert!(!networks.contains("127.0.0.1".parse().unwrap()));
        let error = networks_of(Err(VarError::NotUnicode("10.0.0.1".into()))).unwrap_err();
        assert!(error.to_string().starts_with(ENV_VAR), "{error}");
    }

    #[test]
    fn a_change_applies_to_all_clones_and_an_invalid_one_changes_nothing() {
        let list: AllowList = "10.0.0.0/8".parse().unwrap();
        let other = list.clone();
        assert!(list.insert("192.0.2.0/24".parse().unwrap()).unwrap());
        assert!(!list.insert("192.0.2.0/24".parse().unwrap()).unwrap());
        assert_eq!(other.to_string(), "10.0.0.0/8, 192.0.2.0/24");
        assert!(other.contains("192.0.2.9".parse().unwrap()));
        assert!(other.remove("10.0.0.0/8".parse().unwrap()));
        assert!(!other.remove("192.0.2.0/25".parse().unwrap()));
        assert!(!list.contains("10.0.0.1".parse().unwrap()));
        assert!(!list.remove("192.0.2.7/24".parse().unwrap()), "host bits are set");
        let bad = list.set(["172.16.0.0/12".parse().unwrap(), "10.0.0.5/8".parse().unwrap()]).unwrap_err();
        assert!(bad.to_string().starts_with("AllowList: `10.0.0.5/8`"), "{bad}");
        assert_eq!(list.networks(), ["192.0.2.0/24".parse().unwrap()]);
        list.set([]).unwrap();
        assert_eq!(list.to_string().parse::<AllowList>().unwrap().networks(), []);
        assert!(other.networks().is_empty() && !other.contains("192.0.2.9".parse().unwrap()));
    }
}
