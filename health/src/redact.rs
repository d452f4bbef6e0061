//! Redacts credentials in text that is logged or shown, and keeps the text in one line.
//!
//! Text is cut before it is searched. The search is linear: it reads the text forwards, and looks back only to the last separator.
//! It decides only by syntax, and in doubt it redacts.

use std::ops::Range;

/// The replacement of a credential.
pub(crate) const REDACTED: &str = "***";

/// The maximum length of a logged error, in bytes.
const MAX_LEN: usize = 4096;

/// The maximum length of a name, in bytes. A longer name is cut and ends in `…`.
pub(crate) const MAX_LABEL_LEN: usize = 1024;

/// The maximum length of a text that is read, without that of a known secret.
pub(crate) const MAX_INPUT_LEN: usize = MAX_LEN + LOOKAHEAD;

/// How far beyond the cut to search for the end of a credential that begins before it.
const LOOKAHEAD: usize = 4096;

/// Redacts the text of an error, and formats it as one line. `secret` is a password that is known to be in use.
pub(crate) fn redact(text: &str, secret: Option<&str>) -> String {
    one_line(&without_credentials(text, secret, MAX_LEN))
}

/// Redacts the name of a check or a resource, which may be a URL or a key from any source, and escapes unprintable characters as
/// `\u{…}`. It is idempotent.
pub(crate) fn label(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if text.len() <= MAX_LABEL_LEN && text.bytes().all(is_plain) {
        return text.to_owned();
    }
    escape(&without_credentials(text, None, MAX_LABEL_LEN), |c| c.escape_unicode().collect())
}

/// Escapes control characters, so that text cannot forge a log line.
fn one_line(text: &str) -> String {
    escape(text, |c| c.escape_default().collect())
}

fn escape(text: &str, escaped: impl Fn(char) -> String) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unprintable(c) {
            line.push_str(&escaped(c));
        } else {
            line.push(c);
        }
    }
    line
}

/// Whether it is a control character, a line separator, or a character that changes the direction of text, with which a terminal
/// shows other text than was written.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}')
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn without_credentials(text: &str, secret: Option<&str>, max_len: usize) -> String {
    let cut = text.floor_char_boundary(max_len);
    let window = &text[..text.floor_char_boundary(cut + LOOKAHEAD)];
    let mut found = Vec::new();
    if let Some(secret) = secret.filter(|secret| !secret.is_empty()) {
        let end = text.floor_char_boundary(cut + secret.len());
        found.extend(text[..end].match_indices(secret).map(|(start, _)| start..start + secret.len()));
    }
    find_in_urls(window, window.len() < text.len(), &mut found);
    find_before_hosts(window, &mut found);
    find_values(window, &mut found);
    found.sort_unstable_by_key(|range| range.start);

    let mut kept = String::with_capacity(cut);
    let mut end = 0;
    for range in found.into_iter().filter(|range| range.start < cut) {
        // Overlapping ranges are redacted once.
        if range.start >= end {
            kept.push_str(&text[end..range.start]);
            kept.push_str(REDACTED);
        }
        end = end.max(range.end);
    }
    kept.push_str(text.get(end..cut).unwrap_or_default());
    if cut < text.len() {
        kept.push('…');
    }
    kept
}

fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\'' | '`' | '<' | '>')
}

/// Whether a word continues behind a quote or a bracket, which then is a character of a password: `it's`.
fn continues(rest: &str) -> bool {
    rest.starts_with(|c: char| c.is_alphanumeric() || c == '@')
}

/// The userinfo of URLs: `scheme://user:password@host`.
fn find_in_urls(text: &str, is_cut: bool, found: &mut Vec<Range<usize>>) {
    let mut from = 0;
    while let Some(scheme) = text[from..].find("://") {
        let start = from + scheme + "://".len();
        let ends = |from: usize| {
            let is_end = |&(at, c): &(usize, char)| {
                c.is_whitespace() || is_quote(c) && !continues(&text[from + at + c.len_utf8()..])
            };
            text[from..].char_indices().find(is_end).map(|(end, _)| from + end)
        };
        let end = ends(start).unwrap_or(text.len());
        let url = &text[start..end];
        from = end;
        // A password may contain any of `/?#@` without an escape, so the last `@` counts.
        let at = match url.rfind('@') {
            Some(at) => Some(start + at),
            None if is_cut && end == text.len() => Some(end),
            None if has_password(url) => match at_on_the_line(text, end) {
                Some(at) => Some(at + text[at..ends(at).unwrap_or(text.len())].rfind('@').unwrap_or_default()),
                // No host: the text ends before it, or the password is not separated from it.
                None => Some(start + authority(url).len()),
            },
            None => None,
        };
        if let Some(at) = at {
            found.push(start..at);
            from = from.max(at);
        }
    }
}

