//! The code that is written. Everything that only types can tell is asked of the compiler here: see
//! `discover::dispatch` of the runtime crate for how.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens as _, quote, quote_spanned};
use syn::{DeriveInput, Ident, parse_quote, spanned::Spanned as _};

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

    let checks = local("checks");
    quote! {
        // Neither a deprecated struct nor a deprecated field is used here by its own choice.
        #[allow(deprecated)]
        const _: () = {
            #[allow(unused_imports)]
            use #private::{Ignored as _, NotProbed as _};

            #[automatically_derived]
            impl #impl_generics #krate::HealthCheck for #ident #ty_generics #where_clause {
                fn health_checks(&self, #checks: &mut #krate::Checks) {
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
        if kind::mentions_parameter(&field.ty, &state.original.generics) {
            let probed = kind::probed_type(&field.ty);
            let bound = quote_spanned!(probed.span()=> #probed: #krate::Probe + ::core::clone::Clone);
            generics.make_where_clause().predicates.push(parse_quote!(#bound));
        }
    }
    generics
}

/// Why a field must be probed, as a trait that its type must have.
fn demanded(field: &Field, state: &Struct<'_>) -> Option<TokenStream> {
    let ty = &field.ty;
    let attrs = &field.attrs;
    if attrs.skip.is_some() || attrs.with.is_some() {
        None
    } else if attrs.probe.is_some() {
        Some(quote!(Probed))
    } else if kind::mentions_parameter(ty, &state.original.generics) {
        Some(quote!(Generic))
    } else if let Some(resource) = kind::looks_like_a_resource(ty) {
        Some(resource.to_token_stream())
    } else {
        state.attrs.strict.as_ref().map(|_| quote!(Strict))
    }
}

fn demand(field: &Field, state: &Struct<'_>, private: &TokenStream) -> Option<TokenStream> {
    let Field { ty, member, .. } = field;
    if field.attrs.flatten.is_some() {
        let nested = kind::innermost(ty);
        return Some(quote_spanned!(nested.span()=> #private::demand::flattened::<#nested>();));
    }
    let demanded = demanded(field, state)?;
    Some(quote_spanned!(ty.span()=> <#ty as #private::demand::#demanded<_>>::met(&self.#member);))
}

/// What one field adds.
fn checks(field: &Field, krate: &TokenStream, private: &TokenStream) -> TokenStream {
    let Field { ty, member, attrs, .. } = field;
    let name = field.name();
    let options = options(field, private);
    let (checks, place, kept) = (local("checks"), local("place"), local("kept"));
    if attrs.skip.is_some() {
        return quote!(#options.skip(#checks););
    }
    match &attrs.with {
        Some(path) => {
            let handed = quote_spanned!(ty.span()=> #private::hand::<#ty>(&self.#member));
            let check = quote_spanned! {path.span()=>
                #krate::Check::new("service", #name, move || {
                    let #kept = ::std::sync::Arc::clone(&#kept);
                    async move {
                        let answer: ::core::result::Result<(), _> = #path(&*#kept).await;
                        answer
                    }
                })
            };
            quote! {{
                let #kept = #handed;
                #options.add(#checks, #check);
            }}
        }
        None => {
            let find = quote_spanned!(ty.span()=> #private::Look::<#ty, _>::find);
            quote!(#options.find(#checks, |#place, #checks| #find(&self.#member, #place, #checks));)
        }
    }
}

/// A name that no path of the user's can mean.
fn local(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}

fn options(field: &Field, private: &TokenStream) -> TokenStream {
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
        .map(|field| nothing_is_missed(field, private))
        .chain(something_is_probed(state, private))
        .chain(valid::same_names(state).filter_map(|(field, other)| not_in_one_group(field, other, private)))
        .collect()
}

/// What is probed on its own must not be ignored where it stands inside of something else, or can't be cloned.
fn nothing_is_missed(field: &Field, private: &TokenStream) -> TokenStream {
    let ty = &field.ty;
    let mentioned = kind::mentioned(ty);
    let message = "health probes this type, or one that it mentions, but can't reach it here: a probe must be `Clone`, or in \
                   an `Arc`; the keys of a map must be `Display`; and only `Arc`, `Box`, `Option`, `Vec`, `HashMap`, \
                   `BTreeMap` and `web::Data` are seen through. `#[health(with = path)]` says how to ask it, \
                   `#[health(skip)]` leaves it out";
    quote_spanned! {ty.span()=>
        ::core::assert!(
            #private::Look::<#ty, _>::FOUND || !(false #(|| #private::LookInside::<#mentioned, _>::IS_PROBED)*),
            #message
        )
    }
}

fn something_is_probed(state: &Struct<'_>, private: &TokenStream) -> Option<TokenStream> {
    let mut found = Vec::new();
    for field in state.fields.iter().filter(|field| field.attrs.skip.is_none()) {
        if field.attrs.with.is_some() || field.attrs.flatten.is_some() || demanded(field, state).is_some() {
            return None;
        }
        let ty = &field.ty;
        // One that is missed has a message of its own.
        let mentioned = kind::mentioned(ty);
        found.push(quote!(#private::Look::<#ty, _>::FOUND #(|| #private::LookInside::<#mentioned, _>::IS_PROBED)*));
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
fn not_in_one_group(field: &Field, other: &Field, private: &TokenStream) -> Option<TokenStream> {
    if field.group().is_some() && other.group().is_some() {
        return None;
    }
    let group = |field: &Field| match field.group() {
        Some(group) => quote!(::core::option::Option::Some(#group)),
        None => {
            let ty = &field.ty;
            quote!(#private::Look::<#ty, _>::GROUP)
        }
    };
    let (one, another) = (group(field), group(other));
    let span = other.attrs.name.as_ref().map_or_else(|| other.member.span(), syn::LitStr::span);
    let message =
        format!("two checks of one group are named `{}`: give one of them another name or group", other.name());
    Some(quote_spanned!(span=> ::core::assert!(!#private::same_group(#one, #another), #message)))
}
