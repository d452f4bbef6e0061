//! The generated code. Whether a type can be probed is known only to the compiler, so the code contains expressions that the
//! compiler resolves by type (see `discovery::dispatch` in the runtime crate), and assertions that it evaluates.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens as _, quote, quote_spanned};
use syn::{Ident, Type, parse_quote, spanned::Spanned as _};

use crate::{
    ast::{Field, Struct},
    attr, resource_types, types,
};

pub(crate) fn expand(state: &Struct<'_>, krate: &TokenStream) -> TokenStream {
    let private = quote!(#krate::__private);
    let ident = &state.original.ident;
    let generics = with_bounds(state, krate);
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();

    let requirements = state.fields.iter().filter_map(|field| expand_requirement(field, state, &private));
    let fields = state.fields.iter().map(|field| expand_field(field, state, krate, &private));
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
            impl #impl_generics #private::Discover<#ident #ty_generics> for #private::EitherProbeOrHealthCheck #where_clause {
                fn discover(&self, _: &::core::primitive::str, _: &mut #krate::Checks) {}
            }

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
    if attrs.skip.is_some() || attrs.with.is_some() {
        None
    } else if attrs.probe.is_some() {
        Some(quote!(Probed))
    } else if attrs.flatten.is_some() {
        Some(quote!(Flattened))
    } else if types::mentions_parameter(ty, &state.original.generics) {
        Some(quote!(Generic))
    } else if let Some(resource) = resource_types::requirement(ty) {
        Some(resource.to_token_stream())
    } else if !attrs.present.is_empty() {
        Some(quote!(Attributed))
    } else {
        state.attrs.strict.as_ref().map(|_| quote!(Strict))
    }
}

fn expand_requirement(field: &Field, state: &Struct<'_>, private: &TokenStream) -> Option<TokenStream> {
    let Field { ty, member, .. } = field;
    let requirement = requirement(field, state)?;
    Some(quote_spanned!(ty.span()=> <#ty as #private::require::#requirement<_>>::assert_impl(&self.#member);))
}

/// Adds the checks of one field.
fn expand_field(field: &Field, state: &Struct<'_>, krate: &TokenStream, private: &TokenStream) -> TokenStream {
    let Field { ty, member, attrs, .. } = field;
    let name = state.check_name(field);
    let setters = setters(attrs);
    let (checks, check, resource) = (local("checks"), local("check"), local("resource"));
    if attrs.skip.is_some() {
        return quote!(#private::skipped(#checks, #name););
    }
    if let Some(function) = &attrs.with {
        let group = field.group();
        let cloned = quote_spanned!(ty.span()=> #private::clone_field::<#ty>(&self.#member));
        let new = quote_spanned! {function.span()=>
            #krate::Check::new(#group, #name, move || {
                let #resource = ::std::sync::Arc::clone(&#resource);
                async move {
                    let result: ::core::result::Result<(), _> = #function(&*#resource).await;
                    #private::require::assert_error_is_taken(result)
                }
            })
        };
        return quote! {{
            let #resource = #cloned;
            #checks.add(#new #setters);
        }};
    }
    let dispatch = quote_spanned!(ty.span()=> #private::Dispatch::<#ty, _>::discover);
    let discover = quote!(#dispatch(&self.#member, #name, #checks));
    let modified = match &attrs.group {
        Some(group) => quote!(#private::in_group(#check, #group) #setters),
        None => quote!(#check #setters),
    };
    if attrs.group.is_none() && setters.is_empty() {
        quote!(#discover;)
    } else {
        quote!(#private::modified(#checks, |#checks| #discover, |#check| #modified);)
    }
}

/// The calls on a check that the attributes are written for.
fn setters(attrs: &attr::Field) -> TokenStream {
    let duration = |duration: std::time::Duration| {
        let ms = u64::try_from(duration.as_millis()).expect("parsed from a `u64`");
        quote!(::core::time::Duration::from_millis(#ms))
    };
    let critical = attrs.critical.as_ref().map(|_| quote!(.critical()));
    let optional = attrs.optional.as_ref().map(|_| quote!(.optional()));
    let shared = attrs.shared.as_ref().map(|_| quote!(.shared()));
    let timeout = attrs.timeout.map(duration).map(|timeout| quote!(.timeout(#timeout)));
    let max_age = attrs.max_age.map(duration).map(|max_age| quote!(.max_age(#max_age)));
    let rise = attrs.rise.map(|rise| quote!(.rise(#rise)));
    let fall = attrs.fall.map(|fall| quote!(.fall(#fall)));
    let live = attrs.live.as_ref().map(|_| quote!(.live()));
    quote!(#critical #optional #shared #timeout #max_age #rise #fall #live)
}

/// A local variable that paths in the user's attributes cannot refer to.
fn local(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
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
        .chain(state.same_names().filter_map(|(earlier, later)| assert_distinct(earlier, later, state, private)))
        .collect()
}

/// A probe must not be ignored because it cannot be cloned, or because of the type that contains it.
fn assert_reachable(field: &Field, private: &TokenStream) -> TokenStream {
    let ty = &field.ty;
    let is_probed = is_probed(ty, private);
    let mentions_probe = mentions_probe(ty, private);
    let message = "this field contains a probe that cannot be reached: a probe must be `Clone` or in an `Arc`, and in nothing but \
                   `Arc`, `Box`, `&'static`, `Option`, `Vec`, `web::Data`, `web::ThinData` and maps with `Display` keys; \
                   `dyn Trait + Send` is another type than a `dyn Trait` that implements `Probe`; to probe the field with a \
                   function, write `#[health(with = path)]`; to leave it unprobed, `#[health(skip)]`";
    quote_spanned!(ty.span()=> ::core::assert!(#is_probed || !(#mentions_probe), #message))
}

fn is_probed(ty: &Type, private: &TokenStream) -> TokenStream {
    quote_spanned!(ty.span()=> #private::Dispatch::<#ty, _>::IS_PROBED)
}

/// Whether the type is or mentions a probe or a state, even one that cannot be reached.
fn mentions_probe(ty: &Type, private: &TokenStream) -> TokenStream {
    let inner = types::mentioned(ty).into_iter().map(types::without_auto_traits);
    let inner = inner.map(|ty| quote!(#private::InnerDispatch::<#ty>));
    quote_spanned!(ty.span()=> false #(|| #inner::IS_PROBE || #inner::IS_STATE)*)
}

fn assert_something_is_probed(state: &Struct<'_>, private: &TokenStream) -> Option<TokenStream> {
    let mut is_any_probed = quote!(false);
    for field in state.fields.iter().filter(|field| field.attrs.skip.is_none()) {
        if field.attrs.with.is_some() || requirement(field, state).is_some() {
            return None;
        }
        // A probe that cannot be reached has an error of its own.
        let (is_probed, mentions_probe) = (is_probed(&field.ty, private), mentions_probe(&field.ty, private));
        is_any_probed.extend(quote!(|| #is_probed || #mentions_probe));
    }
    let ident = &state.original.ident;
    let message = format!(
        "nothing in `{ident}` is probed: no field implements `health::Probe` or derives `HealthCheck`; to probe a field with a \
         function, write `#[health(with = path)]`"
    );
    // Located at the struct's name, resolved at the call site.
    let span = Span::call_site().located_at(ident.span());
    Some(quote_spanned!(span=> ::core::assert!(#is_any_probed, #message)))
}

/// Compares two checks of the same name if the type determines the group of at least one of them.
fn assert_distinct(earlier: &Field, later: &Field, state: &Struct<'_>, private: &TokenStream) -> Option<TokenStream> {
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
    let message = format!(
        "duplicate check `{}` in one group: set another name or group on one of the fields",
        state.check_name(later)
    );
    Some(quote_spanned!(span=> ::core::assert!(!#private::same_group(#earlier_group, #later_group), #message)))
}
