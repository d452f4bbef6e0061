//! Decides by type, on stable Rust, whether a field is probed.
//!
//! For every field the derive generates `Dispatch::<FieldType, _>::discover(…)`, and the compiler resolves it to one of two
//! functions of that name: the inherent one, which exists if the type implements [`Discover`], or the one of the trait
//! [`Fallback`], which exists for every type. An inherent function takes precedence over a trait's. So aliases, re-exports and
//! wrappers work, and a field may have any type.
//!
//! `Discover` is implemented for probes, for structs that derive `HealthCheck`, and for wrappers of either. These impls would
//! overlap, so each uses a different type as the trait's parameter, its *kind*. The compiler infers it for the `_` of `Dispatch`.
#![allow(missing_docs, reason = "none of it is documented for users")]

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    marker::PhantomData,
    sync::Arc,
};

use actix_web::web::{Data, ThinData};

use super::{
    checks::{Checks, HealthCheck},
    field::join,
};
use crate::{
    check::Check,
    probe::{Probe, pointers_to_probes, shared_session},
    redact::label,
};

/// The kinds, which keep the impls of [`Discover`] apart. They have no values.
pub(crate) mod kind {
    use super::PhantomData;

    /// A probe.
    pub struct Direct;
    /// A container of probes: none, one or several.
    pub struct Many<K>(PhantomData<K>);
    /// A struct that derives `HealthCheck`.
    pub struct Nested;
    /// `Option<T>`
    pub struct Optional<K>(PhantomData<K>);
    /// `Vec<T>`
    pub struct List<K>(PhantomData<K>);
    /// `HashMap<_, T>` and `BTreeMap<_, T>`
    pub struct Map<K>(PhantomData<K>);
    /// `Arc<T>`, `Box<T>`, `&'static T`, `web::Data<T>` and `web::ThinData<T>`
    pub struct Pointer<K>(PhantomData<K>);
    /// A type that does not implement [`Discover`](super::Discover).
    pub struct Unknown;
}

use kind::{Direct, List, Many, Map, Nested, Optional, Pointer, Unknown};

/// A type that is or contains a probe. `K` is its kind.
pub trait Discover<K: ?Sized> {
    /// The group of the check that has the field's name. `None` if names or groups are known only at run time.
    const GROUP: Option<&'static str> = None;

    /// Adds the checks of the value, which is at `name` in the state.
    fn discover(&self, name: &str, checks: &mut Checks);
}

impl<P: Probe + Clone> Discover<Direct> for P {
    const GROUP: Option<&'static str> = Some(P::GROUP);

    fn discover(&self, name: &str, checks: &mut Checks) {
        checks.add(Check::probe(name, self.clone()));
    }
}

impl<H: HealthCheck + ?Sized> Discover<Many<Nested>> for H {
    fn discover(&self, name: &str, checks: &mut Checks) {
        checks.nested(name, self);
    }
}

#[diagnostic::do_not_recommend]
impl<T: Discover<K>, K> Discover<Many<Optional<K>>> for Option<T> {
    const GROUP: Option<&'static str> = T::GROUP;

    fn discover(&self, name: &str, checks: &mut Checks) {
        if let Some(value) = self {
            value.discover(name, checks);
        }
    }
}

#[diagnostic::do_not_recommend]
impl<T: Discover<K>, K> Discover<Many<List<K>>> for Vec<T> {
    fn discover(&self, name: &str, checks: &mut Checks) {
        for (index, element) in self.iter().enumerate() {
            element.discover(&join(name, &index.to_string()), checks);
        }
    }
}

#[diagnostic::do_not_recommend]
impl<N: fmt::Display, T: Discover<K>, K, S> Discover<Many<Map<K>>> for HashMap<N, T, S> {
    fn discover(&self, name: &str, checks: &mut Checks) {
        // Sorted, because the order of a hash map differs from process to process. Keys with the same text are not merged: two
        // checks of one name are an error.
        let mut entries: Vec<(String, &T)> = self.iter().map(|(key, value)| (key.to_string(), value)).collect();
        entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (key, value) in entries {
            discover_entry(value, name, &key, checks);
        }
    }
}

#[diagnostic::do_not_recommend]
impl<N: fmt::Display, T: Discover<K>, K> Discover<Many<Map<K>>> for BTreeMap<N, T> {
    fn discover(&self, name: &str, checks: &mut Checks) {
        for (key, value) in self {
            discover_entry(value, name, &key.to_string(), checks);
        }
    }
}

