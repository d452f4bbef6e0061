//! The code that is written. Everything that only types can tell is asked of the compiler here: see
//! `discover::dispatch` of the runtime crate for how.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens as _, quote, quote_spanned};
use syn::{DeriveInput, parse_quote, spanned::Spanned as _};

use crate::{
    ast::{Field, Struct},
    errors::Errors,
    fallback, kind, valid,
};

pub(crate) fn derive(input: &DeriveInput) -> TokenStream {
    let mut errors = Errors::default();
    let parsed = Struct::new(input, &mut errors);
    let krate = krate(parsed.as_ref().ok());
    let state = match parsed {
        Ok(state) => {
            valid::check(&state, &mut errors);
            errors.finish().map(|()| state)
        }
        Err(error) => Err(error),
    };
    match state {
        Ok(state) => expand(&state, &krate),
        Err(error) => fallback::expand(input, &krate, &error),
    }
}

fn krate(state: Option<&Struct<'_>>) -> TokenStream {
    match state.and_then(|state| state.attrs.krate.as_ref()) {
        Some(path) => path.to_token_stream(),
        None => quote!(::health),
    }
}

fn expand(state: &Struct<'_>, krate: &TokenStream) -> TokenStream {
    let private = quote!(#krate::__private);
    let ident = &state.original.ident;
    let generics = with_bounds(state, krate);
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();

    let demands = state.fields.iter().filter_map(|field| demand(field, state, &private));
    let fields = state.fields.iter().map(|field| checks(field, krate, &private));
    let asserted = asserted(state, &private);
    // Of a generic struct, the fields' types exist only inside the impl; and which of its types is the state, only who
    // makes it knows.
    let (inside, outside) = if generics.params.is_empty() {
        let name = ident.to_string();
        let submitted = quote! {
            #private::inventory::submit! {
                #private::StateType::of::<#ident>(::core::concat!(::core::module_path!(), "::", #name))
            }
        };
        (None, quote!(#(const _: () = #asserted;)* #submitted))
    } else {
        (Some(quote!(#(const { #asserted };)*)), TokenStream::new())
    };

    quote! {
        const _: () = {
            #[allow(unused_imports)]
            use #private::{Ignored as _, NoProbe as _};

            #[automatically_derived]
            impl #impl_generics #krate::HealthCheck for #ident #ty_generics #where_clause {
                fn health_checks(&self, checks: &mut #krate::Checks) {
                    #inside
                    #(#demands)*
                    #(#fields)*
                }
            }

            #outside
        };
    }
}

/// A field that must be probed and depends on a type parameter makes that a bound of the impl.
fn with_bounds(state: &Struct<'_>, krate: &TokenStream) -> syn::Generics {
    let mut generics = state.original.generics.clone();
    for field in state.fields.iter().filter(|field| field.attrs.probe.is_some()) {
        if kind::mentions_parameter(&field.original.ty, &state.original.generics) {
            let probed = kind::probed_type(&field.original.ty);
            let bound = quote_spanned!(probed.span()=> #probed: #krate::Probe + ::core::clone::Clone);
            generics.make_where_clause().predicates.push(parse_quote!(#bound));
        }
    }
    generics
}

/// Why a field must be probed, as a trait that its type must have.
fn demanded(field: &Field<'_>, state: &Struct<'_>) -> Option<TokenStream> {
    let ty = &field.original.ty;
    let attrs = &field.attrs;
    if attrs.skip.is_some() || attrs.with.is_some() {
        None
    } else if attrs.probe.is_some() {
        Some(quote!(Probed))
    } else if kind::is_wrapped_parameter(ty, &state.original.generics) {
        Some(quote!(Generic))
    } else if let Some(resource) = kind::looks_like_a_resource(ty) {
        Some(resource)
    } else {
        state.attrs.strict.as_ref().map(|_| quote!(Strict))
    }
}

fn demand(field: &Field<'_>, state: &Struct<'_>, private: &TokenStream) -> Option<TokenStream> {
    let Field { original: syn::Field { ty, .. }, member, .. } = field;
    if field.attrs.flatten.is_some() {
        let nested = kind::innermost(ty);
        return Some(quote_spanned!(nested.span()=> #private::demand::flattened::<#nested>();));
    }
    let demanded = demanded(field, state)?;
    Some(quote_spanned!(ty.span()=> <#ty as #private::demand::#demanded<_>>::met(&self.#member);))
}

/// What one field adds.
fn checks(field: &Field<'_>, krate: &TokenStream, private: &TokenStream) -> TokenStream {
    let Field { original: syn::Field { ty, .. }, member, attrs } = field;
    let name = field.name();
    let options = options(field, private);
    if attrs.skip.is_some() {
        return quote!(#options.skip(checks););
    }
    match &attrs.with {
        Some(path) => {
            let kept = quote_spanned!(ty.span()=> #private::hand::<#ty>(&self.#member));
            let asked = quote_spanned! {path.span()=>
                let answer: ::core::result::Result<(), _> = #path(&*field).await;
                answer
            };
            quote! {{
                let field = #kept;
                #options.add(checks, #krate::Check::new("service", #name, move || {
                    let field = ::std::sync::Arc::clone(&field);
                    async move { #asked }
                }));
            }}
        }
        None => {
            let find = quote_spanned!(ty.span()=> #private::Look::<#ty, _>::find);
            quote!(#options.find(checks, |place, checks| #find(&self.#member, place, checks));)
        }
    }
}

fn options(field: &Field<'_>, private: &TokenStream) -> TokenStream {
    let attrs = &field.attrs;
    let name = field.name();
    let mut set = Vec::new();
    for (given, option) in [
        (attrs.name.is_some(), quote!(named)),
        (attrs.flatten.is_some(), quote!(flatten)),
        (attrs.optional.is_some(), quote!(optional)),
        (attrs.live.is_some(), quote!(live)),
    ] {
        if given {
            set.push(quote!(#option: true,));
        }
    }
    if let Some(group) = &attrs.group {
        set.push(quote!(group: ::core::option::Option::Some(#group),));
    }
    if let Some(timeout) = &attrs.timeout {
        let ms = timeout.ms;
        set.push(quote!(timeout_ms: ::core::option::Option::Some(#ms),));
    }
    quote!(#private::Field { #(#set)* ..#private::Field::new(#name) })
}

/// What must hold of the fields' types, each an assertion for the compiler to evaluate.
fn asserted(state: &Struct<'_>, private: &TokenStream) -> Vec<TokenStream> {
    let looked_at = state.fields.iter().filter(|field| field.attrs.skip.is_none() && field.attrs.with.is_none());
    looked_at
        .map(|field| can_be_cloned(field, private))
        .chain(something_is_probed(state, private))
        .chain(valid::same_names(state).filter_map(|(field, other)| not_in_one_group(field, other, private)))
        .collect()
}

/// A probe that can't be cloned is not found, which would be a silent miss.
fn can_be_cloned(field: &Field<'_>, private: &TokenStream) -> TokenStream {
    let ty = &field.original.ty;
    let probe = kind::innermost(ty);
    let message = "this type is a `Probe` but not `Clone`, and a check keeps a clone of what it probes: derive `Clone`, or \
                   hold it in an `Arc`";
    quote_spanned! {ty.span()=>
        ::core::assert!(!#private::LookForProbe::<#probe>::IS_PROBE || #private::Look::<#ty, _>::FOUND, #message)
    }
}

fn something_is_probed(state: &Struct<'_>, private: &TokenStream) -> Option<TokenStream> {
    let mut found = Vec::new();
    for field in state.fields.iter().filter(|field| field.attrs.skip.is_none()) {
        if field.attrs.with.is_some() || field.attrs.flatten.is_some() || demanded(field, state).is_some() {
            return None;
        }
        let ty = &field.original.ty;
        let probe = kind::innermost(ty);
        found.push(quote!(#private::Look::<#ty, _>::FOUND || #private::LookForProbe::<#probe>::IS_PROBE));
    }
    let ident = &state.original.ident;
    let message = format!(
        "nothing in `{ident}` is probed: no field is a `health::Probe` or a struct that derives `HealthCheck`; \
         `#[health(with = path)]` on a field says how to ask it"
    );
    // In the span of the name alone, not in the hygiene of it.
    let span = Span::call_site().located_at(ident.span());
    Some(quote_spanned!(span=> ::core::assert!(#(#found)||*, #message)))
}

/// Two checks of one name, of at least one of which only the type tells the group.
fn not_in_one_group(field: &Field<'_>, other: &Field<'_>, private: &TokenStream) -> Option<TokenStream> {
    if field.group().is_some() && other.group().is_some() {
        return None;
    }
    let group = |field: &Field<'_>| match field.group() {
        Some(group) => quote!(::core::option::Option::Some(#group)),
        None => {
            let ty = &field.original.ty;
            quote!(#private::Look::<#ty, _>::GROUP)
        }
    };
    let (one, another) = (group(field), group(other));
    let span = other.attrs.name.as_ref().map_or_else(|| other.member.span(), syn::LitStr::span);
    let message =
        format!("two checks of one group are named `{}`: give one of them another name or group", other.name());
    Some(quote_spanned!(span=> ::core::assert!(!#private::same_group(#one, #another), #message)))
}
