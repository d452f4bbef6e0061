//! [`Registry`]: the ordered set of checks, unique by group and name, that any code can add to or remove from at any time.

use std::{
    error::Error,
    fmt,
    sync::{
        Arc, LazyLock, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};

use crate::{
    check::{Check, InvalidCheck},
    events::{Channel, Transitions},
    process::generation,
    redact::label,
};

/// An ordered set of checks, unique by group and name, shared by its clones.
///
/// Checks can be added and removed at any time and from any thread, also while a scope serves it.
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
    /// Made when somebody subscribes first, under the lock of the checks.
    channel: OnceLock<Channel>,
    /// Grows with every change.
    version: AtomicU64,
    /// Copies of the set that have to go when it changes.
    caches: Mutex<Vec<Weak<dyn CheckCache>>>,
}

/// A copy of a registry's checks.
pub(crate) trait CheckCache: Send + Sync {
    /// Drops the copy. What a removed check owns is dropped with it, and may use the registry.
    fn forget(&self);
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check behind those that are there.
    ///
    /// # Errors
    ///
    /// A check of that group and name is there already, or the check can't be run:
    /// one of the two can't be part of a path, or its timeout is zero.
    pub fn register(&self, check: Check) -> Result<(), RegisterError> {
        if let Err(invalid) = check.valid() {
            return Err(RegisterError(Box::new(Reason::Invalid(check, invalid))));
        }
        let mut checks = self.shared.checks.write();
        if checks.iter().any(|known| is(known, check.group(), check.name())) {
            return Err(RegisterError(Box::new(Reason::Duplicate(check))));
        }
        if let Some(channel) = self.shared.channel.get() {
            check.inner().watchers.add(channel);
        }
        checks.push(check);
        self.changed();
        Ok(())
    }

    /// Removes the check of that group and name; says whether there was one.
    pub fn unregister(&self, group: &str, name: &str) -> bool {
        // As the check was named.
        let (group, name) = (label(group), label(name));
        self.remove(|check| is(check, &group, &name))
    }

    fn remove(&self, which: impl Fn(&Check) -> bool) -> bool {
        let removed: Vec<_> = self.shared.checks.write().extract_if(.., |check| which(check)).collect();
        for check in &removed {
            if let Some(channel) = self.shared.channel.get() {
                check.inner().watchers.remove(channel);
            }
        }
        if !removed.is_empty() {
            self.changed();
        }
        // Dropped after the lock is released, because what a check owns may use the registry.
        !removed.is_empty()
    }

    fn changed(&self) {
        self.shared.version.fetch_add(1, Ordering::Release);
        generation::bump();
        let caches: Vec<_> = self.shared.caches.lock().iter().filter_map(Weak::upgrade).collect();
        for cache in caches {
            cache.forget();
        }
    }

    /// Has a copy of the set dropped at every change, for as long as it lives.
    pub(crate) fn add_cache(&self, cache: Weak<dyn CheckCache>) {
        let mut caches = self.shared.caches.lock();
        caches.retain(|cache| cache.strong_count() > 0);
        caches.push(cache);
    }

    /// Adds a check for as long as the returned guard lives: for a plugin that may be unloaded.
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
    ///     _search: health::Registered,
    /// }
    ///
    /// let plugin = Plugin {
    ///     _search: health::registry().register_guarded(Check::new("plugin", "search", || async { Ok::<_, String>(()) }))?,
    /// };
    /// drop(plugin);
    /// assert!(!health::unregister("plugin", "search"));
    /// # Ok::<_, health::RegisterError>(())
    /// ```
    pub fn register_guarded(&self, check: Check) -> Result<Registered, RegisterError> {
        self.register(check.clone())?;
        Ok(Registered { registry: self.clone(), check })
    }

    /// The transitions of this registry's checks from now on; of the registry of the process, those of all checks.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn alert(_: String) {}
    /// # async fn example() {
    /// let mut transitions = health::registry().subscribe();
    /// loop {
    ///     let transition = transitions.next().await;
    ///     alert(format!("{}.{} is {}", transition.group, transition.name, transition.to)).await;
    /// }
    /// # }
    /// ```
    pub fn subscribe(&self) -> Transitions {
        if self.identity() == registry().identity() {
            return Transitions::of_all();
        }
        let checks = self.shared.checks.write();
        let channel = self.shared.channel.get_or_init(|| {
            let channel = Channel::default();
            for check in &*checks {
                check.inner().watchers.add(&channel);
            }
            channel
        });
        channel.subscribe()
    }

    /// The checks, in the order of registration.
    pub fn checks(&self) -> Vec<Check> {
        self.shared.checks.read().clone()
    }

