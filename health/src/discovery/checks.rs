//! [`HealthCheck`], the trait of a state, and [`Checks`], the list that its impl fills.

use std::{
    any::type_name,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::field::join;
use crate::{check::Check, redact::label};

/// A state that lists its checks. Derive it: [`macro@crate::HealthCheck`] adds a check for each field that can be probed.
///
/// Implement it by hand for a type that the derive does not support:
///
/// ```
/// use health::{Check, Checks, HealthCheck};
///
/// enum Storage { Local, Remote { queue: String } }
///
/// impl HealthCheck for Storage {
///     fn health_checks(&self, checks: &mut Checks) {
///         if let Storage::Remote { queue } = self {
///             checks.add(Check::new("queue", queue, || async { Ok::<_, String>(()) }));
///         }
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not implement `HealthCheck`",
    label = "expected a struct that derives `HealthCheck`",
    note = "for a struct of resources, add `#[derive(health::HealthCheck)]` to `{Self}`; for a resource itself, such as a pool, call `health::scope().probe(\"db\", pool)`"
)]
pub trait HealthCheck {
    /// Adds the checks of this state. Called once, at the first request to a scope that finds the state, so clone into each
    /// check what it needs.
    fn health_checks(&self, checks: &mut Checks);
}

/// The checks of a state, in the order in which they were added, and the names of its fields without a check.
#[derive(Debug, Default)]
pub struct Checks {
    found: Vec<Check>,
    ignored: Vec<String>,
    /// The type names of the state and of its nested states.
    state_types: Vec<&'static str>,
    /// `health_checks` of the state or of a nested state panicked, so checks may be missing.
    panicked: bool,
}

impl Checks {
    /// Adds a check. If its name is empty, it bears the name of the field that holds this state, or `default` if there is none.
    pub fn add(&mut self, check: Check) {
        self.found.push(check);
    }

    /// Adds the checks of a nested state, with their names prefixed by `name.`. With an empty `name` they keep their own.
    pub fn nested<H: HealthCheck + ?Sized>(&mut self, name: &str, state: &H) {
        // `Check` escapes its own name; the names of ignored fields are logged too.
        let name = label(name);
        let mut nested = Self::collect(state);
        for field in &mut nested.ignored {
            *field = join(&name, field);
        }
        self.append(nested, |check| renamed(check, |own| join(&name, own)));
    }

    /// The checks of a state. If its `health_checks` panics, returns the checks added so far; scopes with that state report `DOWN`.
    pub fn of<H: HealthCheck + ?Sized>(state: &H) -> Self {
        let mut checks = Self::default();
        let default_name = |own: &str| if own.is_empty() { "default" } else { own }.to_owned();
        checks.append(Self::collect(state), |check| renamed(check, default_name));
        checks
    }

    /// The checks of a state as it added them, so that a name may be empty.
    fn collect<H: HealthCheck + ?Sized>(state: &H) -> Self {
        let mut checks = Self { state_types: vec![type_name::<H>()], ..Self::default() };
        let result = catch_unwind(AssertUnwindSafe(|| state.health_checks(&mut checks)));
        checks.panicked |= result.is_err();
        checks
    }

    /// Iterates over the checks, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = &Check> {
        self.found.iter()
    }

    pub(crate) fn ignored(&self) -> &[String] {
        &self.ignored
    }

    pub(crate) fn has_panicked(&self) -> bool {
        self.panicked
    }

    pub(super) fn state_types(&self) -> &[&'static str] {
        &self.state_types
    }

    /// Records a field without a check.
    pub(super) fn ignore(&mut self, field: &str) {
        self.ignored.push(field.to_owned());
    }

    /// Adds the content of `other`, each check as `modify` returns it.
    pub(super) fn append(&mut self, other: Self, modify: impl FnMut(Check) -> Check) {
        self.found.extend(other.found.into_iter().map(modify));
        self.ignored.extend(other.ignored);
        self.state_types.extend(other.state_types);
        self.panicked |= other.panicked;
    }
}

/// The same check if its name does not change: a renamed one is another check, with a state of its own.
fn renamed(check: Check, rename: impl Fn(&str) -> String) -> Check {
    let name = rename(check.name());
    if name == check.name() { check } else { check.renamed(&name) }
}

impl IntoIterator for Checks {
    type Item = Check;
    type IntoIter = std::vec::IntoIter<Check>;

    fn into_iter(self) -> Self::IntoIter {
        self.found.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::tests::check;

    struct Leaf;

    impl HealthCheck for Leaf {
        fn health_checks(&self, checks: &mut Checks) {
            checks.add(check("database", "db"));
            checks.add(check("cache", ""));
            checks.ignore("title");
        }
    }

    struct Panics;

    impl HealthCheck for Panics {
        fn health_checks(&self, checks: &mut Checks) {
            Leaf.health_checks(checks);
            panic!("a test");
        }
    }

    struct Root;

    impl HealthCheck for Root {
        fn health_checks(&self, checks: &mut Checks) {
            checks.nested("orders\n", &Leaf);
            checks.nested("", &Panics);
        }
    }

    fn names(checks: &Checks) -> Vec<&str> {
        checks.iter().map(Check::name).collect()
    }

    #[test]
    fn nested_states_add_their_checks_in_order_with_a_prefix() {
        let checks = Checks::of(&Root);
        assert_eq!(names(&checks), ["orders\\u{a}.db", "orders\\u{a}", "db", "default"]);
        assert_eq!(checks.ignored(), ["orders\\u{a}.title", "title"]);
        assert_eq!(checks.state_types(), [type_name::<Root>(), type_name::<Leaf>(), type_name::<Panics>()]);
        let names: Vec<_> = checks.into_iter().map(|check| check.name().to_owned()).collect();
        assert_eq!(names, ["orders\\u{a}.db", "orders\\u{a}", "db", "default"]);
    }

    #[test]
    fn a_panic_of_a_nested_state_is_known_and_keeps_the_checks_before_it() {
        assert!(Checks::of(&Root).has_panicked());
        let checks = Checks::of(&Panics);
        assert!(checks.has_panicked());
        assert_eq!(names(&checks), ["db", "default"]);
        assert!(!Checks::of(&Leaf).has_panicked());
    }

    #[test]
    fn a_check_that_keeps_its_name_is_the_same_check() {
        let check = check("database", "db");
        let same = renamed(check.clone(), |_| "db".to_owned());
        assert_eq!(same.identity(), check.identity());
        assert_ne!(renamed(check.clone(), |_| "main".to_owned()).identity(), check.identity());
    }
}