/// The part before the path of a URL that has no scheme.
fn authority(url: &str) -> &str {
    let authority = url.split(['/', '?', '#']).next().unwrap_or_default();
    authority.trim_end_matches(|c: char| c.is_ascii_punctuation() && c != '*')
}

/// Whether a URL without an `@` has a password: behind a colon is something other than a port. The URL ended at a space in the
/// password, or has no host.
fn has_password(url: &str) -> bool {
    let is_port = |text: &str| text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_host = |host: &str| host.starts_with('[') || host.split_once(':').is_none_or(|(_, port)| is_port(port));
    // URLs of MongoDB and libpq list hosts.
    !authority(url).split(',').all(is_host)
}

/// The next `@` in the line, before any quote and any other URL.
fn at_on_the_line(text: &str, from: usize) -> Option<usize> {
    for (at, c) in text[from..].char_indices() {
        match c {
            '@' => return Some(from + at),
            '\n' | '\r' => return None,
            ':' if text[from + at..].starts_with("://") => return None,
            c if is_quote(c) => return None,
            _ => {}
        }
    }
    None
}

/// `user:password@host` without a scheme.
fn find_before_hosts(text: &str, found: &mut Vec<Range<usize>>) {
    let mut start = 0;
    let mut colon = None;
    let mut is_path = false;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            c if c.is_whitespace() || is_quote(c) || "()[]{},;=&|\\".contains(c) => {
                (start, colon, is_path) = (at + c.len_utf8(), None, false);
            }
            ':' if colon.is_none() => colon = Some(at),
            '/' => is_path |= colon.is_none_or(|colon| colon + 1 == at),
            '@' => {
                let has_both = colon.is_some_and(|colon| start < colon && colon + 1 < at);
                let has_host = chars.peek().is_some_and(|(_, c)| c.is_alphanumeric() || *c == '[');
                if has_both && has_host && !is_path {
                    found.push(start..at);
                }
            }
            _ => {}
        }
    }
}

/// The values behind words such as `password`: in connection strings, headers, JSON at any depth of escaping, SQL, XML,
/// arguments of a command line, URL-encoded forms, and in what `Debug` prints.
fn find_values(text: &str, found: &mut Vec<Range<usize>>) {
    let mut at = 0;
    while let Some(separator) = text[at..].find(['=', ':', '(', '"', '\'', ' ', '>', '%']) {
        at += separator;
        let head = &text[..at];
        // Other separators skip nothing, so that a run of blanks or quotes is not read again for each of them.
        let head = match text.as_bytes()[at] {
            b'=' | b':' => head.trim_end_matches([' ', '\t', '\n', '\r', '"', '\'', '`', '\\', ']']),
            b'"' | b'\'' => head.trim_end_matches(' '),
            _ => head,
        };
        let (before, word) = split_last_word(head);
        let value = match text.as_bytes()[at] {
            b'=' | b':' => assigned(text, at, word, before),
            // `Password("x")`
            b'(' if is_sensitive(word) => {
                let value = &text[at + 1..];
                let length = quoted(value).or_else(|| value.starts_with('[').then(|| bracketed(value, 0)));
                length.map(|length| at + 1..at + 1 + length)
            }
            // `PASSWORD 'x'`, `IDENTIFIED BY 'x'`
            b'"' | b'\'' if text[..at].ends_with(' ') && names_a_password(word, before) => {
                quoted(&text[at..]).map(|length| at..at + length)
            }
            // `--password x`
            b' ' if word.starts_with("--") && is_sensitive(word) => {
                let value = text[at..].trim_start_matches(' ');
                let start = text.len() - value.len();
                let is_value = !value.starts_with('-') && !value.starts_with(REDACTED);
                is_value.then(|| start..start + quoted(value).unwrap_or_else(|| bare(value)))
            }
            // `<password>x</password>`
            b'>' if before.ends_with('<') && is_sensitive(word) => {
                let value = &text[at + 1..];
                let length = value.find('<').unwrap_or(value.len());
                (length > 0 && !value.starts_with(REDACTED)).then(|| at + 1..at + 1 + length)
            }
            // `password%3Dx%26a%3Db`
            b'%' if is_sensitive(word) => encoded(&text[at..]).map(|value| at + value.start..at + value.end),
            b' ' if word.eq_ignore_ascii_case("bearer") => {
                let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
                let length = text[at + 1..].bytes().take_while(is_token).count();
                (length >= 16).then(|| at + 1..at + 1 + length)
            }
            _ => None,
        };
        match value {
            Some(range) => {
                at = range.end;
                found.push(range);
            }
            None => at += 1,
        }
    }
}

