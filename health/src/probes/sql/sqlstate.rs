//! The kinds of the error codes of databases.

use crate::error::ProbeErrorKind;

/// Returns the kind of a code. An SQLSTATE has five characters (<https://www.postgresql.org/docs/current/errcodes-appendix.html>,
/// <https://mariadb.com/kb/en/mariadb-error-code-reference/>); SQLite's result codes are numbers of one to four digits
/// (<https://www.sqlite.org/rescode.html>), of which the low byte is the primary one.
pub(super) fn classify_code(code: &str) -> ProbeErrorKind {
    if code.len() < 5
        && let Ok(code) = code.parse::<u32>()
    {
        return match code & 0xff {
            3 | 23 => ProbeErrorKind::Rejected, // PERM, AUTH
            5 | 6 => ProbeErrorKind::Saturated, // BUSY, LOCKED: another connection writes
            8 | 13 => ProbeErrorKind::ReadOnly, // READONLY, FULL
            14 => ProbeErrorKind::Unreachable,  // CANTOPEN
            _ => ProbeErrorKind::Failed,        // NOTADB, CORRUPT, IOERR …
        };
    }
    match code {
        // The server ended the session, because a transaction was idle or took too long.
        "25P03" | "25P04" => ProbeErrorKind::Unreachable,
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

/// Returns the kind of an error of MySQL or MariaDB by its number, if that is more exact than the SQLSTATE: 42000 and HY000 are the code
/// of hundreds of errors (<https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html>).
pub(super) fn classify_mysql(number: u16, message: &str) -> Option<ProbeErrorKind> {
    Some(match number {
        // Too many connections: to the server, of one account.
        1040 | 1203 => ProbeErrorKind::Saturated,
        // A limit of the account. One of its queries, in contrast, affects each connection.
        1226 if message.contains("connections") => ProbeErrorKind::Saturated,
        // The host is blocked or not allowed; wrong password, no permission, no such database; locked and expired accounts,
        // TLS required.
        1044 | 1045 | 1049 | 1129 | 1130 | 1226 | 1227 | 1251 | 1698 | 1820 | 1862 | 3118 | 3159 | 4151 => {
            ProbeErrorKind::Rejected
        }
        // The server shuts down; it aborted, killed or ended the connection.
        1053 | 1077 | 1079 | 1080 | 1152 | 1158..=1161 | 1184 | 1927 | 3168 | 3169 | 4031 => {
            ProbeErrorKind::Unreachable
        }
        // A statement exceeded a time limit of the server.
        1317 | 1969 | 3024 => ProbeErrorKind::TimedOut,
        1021 | 1792 | 1836 => ProbeErrorKind::ReadOnly,
        1290 if message.contains("read-only") || message.contains("read_only") => ProbeErrorKind::ReadOnly,
        // A syntax error.
        1064 => ProbeErrorKind::Failed,
        _ => return None,
    })
}

/// Returns the kind of an error that MySQL or MariaDB sent.
pub(super) fn classify_mysql_error(number: u16, code: &str, message: &str) -> ProbeErrorKind {
    classify_mysql(number, message).unwrap_or_else(|| classify_code(code))
}

/// Whether pgbouncer has reached `max_client_conn`, for which it has no code of its own.
pub(super) fn is_full_pgbouncer(code: &str, message: &str) -> bool {
    code == "08P01" && message.contains("no more connections allowed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_three_databases_are_classified() {
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
            ("57P05", ProbeErrorKind::Unreachable),
            ("25P03", ProbeErrorKind::Unreachable),
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

    #[test]
    fn the_number_of_mysql_takes_precedence_over_its_code() {
        for (number, kind) in [
            (1040, Some(ProbeErrorKind::Saturated)),
            (1203, Some(ProbeErrorKind::Saturated)),
            (1044, Some(ProbeErrorKind::Rejected)),
            (1045, Some(ProbeErrorKind::Rejected)),
            (1049, Some(ProbeErrorKind::Rejected)),
            (1129, Some(ProbeErrorKind::Rejected)),
            (1130, Some(ProbeErrorKind::Rejected)),
            (1698, Some(ProbeErrorKind::Rejected)),
            (3118, Some(ProbeErrorKind::Rejected)),
            (1053, Some(ProbeErrorKind::Unreachable)),
            (1152, Some(ProbeErrorKind::Unreachable)),
            (1184, Some(ProbeErrorKind::Unreachable)),
            (1927, Some(ProbeErrorKind::Unreachable)),
            (3168, Some(ProbeErrorKind::Unreachable)),
            (3169, Some(ProbeErrorKind::Unreachable)),
            (4031, Some(ProbeErrorKind::Unreachable)),
            (1064, Some(ProbeErrorKind::Failed)),
            (1146, None),
        ] {
            assert_eq!(classify_mysql(number, ""), kind, "{number}");
        }
        let limit = |resource: &str| format!("User 'app' has exceeded the '{resource}' resource (current value: 2)");
        assert_eq!(classify_mysql(1226, &limit("max_user_connections")), Some(ProbeErrorKind::Saturated));
        assert_eq!(classify_mysql(1226, &limit("max_connections_per_hour")), Some(ProbeErrorKind::Saturated));
        assert_eq!(classify_mysql(1226, &limit("max_questions")), Some(ProbeErrorKind::Rejected));
    }

    #[test]
    fn a_full_pgbouncer_is_recognized_by_its_message() {
        assert!(is_full_pgbouncer("08P01", "no more connections allowed (max_client_conn)"));
        assert!(!is_full_pgbouncer("08P01", "unsupported startup parameter: extra_float_digits"));
        assert!(!is_full_pgbouncer("08006", "no more connections allowed"));
    }
}
