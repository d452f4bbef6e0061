//! What was written: the struct, its fields and their attributes.

use syn::{Data, DataStruct, DeriveInput, Error, Member, ext::IdentExt as _};

use crate::{attr, errors::Errors};

pub(crate) struct Struct<'a> {
    pub(crate) original: &'a DeriveInput,
    pub(crate) attrs: attr::Struct,
    pub(crate) fields: Vec<Field<'a>>,
}

pub(crate) struct Field<'a> {
    pub(crate) original: &'a syn::Field,
    pub(crate) member: Member,
    pub(crate) attrs: attr::Field,
}

impl<'a> Struct<'a> {
    /// Mistakes in attributes go to `errors`; what can't be a state at all is an error by itself.
    pub(crate) fn new(original: &'a DeriveInput, errors: &mut Errors) -> Result<Self, Error> {
        let kind = match &original.data {
            Data::Struct(DataStruct { fields, .. }) => {
                return Ok(Self {
                    original,
                    attrs: attr::Struct::parse(&original.attrs, errors),
                    fields: fields
                        .members()
                        .zip(fields)
                        .map(|(member, field)| Field {
                            original: field,
                            member,
                            attrs: attr::Field::parse(&field.attrs, errors),
                        })
                        .collect(),
                });
            }
            Data::Enum(_) => "an enum",
            Data::Union(_) => "a union",
        };
        Err(Error::new_spanned(
            &original.ident,
            format!(
                "`HealthCheck` is derived for structs, and `{}` is {kind}: put the resources into a struct, or implement \
                 `health::HealthCheck` by hand",
                original.ident
            ),
        ))
    }
}

impl Field<'_> {
    /// The name of the field's check, or the first part of it.
    pub(crate) fn name(&self) -> String {
        match (&self.attrs.name, &self.member) {
            (Some(name), _) => name.value(),
            (None, Member::Named(ident)) => ident.unraw().to_string(),
            (None, Member::Unnamed(index)) => index.index.to_string(),
        }
    }

    /// The group, where it is written or follows from what is.
    pub(crate) fn group(&self) -> Option<String> {
        let group = self.attrs.group.as_ref().map(syn::LitStr::value);
        group.or_else(|| self.attrs.with.is_some().then(|| "service".to_owned()))
    }
}