/// The text before the last word, and the word.
fn split_last_word(text: &str) -> (&str, &str) {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    text.split_at(text.len() - text.bytes().rev().take_while(is_word).count())
}

/// Words that name a credential as any part of a word, in which `_`, `-` and `.` are ignored.
const SENSITIVE: [&str; 12] = [
    "accesskey",
    "accountkey",
    "apikey",
    "authorization",
    "credential",
    "encryptionkey",
    "passphrase",
    "passwd",
    "password",
    "privatekey",
    "secret",
    "signingkey",
];

/// Words that name a credential only as the end of a word: `max_tokens` is not a credential.
const SENSITIVE_AT_THE_END: [&str; 4] = ["amzsignature", "cookie", "pwd", "token"];

fn is_sensitive(word: &str) -> bool {
    // Longer text is not a word.
    let word = &word[word.len().saturating_sub(64)..];
    let last = word.rsplit(['_', '-', '.']).next().unwrap_or_default();
    if ["pass", "sig"].iter().any(|short| last.eq_ignore_ascii_case(short)) {
        return true;
    }
    let word: String = word.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    let without_number = word.trim_end_matches(|c: char| c.is_ascii_digit());
    SENSITIVE.iter().any(|part| word.contains(part))
        || SENSITIVE_AT_THE_END.iter().any(|end| without_number.ends_with(end))
}

fn names_a_password(word: &str, before: &str) -> bool {
    let is_by = || word.eq_ignore_ascii_case("by") && ends_with_ignoring_case(before, "identified ");
    ["password", "passwd", "passphrase"].iter().any(|name| word.eq_ignore_ascii_case(name)) || is_by()
}

fn ends_with_ignoring_case(text: &str, end: &str) -> bool {
    let start = text.len().saturating_sub(end.len());
    text.get(start..).is_some_and(|tail| tail.eq_ignore_ascii_case(end))
}

/// The value that is assigned to a word by `=` or `:`.
fn assigned(text: &str, separator: usize, word: &str, before: &str) -> Option<Range<usize>> {
    if !is_sensitive(word) {
        return None;
    }
    // Also `=>`, `:=` and `==`. The value may be on the next line.
    let value = text[separator..].trim_start_matches(['=', ':', '>']);
    let value = without_indent(value);
    let start = text.len() - value.len();
    if let Some(length) = yaml_block(value) {
        return Some(start..start + length);
    }
    let rest = |prefix| value.strip_prefix(prefix).map(|rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric()));
    // No value is set, or the text of MySQL states whether a password was given, or the value is redacted already.
    let is_harmless = ["None", "null", REDACTED].into_iter().any(|harmless| rest(harmless) == Some(true))
        || (before.ends_with("using ") && ["YES)", "NO)"].iter().any(|harmless| value.starts_with(harmless)));
    if is_harmless || value.is_empty() {
        return None;
    }
    let mut length =
        quoted(value).or_else(|| header(word, value)).or_else(|| printed(value)).unwrap_or_else(|| bare(value));
    if continues(&value[length..]) {
        length += bare(&value[length..]);
    }
    (length > 0).then(|| start..start + length)
}

/// The length of a quoted value with its quotes, which may be escaped; `None` if it is not quoted.
fn quoted(value: &str) -> Option<usize> {
    let depth = value.bytes().take_while(|&byte| byte == b'\\').count();
    let quote = value[depth..].bytes().next().filter(|byte| b"\"'`".contains(byte))?;
    let bytes = value.as_bytes();
    let mut backslashes = 0;
    let mut at = depth + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => backslashes += 1,
            byte if byte == quote => {
                if backslashes < depth {
                    // It ends the text that contains this one.
                    return Some(at - backslashes);
                }
                // Each further level of escaping doubles the backslashes and adds one.
                if (backslashes - depth).is_multiple_of(2 * (depth + 1)) {
                    // SQL doubles a quote that is part of the value.
                    if depth > 0 || bytes.get(at + 1) != Some(&quote) {
                        return Some(at + 1);
                    }
                    at += 1;
                }
                backslashes = 0;
            }
            _ => backslashes = 0,
        }
        at += 1;
    }
    Some(value.len())
}

