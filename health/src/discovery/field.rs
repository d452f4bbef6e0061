//! How the checks of a field are named, and how the derive applies the attributes of a field to them.
#![allow(missing_docs, reason = "none of it is documented for users")]

use super::checks::Checks;
use crate::check::Check;

/// Joins the names of a field and of what it contains. Either may be empty: `flatten` leaves the name of a field out, and the check of
/// a newtype has no name of its own.
pub(super) fn join(field: &str, inner: &str) -> String {
    match (field, inner) {
        ("", name) | (name, "") => name.to_owned(),
        _ => format!("{field}.{inner}"),
    }
}

/// Adds the checks that `discover` adds, each as `modify` returns it.
pub fn modified(checks: &mut Checks, discover: impl FnOnce(&mut Checks), modify: impl FnMut(Check) -> Check) {
    let mut found = Checks::default();
    discover(&mut found);
    checks.append(found, modify);
}

/// Applies `#[health(group = "…")]`.
pub fn in_group(check: Check, group: &str) -> Check {
    check.in_group(group)
}

/// Records a field with `#[health(skip)]`.
pub fn skipped(checks: &mut Checks, name: &str) {
    checks.ignore(name);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::tests::check;

    #[test]
    fn either_part_of_a_name_may_be_empty() {
        assert_eq!(join("shop", "db"), "shop.db");
        assert_eq!(join("", "db"), "db");
        assert_eq!(join("shop", ""), "shop");
        assert_eq!(join("", ""), "");
    }

    #[test]
    fn attributes_of_a_field_change_only_its_own_checks() {
        let mut checks = Checks::default();
        checks.add(check("database", "first"));
        modified(&mut checks, |checks| checks.add(check("database", "second")), |check| in_group(check, "queue"));
        skipped(&mut checks, "title");
        let groups: Vec<_> = checks.iter().map(|check| (check.group(), check.name())).collect();
        assert_eq!(groups, [("database", "first"), ("queue", "second")]);
        assert_eq!(checks.ignored(), ["title"]);
    }
}
