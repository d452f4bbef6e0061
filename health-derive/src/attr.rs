//! The attributes, each with the tokens that errors about it point to.

use std::time::Duration;

use quote::ToTokens as _;
use syn::{Attribute, Expr, ExprLit, Lit, LitStr, Meta, Path, Token, punctuated::Punctuated};

use crate::errors::Errors;

#[derive(Default)]
pub(crate) struct Struct {
    pub(crate) strict: Option<Flag>,
    pub(crate) name: Option<LitStr>,
    pub(crate) krate: Option<Path>,
}

#[derive(Default)]
pub(crate) struct Field {
    pub(crate) skip: Option<Flag>,
    pub(crate) probe: Option<Flag>,
    pub(crate) with: Option<Path>,
    pub(crate) name: Option<LitStr>,
    pub(crate) group: Option<LitStr>,
    pub(crate) critical: Option<Flag>,
    pub(crate) optional: Option<Flag>,
    pub(crate) shared: Option<Flag>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) max_age: Option<Duration>,
    pub(crate) rise: Option<u32>,
    pub(crate) fall: Option<u32>,
    pub(crate) live: Option<Flag>,
    pub(crate) flatten: Option<Flag>,
    /// The names of all attributes that are present, in their order.
    pub(crate) present: Vec<Path>,
}

/// An attribute without a value.
pub(crate) struct Flag(pub(crate) Path);

const ON_STRUCTS: &str = "`strict`, `name = \"…\"` and `crate = path`";

const FIELD_KEYS: &str = "skip probe with name group critical optional shared timeout max_age rise fall live flatten";

const ON_FIELDS: &str = "`skip`, `probe`, `with = path`, `name = \"…\"`, `group = \"…\"`, `critical`, `optional`, `shared`, \
                         `timeout = \"…\"`, `max_age = \"…\"`, `rise = 2`, `fall = 3`, `live` and `flatten`";

impl Struct {
    pub(crate) fn parse(attrs: &[Attribute], errors: &mut Errors) -> Self {
        let mut this = Self::default();
        for meta in metas(attrs, errors) {
            match &*key(&meta) {
                "strict" => set(&mut this.strict, flag(&meta, errors), &meta, errors),
                "name" => set(&mut this.name, string(&meta, errors), &meta, errors),
                "crate" => set(&mut this.krate, path(&meta, errors), &meta, errors),
                key if FIELD_KEYS.split(' ').any(|known| known == key) => {
                    errors.push_at(meta.path(), format!("not expected here; `{key}` belongs on a field"));
                }
                key => errors.push_at(
                    meta.path(),
                    format!("unknown attribute `{key}`; the attributes of a struct are {ON_STRUCTS}"),
                ),
            }
        }
        this
    }
}

impl Field {
    pub(crate) fn parse(attrs: &[Attribute], errors: &mut Errors) -> Self {
        let mut this = Self::default();
        for meta in metas(attrs, errors) {
            this.present.push(meta.path().clone());
            match &*key(&meta) {
                "skip" => set(&mut this.skip, flag(&meta, errors), &meta, errors),
                "probe" => set(&mut this.probe, flag(&meta, errors), &meta, errors),
                "with" => set(&mut this.with, path(&meta, errors), &meta, errors),
                "name" => set(&mut this.name, string(&meta, errors), &meta, errors),
                "group" => set(&mut this.group, string(&meta, errors), &meta, errors),
                "critical" => set(&mut this.critical, flag(&meta, errors), &meta, errors),
                "optional" => set(&mut this.optional, flag(&meta, errors), &meta, errors),
                "shared" => set(&mut this.shared, flag(&meta, errors), &meta, errors),
                "timeout" => set(&mut this.timeout, timeout(&meta, errors), &meta, errors),
                "max_age" => set(&mut this.max_age, duration(&meta, errors), &meta, errors),
                "rise" => set(&mut this.rise, count(&meta, errors), &meta, errors),
                "fall" => set(&mut this.fall, count(&meta, errors), &meta, errors),
                "live" => set(&mut this.live, flag(&meta, errors), &meta, errors),
                "flatten" => set(&mut this.flatten, flag(&meta, errors), &meta, errors),
                key @ ("strict" | "crate") => {
                    errors.push_at(meta.path(), format!("not expected here; `{key}` belongs on the struct"));
                }
                key => errors.push_at(
                    meta.path(),
                    format!("unknown attribute `{key}`; the attributes of a field are {ON_FIELDS}"),
                ),
            }
        }
        this
    }
}

