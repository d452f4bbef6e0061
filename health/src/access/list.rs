//! [`AllowList`], which can be changed while it is in use.

use std::{
    env::{self, VarError},
    fmt, mem,
    net::IpAddr,
    str::FromStr,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use ipnet::IpNet;

use super::networks::{ListError, Networks};

/// The environment variable that holds the default list.
const VARIABLE: &str = "HEALTHCHECK_IPS";

/// A list of networks that may ask, which is shared by all its clones and can be changed while the server runs: the next
/// request is judged by the new list.
///
/// An IPv4-mapped IPv6 address is the IPv4 address, in the list and in a question. An empty list holds nobody.
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
pub struct AllowList(Arc<RwLock<Networks>>);

/// What errors call it.
const NAME: &str = "AllowList";

impl AllowList {
    /// A list of these networks.
    ///
    /// # Errors
    ///
    /// A network has bits set behind its prefix, as `10.0.0.5/8` has.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Result<Self, ListError> {
        Networks::new(NAME, networks).map(Self::of)
    }

    /// The list that a scope has by default: what the environment variable `HEALTHCHECK_IPS` says; if that is not set, or
    /// blank, loopback (`127.0.0.0/8` and `::1`).
    ///
    /// # Errors
    ///
    /// An entry of the variable is no address and no network, or a network with bits set behind its prefix.
    pub fn from_env() -> Result<Self, ListError> {
        let networks = match env::var(VARIABLE) {
            Ok(list) if !list.trim().is_empty() => Networks::parse(VARIABLE, &list),
            Ok(_) | Err(VarError::NotPresent) => Ok(Networks::loopback()),
            Err(VarError::NotUnicode(list)) => Err(ListError::no_network(VARIABLE, list.to_string_lossy())),
        };
        networks.map(Self::of)
    }

    pub(super) fn of(networks: Networks) -> Self {
        Self(Arc::new(RwLock::new(networks)))
    }

    /// Puts these networks in the place of all that there are, at once: no request is judged by half of them.
    ///
    /// # Errors
    ///
    /// As for [`AllowList::new`]; the list stays as it was.
    pub fn set(&self, networks: impl IntoIterator<Item = IpNet>) -> Result<(), ListError> {
        // Made before anybody has to wait for it, and the old ones are dropped when nobody has to any more.
        let networks = Networks::new(NAME, networks)?;
        let old = mem::replace(&mut *self.write(), networks);
        drop(old);
        Ok(())
    }

    /// Adds a network: whether it is new.
    ///
    /// # Errors
    ///
    /// The network has bits set behind its prefix; the list stays as it was.
    pub fn insert(&self, network: IpNet) -> Result<bool, ListError> {
        self.write().insert(NAME, network)
    }

    /// Removes a network: whether it was there, as that very network. A wider one that holds it too is not touched.
    pub fn remove(&self, network: IpNet) -> bool {
        self.write().remove(network)
    }

    /// Whether a network of the list holds an address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.read().contains(address)
    }

    /// The networks, in the order of their addresses.
    pub fn networks(&self) -> Vec<IpNet> {
        self.read().iter().collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Networks> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Networks> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FromStr for AllowList {
    type Err = ListError;

    /// Parses addresses and networks, separated by commas: what `HEALTHCHECK_IPS` holds. Blank text is a list that holds nobody.
    fn from_str(text: &str) -> Result<Self, ListError> {
        if text.trim().is_empty() {
            return Self::new([]);
        }
        Networks::parse(NAME, text).map(Self::of)
    }
}

impl fmt::Display for AllowList {
    /// As it is parsed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.read().fmt(f)
    }
}

impl fmt::Debug for AllowList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AllowList").field(&*self.read()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_by_all_clones_and_a_bad_one_changes_nothing() {
        let list: AllowList = "10.0.0.0/8".parse().unwrap();
        let other = list.clone();
        assert!(list.insert("192.0.2.0/24".parse().unwrap()).unwrap());
        assert!(!list.insert("192.0.2.0/24".parse().unwrap()).unwrap());
        assert_eq!(other.to_string(), "10.0.0.0/8, 192.0.2.0/24");
        assert!(other.contains("192.0.2.9".parse().unwrap()));
        assert!(other.remove("10.0.0.0/8".parse().unwrap()));
        assert!(!other.remove("192.0.2.0/25".parse().unwrap()));
        assert!(!list.contains("10.0.0.1".parse().unwrap()));
        assert!(!list.remove("192.0.2.7/24".parse().unwrap()), "that is no network");
        let bad = list.set(["172.16.0.0/12".parse().unwrap(), "10.0.0.5/8".parse().unwrap()]).unwrap_err();
        assert!(bad.to_string().starts_with("AllowList: `10.0.0.5/8`"), "{bad}");
        assert_eq!(list.networks(), ["192.0.2.0/24".parse().unwrap()]);
        list.set([]).unwrap();
        assert_eq!(list.to_string().parse::<AllowList>().unwrap().networks(), []);
        assert!(other.networks().is_empty() && !other.contains("192.0.2.9".parse().unwrap()));
    }
}
