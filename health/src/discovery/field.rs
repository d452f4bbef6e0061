//! A field of a state, as the derive describes it: [`Field`] has its attributes, [`CheckPath`] names its checks.
#![allow(missing_docs, reason = "none of it is documented for users")]

use std::{borrow::Cow, time::Duration};

use super::checks::Checks;
use crate::{check::Check, redact::label};

/// The attributes of a field.
#[derive(Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is an attribute that is present or not")]
pub struct Field {
    pub name: &'static str,
    /// The name comes from an attribute, so it also prefixes the keys of a map.
    pub is_renamed: bool,
    pub flatten: bool,
    pub group: Option<&'static str>,
    pub optional: bool,
    pub live: bool,
    pub timeout_ms: Option<u64>,
}

impl Field {
    /// A field without attributes.
    pub const fn new(name: &'static str) -> Self {
        Self { name, is_renamed: false, flatten: false, group: None, optional: false, live: false, timeout_ms: None }
    }

    /// Adds the checks that `discover` adds for the field's value, with the field's attributes applied.
    pub fn discover(self, checks: &mut Checks, discover: impl FnOnce(CheckPath<'_>, &mut Checks)) {
        let mut found = Checks::default();
        let path = if self.flatten {
            CheckPath::Flattened
        } else {
            CheckPath::Field { name: self.name, is_renamed: self.is_renamed }
        };
        discover(path, &mut found);
        checks.append(found, |check| self.apply(check));
    }

    /// Adds the check of a field with `#[health(with = …)]`, with the field's attributes applied.
    pub fn add(self, checks: &mut Checks, check: Check) {
        checks.add(self.apply(check));
    }

    /// Records a field with `#[health(skip)]`.
    pub fn skip(self, checks: &mut Checks) {
        checks.ignore(self.name);
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

/// The position of a value in a state, which determines the name of its check.
#[derive(Clone, Debug)]
pub enum CheckPath<'a> {
    /// A field of the struct.
    Field { name: &'a str, is_renamed: bool },
    /// An element of a collection.
    Element(Cow<'a, str>),
    /// A nested struct whose checks are not prefixed.
    Flattened,
}

impl CheckPath<'_> {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Field { name, .. } => name,
            Self::Element(name) => name,
            // The derive flattens only nested structs, whose checks have names of their own.
            Self::Flattened => "",
        }
    }

    /// The path of an element of a list.
    pub(super) fn index(&self, index: usize) -> CheckPath<'static> {
        CheckPath::Element(format!("{}.{index}", self.name()).into())
    }

    /// The path of an entry of a map. Its name is the key, prefixed if the field is renamed or the map is itself an element.
    pub(super) fn key(&self, key: &str) -> CheckPath<'static> {
        // A key may be a URL with a password, or contain control characters.
        let key = label(key);
        CheckPath::Element(match self {
            Self::Field { is_renamed: false, .. } | Self::Flattened => key.into(),
            Self::Field { name, is_renamed: true } => format!("{name}.{key}").into(),
            Self::Element(name) => format!("{name}.{key}").into(),
        })
    }
}
