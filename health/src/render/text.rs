//! The text of a report, in the form of the Kubernetes API server: a line for each check, and one for the whole.

use std::fmt;

use crate::{
    options::Role,
    redact::label,
    report::{Entry, Report},
    status::Status,
};

/// Renders the report of `what`: `health`, `ready`, `live`, `startup` or the name of a group. `unmatched` are the exclusions of the
/// request that match nothing.
pub(crate) fn body(report: &Report, what: &str, unmatched: &[String]) -> String {
    format!("{}\n", Text { report, what, unmatched })
}

/// `[+]database.db ok` for each check, and `health check passed` or `health check failed`.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Text { report: self, what: "health", unmatched: &[] }.fmt(f)
    }
}

struct Text<'a> {
    report: &'a Report,
    what: &'a str,
    unmatched: &'a [String],
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { report, what, unmatched } = self;
        for entry in report.checks() {
            writeln!(f, "{}", Line(entry))?;
        }
        for name in &report.excluded {
            writeln!(f, "[+]{name} excluded: ok")?;
        }
        if !unmatched.is_empty() {
            let names: Vec<_> = unmatched.iter().map(|name| format!("{:?}", label(name))).collect();
            writeln!(f, "warn: some health checks cannot be excluded: no matches for {}", names.join(","))?;
        }
        let outcome = if report.status() == Status::Down { "failed" } else { "passed" };
        write!(f, "{what} check {outcome}")
    }
}

struct Line<'a>(&'a Entry);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(entry) = self;
        let (group, name, error) = (entry.group(), entry.name(), entry.error().unwrap_or_default());
        match (entry.status(), entry.role()) {
            (Status::Up, _) => write!(f, "[+]{group}.{name} ok"),
            (Status::Degraded, _) => write!(f, "[+]{group}.{name} ok (degraded: {error})"),
            (Status::Down, Role::Critical) => write!(f, "[-]{group}.{name} failed: {error}"),
            (Status::Down, role) => write!(f, "[-]{group}.{name} failed ({role}): {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{options::CheckOptions, report::Outcome};

    #[test]
    fn each_check_has_a_line_that_names_its_failure() {
        let entry = |group: &str, name: &str, role, status, error: Option<&str>| Entry {
            group: group.into(),
            name: name.into(),
            options: Some(CheckOptions { role, ..CheckOptions::default() }),
            outcome: Outcome { status, error: error.map(Into::into) },
            details: None,
        };
        let mut report = Report::of(vec![
            entry("database", "db", Role::Critical, Status::Up, None),
            entry(
                "queue",
                "orders",
                Role::Critical,
                Status::Degraded,
                Some("connection pool exhausted (10 of 10 in use)"),
            ),
            entry(
                "cache",
                "sessions",
                Role::Optional,
                Status::Down,
                Some("unable to connect to redis at 127.0.0.1:6379"),
            ),
        ]);
        report.excluded = vec!["mail.smtp".to_owned()];
        assert_eq!(
            report.to_string(),
            "[+]database.db ok\n\
             [+]queue.orders ok (degraded: connection pool exhausted (10 of 10 in use))\n\
             [-]cache.sessions failed (optional): unable to connect to redis at 127.0.0.1:6379\n\
             [+]mail.smtp excluded: ok\n\
             health check passed"
        );
        let down =
            Report::of(vec![entry("database", "db", Role::Critical, Status::Down, Some("timed out after 800 ms"))]);
        assert_eq!(down.to_string(), "[-]database.db failed: timed out after 800 ms\nhealth check failed");
    }

    #[test]
    fn the_last_line_names_the_path_and_exclusions_without_a_match_are_quoted() {
        let report = Report::of(vec![Entry::plain("queue", "orders", None)]);
        assert_eq!(body(&report, "ready", &[]), "[+]queue.orders ok\nready check passed\n");
        assert_eq!(
            body(&report, "queue", &["x".to_owned(), "\"\n[+]y ok".to_owned()]),
            "[+]queue.orders ok\n\
             warn: some health checks cannot be excluded: no matches for \"x\",\"\\\"\\\\u{a}[+]y ok\"\n\
             queue check passed\n"
        );
    }
}
