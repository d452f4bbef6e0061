//! The checks of resources that scopes are given with `Scope::probe`: clones of one resource have one check, in whatever worker or
//! scope they are.
//!
//! Each worker calls the factory of `HttpServer`, so what is created there exists once per worker. A clone of the resource is
//! recognized by the address of what the clones share, and by nothing else. Two servers of one process may have the same settings,
//! call sites and even addresses (Unix sockets, a restart on the same port, tests), and threads of workers do not show which server
//! started them. With an identity made of those, a scope could report another server's database as its own. A type that does not
//! reveal an address therefore has a check per worker, which the log warns of.

use std::any::TypeId;

use super::{Check, CheckInner};
use crate::{probe::Probe, weak_map::WeakMap};

/// The type and the address of a resource, and the name of its check. A check holds its resource, so the address is in use for as long
/// as the check is alive.
type Key = (TypeId, usize, String);

static CHECKS: WeakMap<Key, CheckInner> = WeakMap::new();

impl Check {
    /// The check of a resource: one for all of its clones, if they can be recognized.
    pub(crate) fn of_resource<P: Probe>(name: &str, resource: P) -> Self {
        let check = Self::probe(name, resource);
        let Some(address) = check.inner.probe.address() else { return check };
        let key = (TypeId::of::<P>(), address, check.name().to_owned());
        Self { inner: CHECKS.get_or_insert_with(key, |_, _| check.inner) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::error::ProbeError;

    #[derive(Clone)]
    struct Works;

    impl Probe for Works {
        const GROUP: &'static str = "service";

        async fn probe(&self) -> Result<(), ProbeError> {
            Ok(())
        }
    }

    #[test]
    fn clones_of_a_resource_have_one_check_for_each_name() {
        let (one, other) = (Arc::new(Works), Arc::new(Works));
        let check = Check::of_resource("one", Arc::clone(&one));
        assert_eq!(check.identity(), Check::of_resource("one", Arc::clone(&one)).identity());
        assert_ne!(check.identity(), Check::of_resource("two", Arc::clone(&one)).identity());
        assert_ne!(check.identity(), Check::of_resource("one", Arc::clone(&other)).identity());
        assert_ne!(check.identity(), Check::of_resource("one", Works).identity());
    }
}
