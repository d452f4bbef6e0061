//! Strikes credentials out of the text of errors before it is logged, and keeps it to one line.

const STRUCK: &str = "***";

/// The text without the given secret, without the userinfo of URLs and without the values of `password=`, in one line.
pub(crate) fn redact(text: &str, secret: Option<&str>) -> String {
    let mut text = match secret {
        Some(secret) => text.replace(secret, STRUCK),
        None => text.to_owned(),
    };
    strike_userinfo(&mut text);
    strike_passwords(&mut text);
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

/// `password=secret` (libpq, ODBC) and `pwd=secret` become `password=***`, whatever their case.
fn strike_passwords(text: &mut String) {
    for key in ["password=", "pwd="] {
        let mut from = 0;
        // ASCII lower-casing keeps every byte where it is.
        while let Some(found) = text.to_ascii_lowercase()[from..].find(key) {
            let start = from + found + key.len();
            let rest = &text[start..];
            let end = match rest.chars().next() {
                Some(quote @ ('\'' | '"')) => rest[1..].find(quote).map_or(rest.len(), |end| end + 2),
                _ => rest
                    .find(|c: char| c.is_whitespace() || matches!(c, ';' | '&' | '"' | '\'' | ','))
                    .unwrap_or(rest.len()),
            };
            text.replace_range(start..start + end, STRUCK);
            from = start + STRUCK.len();
        }
    }
}

/// Control characters are escaped, so that no error's text can forge a log line.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
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
        assert_eq!(
            redact("host=db Password=hunter2 user=bob; PWD='a b';x password=", None),
            "host=db Password=*** user=bob; PWD=***;x password=***"
        );
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
