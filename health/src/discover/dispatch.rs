//! How the derive tells, by type and on stable Rust, what is in a field.
//!
//! The derive writes `Look::<FieldType, _>::find(…)` for every field, and the compiler picks one of two functions of that
//! name: the inherent one, which exists where the type is something that [`Discover`] knows, or else that of the trait
//! [`Ignored`], which every type has. An inherent item wins over a trait's, so aliases, re-exports and wrappers work, and no
//! field has to be anything.
//!
//! `Discover` is implemented for every probe, for every struct that derives `HealthCheck`, and for wrappers of either. Those
//! impls would overlap, so each has a kind of its own as the trait's parameter; the `_` of `Look` is that kind, inferred.
#![allow(missing_docs, reason = "none of it is documented for users")]

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    marker::PhantomData,
    sync::Arc,
};

use actix_web::web::Data;

use super::{Checks, HealthCheck, Place};
use crate::{
    check::Check,
    probe::{Probe, pointers_to_probes},
};

/// Kinds of what is discovered. Never made; they keep the impls of [`Discover`] apart.
pub(crate) mod kind {
    use super::PhantomData;

    /// A probe.
    pub struct Leaf;
    /// Anything else, of which there may be none, one or many.
    pub struct Many<K>(PhantomData<K>);
    /// A struct that derives.
    pub struct Nested;
    /// `Option<T>` …
    pub struct Optional<K>(PhantomData<K>);
    /// `Vec<T>` …
    pub struct Listed<K>(PhantomData<K>);
    /// `HashMap<_, T>` …
    pub struct Keyed<K>(PhantomData<K>);
    /// `Arc<T>`, `Box<T>`, `web::Data<T>` …
    pub struct Pointed<K>(PhantomData<K>);
    /// Nothing that is known.
    pub struct Unknown;
}

use kind::{Keyed, Leaf, Listed, Many, Nested, Optional, Pointed, Unknown};

/// What can be found in a field. `K` is one of the kinds.
pub trait Discover<K> {
    /// The group of what is found under the field's own name; `None` where names or groups are known at run time only.
    const GROUP: Option<&'static str>;

    /// Adds what there is.
    fn discover(&self, place: Place<'_>, checks: &mut Checks);
}

impl<P: Probe + Clone> Discover<Leaf> for P {
    const GROUP: Option<&'static str> = Some(P::GROUP);

    fn discover(&self, place: Place<'_>, checks: &mut Checks) {
        checks.add(Check::probe(place.name(), self.clone()));
    }
}

impl<H: HealthCheck + ?Sized> Discover<Many<Nested>> for H {
    const GROUP: Option<&'static str> = None;

    fn discover(&self, place: Place<'_>, checks: &mut Checks) {
        match place {
            Place::Flat => checks.append(Checks::of(self)),
            place => checks.nested(place.name(), self),
        }
    }
}

#[diagnostic::do_not_recommend]
impl<T: Discover<K>, K> Discover<Many<Optional<K>>> for Option<T> {
    const GROUP: Option<&'static str> = T::GROUP;

    fn discover(&self, place: Place<'_>, checks: &mut Checks) {
        if let Some(there) = self {
            there.discover(place, checks);
        }
    }
}

#[diagnostic::do_not_recommend]
impl<T: Discover<K>, K> Discover<Many<Listed<K>>> for Vec<T> {
    const GROUP: Option<&'static str> = None;

    fn discover(&self, place: Place<'_>, checks: &mut Checks) {
        for (index, element) in self.iter().enumerate() {
            element.discover(place.at(index), checks);
        }
    }
}

#[diagnostic::do_not_recommend]
impl<N: fmt::Display, T: Discover<K>, K, S> Discover<Many<Keyed<K>>> for HashMap<N, T, S> {
    const GROUP: Option<&'static str> = None;

