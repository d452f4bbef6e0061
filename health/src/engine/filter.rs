//! [`Filter`]: the checks that a scope leaves out.

use super::CheckEntry;
use crate::redact::label;

/// Selects checks by name. A name is that of a group, or the full name `group.name` of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Filter {
    /// Only these checks; `None` for all.
    pub(crate) include: Option<Vec<String>>,
    /// Each name with the setting that it comes from, for messages.
    pub(crate) exclude: Vec<(&'static str, String)>,
}

impl Filter {
    pub(super) fn selects(&self, entry: &CheckEntry) -> bool {
        let is_included = self.include.as_ref().is_none_or(|names| names.iter().any(|name| entry.is_named(name)));
        let is_excluded = || self.exclude.iter().any(|(_, name)| entry.is_named(name));
        entry.is_of_the_process() || (is_included && !is_excluded())
    }

    /// Why a scope with these checks has none by mistake. One whose checks are all excluded has none on purpose.
    pub(super) fn problem(&self, checks: &[CheckEntry]) -> Option<&'static str> {
        let is_any_included =
            |names: &Vec<String>| names.iter().any(|name| checks.iter().any(|check| check.is_named(name)));
        let is_included = self.include.as_ref().is_none_or(is_any_included);
        (!is_included).then_some("no check matches `.include`: the log has the names that there are")
    }

    /// The names that match none of the checks, each with its setting.
    pub(super) fn unmatched<'a>(
        &'a self,
        checks: &'a [CheckEntry],
    ) -> impl Iterator<Item = (&'static str, String)> + 'a {
        let included = self.include.iter().flatten().map(|name| (".include", name));
        let names = included.chain(self.exclude.iter().map(|(setting, name)| (*setting, name)));
        let is_unmatched = |name: &str| !checks.iter().any(|check| check.is_named(name));
        names.filter(move |(_, name)| is_unmatched(name)).map(|(setting, name)| (setting, label(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::tests::check;

    #[test]
    fn names_that_match_no_check_are_listed_with_their_setting() {
        let checks =
            [("database", "db"), ("cache", "sessions")].map(|(group, name)| CheckEntry::Check(check(group, name)));
        let filter = Filter {
            include: Some(vec!["database".to_owned(), "unknown".to_owned()]),
            exclude: vec![("HEALTHCHECK_EXCLUDE", "cache.sessions".to_owned()), (".exclude", "cache.db".to_owned())],
        };
        let unmatched: Vec<_> = filter.unmatched(&checks).collect();
        assert_eq!(unmatched, [(".include", "unknown".to_owned()), (".exclude", "cache.db".to_owned())]);
    }

    #[test]
    fn what_the_process_says_of_itself_is_never_left_out() {
        let filter = Filter { include: Some(Vec::new()), exclude: vec![(".exclude", "health".to_owned())] };
        assert!(filter.selects(&CheckEntry::misconfigured("health", "state", "no state was found")));
        assert!(!filter.selects(&CheckEntry::misconfigured("database", "db", "twice")));
    }
}
