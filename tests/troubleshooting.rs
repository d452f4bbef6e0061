//! The guide has a row for each message of the library, and for each compile error of the derive.
//!
//! A row quotes messages in its first column. `…` stands for what varies, or for a part that is left out.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::Lit;

const PAGE: &str = include_str!("../docs/guide/troubleshooting.md");

/// The modules without messages: formats of responses.
const FORMATS: &str = "render";

/// Other texts in the sources: media types, and parts of the texts of drivers.
const OTHER_TEXTS: [&str; 15] = [
    "charset=",
    "health json",
    "database is locked",
    "no more connections allowed",
    "out of memory",
    "tunnel error",
    "severity: ",
    "addr: Tcp(",
    "address: HostPort",
    "blocked: true",
    "vfs: None",
    "inner: Status",
    "kind: Tls",
    "options: ClientOptions",
    "password: ",
];

#[test]
fn each_message_has_a_row_and_each_row_a_message() {
    assert_rows_match(&section("## Messages", "## Compile errors"), &messages(), quotes);
}

#[test]
fn each_compile_error_has_a_row_and_each_row_a_compile_error() {
    assert_rows_match(&section("## Compile errors", ""), &compile_errors(), describes);
}

fn assert_rows_match(rows: &BTreeSet<String>, messages: &BTreeSet<String>, matches: fn(&str, &str) -> bool) {
    let without_row: Vec<_> = messages.iter().filter(|message| !rows.iter().any(|row| matches(row, message))).collect();
    let stale: Vec<_> = rows.iter().filter(|row| !messages.iter().any(|message| matches(row, message))).collect();
    assert!(
        without_row.is_empty() && stale.is_empty(),
        "docs/guide/troubleshooting.md\nhas no row for these messages: {without_row:#?}\nhas rows without a message: {stale:#?}"
    );
}

/// The quoted messages of the tables of a section.
fn section(begin: &str, end: &str) -> BTreeSet<String> {
    let (_, rest) = PAGE.split_once(begin).unwrap();
    let text = if end.is_empty() { rest } else { rest.split_once(end).unwrap().0 };
    let cells = text.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    cells.flat_map(|cell| quoted(&format!("`{cell}"))).collect()
}

/// The code spans of a text. A span that contains backticks is in double ones, with spaces.
fn quoted(text: &str) -> Vec<String> {
    let mut spans = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('`') {
        rest = &rest[start..];
        let fence = &rest[..rest.len() - rest.trim_start_matches('`').len()];
        let (span, after) =
            rest[fence.len()..].split_once(fence).unwrap_or_else(|| panic!("an open code span: {text}"));
        spans.push(span.trim().to_owned());
        rest = after;
    }
    spans
}

/// Whether the row quotes the message, or at least three words from which it begins.
fn quotes(row: &str, message: &str) -> bool {
    let is_beginning = |begin: &str| words(begin) >= 3 && message.starts_with(begin.trim_end());
    row == message || row.strip_suffix('…').is_some_and(is_beginning)
}

/// Whether the parts of the row between its `…` are in a compile error, in that order, from its start to its end. A compile error
/// shows the values that were inserted into it.
fn describes(row: &str, error: &str) -> bool {
    let mut parts = row.split('…').map(str::trim);
    let Some(mut rest) = parts.next().and_then(|first| error.strip_prefix(first)) else { return false };
    let mut ends_with = "";
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        (rest, ends_with) = (after, part);
    }
    rest.is_empty() || ends_with.is_empty()
}

fn words(text: &str) -> usize {
    let is_word = |word: &&str| word.len() > 1 && word.chars().all(|c| c.is_alphabetic() || "-'.,:;".contains(c));
    text.split_whitespace().filter(is_word).count()
}

/// The texts of errors and log lines in the sources: literals that begin in lower case and have at least two words. What is inserted
/// into them is replaced by `…`.
fn messages() -> BTreeSet<String> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../health/src");
    let mut files = Vec::new();
    find_sources(&sources, &mut files);
    let mut texts = Vec::new();
    let mut test_files = BTreeSet::new();
    for file in &files {
        let code = fs::read_to_string(file).unwrap().parse().unwrap();
        let mut found = Literals::default();
        found.collect(code);
        texts.extend(found.texts.into_iter().map(|text| (file, text)));
        test_files.extend(found.test_modules.into_iter().map(|name| file.with_file_name(name + ".rs")));
    }
    let texts =
        texts.into_iter().filter(|(file, _)| !test_files.contains(*file)).map(|(_, text)| without_arguments(&text));
    let texts: BTreeSet<_> = texts.filter(|text| is_message(text)).collect();
    assert!(texts.len() > 100, "{texts:?}");
    texts
}