fn discover_entry<K>(value: &impl Discover<K>, map: &str, key: &str, checks: &mut Checks) {
    // A key may be a URL with a password, or contain control characters.
    value.discover(&join(map, &label(key)), checks);
}

/// A pointer to a probe is itself a probe (see `probe.rs`). These impls are for pointers to anything else.
macro_rules! pointers {
    ($($pointer:ty $(where T: $bound:tt Sized)?;)*) => {$(
        #[diagnostic::do_not_recommend]
        impl<T: Discover<Many<K>> $(+ $bound Sized)?, K> Discover<Many<Pointer<K>>> for $pointer {
            const GROUP: Option<&'static str> = T::GROUP;

            fn discover(&self, name: &str, checks: &mut Checks) {
                T::discover(self, name, checks);
            }
        }
    )*};
}

pointers! {
    Arc<T> where T: ?Sized;
    Box<T> where T: ?Sized;
    &'static T where T: ?Sized;
    Data<T> where T: ?Sized;
    ThinData<T>;
}

pointers_to_probes! {
    Data<P> where P: ?Sized, shared_session;
    ThinData<P>, P::session;
}

/// What a type that implements [`Probe`] and derives `HealthCheck` is reported with: the derive implements `Discover<Self>` for this
/// type, which conflicts with the impl for probes. Without the conflict the kind of such a type would be ambiguous, and each
/// field of it an error of its own. It has to be a conflict of `Discover`: after it, the compiler reports no ambiguity of that trait.
pub struct EitherProbeOrHealthCheck;

impl<P: Probe> Discover<P> for EitherProbeOrHealthCheck {
    fn discover(&self, _: &str, _: &mut Checks) {}
}

/// Resolves to the impl of `Discover` for `T`, or to [`Fallback`].
pub struct Dispatch<T: ?Sized, K>(PhantomData<K>, PhantomData<T>);

impl<T: Discover<K> + ?Sized, K> Dispatch<T, K> {
    pub const IS_PROBED: bool = true;
    pub const GROUP: Option<&'static str> = T::GROUP;

    pub fn discover(field: &T, name: &str, checks: &mut Checks) {
        field.discover(name, checks);
    }
}

/// [`Dispatch`] for all other types: the field is ignored.
pub trait Fallback<T: ?Sized> {
    const IS_PROBED: bool = false;
    const GROUP: Option<&'static str> = None;

    fn discover(_: &T, name: &str, checks: &mut Checks) {
        checks.ignore(name);
    }
}

impl<T: ?Sized> Fallback<T> for Dispatch<T, Unknown> {}

/// Determines whether `T` itself is a probe, cloneable or not, or a struct that derives `HealthCheck`, even where it cannot be
/// reached, by the same technique as [`Dispatch`].
pub struct InnerDispatch<T: ?Sized>(PhantomData<T>);

impl<P: Probe + ?Sized> InnerDispatch<P> {
    pub const IS_PROBE: bool = true;
}

impl<H: HealthCheck + ?Sized> InnerDispatch<H> {
    pub const IS_STATE: bool = true;
}

/// [`InnerDispatch`] for all other types.
pub trait InnerFallback {
    const IS_PROBE: bool = false;
    const IS_STATE: bool = false;
}

impl<T: ?Sized> InnerFallback for InnerDispatch<T> {}

/// Whether two checks of one name are in one group, if both groups are known at compile time. `==` is not available in constants.
pub const fn same_group(one: Option<&str>, other: Option<&str>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return false };
    let (one, other) = (one.as_bytes(), other.as_bytes());
    if one.len() != other.len() {
        return false;
    }
    let mut index = 0;
    while index < one.len() {
        if one[index] != other[index] {
            return false;
        }
        index += 1;
    }
    true
}

/// A field that `#[health(with = …)]` can probe: the check owns a clone, and other threads use it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be cloned into a health check",
    label = "must be `Clone + Send + Sync + 'static`",
    note = "derive `Clone`, or put the value in an `Arc`"
)]
pub trait CloneField {
    #[doc(hidden)]
    fn clone_field(&self) -> Arc<Self>;
}

#[diagnostic::do_not_recommend]
impl<T: Clone + Send + Sync + 'static> CloneField for T {
    fn clone_field(&self) -> Arc<Self> {
        Arc::new(self.clone())
    }
}

/// Clones a field for the check that owns the clone.
pub fn clone_field<T: CloneField>(field: &T) -> Arc<T> {
    field.clone_field()
}

#[cfg(test)]
#[allow(clippy::zero_sized_map_values, reason = "a fake pool has no content")]
mod tests {
    use super::*;
    use crate::error::ProbeError;

