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

use actix_web::web::Data;

use super::{
    checks::{Checks, HealthCheck},
    field::CheckPath,
};
use crate::{
    check::Check,
    probe::{Probe, pointers_to_probes},
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
    /// `Arc<T>`, `Box<T>` and `web::Data<T>`
    pub struct Pointer<K>(PhantomData<K>);
    /// A type that does not implement [`Discover`](super::Discover).
    pub struct Unknown;
}

use kind::{Direct, List, Many, Map, Nested, Optional, Pointer, Unknown};

/// A type that is or contains a probe. `K` is its kind.
pub trait Discover<K> {
    /// The group of the check that has the field's name. `None` if names or groups are known only at run time.
    const GROUP: Option<&'static str>;

    /// Adds the checks of the value.
    fn discover(&self, path: CheckPath<'_>, checks: &mut Checks);
}

impl<P: Probe + Clone> Discover<Direct> for P {
    const GROUP: Option<&'static str> = Some(P::GROUP);

    fn discover(&self, path: CheckPath<'_>, checks: &mut Checks) {
        checks.add(Check::probe(path.name(), self.clone()));
    }
}

impl<H: HealthCheck + ?Sized> Discover<Many<Nested>> for H {
    const GROUP: Option<&'static str> = None;

    fn discover(&self, path: CheckPath<'_>, checks: &mut Checks) {
        match path {
            CheckPath::Flattened => checks.append(Checks::of(self), |check| check),
            path => checks.nested(path.name(), self),
        }
    }
}

#[diagnostic::do_not_recommend]
impl<T: Discover<K>, K> Discover<Many<Optional<K>>> for Option<T> {
    const GROUP: Option<&'static str> = T::GROUP;

    fn discover(&self, path: CheckPath<'_>, checks: &mut Checks) {
        if let Some(value) = self {
            value.discover(path, checks);
        }
    }
}

#[diagnostic::do_not_recommend]
impl<T: Discover<K>, K> Discover<Many<List<K>>> for Vec<T> {
    const GROUP: Option<&'static str> = None;

    fn discover(&self, path: CheckPath<'_>, checks: &mut Checks) {
        for (index, element) in self.iter().enumerate() {
            element.discover(path.index(index), checks);
        }
    }
}

#[diagnostic::do_not_recommend]
impl<N: fmt::Display, T: Discover<K>, K, S> Discover<Many<Map<K>>> for HashMap<N, T, S> {
    const GROUP: Option<&'static str> = None;

    fn discover(&self, path: CheckPath<'_>, checks: &mut Checks) {
        // Sorted, because the order of a hash map differs from process to process. Keys with the same text are not merged: two
        // checks of one name are an error.
        let mut entries: Vec<(String, &T)> = self.iter().map(|(key, value)| (key.to_string(), value)).collect();
        entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (key, value) in entries {
            value.discover(path.key(&key), checks);
        }
    }
}

#[diagnostic::do_not_recommend]
impl<N: fmt::Display, T: Discover<K>, K> Discover<Many<Map<K>>> for BTreeMap<N, T> {
    const GROUP: Option<&'static str> = None;

    fn discover(&self, path: CheckPath<'_>, checks: &mut Checks) {
        for (key, value) in self {
            value.discover(path.key(&key.to_string()), checks);
        }
    }
}

/// A pointer to a probe is itself a probe (see `probe.rs`). These impls are for pointers to anything else.
macro_rules! pointers {
    ($($pointer:ident),*) => {$(
        #[diagnostic::do_not_recommend]
        impl<T: Discover<Many<K>> + ?Sized, K> Discover<Many<Pointer<K>>> for $pointer<T> {
            const GROUP: Option<&'static str> = T::GROUP;

            fn discover(&self, path: CheckPath<'_>, checks: &mut Checks) {
                T::discover(self, path, checks);
            }
        }
    )*};
}

pointers!(Arc, Box, Data);

pointers_to_probes!(Data: kept_shared);

/// Resolves to the impl of `Discover` for `T`, or to [`Fallback`].
pub struct Dispatch<T: ?Sized, K>(PhantomData<K>, PhantomData<T>);

impl<T: Discover<K> + ?Sized, K> Dispatch<T, K> {
    pub const IS_PROBED: bool = true;
    pub const GROUP: Option<&'static str> = T::GROUP;

    pub fn discover(field: &T, path: CheckPath<'_>, checks: &mut Checks) {
        field.discover(path, checks);
    }
}

/// [`Dispatch`] for all other types: the field is ignored.
pub trait Fallback<T: ?Sized> {
    const IS_PROBED: bool = false;
    const GROUP: Option<&'static str> = None;

    fn discover(_: &T, path: CheckPath<'_>, checks: &mut Checks) {
        checks.ignore(path.name());
    }
}

impl<T: ?Sized> Fallback<T> for Dispatch<T, Unknown> {}

/// Determines whether `T` itself could be probed, even where it cannot be reached, by the same technique as [`Dispatch`].
pub struct InnerDispatch<T: ?Sized, K>(PhantomData<K>, PhantomData<T>);

impl<T: Probed<K> + ?Sized, K> InnerDispatch<T, K> {
    pub const IS_PROBED: bool = true;
}

/// [`InnerDispatch`] for all other types.
pub trait InnerFallback {
    const IS_PROBED: bool = false;
}

impl<T: ?Sized> InnerFallback for InnerDispatch<T, Unknown> {}

/// A probe, cloneable or not, or a struct that derives `HealthCheck`.
pub trait Probed<K> {}

impl<P: Probe> Probed<Direct> for P {}

impl<H: HealthCheck + ?Sized> Probed<Nested> for H {}

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
