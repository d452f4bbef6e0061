//! What the codes of databases mean.

use crate::error::ProbeErrorKind;

/// SQLSTATE has five characters (<https://www.postgresql.org/docs/current/errcodes-appendix.html>,
/// <https://mariadb.com/kb/en/mariadb-error-code-reference/>); SQLite's result codes are numbers of one to four digits
/// (<https://www.sqlite.org/rescode.html>), of which the low byte is the primary one.
pub(super) fn classify_code(code: &str) -> ProbeErrorKind {
    if code.len() < 5
        && let Ok(code) = code.parse::<u32>()
    {
        return match code & 0xff {
            3 | 23 => ProbeErrorKind::Rejected, // PERM, AUTH
            5 | 6 => ProbeErrorKind::Saturated, // BUSY, LOCKED: somebody else writes
            8 | 13 => ProbeErrorKind::ReadOnly, // READONLY, FULL
            14 => ProbeErrorKind::Unreachable,  // CANTOPEN
            _ => ProbeErrorKind::Failed,        // NOTADB, CORRUPT, IOERR …
        };
    }
    match code {
        "53300" | "08004" => ProbeErrorKind::Saturated, // too many connections: PostgreSQL, MySQL
        "25006" | "53100" => ProbeErrorKind::ReadOnly,  // read-only transaction, disk full
        "42501" | "42000" => ProbeErrorKind::Rejected,  // no permission; MySQL: no such database, or none for this user
        "57014" => ProbeErrorKind::TimedOut,            // cancelled, as by statement_timeout
        _ => match code.get(..2).unwrap_or_default() {
            "28" | "3D" => ProbeErrorKind::Rejected, // authorization; PostgreSQL: no such database
            "08" | "57" => ProbeErrorKind::Unreachable, // connection; shutting down, starting up
            _ => ProbeErrorKind::Failed,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_three_databases_are_told_apart() {
        for (code, kind) in [
            ("28P01", ProbeErrorKind::Rejected),
            ("3D000", ProbeErrorKind::Rejected),
            ("28000", ProbeErrorKind::Rejected),
            ("42000", ProbeErrorKind::Rejected),
            ("53300", ProbeErrorKind::Saturated),
            ("08004", ProbeErrorKind::Saturated),
            ("57P03", ProbeErrorKind::Unreachable),
            ("57P01", ProbeErrorKind::Unreachable),
            ("57014", ProbeErrorKind::TimedOut),
            ("08S01", ProbeErrorKind::Unreachable),
            ("25006", ProbeErrorKind::ReadOnly),
            ("HY000", ProbeErrorKind::Failed),
            ("14", ProbeErrorKind::Unreachable),
            ("26", ProbeErrorKind::Failed),
            ("5", ProbeErrorKind::Saturated),
            ("1032", ProbeErrorKind::ReadOnly), // READONLY_DBMOVED
            ("", ProbeErrorKind::Failed),
            ("2é000", ProbeErrorKind::Failed),
        ] {
            assert_eq!(classify_code(code), kind, "{code}");
        }
    }
}
