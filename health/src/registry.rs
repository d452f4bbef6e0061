//! [`Registry`]: an ordered set of checks, to which any code can add checks at any time.

use std::{
    fmt,
    sync::{
        Arc, LazyLock, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use derive_more::{Display, Error};
use parking_lot::{Mutex, RwLock};

use crate::{
    check::{Check, InvalidCheck, redaction_hint},
    events::{Channel, Transitions, transitions},
    process::generation,
    redact::label,
};

/// An ordered set of checks, unique by group and name.
///
/// A `Registry` is a handle to shared state, and cloning it is cheap. Checks can be added and removed at any time and from any
/// thread, also while a scope serves them. A registry of your own is served by the scopes that it is added to with
/// [`Scope::registry`](crate::Scope::registry); that of the process, [`registry`], by every scope.
///
/// # Examples
///
/// ```
/// use health::{Check, Registry};
///
/// let plugins = Registry::new();
/// plugins.register(Check::new("plugin", "search", || async { Ok::<_, String>(()) }))?;
/// let scope = health::scope().registry(&plugins);
/// assert!(plugins.unregister("plugin", "search"));
/// # Ok::<_, health::RegisterError>(())
/// ```
#[derive(Clone, Default)]
pub struct Registry {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    checks: RwLock<Vec<Check>>,
    /// Created by the first subscription, under the lock of the checks.
    channel: OnceLock<Channel>,
    /// Incremented by every change.
    version: AtomicU64,
    /// Copies of the set, which are invalidated by every change.
    caches: Mutex<Vec<Weak<dyn CheckCache>>>,
}

/// A copy of a registry's checks.
pub(crate) trait CheckCache: Send + Sync {
    /// Drops the copy, and with it what a removed check owns, whose destructors may use the registry.
    fn forget(&self);
}

impl Registry {
    /// Creates an empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check at the end.
    ///
    /// # Errors
    ///
    /// A check of that group and name is registered already, the group or the name can't be part of a path, or the timeout is zero.
    pub fn register(&self, check: Check) -> Result<(), RegisterError> {
        if let Err(invalid) = check.validate() {
            return Err(RegisterError(Box::new(Reason::Invalid(check, invalid))));
        }
        {
            let mut checks = self.shared.checks.write();
            if checks.iter().any(|registered| is_named(registered, check.group(), check.name())) {
                return Err(RegisterError(Box::new(Reason::Duplicate(check))));
            }
            if let Some(channel) = self.shared.channel.get() {
                check.inner().subscribers.add(channel);
            }
            checks.push(check);
        }
        self.changed();
        Ok(())
    }

    /// Removes the check of that group and name. Returns whether there was one.
    ///
    /// What the check owns, such as a pool, is dropped before this returns, on the thread of the caller, if this was the last
    /// handle to the check. During a run or a request that shows the check, it is dropped at the end of that, on a thread of the
    /// library.
    pub fn unregister(&self, group: &str, name: &str) -> bool {
        // Credentials in the name of the check are redacted.
        let (group, name) = (label(group), label(name));
        self.remove(|check| is_named(check, &group, &name))
    }

    fn remove(&self, is_removed: impl Fn(&Check) -> bool) -> bool {
        let removed: Vec<_> = self.shared.checks.write().extract_if(.., |check| is_removed(check)).collect();
        for check in &removed {
            if let Some(channel) = self.shared.channel.get() {
                check.inner().subscribers.remove(channel);
            }
        }
        if !removed.is_empty() {
            self.changed();
        }
        // The checks are dropped after the lock is released, because their destructors may use the registry.
        !removed.is_empty()
    }

    /// Invalidates copies of the set. The caller holds no lock: a copy has a lock of its own, under which it reads the set.
    fn changed(&self) {
        self.shared.version.fetch_add(1, Ordering::Release);
        generation::bump();
        let caches: Vec<_> = self.shared.caches.lock().iter().filter_map(Weak::upgrade).collect();
        for cache in caches {
            cache.forget();
        }
    }

    /// Registers a copy of the set that every change invalidates.
    pub(crate) fn add_cache(&self, cache: Weak<dyn CheckCache>) {
        let mut caches = self.shared.caches.lock();
        caches.retain(|cache| cache.strong_count() > 0);
        caches.push(cache);
    }

    /// Adds a check until the returned guard is dropped, for example that of a plugin that may be unloaded.
    ///
    /// # Errors
    ///
    /// As for [`Registry::register`].
    ///
    /// # Examples
    ///
    /// ```
    /// use health::{Check, Registry};
    ///
    /// struct Plugin {
    ///     _search: health::RegistrationGuard,
    /// }
    ///
    /// let plugin = Plugin {
    ///     _search: health::registry().register_guarded(Check::new("plugin", "search", || async { Ok::<_, String>(()) }))?,
    /// };
    /// drop(plugin);
    /// assert!(!health::unregister("plugin", "search"));
    /// # Ok::<_, health::RegisterError>(())
    /// ```
    pub fn register_guarded(&self, check: Check) -> Result<RegistrationGuard, RegisterError> {
        self.register(check.clone())?;
        Ok(RegistrationGuard { registry: self.clone(), check })
    }

    /// Subscribes to the transitions of this registry's checks, from now on. On the registry of the process, it subscribes to those
    /// of all checks, as [`transitions`](crate::transitions) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use futures_util::StreamExt as _;
    /// use health::{Check, Status};
    ///
    /// # #[actix_web::main] async fn main() -> Result<(), health::RegisterError> {
    /// let plugins = health::Registry::new();
    /// plugins.register(Check::new("plugin", "search", || async { Ok::<_, String>(()) }))?;
    /// let mut transitions = plugins.subscribe();
    /// health::scope().registry(&plugins).report().await;
    /// assert_eq!(transitions.next().await.map(|transition| transition.to), Some(Status::Up));
    /// # Ok(())
    /// # }
    /// ```
    pub fn subscribe(&self) -> Transitions {
        if self.identity() == registry().identity() {
            return transitions();
        }
        let checks = self.shared.checks.write();
        let channel = self.shared.channel.get_or_init(|| {
            let channel = Channel::default();
            for check in &*checks {
                check.inner().subscribers.add(&channel);
            }
            channel
        });
        channel.subscribe()
    }

    /// The checks in the order of registration.
    pub fn checks(&self) -> Vec<Check> {
        self.shared.checks.read().clone()
    }

    /// Different after every change of the set.
    pub(crate) fn version(&self) -> u64 {
        self.shared.version.load(Ordering::Acquire)
    }

    /// The address of the shared state. Unique while a clone is alive.
    pub(crate) fn identity(&self) -> usize {
        Arc::as_ptr(&self.shared).addr()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.shared.checks.read().iter().map(Check::to_string)).finish()
    }
}

/// Keeps a check registered: see [`Registry::register_guarded`].
///
/// Dropping it removes the check, and no other check that was registered under the same name meanwhile. As in
/// [`Registry::unregister`], what the check owns may be dropped on the thread that drops the guard.
#[derive(Debug)]
#[must_use = "the check is removed when this is dropped"]
pub struct RegistrationGuard {
    registry: Registry,
    check: Check,
}

impl Drop for RegistrationGuard {
    fn drop(&mut self) {
        self.registry.remove(|check| check.identity() == self.check.identity());
    }
}

/// The registry of the process. Every scope serves its checks.
///
/// # Examples
///
/// ```
/// for check in health::registry().checks() {
///     println!("{check} has {} results", check.history().len());
/// }
/// ```
pub fn registry() -> &'static Registry {
    static PROCESS: LazyLock<Registry> = LazyLock::new(Registry::new);
    &PROCESS
}