/// The items of all `#[health(…)]`.
fn metas(attrs: &[Attribute], errors: &mut Errors) -> Vec<Meta> {
    let mut metas = Vec::new();
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("health")) {
        match attr.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated) {
            Ok(items) if items.is_empty() => errors.push_at(attr, "expected an attribute, as in `#[health(skip)]`"),
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
        errors.push_at(meta.path(), format!("duplicate attribute `{}`", key(meta)));
    }
}

fn flag(meta: &Meta, errors: &mut Errors) -> Option<Flag> {
    if let Meta::Path(path) = meta {
        return Some(Flag(path.clone()));
    }
    errors.push_at(meta, format!("`{}` takes no value", key(meta)));
    None
}

fn path(meta: &Meta, errors: &mut Errors) -> Option<Path> {
    match value(meta) {
        Some(Expr::Path(path)) if path.qself.is_none() => Some(path.path.clone()),
        _ => {
            errors.push_at(meta, format!("expected a path, as in `{} = some::path`", key(meta)));
            None
        }
    }
}

fn string(meta: &Meta, errors: &mut Errors) -> Option<LitStr> {
    match value(meta) {
        Some(Expr::Lit(ExprLit { lit: Lit::Str(string), .. })) => Some(string.clone()),
        _ => {
            errors.push_at(meta, format!("expected a string, as in `{} = \"…\"`", key(meta)));
            None
        }
    }
}

fn timeout(meta: &Meta, errors: &mut Errors) -> Option<Duration> {
    let timeout = duration(meta, errors)?;
    if timeout.is_zero() {
        errors.push_at(value(meta), "`timeout` must be greater than zero");
    }
    Some(timeout)
}

fn duration(meta: &Meta, errors: &mut Errors) -> Option<Duration> {
    let string = string(meta, errors)?;
    let milliseconds = milliseconds(&string.value());
    if milliseconds.is_none() {
        let (key, value) = (key(meta), string.value());
        errors.push_at(
            &string,
            format!("invalid {key} {value:?}: expected a whole number with the unit `ms` or `s`, as in \"250ms\""),
        );
    }
    milliseconds.map(Duration::from_millis)
}

fn count(meta: &Meta, errors: &mut Errors) -> Option<u32> {
    let count = match value(meta) {
        Some(Expr::Lit(ExprLit { lit: Lit::Int(count), .. })) => count.base10_parse().ok().filter(|&count| count > 0),
        _ => None,
    };
    if count.is_none() {
        errors.push_at(meta, format!("expected a whole number greater than zero, as in `{} = 2`", key(meta)));
    }
    count
}

fn milliseconds(text: &str) -> Option<u64> {
    let (digits, factor) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 1),
        None => (text.strip_suffix('s')?, 1000),
    };
    // `parse` accepts a sign.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

fn value(meta: &Meta) -> Option<&Expr> {
    let Meta::NameValue(pair) = meta else { return None };
    let mut value = &pair.value;
    // An expression that `macro_rules!` substituted is in an invisible group.
    while let Expr::Group(group) = value {
        value = &group.expr;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    #[test]
    fn timeouts_are_whole_numbers_with_a_unit() {
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

    #[test]
    fn words_that_only_describe_a_value_are_unknown_attributes_of_a_struct() {
        let error_of = |attribute: Attribute| {
            let mut errors = Errors::default();
            Struct::parse(&[attribute], &mut errors);
            errors.finish().unwrap_err().to_string()
        };
        assert!(error_of(parse_quote!(#[health(path)])).starts_with("unknown attribute `path`"));
        assert!(error_of(parse_quote!(#[health(and)])).starts_with("unknown attribute `and`"));
        assert!(error_of(parse_quote!(#[health(flatten)])).contains("belongs on a field"));
    }
}