    fn discover(&self, place: Place<'_>, checks: &mut Checks) {
        // The order of a hash map is another one in every process; that of an answer should not be. Keys that are printed alike
        // are both kept: two checks of one name are an error, and not one check.
        let mut entries: Vec<(String, &T)> = self.iter().map(|(key, value)| (key.to_string(), value)).collect();
        entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (key, value) in entries {
            value.discover(place.under(&key), checks);
        }
    }
}

#[diagnostic::do_not_recommend]
impl<N: fmt::Display, T: Discover<K>, K> Discover<Many<Keyed<K>>> for BTreeMap<N, T> {
    const GROUP: Option<&'static str> = None;

    fn discover(&self, place: Place<'_>, checks: &mut Checks) {
        for (key, value) in self {
            value.discover(place.under(&key.to_string()), checks);
        }
    }
}

/// A pointer to a probe is a probe (see `probe.rs`); this is for pointers to anything else.
macro_rules! pointers {
    ($($pointer:ident),*) => {$(
        #[diagnostic::do_not_recommend]
        impl<T: Discover<Many<K>> + ?Sized, K> Discover<Many<Pointed<K>>> for $pointer<T> {
            const GROUP: Option<&'static str> = T::GROUP;

            fn discover(&self, place: Place<'_>, checks: &mut Checks) {
                T::discover(self, place, checks);
            }
        }
    )*};
}

pointers!(Arc, Box, Data);

pointers_to_probes!(Data: kept_shared);

/// What is in a field of type `T`: see the head of this file.
pub struct Look<T: ?Sized, K>(PhantomData<K>, PhantomData<T>);

impl<T: Discover<K> + ?Sized, K> Look<T, K> {
    pub const FOUND: bool = true;
    pub const GROUP: Option<&'static str> = T::GROUP;

    pub fn find(field: &T, place: Place<'_>, checks: &mut Checks) {
        field.discover(place, checks);
    }
}

/// What is in a field of any other type: nothing.
pub trait Ignored<T: ?Sized> {
    const FOUND: bool = false;
    const GROUP: Option<&'static str> = None;

    fn find(_: &T, place: Place<'_>, checks: &mut Checks) {
        checks.ignored.push(place.name().to_owned());
    }
}

impl<T: ?Sized> Ignored<T> for Look<T, Unknown> {}

/// Whether `T` is probed on its own, also where it stands so that it can't be found: the same trick once more.
pub struct LookInside<T: ?Sized, K>(PhantomData<K>, PhantomData<T>);

impl<T: Resource<K> + ?Sized, K> LookInside<T, K> {
    pub const IS_PROBED: bool = true;
}

/// The answer for any other type.
pub trait NotProbed {
    const IS_PROBED: bool = false;
}

impl<T: ?Sized> NotProbed for LookInside<T, Unknown> {}

/// A probe, whether it can be cloned or not, or a struct that derives.
pub trait Resource<K> {}

impl<P: Probe> Resource<Leaf> for P {}

impl<H: HealthCheck + ?Sized> Resource<Nested> for H {}

/// Whether two checks of one name would be in one group, as far as that is known when compiling.
pub const fn same_group(one: Option<&str>, other: Option<&str>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return false };
    let (one, other) = (one.as_bytes(), other.as_bytes());
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// What `#[health(with = …)]` needs of a field: the check keeps a clone of it and asks it from another thread.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be handed to a health check",
    label = "must be `Clone + Send + Sync`",
    note = "derive `Clone`, or hold the field in an `Arc`"
)]
pub trait Handed {
    #[doc(hidden)]
    fn handed(&self) -> Arc<Self>;
}

#[diagnostic::do_not_recommend]
impl<T: Clone + Send + Sync + 'static> Handed for T {
    fn handed(&self) -> Arc<Self> {
        Arc::new(self.clone())
    }
}

/// The clone that the check keeps.
pub fn hand<T: Handed>(field: &T) -> Arc<T> {
    field.handed()
}
