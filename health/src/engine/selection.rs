//! The checks of an engine, each name once, and which of them a request selects.

use std::{collections::HashMap, fmt, sync::Arc};

use crate::{
    check::{Check, redaction_hint},
    options::Role,
    report::{Entry, Outcome},
};

/// An entry of a report that has no result yet.
#[derive(Clone)]
pub(crate) enum CheckEntry {
    Check(Check),
    /// There is nothing that could run: `DOWN` with this message.
    Misconfigured {
        group: Arc<str>,
        name: Arc<str>,
        message: Arc<str>,
    },
}

/// The checks that a request is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Selection<'a> {
    All,
    /// The checks that count for liveness.
    Live,
    /// The checks that are not optional.
    Required,
    Group(&'a str),
    Check(&'a str, &'a str),
}

impl CheckEntry {
    pub(crate) fn misconfigured(group: &str, name: &str, message: &str) -> Self {
        Self::Misconfigured { group: group.into(), name: name.into(), message: message.into() }
    }

    pub(super) fn check(&self) -> Option<&Check> {
        match self {
            Self::Check(check) => Some(check),
            Self::Misconfigured { .. } => None,
        }
    }

    /// The entry of the report.
    pub(super) fn with_outcome(&self, outcome: Outcome, details: bool) -> Entry {
        let inner = self.check().map(Check::inner);
        Entry {
            group: Arc::clone(self.group()),
            name: Arc::clone(self.name()),
            options: inner.map(|inner| inner.options),
            outcome,
            details: inner.filter(|_| details).and_then(|inner| inner.details()),
        }
    }

    fn group(&self) -> &Arc<str> {
        match self {
            Self::Check(check) => &check.inner().group,
            Self::Misconfigured { group, .. } => group,
        }
    }

    fn name(&self) -> &Arc<str> {
        match self {
            Self::Check(check) => &check.inner().name,
            Self::Misconfigured { name, .. } => name,
        }
    }

    /// Whether it is not a check, but what the process says of itself.
    pub(super) fn is_of_the_process(&self) -> bool {
        &**self.group() == "health"
    }

    /// Whether the service has started only once this has been up.
    pub(super) fn is_required(&self) -> bool {
        self.check().is_none_or(|check| check.inner().options.role != Role::Optional)
    }

    /// Whether `name` is the group of the entry, or its full name `group.name`. What the process says of itself has no name.
    pub(super) fn is_named(&self, name: &str) -> bool {
        let (group, own_name) = (&**self.group(), &**self.name());
        let rest = name.strip_prefix(group);
        !self.is_of_the_process()
            && (rest == Some("") || rest.and_then(|rest| rest.strip_prefix('.')) == Some(own_name))
    }

    /// Whether both are the same check.
    fn is_same_check(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Check(one), Self::Check(other)) => one.identity() == other.identity(),
            _ => false,
        }
    }
}

impl fmt::Display for CheckEntry {
    /// `group.name`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.group(), self.name())
    }
}

impl Selection<'_> {
    pub(super) fn matches(&self, entry: &CheckEntry) -> bool {
        match self {
            Self::All => true,
            Self::Live => entry.check().is_some_and(|check| check.inner().options.live),
            Self::Required => entry.is_required(),
            Self::Group(group) => **entry.group() == **group,
            Self::Check(group, name) => **entry.group() == **group && **entry.name() == **name,
        }
    }
}

/// Each name once, and only checks that can run.
///
/// A check that comes from two sources is one check. Two checks of one name are neither merged nor shadowed: a misconfigured
/// entry replaces both.
pub(super) fn unique(entries: impl Iterator<Item = CheckEntry>) -> Vec<CheckEntry> {
    let mut unique: Vec<CheckEntry> = Vec::new();
    let mut indices: HashMap<(Arc<str>, Arc<str>), usize> = HashMap::new();
    for entry in entries.map(validated) {
        let key = (Arc::clone(entry.group()), Arc::clone(entry.name()));
        match indices.get(&key) {
            None => {
                indices.insert(key, unique.len());
                unique.push(entry);
            }
            Some(&index) if unique[index].is_same_check(&entry) => {}
            Some(&index) => {
                let (group, name) = key;
                let hint = redaction_hint(&name);
                let message = format!(
                    "two checks are named {group}.{name}: give one of them another name or group, or one of two states a name, \
                         as in `#[health(name = \"billing\")]`{hint}"
                );
                unique[index] = CheckEntry::Misconfigured { group, name, message: message.into() };
            }
        }
    }
    unique
}

fn validated(entry: CheckEntry) -> CheckEntry {
    match entry.check().map(|check| (check, check.validate())) {
        Some((check, Err(invalid))) => CheckEntry::misconfigured(check.group(), check.name(), &invalid.to_string()),
        _ => entry,
    }
}
