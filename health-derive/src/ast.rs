//! What was written: the struct, its fields and their attributes.

use proc_macro2::{Group, TokenStream, TokenTree};
use quote::{ToTokens as _, quote_spanned};
use syn::{Data, DataStruct, DeriveInput, Error, Member, Type, ext::IdentExt as _};

use crate::{attr, errors::Errors};

pub(crate) struct Struct<'a> {
    pub(crate) original: &'a DeriveInput,
    pub(crate) attrs: attr::Struct,
    pub(crate) fields: Vec<Field>,
}

pub(crate) struct Field {
    /// Its type, with the struct's name for `Self`, so that it can stand outside of the impl.
    pub(crate) ty: Type,
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
                            ty: without_self(&field.ty, original, errors),
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

impl Field {
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

fn without_self(ty: &Type, input: &DeriveInput, errors: &mut Errors) -> Type {
    fn replaced(tokens: TokenStream, input: &DeriveInput) -> TokenStream {
        let replace = |token: TokenTree| match token {
            TokenTree::Ident(ident) if ident == "Self" => {
                let (name, (_, generics, _)) = (&input.ident, input.generics.split_for_impl());
                quote_spanned!(ident.span()=> #name #generics)
            }
            TokenTree::Group(group) => {
                let mut inner = Group::new(group.delimiter(), replaced(group.stream(), input));
                inner.set_span(group.span());
                TokenTree::from(inner).into()
            }
            other => other.into(),
        };
        tokens.into_iter().flat_map(replace).collect()
    }

    syn::parse2(replaced(ty.to_token_stream(), input)).unwrap_or_else(|error| {
        errors.push(error);
        ty.clone()
    })
}