fn is_message(text: &str) -> bool {
    text.starts_with(|first: char| first.is_lowercase() || "`….".contains(first))
        && words(text) >= 2
        && !is_debug_output(text)
        && !OTHER_TEXTS.iter().any(|other| text.contains(other))
}

/// Whether a text begins as the fields of a struct in `Debug` output do: `kind: Tls`. Some drivers show a kind only there.
fn is_debug_output(text: &str) -> bool {
    let Some((name, value)) = text.split_once(": ") else { return false };
    name.chars().all(|c| c.is_lowercase() || c == '_')
        && (value.starts_with(char::is_uppercase) || value.starts_with("…, ") || ["true", "false"].contains(&value))
}

fn find_sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with(FORMATS) {
            find_sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// A format string with `…` for each argument.
fn without_arguments(format: &str) -> String {
    let mut text = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        text.push('…');
        rest = after.split_once('}').map_or("", |(_, after)| after);
    }
    text + rest
}

/// The string literals of a file outside tests, comments, attributes and assertions. Of attributes, `display` has messages.
#[derive(Default)]
struct Literals {
    texts: Vec<String>,
    /// The modules `#[cfg(test)] mod name;`, which are files.
    test_modules: Vec<String>,
}

impl Literals {
    fn collect(&mut self, code: TokenStream) {
        let mut tokens = code.into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Punct(mark) if mark.as_char() == '#' => {
                    tokens.next_if(|next| is_punct(next, '!'));
                    let Some(TokenTree::Group(attribute)) = tokens.next_if(|next| is_group(next, Delimiter::Bracket))
                    else {
                        continue;
                    };
                    match &*attribute.stream().to_string().replace(' ', "") {
                        "cfg(test)" => self.skip_item(&mut tokens),
                        text if text.starts_with("display(") => self.collect(attribute.stream()),
                        _ => {}
                    }
                }
                TokenTree::Ident(name) if is_assertion(&name.to_string()) => {
                    tokens.next_if(|next| is_punct(next, '!'));
                    tokens.next_if(|next| is_group(next, Delimiter::Parenthesis));
                }
                TokenTree::Group(group) => self.collect(group.stream()),
                TokenTree::Literal(literal) => {
                    if let Lit::Str(text) = Lit::new(literal) {
                        self.texts.push(text.value());
                    }
                }
                TokenTree::Punct(_) | TokenTree::Ident(_) => {}
            }
        }
    }

    /// Skips an item after its attribute `cfg(test)`, up to its body or semicolon.
    fn skip_item(&mut self, tokens: &mut impl Iterator<Item = TokenTree>) {
        let item: Vec<_> =
            tokens.take_while(|next| !is_group(next, Delimiter::Brace) && !is_punct(next, ';')).collect();
        if let [.., TokenTree::Ident(keyword), TokenTree::Ident(name)] = &*item
            && keyword == "mod"
        {
            self.test_modules.push(name.to_string());
        }
    }
}

fn is_assertion(name: &str) -> bool {
    ["assert", "assert_eq", "assert_ne", "debug_assert", "expect", "panic", "unreachable"].contains(&name)
}

fn is_punct(token: &TokenTree, mark: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == mark)
}

fn is_group(token: &TokenTree, delimiter: Delimiter) -> bool {
    matches!(token, TokenTree::Group(group) if group.delimiter() == delimiter)
}

/// The errors that the UI tests of the derive expect, without their codes.
fn compile_errors() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("compile-errors/ui");
    let outputs = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let outputs = outputs.filter(|path| path.extension().is_some_and(|extension| extension == "stderr"));
    let errors: BTreeSet<_> = outputs.flat_map(|path| errors_of(&fs::read_to_string(path).unwrap())).collect();
    assert!(errors.len() > 50, "{errors:?}");
    errors
}

fn errors_of(output: &str) -> Vec<String> {
    let errors = output.lines().filter(|line| line.starts_with("error"));
    let texts = errors.filter_map(|line| line.split_once(": ").map(|(_, text)| text));
    texts.map(|text| text.strip_prefix("evaluation panicked: ").unwrap_or(text).to_owned()).collect()
}