/// The value behind a percent-encoded `=` or `:`, as in a URL that is a parameter of another. It ends at an `&`, encoded or not.
fn encoded(text: &str) -> Option<Range<usize>> {
    let is = |at: usize, codes: &[&str]| {
        let code = text.get(at..at + 3);
        code.is_some_and(|code| codes.iter().any(|known| code.eq_ignore_ascii_case(known)))
    };
    if !is(0, &["%3d", "%3a"]) || text[3..].starts_with(REDACTED) {
        return None;
    }
    let ends =
        |&(at, c): &(usize, char)| c.is_whitespace() || is_quote(c) || c == '&' || (c == '%' && is(at, &["%26"]));
    let end = text.char_indices().skip(3).find(ends).map_or(text.len(), |(at, _)| at);
    (end > 3).then_some(3..end)
}

/// Line breaks, unescaped and as `Debug` and this module escape them.
const LINE_BREAKS: [&str; 6] = ["\r", "\n", "\\r", "\\n", "\\u{d}", "\\u{a}"];

/// The text behind blanks and line breaks.
fn without_indent(mut text: &str) -> &str {
    loop {
        text = text.trim_start();
        match LINE_BREAKS.iter().find_map(|line_break| text.strip_prefix(line_break)) {
            Some(rest) => text = rest,
            None => return text,
        }
    }
}

/// The length of a YAML block: `|` or `>`, and the indented lines below it.
fn yaml_block(value: &str) -> Option<usize> {
    let mut rest = value.strip_prefix(['|', '>'])?.trim_start_matches(['-', '+', ' ', '2', '4']);
    let mut length = None;
    loop {
        let line = LINE_BREAKS.iter().fold(rest, |rest, line_break| rest.strip_prefix(line_break).unwrap_or(rest));
        if line.len() == rest.len() || !line.starts_with([' ', '\t']) {
            return length;
        }
        let begins_break = |at: usize| LINE_BREAKS.iter().any(|line_break| line[at..].starts_with(line_break));
        let mut candidates = line.match_indices(['\n', '\r', '\\']).map(|(at, _)| at);
        let end = candidates.find(|&at| begins_break(at)).unwrap_or(line.len());
        rest = &line[end..];
        length = Some(value.len() - rest.len());
    }
}

/// The length of the value of a header with a special syntax.
fn header(word: &str, value: &str) -> Option<usize> {
    let line = value.find(['\n', '\r', '"', '\'']).unwrap_or(value.len());
    if ends_with_ignoring_case(word, "cookie") {
        return Some(line);
    }
    if !ends_with_ignoring_case(word, "authorization") {
        return None;
    }
    let (scheme, credentials) = value[..line].split_once(' ')?;
    let is = |schemes: &[&str]| schemes.iter().any(|known| scheme.eq_ignore_ascii_case(known));
    if is(&["apikey", "basic", "bearer", "negotiate", "ntlm", "token"]) {
        return Some(scheme.len() + 1 + bare(credentials));
    }
    if is(&["digest", "hawk", "signature"]) || scheme.starts_with("AWS4-") {
        return Some(value.find(['\n', '\r']).unwrap_or(value.len()));
    }
    None
}

/// The length of a value as `Debug` prints it, or JSON: `Some("x")`, `Secret { … }`, `[1, 2]`, `{…}`.
fn printed(value: &str) -> Option<usize> {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':');
    let name =
        if value.starts_with(|c: char| c.is_ascii_uppercase()) { value.bytes().take_while(is_name).count() } else { 0 };
    let rest = &value[name..];
    let space = usize::from(name > 0 && rest.starts_with(" {"));
    rest[space..].starts_with(['(', '[', '{']).then(|| bracketed(value, name + space))
}

/// The end of the text that begins with a bracket at `at`.
fn bracketed(value: &str, at: usize) -> usize {
    let bytes = value.as_bytes();
    let (mut at, mut depth, mut backslashes) = (at, 0_usize, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            b'"' => {
                at = at - backslashes + quoted(&value[at - backslashes..]).unwrap_or(backslashes + 1);
                backslashes = 0;
                continue;
            }
            _ => {}
        }
        backslashes = if bytes[at] == b'\\' { backslashes + 1 } else { 0 };
        at += 1;
    }
    value.len()
}