/// Adds a check to the registry of the process. Every scope serves it, also those that have started already.
///
/// # Errors
///
/// As for [`Registry::register`].
///
/// # Examples
///
/// ```
/// health::register(health::Check::new("queue", "orders", || async {
///     Err("this text is only logged; responses say `the check failed`")
/// }))?;
/// # assert!(health::unregister("queue", "orders"));
/// # Ok::<_, health::RegisterError>(())
/// ```
pub fn register(check: Check) -> Result<(), RegisterError> {
    registry().register(check)
}

/// Adds a check to the registry of the process until the returned guard is dropped. See [`Registry::register_guarded`].
///
/// # Errors
///
/// As for [`Registry::register`].
pub fn register_guarded(check: Check) -> Result<RegistrationGuard, RegisterError> {
    registry().register_guarded(check)
}

/// Removes a check from the registry of the process. Returns whether there was one. See [`Registry::unregister`].
pub fn unregister(group: &str, name: &str) -> bool {
    registry().unregister(group, name)
}

fn is_named(check: &Check, group: &str, name: &str) -> bool {
    check.group() == group && check.name() == name
}

/// The error of [`Registry::register`].
#[derive(Debug, Display, Error)]
pub struct RegisterError(#[error(not(source))] Box<Reason>);

#[derive(Debug, Display)]
enum Reason {
    #[display("a health check named {_0} is registered already{}", redaction_hint(_0.name()))]
    Duplicate(Check),
    #[display("the health check {_0} was not registered: {_1}")]
    Invalid(Check, InvalidCheck),
}

/// The kind of a [`RegisterError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegisterErrorKind {
    /// A check of that group and name is registered already.
    Duplicate,
    /// The group or the name can't be part of a path, or the timeout is zero.
    Invalid,
}

