//! The struct as written: its fields, their types and their attributes.

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
    /// The type, with `Self` replaced by the struct's name, because the generated code also uses it outside of the impl.
    pub(crate) ty: Type,
    pub(crate) member: Member,
    pub(crate) attrs: attr::Field,
}

impl<'a> Struct<'a> {
    /// Pushes errors in attributes to `errors`. An enum or a union is returned as an error.
    pub(crate) fn parse(original: &'a DeriveInput, errors: &mut Errors) -> Result<Self, Error> {
        let kind = match &original.data {
            Data::Struct(DataStruct { fields, .. }) => {
                return Ok(Self {
                    original,
                    attrs: attr::Struct::parse(&original.attrs, errors),
                    fields: fields
                        .members()
                        .zip(fields)
                        .map(|(member, field)| Field {
                            ty: replace_self(&field.ty, original, errors),
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
                "`HealthCheck` can only be derived for structs, and `{}` is {kind}; move its resources to a struct, or implement \
                 `health::HealthCheck` by hand",
                original.ident
            ),
        ))
    }

    /// Whether it is a tuple struct with a single field that is not skipped, whose checks bear the name of the outer field.
    pub(crate) fn is_newtype(&self) -> bool {
        let mut probed = self.fields.iter().filter(|field| field.attrs.skip.is_none());
        probed.next().is_some_and(|field| matches!(field.member, Member::Unnamed(_))) && probed.next().is_none()
    }

    /// The name of the field's check, or the prefix of the names of its checks, with the name of the struct. Empty if the checks bear
    /// the name of the outer field.
    pub(crate) fn check_name(&self, field: &Field) -> String {
        let attrs = &field.attrs;
        let is_unnamed = attrs.flatten.is_some() || self.is_newtype() && attrs.name.is_none() && attrs.skip.is_none();
        match &self.attrs.name {
            Some(prefix) if is_unnamed => prefix.value(),
            Some(prefix) => format!("{}.{}", prefix.value(), field.name()),
            None if is_unnamed => String::new(),
            None => field.name(),
        }
    }

    /// The pairs of fields whose checks have the same name, the earlier field first.
    pub(crate) fn same_names(&self) -> impl Iterator<Item = (&Field, &Field)> {
        let named = |field: &&Field| field.attrs.skip.is_none() && field.attrs.flatten.is_none();
        let fields: Vec<_> = self.fields.iter().filter(named).collect();
        let mut pairs = Vec::new();
        for (index, &later) in fields.iter().enumerate() {
            let earlier = fields[..index].iter().find(|earlier| earlier.name() == later.name());
            pairs.extend(earlier.map(|&earlier| (earlier, later)));
        }
        pairs.into_iter()
    }
}

impl Field {
    /// The name that the attribute `name` sets, or the field's own.
    fn name(&self) -> String {
        match (&self.attrs.name, &self.member) {
            (Some(name), _) => name.value(),
            (None, Member::Named(ident)) => ident.unraw().to_string(),
            (None, Member::Unnamed(index)) => index.index.to_string(),
        }
    }

    /// The group, if the attributes determine it. Otherwise it is the probe's, which only its type determines.
    pub(crate) fn group(&self) -> Option<String> {
        let group = self.attrs.group.as_ref().map(syn::LitStr::value);
        group.or_else(|| self.attrs.with.is_some().then(|| "service".to_owned()))
    }
}

fn replace_self(ty: &Type, input: &DeriveInput, errors: &mut Errors) -> Type {
    fn replace_in(tokens: TokenStream, input: &DeriveInput) -> TokenStream {
        let replace = |token: TokenTree| match token {
            TokenTree::Ident(ident) if ident == "Self" => {
                let (name, (_, generics, _)) = (&input.ident, input.generics.split_for_impl());
                quote_spanned!(ident.span()=> #name #generics)
            }
            TokenTree::Group(group) => {
                let mut inner = Group::new(group.delimiter(), replace_in(group.stream(), input));
                inner.set_span(group.span());
                TokenTree::from(inner).into()
            }
            other => other.into(),
        };
        tokens.into_iter().flat_map(replace).collect()
    }

    syn::parse2(replace_in(ty.to_token_stream(), input)).unwrap_or_else(|error| {
        errors.push(error);
        ty.clone()
    })
}