    #[derive(Clone)]
    struct Pool;

    impl Probe for Pool {
        const GROUP: &'static str = "database";

        async fn probe(&self) -> Result<(), ProbeError> {
            Ok(())
        }
    }

    struct State(Pool);

    impl HealthCheck for State {
        fn health_checks(&self, checks: &mut Checks) {
            Dispatch::<Pool, _>::discover(&self.0, "db", checks);
        }
    }

    /// The checks of a field as the derive finds them, whether the type is probed, and its group.
    macro_rules! field {
        ($type:ty, $value:expr) => {{
            let mut checks = Checks::default();
            Dispatch::<$type, _>::discover(&$value, "field", &mut checks);
            let names: Vec<_> = checks.iter().map(|check| check.name().to_owned()).collect();
            (names, Dispatch::<$type, _>::IS_PROBED, Dispatch::<$type, _>::GROUP)
        }};
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_probe_has_one_check_also_in_pointers_and_options() {
        let database = (names(&["field"]), true, Some("database"));
        assert_eq!(field!(Pool, Pool), database);
        assert_eq!(field!(Arc<Pool>, Arc::new(Pool)), database);
        assert_eq!(field!(Data<Pool>, Data::new(Pool)), database);
        assert_eq!(field!(ThinData<Pool>, ThinData(Pool)), database);
        assert_eq!(field!(Option<Pool>, Some(Pool)), database);
        assert_eq!(field!(Box<Option<Pool>>, Box::new(Some(Pool))), database);
        assert_eq!(field!(Option<Pool>, None), (vec![], true, Some("database")));
    }

    #[test]
    fn elements_are_named_by_their_place_or_key() {
        assert_eq!(field!(Vec<Pool>, vec![Pool, Pool]), (names(&["field.0", "field.1"]), true, None));
        let keys = [(2, Pool), (10, Pool)];
        // A hash map is sorted by the text of its keys.
        assert_eq!(
            field!(HashMap<i32, Pool>, HashMap::from(keys.clone())),
            (names(&["field.10", "field.2"]), true, None)
        );
        assert_eq!(field!(BTreeMap<i32, Pool>, BTreeMap::from(keys)), (names(&["field.2", "field.10"]), true, None));
        let key = "redis://user:5ecret@host\n";
        let (found, ..) = field!(BTreeMap<&str, Pool>, BTreeMap::from([(key, Pool)]));
        assert!(!found[0].contains("5ecret") && !found[0].contains('\n'), "{found:?}");
    }

    #[test]
    fn nested_states_add_the_name_of_the_field() {
        assert_eq!(field!(State, State(Pool)), (names(&["field.db"]), true, None));
        assert_eq!(field!(Arc<State>, Arc::new(State(Pool))), (names(&["field.db"]), true, None));
    }

    #[test]
    fn any_other_field_is_ignored_by_name() {
        assert_eq!(field!(String, String::new()), (vec![], false, None));
        let mut checks = Checks::default();
        Dispatch::<u8, _>::discover(&1, "retries", &mut checks);
        assert_eq!(checks.ignored(), ["retries"]);
    }

    #[test]
    fn types_that_cannot_be_reached_are_recognized() {
        struct NotClone;

        impl Probe for NotClone {
            const GROUP: &'static str = "database";

            async fn probe(&self) -> Result<(), ProbeError> {
                Ok(())
            }
        }

        const { assert!(InnerDispatch::<NotClone>::IS_PROBE && !InnerDispatch::<NotClone>::IS_STATE) };
        const { assert!(InnerDispatch::<State>::IS_STATE && !InnerDispatch::<State>::IS_PROBE) };
        const { assert!(!InnerDispatch::<u8>::IS_PROBE && !InnerDispatch::<u8>::IS_STATE) };
    }

    #[test]
    fn groups_are_the_same_if_both_are_known_and_equal() {
        assert!(same_group(Some("cache"), Some("cache")));
        assert!(!same_group(Some("cache"), Some("cachf")));
        assert!(!same_group(Some("cache"), Some("dache")));
        assert!(!same_group(Some("cache"), Some("caches")));
        assert!(!same_group(Some("cache"), None));
        assert!(!same_group(None, None));
    }

    #[test]
    fn a_check_owns_a_clone_of_the_field() {
        let shared = Arc::new(1);
        let clone = clone_field(&shared);
        assert_eq!(Arc::strong_count(&shared), 2);
        assert!(Arc::ptr_eq(&*clone, &shared));
    }
}