/// The length of an unquoted value. It ends at a blank, a quote, or a separator that is not part of it.
fn bare(value: &str) -> usize {
    let mut backslashes = 0;
    for (at, c) in value.char_indices() {
        let ends = match c {
            // libpq escapes a blank with a backslash.
            c if c.is_whitespace() => backslashes == 0,
            '"' | '\'' | '`' if !continues(&value[at + 1..]) => return at - backslashes,
            ';' | '&' | ',' | '}' => ends_value(&value[at + 1..]),
            _ => false,
        };
        if ends {
            return at;
        }
        backslashes = if c == '\\' { backslashes + 1 } else { 0 };
    }
    value.len()
}

/// Whether a separator ends a value, by the text behind it: the value may contain the separator.
fn ends_value(rest: &str) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let length = rest.bytes().take(64).take_while(is_word).count();
    match rest[length..].chars().next() {
        None => length == 0,
        Some('=' | ':') => length > 0,
        Some(c) => length == 0 && (c.is_whitespace() || "\"'`\\,;)]}".contains(c)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn userinfo_of_every_url_is_redacted() {
        for (text, redacted) in [
            (
                "postgres://bob:s3cret@db:5432/x and redis://:p@ss/w@cache \"amqp://a:b@q\" http://plain/",
                "postgres://***@db:5432/x and redis://***@cache \"amqp://***@q\" http://plain/",
            ),
            ("postgres://bob:my pass word@db:5432/x failed", "postgres://***@db:5432/x failed"),
            ("at redis://:a b@cache:6379, again", "at redis://***@cache:6379, again"),
            // Without a scheme, as in the text and the configuration of some drivers.
            ("cannot reach bob:s3cret@db:5432/x", "cannot reach ***@db:5432/x"),
            ("dsn=bob:s3cret@tcp(db:3306)/x", "dsn=***@tcp(db:3306)/x"),
            // Without a host, or with several.
            ("mysql://root:s3cret", "mysql://***"),
            ("in \"mysql://root:s3cret/app\".", "in \"mysql://***/app\"."),
            ("mongodb://a:27017,b:27018/x", "mongodb://a:27017,b:27018/x"),
            // Ports, IPv6 addresses, and e-mail addresses.
            ("http://proxy:8080 failed for bob@example.com", "http://proxy:8080 failed for bob@example.com"),
            ("http://[::1]:8080 failed for bob@example.com", "http://[::1]:8080 failed for bob@example.com"),
            ("no host in http://proxy: write to bob@example.com", "no host in http://proxy: write to bob@example.com"),
            ("Access denied for user 'bob'@'10.0.0.1'", "Access denied for user 'bob'@'10.0.0.1'"),
            ("user: bob@example.com, error:@", "user: bob@example.com, error:@"),
        ] {
            assert_eq!(redact(text, None), redacted);
            assert_eq!(redact(redacted, None), redacted);
        }
    }

    #[test]
    fn values_of_passwords_keys_and_tokens_are_redacted() {
        for (text, redacted) in [
            ("host=db Password=hunter2 user=bob; PWD='a b';x", "host=db Password=*** user=bob; PWD=***;x"),
            ("passwd: x, token = y", "passwd: ***, token = ***"),
            ("PGPASSWORD=x DB_PASS=y db.password: z", "PGPASSWORD=*** DB_PASS=*** db.password: ***"),
            ("password='it''s' a", "password=*** a"),
            (r"password=a\ b host=db", "password=*** host=db"),
            ("password=a,b;c&d host=db", "password=*** host=db"),
            ("user=bob,password=x,host=db;password=y&a=b", "user=bob,password=***,host=db;password=***&a=b"),
            // JSON, and JSON in a string of JSON, at any depth.
            (r#"{"password":"x y","a":1}"#, r#"{"password":***,"a":1}"#),
            (r#"{"password" : "a\"b\\","a":1}"#, r#"{"password" : ***,"a":1}"#),
            (r#"{\"password\":\"x\",\"a\":1}"#, r#"{\"password\":***,\"a\":1}"#),
            (r#"{\"password\":\"x\\\"y\\\\\",\"a\":1}"#, r#"{\"password\":***,\"a\":1}"#),
            (r#"{\\\"password\\\":\\\"x\\\",\\\"a\\\":1}"#, r#"{\\\"password\\\":***,\\\"a\\\":1}"#),
            (r#"{"dsn":"password=x","a":1}"#, r#"{"dsn":"password=***","a":1}"#),
            (r#"{\"dsn\":\"password=x\",\"a\":1}"#, r#"{\"dsn\":\"password=***\",\"a\":1}"#),
            (r#"{"secret":{"a":"}","b":[1]},"c":1}"#, r#"{"secret":***,"c":1}"#),
            // As `Debug` prints it.
            (
                r#"Config { user: "bob", password: Some("x"), port: 1 }"#,
                r#"Config { user: "bob", password: ***, port: 1 }"#,
            ),
            (r#"Config { password: Some(Secret("x)")), port: 1 }"#, "Config { password: ***, port: 1 }"),
            ("Config { password: Some([104, 117]), port: 1 }", "Config { password: ***, port: 1 }"),
            ("Config { password: None, token: null }", "Config { password: None, token: null }"),
            (r#"[Password("x"), SecretString("y")]"#, "[Password(***), SecretString(***)]"),
            ("{:password=>\"x\", b: 1}", "{:password=>***, b: 1}"),
            // Keys and tokens of services.
            ("api_key=x apikey=x api-key: x X-Api-Key: x", "api_key=*** apikey=*** api-key: *** X-Api-Key: ***"),
            (
                "aws_secret_access_key=x access_key_id=x AccountKey=x==;a=b",
                "aws_secret_access_key=*** access_key_id=*** AccountKey=***;a=b",
            ),
            (
                "client_secret=x&private_key=x&access_token=x&a=b",
                "client_secret=***&private_key=***&access_token=***&a=b",
            ),
            ("?X-Amz-Signature=x&sig=y&a=b", "?X-Amz-Signature=***&sig=***&a=b"),
            // Headers.
            ("Authorization: Bearer abc.def; more", "Authorization: ***; more"),
            ("authorization: token abc, more", "authorization: ***, more"),
            ("Authorization: Digest username=\"bob\", response=\"x\"\nmore", "Authorization: ***\\nmore"),
            ("Cookie: a=b; c=d\r\nHost: h", "Cookie: ***\\r\\nHost: h"),
            (r#"{"set-cookie": "a=b; c=d", "host": "h"}"#, r#"{"set-cookie": ***, "host": "h"}"#),
            ("rejected: Bearer abcdefgh12345678, more", "rejected: Bearer ***, more"),
            // SQL.
            ("ALTER USER bob PASSWORD 'x' LOGIN", "ALTER USER bob PASSWORD *** LOGIN"),
            ("CREATE USER bob IDENTIFIED BY 'x' a", "CREATE USER bob IDENTIFIED BY *** a"),
            // Arguments, XML, forms.
            ("psql --password hunter2 --host db", "psql --password *** --host db"),
            ("app --api-key='a b' --password --host db", "app --api-key=*** --password --host db"),
            ("<user>bob</user><password>x y</password>", "<user>bob</user><password>***</password>"),
            ("/auth?next=%2Flogin%3Fpassword%3Dx%26a%3Db", "/auth?next=%2Flogin%3Fpassword%3D***%26a%3Db"),
            ("token%3ax&a=b", "token%3a***&a=b"),
            // Values on another line.
            ("password\n=\nx y", "password\\n=\\n*** y"),
            ("secret:\r\n  x\nhost: db", "secret:\\r\\n  ***\\nhost: db"),
            ("secret: |-\n  x\r\n  y\r\nhost: db", "secret: ***\\r\\nhost: db"),
            (r#"Config("secret: |\n  x\nhost: db")"#, r#"Config("secret: ***\nhost: db")"#),
            ("secret: | x", "secret: *** x"),
            ("password=", "password="),
            ("password='", "password=***"),
            ("password=Some(", "password=***"),
        ] {
            assert_eq!(redact(text, None), redacted, "{text}");
            assert_eq!(redact(redacted, None), redacted, "{text}");
        }
    }

    #[test]
    fn other_text_is_unchanged() {
        for text in [
            "password authentication failed for user \"bob\"",
            "Access denied for user 'bob'@'localhost' (using password: YES)",
            "Access denied for user 'bob'@'localhost' (using password: NO)",
            "no password supplied; the server requested SCRAM authentication",
            "duplicate key value violates unique constraint \"users_pkey\": Key (id)=(5) already exists",
            "expected `}`, found token \"foo\" at line 3",
            "the Bearer authentication scheme is required",
            "compass: north, secretary and tokens",
            "key=value; primary: 5",
            "redis at 127.0.0.1:6379",
            "sha256:0123456789abcdef",
        ] {
            assert_eq!(redact(text, None), text);
        }
    }

    #[test]
    fn long_text_is_cut() {
        let text = redact(&"ü".repeat(100_000), None);
        assert!(text.len() < 4200 && text.ends_with('…'));
    }

    #[test]
    fn a_secret_that_begins_before_the_cut_is_redacted() {
        for distance in 0..60 {
            let before = "x".repeat(MAX_LEN - distance);
            for (secret, known) in [
                ("postgres://bob:hunter2hunter2hunter2@db:5432/app", None),
                ("bob:hunter2hunter2hunter2@db:5432/app", None),
                ("postgres://bob:hunter2 hunter2 hunter2@db:5432/app", None),
                ("password=hunter2hunter2hunter2", None),
                (r#"{\"password\":\"hunter2hunter2hunter2\"}"#, None),
                (r#"password: Some("hunter2hunter2hunter2")"#, None),
                ("is hunter2hunter2hunter2", Some("hunter2hunter2hunter2")),
            ] {
                let text = format!("{before} {secret} {}", "y".repeat(10_000));
                let redacted = redact(&text, known);
                assert!(!redacted.contains("hu"), "{distance}: {}", &redacted[MAX_LEN - 80..]);
                assert!(redacted.len() < MAX_LEN + 100);
            }
        }
        // Redaction before the cut does not move the cut.
        let text = "hunter2hunter2 ".repeat(1_000);
        assert!(!redact(&text, Some("hunter2hunter2")).contains("hu"));
    }

    #[test]
    fn the_work_is_linear() {
        for piece in [
            "password:\n",
            "password: |\n ",
            "--password ",
            "<password>",
            "password%3D",
            "password=",
            "password",
            "://",
            "a:b@",
            "\\\"",
            "Some(",
            "(",
            "password:(",
            "=,",
            "'",
            "@",
            ": ",
        ] {
            let time = |length: usize| {
                let text = piece.repeat(length / piece.len());
                let times = (0..5).map(|_| {
                    let started = Instant::now();
                    redact(&text, None);
                    started.elapsed()
                });
                times.min().unwrap().max(Duration::from_micros(1))
            };
            // Measured again if the machine was busy with something else.
            let is_less = |short: usize, long: usize, factor: u32| (0..20).any(|_| time(long) < time(short) * factor);
            // Both are cut, so the work is the same. It would be 400 times as much if it were quadratic.
            assert!(is_less(20 << 10, 400 << 10, 20), "{piece:?}");
            // Below the cut, it is 16 times as much, and would be 256 times as much.
            assert!(is_less(MAX_LEN / 16, MAX_LEN, 100), "{piece:?}");
        }
    }

    #[test]
    fn a_label_is_printable_and_redacted_and_idempotent() {
        let long = "é".repeat(MAX_LABEL_LEN);
        let cut = format!("{}…", "é".repeat(MAX_LABEL_LEN / 2));
        for (text, expected) in [
            ("orders.eu-1", "orders.eu-1"),
            ("a b ü 😀", "a b ü 😀"),
            ("postgres://bob:s3cret@db:5432/app", "postgres://***@db:5432/app"),
            ("host=db password=x", "host=db password=***"),
            ("a\nb\u{1b}[2J\u{202e}c", "a\\u{a}b\\u{1b}[2J\\u{202e}c"),
            (&*long, &*cut),
        ] {
            assert_eq!(label(text), expected);
            assert_eq!(label(expected), expected);
        }
    }

    #[test]
    fn a_known_secret_is_redacted_anywhere() {
        assert_eq!(redact("near \"s3cret\": s3cret!", Some("s3cret")), "near \"***\": ***!");
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(redact("a\nERROR forged\u{1b}[0m\u{2028}", None), "a\\nERROR forged\\u{1b}[0m\\u{2028}");
        assert_eq!(redact("a\u{202e}b\u{2066}c\u{200f}", None), "a\\u{202e}b\\u{2066}c\\u{200f}");
    }
}
