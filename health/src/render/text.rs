//! The text of a report, in the form of the Kubernetes API server: a line for each check, and one for the whole.

use std::fmt;

use crate::{
    options::Role,
    redact::label,
    report::{Entry, Report},
    status::Status,
};

/// A line for each check, and `{what} check passed` or `{what} check failed`. `unmatched` are names that the request wants to exclude and
/// that match no check.
pub(crate) fn body(report: &Report, what: &str, unmatched: &[String]) -> String {
    let warning =
        |name: &String| format!("warn: some health checks cannot be excluded: no matches for \"{}\"\n", label(name));
    let warnings: String = unmatched.iter().map(warning).collect();
    format!("{warnings}{}\n", Text { report, what })
}

/// `[+]database.db ok` for each check, and `health check passed` or `health check failed`.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Text { report: self, what: "health" }.fmt(f)
    }
}

struct Text<'a> {
    report: &'a Report,
    what: &'a str,
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { report, what } = self;
        for entry in report.checks() {
            writeln!(f, "{}", Line(entry))?;
        }
        for name in &report.excluded {
            writeln!(f, "[+]{name} excluded: ok")?;
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
}
