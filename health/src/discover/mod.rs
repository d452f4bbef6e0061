//! From a state to its checks: [`HealthCheck`], what a state derives, and [`Checks`], what it puts its checks into.
//!
//! `dispatch` tells by type which fields are probed, `state` finds the states of an application.

pub mod demand;
pub(crate) mod dispatch;
pub(crate) mod state;

use std::{
    any::type_name,
    borrow::Cow,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use crate::{check::Check, redact::label};

/// What a service's state is checked for. Derive it: [`macro@crate::HealthCheck`] finds the resources by their types.
///
/// By hand it is worth writing only where the derive can't see what is there:
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
    message = "`{Self}` has no health checks of its own",
    label = "expected a struct that derives `HealthCheck`",
    note = "put `#[derive(health::HealthCheck)]` on `{Self}`"
)]
pub trait HealthCheck {
    /// Adds the checks of this state. Called once, when the first request meets the state; what a check needs is cloned into it.
    fn health_checks(&self, checks: &mut Checks);
}

/// The checks of a state, in order, and the names of the fields that have none.
#[derive(Debug, Default)]
pub struct Checks {
    found: Vec<Check>,
    ignored: Vec<String>,
    /// The types of the state and its parts, by their full names.
    parts: Vec<&'static str>,
    /// Some are missing, for it panicked when they were added.
    broken: bool,
}

impl Checks {
    /// Adds a check.
    pub fn add(&mut self, check: Check) {
        self.found.push(check);
    }

    /// Adds the checks of a part of the state, with `name.` before their names.
    pub fn nested<H: HealthCheck + ?Sized>(&mut self, name: &str, part: &H) {
        // The names of fields that are ignored are shown too.
        let name = label(name);
        let inner = Self::of(part);
        self.found.extend(inner.found.into_iter().map(|check| {
            let full = format!("{name}.{}", check.name());
            check.renamed(&full)
        }));
        self.ignored.extend(inner.ignored.into_iter().map(|field| format!("{name}.{field}")));
        self.parts.extend(inner.parts);
        self.broken |= inner.broken;
    }

    /// The checks of a state. Of one whose `health_checks` panics, those before that; a scope that meets it is down.
    pub fn of<H: HealthCheck + ?Sized>(state: &H) -> Self {
        let mut checks = Self { parts: vec![type_name::<H>()], ..Self::default() };
        let added = catch_unwind(AssertUnwindSafe(|| state.health_checks(&mut checks)));
        checks.broken |= added.is_err();
        checks
    }

    /// The checks, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = &Check> {
        self.found.iter()
    }

    /// The fields in which nothing is probed.
    pub(crate) fn ignored(&self) -> &[String] {
        &self.ignored
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    pub(crate) fn parts(&self) -> &[&'static str] {
        &self.parts
    }

    pub(crate) fn append(&mut self, other: Self) {
        self.found.extend(other.found);
        self.ignored.extend(other.ignored);
        self.parts.extend(other.parts);
        self.broken |= other.broken;
    }
}

impl IntoIterator for Checks {
    type Item = Check;
    type IntoIter = std::vec::IntoIter<Check>;

    fn into_iter(self) -> Self::IntoIter {
        self.found.into_iter()
    }
}

/// A field of a state that derives: what its attributes say. Written by the derive.
#[doc(hidden)]
#[derive(Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is an attribute that is there or not")]
pub struct Field {
    pub name: &'static str,
    /// The name was written as an attribute, so it stands before the keys of a map too.
    pub named: bool,
    pub flatten: bool,
    pub group: Option<&'static str>,
    pub optional: bool,
    pub live: bool,
    pub timeout_ms: Option<u64>,
}

impl Field {
    /// What a field without attributes says.
    pub const fn new(name: &'static str) -> Self {
        Self { name, named: false, flatten: false, group: None, optional: false, live: false, timeout_ms: None }
    }

    /// Adds the checks that `find` finds in the field, with the options of the field.
    pub fn find(self, checks: &mut Checks, find: impl FnOnce(Place<'_>, &mut Checks)) {
        let mut found = Checks::default();
        let place = if self.flatten { Place::Flat } else { Place::Field { name: self.name, named: self.named } };
        find(place, &mut found);
        checks.ignored.append(&mut found.ignored);
        checks.parts.append(&mut found.parts);
        checks.broken |= found.broken;
        checks.found.extend(found.found.into_iter().map(|check| self.apply(check)));
    }

    /// Adds a check that the field's attributes describe.
    pub fn add(self, checks: &mut Checks, check: Check) {
        checks.add(self.apply(check));
    }

    /// Adds the name of a field that is not looked into.
    pub fn skip(self, checks: &mut Checks) {
        checks.ignored.push(self.name.to_owned());
    }

    fn apply(self, mut check: Check) -> Check {
        if let Some(group) = self.group {
            check = check.in_group(group);
        }
        if let Some(ms) = self.timeout_ms {
            check = check.timeout(Duration::from_millis(ms));
        }
        if self.optional {
            check = check.optional();
        }
        if self.live {
            check = check.live();
        }
        check
    }
}

/// Where in a state a value stands, which names what is found there.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub enum Place<'a> {
    /// A field of the struct.
    Field { name: &'a str, named: bool },
    /// An element of a collection.
    Element(Cow<'a, str>),
    /// A nested struct whose checks keep their names.
    Flat,
}

impl Place<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Field { name, .. } => name,
            Self::Element(name) => name,
            // The derive lets only nested structs be flattened, and those use their own names.
            Self::Flat => "",
        }
    }

    /// The place of an element of a list.
    fn at(&self, index: usize) -> Place<'static> {
        Place::Element(format!("{}.{index}", self.name()).into())
    }

    /// The place of an entry of a map: its key alone names it, unless the map was given a name or is an element itself.
    fn under(&self, key: &str) -> Place<'static> {
        // A key may be a URL with a password, or anything else.
        let key = label(key);
        Place::Element(match self {
            Self::Field { named: false, .. } | Self::Flat => key.into(),
            Self::Field { name, named: true } => format!("{name}.{key}").into(),
            Self::Element(name) => format!("{name}.{key}").into(),
        })
    }
}