impl RegisterError {
    /// The kind of the error.
    pub fn kind(&self) -> RegisterErrorKind {
        match &*self.0 {
            Reason::Duplicate(_) => RegisterErrorKind::Duplicate,
            Reason::Invalid(..) => RegisterErrorKind::Invalid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::tests::check;

    #[test]
    fn a_name_is_unique_and_can_be_reused_after_unregistering() {
        let registry = Registry::new();
        registry.register(check("queue", "orders")).unwrap();
        registry.register(check("cache", "orders")).unwrap();
        let error = registry.register(check("queue", "orders")).unwrap_err();
        assert_eq!(error.kind(), RegisterErrorKind::Duplicate);
        assert_eq!(error.to_string(), "a health check named queue.orders is registered already");
        assert!(registry.unregister("queue", "orders"));
        assert!(!registry.unregister("queue", "orders"));
        registry.register(check("queue", "postgres:bob:x@db")).unwrap();
        let error = registry.register(check("queue", "postgres:bob:y@db")).unwrap_err();
        assert!(error.to_string().ends_with("use names without credentials"), "{error}");
        assert!(registry.unregister("queue", "postgres:bob:z@db"));
        registry.register(check("queue", "orders")).unwrap();
        let names: Vec<_> = registry.checks().iter().map(Check::to_string).collect();
        assert_eq!(names, ["cache.orders", "queue.orders"]);
    }

    #[test]
    fn a_name_that_cannot_be_part_of_a_path_is_an_error() {
        let registry = Registry::new();
        for (group, name) in [("ready", "a"), ("a", ".."), ("", "a")] {
            let error = registry.register(check(group, name)).unwrap_err();
            assert_eq!(error.kind(), RegisterErrorKind::Invalid, "{error}");
        }
        assert!(registry.checks().is_empty());
    }

    #[test]
    fn the_destructor_of_a_removed_check_may_use_the_registry() {
        let registry = Registry::new();
        let inner = registry.register_guarded(check("queue", "inner")).unwrap();
        let outer = Check::new("queue", "outer", move || {
            let _owned = &inner;
            async { Ok::<_, String>(()) }
        });
        registry.register(outer).unwrap();
        assert!(registry.unregister("queue", "outer"));
        assert!(registry.checks().is_empty());
    }
}
