//! The attributes, each with the tokens it was written with.

use proc_macro2::TokenStream;
use quote::ToTokens as _;
use syn::{Attribute, Expr, ExprLit, Lit, LitStr, Meta, Path, Token, punctuated::Punctuated};

use crate::errors::Errors;

#[derive(Default)]
pub(crate) struct Struct {
    pub(crate) strict: Option<Word>,
    pub(crate) krate: Option<Path>,
}

#[derive(Default)]
pub(crate) struct Field {
    pub(crate) skip: Option<Word>,
    pub(crate) probe: Option<Word>,
    pub(crate) with: Option<Path>,
    pub(crate) name: Option<LitStr>,
    pub(crate) group: Option<LitStr>,
    pub(crate) optional: Option<Word>,
    pub(crate) timeout: Option<Timeout>,
    pub(crate) live: Option<Word>,
    pub(crate) flatten: Option<Word>,
    /// Any of them was written.
    pub(crate) written: Vec<TokenStream>,
}

/// An attribute that is a word.
pub(crate) struct Word(pub(crate) Path);

pub(crate) struct Timeout {
    pub(crate) ms: u64,
}

const ON_STRUCTS: &str = "`strict` and `crate = path`";
const ON_FIELDS: &str = "`skip`, `probe`, `with = path`, `name = \"…\"`, `group = \"…\"`, `optional`, `timeout = \"…\"`, `live` and `flatten`";

impl Struct {
    pub(crate) fn parse(attrs: &[Attribute], errors: &mut Errors) -> Self {
        let mut this = Self::default();
        for meta in metas(attrs, errors) {
            match &*key(&meta) {
                "strict" => set(&mut this.strict, word(&meta, errors), &meta, errors),
                "crate" => set(&mut this.krate, path(&meta, errors), &meta, errors),
                key if Field::KEYS.contains(&key) => {
                    errors
                        .at(meta.path(), format!("`{key}` belongs on a field; on the struct, there are {ON_STRUCTS}"));
                }
                key => errors
                    .at(meta.path(), format!("there is no attribute `{key}`; on the struct, there are {ON_STRUCTS}")),
            }
        }
        this
    }
}

impl Field {
    const KEYS: [&'static str; 9] =
        ["skip", "probe", "with", "name", "group", "optional", "timeout", "live", "flatten"];

    pub(crate) fn parse(attrs: &[Attribute], errors: &mut Errors) -> Self {
        let mut this = Self::default();
        for meta in metas(attrs, errors) {
            this.written.push(meta.path().to_token_stream());
            match &*key(&meta) {
                "skip" => set(&mut this.skip, word(&meta, errors), &meta, errors),
                "probe" => set(&mut this.probe, word(&meta, errors), &meta, errors),
                "with" => set(&mut this.with, path(&meta, errors), &meta, errors),
                "name" => set(&mut this.name, text(&meta, errors), &meta, errors),
                "group" => set(&mut this.group, text(&meta, errors), &meta, errors),
                "optional" => set(&mut this.optional, word(&meta, errors), &meta, errors),
                "timeout" => set(&mut this.timeout, timeout(&meta, errors), &meta, errors),
                "live" => set(&mut this.live, word(&meta, errors), &meta, errors),
                "flatten" => set(&mut this.flatten, word(&meta, errors), &meta, errors),
                key @ ("strict" | "crate") => {
                    errors.at(meta.path(), format!("`{key}` belongs on the struct; on a field, there are {ON_FIELDS}"));
                }
                key => {
                    errors.at(meta.path(), format!("there is no attribute `{key}`; on a field, there are {ON_FIELDS}"));
                }
            }
        }
        this
    }
}

/// Every item of every `#[health(…)]`.
fn metas(attrs: &[Attribute], errors: &mut Errors) -> Vec<Meta> {
    let mut metas = Vec::new();
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("health")) {
        match attr.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated) {
            Ok(items) if items.is_empty() => errors.at(attr, "expected an attribute, as in `#[health(skip)]`"),
            Ok(items) => metas.extend(items),
            Err(error) => errors.push(error),
        }
    }
    metas
}

fn key(meta: &Meta) -> String {
    meta.path().to_token_stream().to_string()
}

fn set<T>(slot: &mut Option<T>, value: Option<T>, meta: &Meta, errors: &mut Errors) {
    if let Some(value) = value
        && slot.replace(value).is_some()
    {
        errors.at(meta.path(), format!("`{}` is written twice", key(meta)));
    }
}

fn word(meta: &Meta, errors: &mut Errors) -> Option<Word> {
    if let Meta::Path(path) = meta {
        return Some(Word(path.clone()));
    }
    errors.at(meta, format!("`{}` takes no value", key(meta)));
    None
}

fn path(meta: &Meta, errors: &mut Errors) -> Option<Path> {
    match value(meta) {
        Some(Expr::Path(path)) if path.qself.is_none() => Some(path.path.clone()),
        _ => {
            errors.at(meta, format!("expected a path, as in `{} = some::path`", key(meta)));
            None
        }
    }
}

fn text(meta: &Meta, errors: &mut Errors) -> Option<LitStr> {
    match value(meta) {
        Some(Expr::Lit(ExprLit { lit: Lit::Str(text), .. })) => Some(text.clone()),
        _ => {
            errors.at(meta, format!("expected a text, as in `{} = \"…\"`", key(meta)));
            None
        }
    }
}

fn timeout(meta: &Meta, errors: &mut Errors) -> Option<Timeout> {
    let text = text(meta, errors)?;
    let ms = milliseconds(&text.value()).filter(|&ms| ms > 0);
    if ms.is_none() {
        errors.at(&text, "expected a time above zero in `ms` or `s`, as in `250ms` or `2s`");
    }
    Some(Timeout { ms: ms? })
}

fn milliseconds(text: &str) -> Option<u64> {
    let (digits, factor) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 1),
        None => (text.strip_suffix('s')?, 1000),
    };
    // `parse` alone would take a sign.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

fn value(meta: &Meta) -> Option<&Expr> {
    let Meta::NameValue(pair) = meta else { return None };
    let mut value = &pair.value;
    // What a macro by example fills in comes in a group.
    while let Expr::Group(group) = value {
        value = &group.expr;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::milliseconds;

    #[test]
    fn times_are_whole_numbers_with_a_unit() {
        assert_eq!(milliseconds("250ms"), Some(250));
        assert_eq!(milliseconds("2s"), Some(2000));
        for malformed in [
            "",
            "ms",
            "s",
            "250",
            "1.5s",
            "+1s",
            "-1s",
            " 1s",
            "1 s",
            "1m",
            "1S",
            "99999999999999999999s",
            "18446744073709552s",
        ] {
            assert_eq!(milliseconds(malformed), None, "{malformed:?}");
        }
    }
}
