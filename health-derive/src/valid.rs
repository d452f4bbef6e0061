//! The rules, one a function. What only types can tell is left to the code that `expand` writes.

use syn::{LitStr, Member};

use crate::{
    ast::{Field, Struct},
    errors::Errors,
    kind,
};

pub(crate) fn check(input: &Struct<'_>, errors: &mut Errors) {
    something_is_left_to_probe(input, errors);
    for field in &input.fields {
        skip_stands_alone(field, errors);
        one_way_to_ask(field, errors);
        flatten_has_no_name(field, errors);
        flatten_is_for_one_struct(field, errors);
        tuple_fields_are_named(field, errors);
        names_are_segments(field, errors);
    }
    names_are_unique(input, errors);
}

fn something_is_left_to_probe(input: &Struct<'_>, errors: &mut Errors) {
    if input.fields.iter().all(|field| field.attrs.skip.is_some()) {
        let ident = &input.original.ident;
        errors.at(ident, format!("nothing in `{ident}` is probed: it has no field that is not skipped"));
    }
}

fn skip_stands_alone(field: &Field, errors: &mut Errors) {
    if field.attrs.skip.is_none() {
        return;
    }
    for other in field.attrs.written.iter().filter(|other| other.to_string() != "skip") {
        errors.at(other, format!("`{other}` says nothing on a field that `skip` leaves out"));
    }
}

fn one_way_to_ask(field: &Field, errors: &mut Errors) {
    if let (Some(_), Some(probe)) = (&field.attrs.with, &field.attrs.probe) {
        errors.at(&probe.0, "`with` says already how the field is probed; `probe` is for types that are a `Probe`");
    }
    if let (Some(_), Some(flatten)) = (&field.attrs.with, &field.attrs.flatten) {
        errors.at(&flatten.0, "`flatten` is for a nested struct that derives; what `with` asks is one check");
    }
}

fn flatten_has_no_name(field: &Field, errors: &mut Errors) {
    if let (Some(_), Some(name)) = (&field.attrs.flatten, &field.attrs.name) {
        errors.at(name, "a flattened field has no name before those of its checks; drop `name` or `flatten`");
    }
}

fn flatten_is_for_one_struct(field: &Field, errors: &mut Errors) {
    if let Some(flatten) = &field.attrs.flatten
        && kind::is_collection(&field.ty)
    {
        errors
            .at(&flatten.0, "`flatten` is for one nested struct; those of a collection would all have the same names");
    }
}

fn tuple_fields_are_named(field: &Field, errors: &mut Errors) {
    let attrs = &field.attrs;
    if matches!(field.member, Member::Unnamed(_))
        && attrs.name.is_none()
        && attrs.skip.is_none()
        && attrs.flatten.is_none()
    {
        errors.at(&field.ty, "this field has no name: write `#[health(name = \"…\")]`, or `#[health(skip)]`");
    }
}

fn names_are_segments(field: &Field, errors: &mut Errors) {
    if let Some(name) = &field.attrs.name {
        is_segment(name, errors);
    }
    if let Some(group) = &field.attrs.group {
        is_segment(group, errors);
        let word = group.value();
        // As in `health::Check`, which is validated again when it is run.
        let reserved = [
            "health",
            "live",
            "ready",
            "startup",
            "metrics",
            "page",
            "schema",
            "history",
            "events",
            "status",
            "openapi.json",
        ];
        if reserved.contains(&&*word) {
            errors.at(group, format!("`{word}` can't be a group: the scope itself answers by it"));
        }
    }
}

fn is_segment(text: &LitStr, errors: &mut Errors) {
    let value = text.value();
    if value.is_empty() {
        errors.at(text, "a group and a name can't be empty");
    } else if value == "." || value == ".." || value.contains(|c: char| c == '/' || c.is_control()) {
        errors.at(text, "a group and a name are each one segment of a path, as in `/health/group/name`");
    }
}

/// Where both groups are written; the others are left to the compiler (see `expand`).
fn names_are_unique(input: &Struct<'_>, errors: &mut Errors) {
    for (field, other) in same_names(input) {
        if let (Some(group), Some(other_group)) = (other.group(), field.group())
            && group == other_group
        {
            let name = field.name();
            match &other.attrs.name {
                Some(written) => errors.at(written, duplicate(&group, &name)),
                None => errors.at(&other.member, duplicate(&group, &name)),
            }
        }
    }
}

fn duplicate(group: &str, name: &str) -> String {
    format!("two checks are named `{group}.{name}`: give one of them another name or group")
}

/// The pairs of fields of one name, the earlier field first.
pub(crate) fn same_names<'a>(input: &'a Struct<'a>) -> impl Iterator<Item = (&'a Field, &'a Field)> {
    let named = |field: &&Field| field.attrs.skip.is_none() && field.attrs.flatten.is_none();
    let fields: Vec<_> = input.fields.iter().filter(named).collect();
    let mut pairs = Vec::new();
    for (at, &other) in fields.iter().enumerate() {
        pairs.extend(fields[..at].iter().find(|field| field.name() == other.name()).map(|&field| (field, other)));
    }
    pairs.into_iter()
}
