//! Strikes credentials out of the text of errors before it is logged, and keeps it to one line.

use std::ops::Range;

const STRUCK: &str = "***";

/// So much of a text is logged.
const LONGEST: usize = 4096;

/// The text without the given secret, without the userinfo of URLs and without the values of `password=`, in one line.
pub(crate) fn redact(text: &str, secret: Option<&str>) -> String {
    let mut text = match secret {
        Some(secret) => text.replace(secret, STRUCK),
        None => text.to_owned(),
    };
    strike_userinfo(&mut text);
    strike_passwords(&mut text);
    if text.len() > LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST));
        text.push('…');
    }
    one_line(&text)
}

/// `scheme://user:password@host` becomes `scheme://***@host`.
fn strike_userinfo(text: &mut String) {
    let mut from = 0;
    while let Some(found) = text[from..].find("://") {
        let start = from + found + "://".len();
        let rest = &text[start..];
        // A password may hold any of `/?#@`, unescaped by a careless hand: up to the last `@` before a blank or a quote.
        let end =
            rest.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>')).unwrap_or(rest.len());
        if let Some(at) = rest[..end].rfind('@') {
            text.replace_range(start..start + at, STRUCK);
        }
        from = start;
    }
}

/// What comes after these words and a sign of equality or a colon is struck out, as in `password=secret` (libpq),
/// `"password": "secret"` (JSON) and `Authorization: Bearer secret`.
const KEYS: [&str; 6] = ["password", "passwd", "pwd", "secret", "token", "authorization"];

fn strike_passwords(text: &mut String) {
    for key in KEYS {
        let mut from = 0;
        // ASCII lower-casing keeps every byte where it is.
        while let Some(found) = text.to_ascii_lowercase()[from..].find(key) {
            from += found + key.len();
            let Some(value) = value_after(&text[from..]) else { continue };
            text.replace_range(from + value.start..from + value.end, STRUCK);
            from += value.start + STRUCK.len();
        }
    }
}

/// Where the value is in what comes after a key.
fn value_after(rest: &str) -> Option<Range<usize>> {
    let trimmed = rest.trim_start_matches(['"', '\'', ' ']).strip_prefix(['=', ':'])?.trim_start_matches(' ');
    let start = rest.len() - trimmed.len();
    let length = match trimmed.chars().next()? {
        quote @ ('\'' | '"') => trimmed[1..].find(quote).map_or(trimmed.len(), |end| end + 2),
        _ => {
            // A scheme of authorization is a word of its own.
            let scheme =
                ["Bearer ", "Basic "].into_iter().find(|scheme| trimmed.starts_with(scheme)).map_or(0, str::len);
            let ends = |c: char| c.is_whitespace() || matches!(c, ';' | '&' | '"' | '\'' | ',' | '}');
            scheme + trimmed[scheme..].find(ends).unwrap_or(trimmed.len() - scheme)
        }
    };
    Some(start..start + length)
}

/// Control characters are escaped, so that no error's text can forge a log line.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unprintable(c) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// A control character, or one that ends a line to some.
pub(crate) fn is_unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::redact;

    #[test]
    fn userinfo_of_every_url_is_struck_out() {
        assert_eq!(
            redact("postgres://bob:s3cret@db:5432/x and redis://:p@ss/w@cache \"amqp://a:b@q\" http://plain/", None),
            "postgres://***@db:5432/x and redis://***@cache \"amqp://***@q\" http://plain/"
        );
    }

    #[test]
    fn password_values_are_struck_out() {
        for (text, struck) in [
            ("host=db Password=hunter2 user=bob; PWD='a b';x", "host=db Password=*** user=bob; PWD=***;x"),
            (r#"{"password":"x y","a":1}"#, r#"{"password":***,"a":1}"#),
            ("passwd: x, token = y", "passwd: ***, token = ***"),
            ("Authorization: Bearer abc.def; more", "Authorization: ***; more"),
            ("password authentication failed for user \"bob\"", "password authentication failed for user \"bob\""),
            ("password=", "password="),
        ] {
            assert_eq!(redact(text, None), struck);
        }
    }

    #[test]
    fn a_text_of_any_length_is_a_line_that_can_be_read() {
        let text = redact(&"ü".repeat(100_000), None);
        assert!(text.len() < 4200 && text.ends_with('…'));
    }

    #[test]
    fn a_known_secret_is_struck_out_wherever_it_stands() {
        assert_eq!(redact("near \"s3cret\": s3cret!", Some("s3cret")), "near \"***\": ***!");
    }

    #[test]
    fn a_line_break_cannot_forge_a_line() {
        assert_eq!(redact("a\nERROR forged\u{1b}[0m\u{2028}", None), "a\\nERROR forged\\u{1b}[0m\\u{2028}");
    }
}