    /// Changes whenever the set does.
    pub(crate) fn version(&self) -> u64 {
        self.shared.version.load(Ordering::Acquire)
    }

    /// Equal for clones of one registry, and for nothing else as long as one of them lives.
    pub(crate) fn identity(&self) -> usize {
        Arc::as_ptr(&self.shared).addr()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.shared.checks.read().iter().map(Check::to_string)).finish()
    }
}

/// A check's place in a registry: when this is dropped, the check is removed. Another check that has taken its name
/// meanwhile stays.
#[derive(Debug)]
#[must_use = "the check is removed when this is dropped"]
pub struct Registered {
    registry: Registry,
    check: Check,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.remove(|check| check.identity() == self.check.identity());
    }
}

/// The registry of the process, which every scope shows.
pub fn registry() -> &'static Registry {
    static PROCESS: LazyLock<Registry> = LazyLock::new(Registry::new);
    &PROCESS
}

/// Adds a check to the registry of the process: from any crate, at any time; every scope shows it.
///
/// # Errors
///
/// A check of that group and name is there already, or the check can't be run:
/// one of the two can't be part of a path, or its timeout is zero.
///
/// # Examples
///
/// ```
/// health::register(health::Check::new("queue", "orders", || async {
///     Err("the text of this error is for the log; the answer says `the check failed`")
/// }))?;
/// # assert!(health::unregister("queue", "orders"));
/// # Ok::<_, health::RegisterError>(())
/// ```
pub fn register(check: Check) -> Result<(), RegisterError> {
    registry().register(check)
}

/// Removes a check from the registry of the process; says whether there was one.
pub fn unregister(group: &str, name: &str) -> bool {
    registry().unregister(group, name)
}

fn is(check: &Check, group: &str, name: &str) -> bool {
    check.group() == group && check.name() == name
}

/// Why a check was not registered.
#[derive(Debug)]
pub struct RegisterError(Box<Reason>);

#[derive(Debug)]
enum Reason {
    Duplicate(Check),
    Invalid(Check, InvalidCheck),
}

/// The kind of a [`RegisterError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegisterErrorKind {
    /// There is a check of that group and name already.
    Duplicate,
    /// The group or the name can't be part of a path, or the timeout is zero.
    Invalid,
}

impl RegisterError {
    /// What kind of error it is.
    pub fn kind(&self) -> RegisterErrorKind {
        match &*self.0 {
            Reason::Duplicate(_) => RegisterErrorKind::Duplicate,
            Reason::Invalid(..) => RegisterErrorKind::Invalid,
        }
    }
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Reason::Duplicate(check) => write!(f, "a health check named {check} is registered already"),
            Reason::Invalid(check, invalid) => {
                write!(f, "the health check {check} was not registered: {invalid}")
            }
        }
    }
}

impl Error for RegisterError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(group: &str, name: &str) -> Check {
        Check::new(group, name, || async { Ok::<_, String>(()) })
    }

    #[test]
    fn a_name_is_taken_once_and_free_again_when_removed() {
        let registry = Registry::new();
        registry.register(check("queue", "orders")).unwrap();
        registry.register(check("cache", "orders")).unwrap();
        let error = registry.register(check("queue", "orders")).unwrap_err();
        assert_eq!(error.kind(), RegisterErrorKind::Duplicate);
        assert_eq!(error.to_string(), "a health check named queue.orders is registered already");
        assert!(registry.unregister("queue", "orders"));
        assert!(!registry.unregister("queue", "orders"));
        registry.register(check("queue", "orders")).unwrap();
        let names: Vec<_> = registry.checks().iter().map(Check::to_string).collect();
        assert_eq!(names, ["cache.orders", "queue.orders"]);
    }

    #[test]
    fn a_name_that_no_path_can_hold_is_refused() {
        let registry = Registry::new();
        for (group, name) in [("ready", "a"), ("a", "b/c"), ("", "a")] {
            let error = registry.register(check(group, name)).unwrap_err();
            assert_eq!(error.kind(), RegisterErrorKind::Invalid, "{error}");
        }
        assert!(registry.checks().is_empty());
    }

    #[test]
    fn what_a_removed_check_holds_may_come_back_to_the_registry() {
        let registry = Registry::new();
        let inner = registry.register_guarded(check("queue", "inner")).unwrap();
        let outer = Check::new("queue", "outer", move || {
            let _held = &inner;
            async { Ok::<_, String>(()) }
        });
        registry.register(outer).unwrap();
        assert!(registry.unregister("queue", "outer"));
        assert!(registry.checks().is_empty());
    }
}
