//! The rules that need no types, one function each. `expand` generates assertions for the others.

use quote::ToTokens as _;
use syn::{LitStr, Member, Path};

use crate::{
    ast::{Field, Struct},
    errors::Errors,
    types,
};

/// Group names that are reserved for paths of a scope.
const RESERVED_GROUPS: [&str; 11] =
    ["health", "live", "ready", "startup", "metrics", "page", "schema", "history", "events", "status", "openapi.json"];

pub(crate) fn validate(state: &Struct<'_>, errors: &mut Errors) {
    check_not_all_skipped(state, errors);
    for field in &state.fields {
        check_skip(field, errors);
        check_role(field, errors);
        check_with(field, errors);
        check_flatten(field, errors);
        check_tuple_field_is_named(field, state, errors);
        check_path_segments(field, errors);
    }
    if let Some(name) = &state.attrs.name {
        check_path_segment("name", name, errors);
    }
    check_duplicates(state, errors);
}

fn check_not_all_skipped(state: &Struct<'_>, errors: &mut Errors) {
    if state.fields.iter().all(|field| field.attrs.skip.is_some()) {
        let ident = &state.original.ident;
        let reason = if state.fields.is_empty() { "it has no fields" } else { "all of its fields are skipped" };
        errors.push_at(ident, format!("nothing in `{ident}` is probed: {reason}"));
    }
}

fn check_skip(field: &Field, errors: &mut Errors) {
    let is_skipped = field.attrs.skip.is_some();
    for other in field.attrs.present.iter().filter(|other| is_skipped && !other.is_ident("skip")) {
        let key = other.to_token_stream();
        errors.push_at(other, format!("not expected here; `{key}` has no effect on a field that is skipped"));
    }
}

fn check_role(field: &Field, errors: &mut Errors) {
    let is_role = |path: &&Path| ["critical", "optional", "shared"].iter().any(|role| path.is_ident(role));
    let mut roles = field.attrs.present.iter().filter(is_role);
    if let Some(first) = roles.next()
        && let Some(later) = roles.rfind(|later| later.get_ident() != first.get_ident())
    {
        errors.push_at(later, "not expected here; a check has one role: `critical`, `optional` or `shared`");
    }
}

fn check_with(field: &Field, errors: &mut Errors) {
    if field.attrs.with.is_none() {
        return;
    }
    if let Some(probe) = &field.attrs.probe {
        errors.push_at(&probe.0, "not expected here; `with` already sets how the field is probed");
    }
    if let Some(cell) = types::unshared_cell(&field.ty) {
        errors.push_at(
            &field.ty,
            format!(
                "`with` would probe a copy of this `{cell}`, which later changes do not reach: put it in an `Arc`, as in \
                 `Arc<{cell}<…>>`"
            ),
        );
    }
}

fn check_flatten(field: &Field, errors: &mut Errors) {
    if let (Some(_), Some(name)) = (&field.attrs.flatten, &field.attrs.name) {
        errors.push_at(name, "not expected here; `flatten` leaves the name out, so remove `name` or `flatten`");
    }
}

fn check_tuple_field_is_named(field: &Field, state: &Struct<'_>, errors: &mut Errors) {
    let attrs = &field.attrs;
    let needs_name = attrs.name.is_none() && attrs.skip.is_none() && attrs.flatten.is_none() && !state.is_newtype();
    if needs_name && matches!(field.member, Member::Unnamed(_)) {
        errors.push_at(&field.ty, "a tuple field has no name: add `#[health(name = \"…\")]`, or `#[health(skip)]`");
    }
}

fn check_path_segments(field: &Field, errors: &mut Errors) {
    if let Some(name) = &field.attrs.name {
        check_path_segment("name", name, errors);
    }
    if let Some(group) = &field.attrs.group {
        check_path_segment("group", group, errors);
        let value = group.value();
        if RESERVED_GROUPS.contains(&&*value) {
            errors.push_at(group, format!("`{value}` is reserved for paths of the scope: use another group"));
        }
    }
}

fn check_path_segment(key: &str, text: &LitStr, errors: &mut Errors) {
    let value = text.value();
    if value.is_empty() {
        errors.push_at(text, format!("`{key}` must not be empty"));
    } else if value == "." || value == ".." || value.contains(char::is_control) {
        errors.push_at(
            text,
            format!("invalid {key} {value:?}: it cannot be a segment of a path, as in `/health/group/name`"),
        );
    }
}

/// Compares the fields whose groups are written as attributes.
fn check_duplicates(state: &Struct<'_>, errors: &mut Errors) {
    for (earlier, later) in state.same_names() {
        if let (Some(group), Some(earlier_group)) = (later.group(), earlier.group())
            && group == earlier_group
        {
            let message = format!(
                "duplicate check `{group}.{}`: set another name or group on one of the fields",
                state.check_name(later)
            );
            match &later.attrs.name {
                Some(name) => errors.push_at(name, message),
                None => errors.push_at(&later.member, message),
            }
        }
    }
}
