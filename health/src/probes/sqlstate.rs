//! What the codes of databases mean.

use crate::error::Class;

/// SQLSTATE has five characters (<https://www.postgresql.org/docs/current/errcodes-appendix.html>,
/// <https://mariadb.com/kb/en/mariadb-error-code-reference/>); SQLite's result codes are numbers of one to four digits
/// (<https://www.sqlite.org/rescode.html>), of which the low byte is the primary one.
pub(super) fn class_of_code(code: &str) -> Class {
    if code.len() < 5
        && let Ok(code) = code.parse::<u32>()
    {
        return match code & 0xff {
            3 | 23 => Class::Rejected, // PERM, AUTH
            5 | 6 => Class::Saturated, // BUSY, LOCKED: somebody else writes
            8 | 13 => Class::ReadOnly, // READONLY, FULL
            14 => Class::Unreachable,  // CANTOPEN
            _ => Class::Failed,        // NOTADB, CORRUPT, IOERR …
        };
    }
    match code {
        "53300" | "08004" => Class::Saturated, // too many connections: PostgreSQL, MySQL
        "25006" | "53100" => Class::ReadOnly,  // read-only transaction, disk full
        "42501" | "42000" => Class::Rejected,  // no permission; MySQL: no such database, or none for this user
        "57014" => Class::TimedOut,            // cancelled, as by statement_timeout
        _ => match code.get(..2).unwrap_or_default() {
            "28" | "3D" => Class::Rejected,    // authorization; PostgreSQL: no such database
            "08" | "57" => Class::Unreachable, // connection; shutting down, starting up
            _ => Class::Failed,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_three_databases_are_told_apart() {
        for (code, class) in [
            ("28P01", Class::Rejected),
            ("3D000", Class::Rejected),
            ("28000", Class::Rejected),
            ("42000", Class::Rejected),
            ("53300", Class::Saturated),
            ("08004", Class::Saturated),
            ("57P03", Class::Unreachable),
            ("57P01", Class::Unreachable),
            ("57014", Class::TimedOut),
            ("08S01", Class::Unreachable),
            ("25006", Class::ReadOnly),
            ("HY000", Class::Failed),
            ("14", Class::Unreachable),
            ("26", Class::Failed),
            ("5", Class::Saturated),
            ("1032", Class::ReadOnly), // READONLY_DBMOVED
            ("", Class::Failed),
            ("2é000", Class::Failed),
        ] {
            assert_eq!(class_of_code(code), class, "{code}");
        }
    }
}
