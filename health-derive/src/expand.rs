//! The generated code. Whether a type can be probed is known only to the compiler, so the code contains expressions that the
//! compiler resolves by type (see `discovery::dispatch` in the runtime crate), and assertions that it evaluates.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens as _, quote, quote_spanned};
use syn::{Ident, parse_quote, spanned::Spanned as _};

use crate::{
    ast::{Field, Struct},
    resource_types, types,
};

pub(crate) fn expand(state: &Struct<'_>, krate: &TokenStream) -> TokenStream {
    let private = quote!(#krate::__private);
    let ident = &state.original.ident;
    let generics = with_bounds(state, krate);
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();

    let requirements = state.fields.iter().filter_map(|field| expand_requirement(field, state, &private));
    let fields = state.fields.iter().map(|field| expand_field(field, krate, &private));
    let assertions = assertions(state, &private);
    // The field types of a generic struct exist only inside the impl. Only its path is submitted, because only the application knows
    // its type arguments.
    let (inside, outside, submitted) = if generics.params.is_empty() {
        (None, quote!(#(const _: () = #assertions;)*), quote!(of::<#ident>))
    } else {
        (Some(quote!(#(const { #assertions };)*)), TokenStream::new(), quote!(generic))
    };
    let name = ident.to_string();

    let checks = local("checks");
    quote! {
        // The struct and its fields may be deprecated; using them here is not the user's decision.
        #[allow(deprecated)]
        const _: () = {
            #[allow(unused_imports)]
            use #private::{Fallback as _, InnerFallback as _};

            #[automatically_derived]
            impl #impl_generics #krate::HealthCheck for #ident #ty_generics #where_clause {
                fn health_checks(&self, #checks: &mut #krate::Checks) {
                    #inside
                    #(#requirements)*
                    #(#fields)*
                }
            }

            #outside

            #private::inventory::submit! {
                #private::StateType::#submitted(::core::concat!(::core::module_path!(), "::", #name))
            }
        };
    }
}

/// The generics of the impl: `#[health(probe)]` on a field whose type depends on a type parameter adds a bound.
fn with_bounds(state: &Struct<'_>, krate: &TokenStream) -> syn::Generics {
    let mut generics = state.original.generics.clone();
    for field in state.fields.iter().filter(|field| field.attrs.probe.is_some()) {
        if types::mentions_parameter(&field.ty, &state.original.generics) {
            let probe = types::probe_type(&field.ty);
            let bound = quote_spanned!(probe.span()=> #probe: #krate::Probe + ::core::clone::Clone);
            generics.make_where_clause().predicates.push(parse_quote!(#bound));
        }
    }
    generics
}

/// The trait of `discovery::require` that the field's type must implement, if it must be probed. Each has its own error
/// message.
fn requirement(field: &Field, state: &Struct<'_>) -> Option<TokenStream> {
    let Field { ty, attrs, .. } = field;
    if attrs.skip.is_some() || attrs.with.is_some() || attrs.flatten.is_some() {
        None
    } else if attrs.probe.is_some() {
        Some(quote!(Probed))
    } else if types::mentions_parameter(ty, &state.original.generics) {
        Some(quote!(Generic))
    } else if let Some(resource) = resource_types::requirement(ty) {
        Some(resource.to_token_stream())
    } else {
        state.attrs.strict.as_ref().map(|_| quote!(Strict))
    }
}

fn expand_requirement(field: &Field, state: &Struct<'_>, private: &TokenStream) -> Option<TokenStream> {
    let Field { ty, member, .. } = field;
    if field.attrs.flatten.is_some() {
        let nested = types::innermost(ty);
        return Some(quote_spanned!(nested.span()=> #private::require::assert_flattenable::<#nested>();));
    }
    let requirement = requirement(field, state)?;
    Some(quote_spanned!(ty.span()=> <#ty as #private::require::#requirement<_>>::assert_impl(&self.#member);))
}

/// Adds the checks of one field.
fn expand_field(field: &Field, krate: &TokenStream, private: &TokenStream) -> TokenStream {
    let Field { ty, member, attrs, .. } = field;
    let name = field.name();
    let options = expand_options(field, private);
    let (checks, path, resource) = (local("checks"), local("path"), local("resource"));
    if attrs.skip.is_some() {
        return quote!(#options.skip(#checks););
    }
    match &attrs.with {
        Some(function) => {
            let cloned = quote_spanned!(ty.span()=> #private::clone_field::<#ty>(&self.#member));
            let check = quote_spanned! {function.span()=>
                #krate::Check::new("service", #name, move || {
                    let #resource = ::std::sync::Arc::clone(&#resource);
                    async move {
                        let result: ::core::result::Result<(), _> = #function(&*#resource).await;
                        result
                    }
                })
            };
            quote! {{
                let #resource = #cloned;
                #options.add(#checks, #check);
            }}
        }
        None => {
            let discover = quote_spanned!(ty.span()=> #private::Dispatch::<#ty, _>::discover);
            quote!(#options.discover(#checks, |#path, #checks| #discover(&self.#member, #path, #checks));)
        }
    }
}

/// A local variable that paths in the user's attributes cannot refer to.
fn local(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}

fn expand_options(field: &Field, private: &TokenStream) -> TokenStream {
    let attrs = &field.attrs;
    let name = field.name();
    let mut options = Vec::new();
    for (is_present, option) in [
        (attrs.name.is_some(), quote!(is_renamed)),
        (attrs.flatten.is_some(), quote!(flatten)),
        (attrs.optional.is_some(), quote!(optional)),
        (attrs.live.is_some(), quote!(live)),
    ] {
        if is_present {
            options.push(quote!(#option: true,));
        }
    }
    if let Some(group) = &attrs.group {
        options.push(quote!(group: ::core::option::Option::Some(#group),));
    }
    if let Some(timeout) = &attrs.timeout {
        let ms = timeout.ms;
        options.push(quote!(timeout_ms: ::core::option::Option::Some(#ms),));
    }
    quote!(#private::Field { #(#options)* ..#private::Field::new(#name) })
}

/// Constant expressions that panic if the fields' types break a rule.
fn assertions(state: &Struct<'_>, private: &TokenStream) -> Vec<TokenStream> {
    // A requirement that is not met has an error of its own.
    let unrequired = state.fields.iter().filter(|field| {
        field.attrs.skip.is_none() && field.attrs.with.is_none() && requirement(field, state).is_none()
    });
    unrequired
        .map(|field| assert_reachable(field, private))
        .chain(assert_something_is_probed(state, private))
        .chain(state.same_names().filter_map(|(earlier, later)| assert_distinct(earlier, later, private)))
        .collect()
}

/// A probe must not be ignored because it cannot be cloned, or because of the type that contains it.
fn assert_reachable(field: &Field, private: &TokenStream) -> TokenStream {
    let ty = &field.ty;
    let mentioned = types::mentioned(ty);
    let message = "this field contains a probe that cannot be reached: a probe must be `Clone` or in an `Arc`, the keys of a \
                   map must be `Display`, and only `Arc`, `Box`, `Option`, `Vec`, `HashMap`, `BTreeMap` and `web::Data` are \
                   searched for probes; to probe the field with a function, write `#[health(with = path)]`; to leave it \
                   unprobed, `#[health(skip)]`";
    quote_spanned! {ty.span()=>
        ::core::assert!(
            #private::Dispatch::<#ty, _>::IS_PROBED
                || !(false #(|| #private::InnerDispatch::<#mentioned, _>::IS_PROBED)*),
            #message
        )
    }
}

fn assert_something_is_probed(state: &Struct<'_>, private: &TokenStream) -> Option<TokenStream> {
    let mut is_probed = Vec::new();
    for field in state.fields.iter().filter(|field| field.attrs.skip.is_none()) {
        if field.attrs.with.is_some() || field.attrs.flatten.is_some() || requirement(field, state).is_some() {
            return None;
        }
        let ty = &field.ty;
        // A probe that cannot be reached has an error of its own.
        let mentioned = types::mentioned(ty);
        is_probed.push(
            quote!(#private::Dispatch::<#ty, _>::IS_PROBED #(|| #private::InnerDispatch::<#mentioned, _>::IS_PROBED)*),
        );
    }
    let ident = &state.original.ident;
    let message = format!(
        "nothing in `{ident}` is probed: no field implements `health::Probe` or derives `HealthCheck`; to probe a field with a \
         function, write `#[health(with = path)]`"
    );
    // Located at the struct's name, resolved at the call site.
    let span = Span::call_site().located_at(ident.span());
    Some(quote_spanned!(span=> ::core::assert!(#(#is_probed)||*, #message)))
}

/// Compares two checks of the same name if the type determines the group of at least one of them.
fn assert_distinct(earlier: &Field, later: &Field, private: &TokenStream) -> Option<TokenStream> {
    if earlier.group().is_some() && later.group().is_some() {
        return None;
    }
    let group = |field: &Field| match field.group() {
        Some(group) => quote!(::core::option::Option::Some(#group)),
        None => {
            let ty = &field.ty;
            quote!(#private::Dispatch::<#ty, _>::GROUP)
        }
    };
    let (earlier_group, later_group) = (group(earlier), group(later));
    let span = later.attrs.name.as_ref().map_or_else(|| later.member.span(), syn::LitStr::span);
    let message =
        format!("duplicate check `{}` in one group: set another name or group on one of the fields", later.name());
    Some(quote_spanned!(span=> ::core::assert!(!#private::same_group(#earlier_group, #later_group), #message)))
}
