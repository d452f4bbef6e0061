//! The impl that is generated after an error. Without it, every use of the state would be a second error.

use proc_macro2::TokenStream;
use quote::quote;
use syn::DeriveInput;

pub(crate) fn expand(input: &DeriveInput, krate: &TokenStream, error: &syn::Error) -> TokenStream {
    let error = error.to_compile_error();
    let ident = &input.ident;
    let (impl_generics, ty_generics, where_clause) = input.generics.split_for_impl();
    quote! {
        #error

        #[automatically_derived]
        impl #impl_generics #krate::HealthCheck for #ident #ty_generics #where_clause {
            fn health_checks(&self, _: &mut #krate::Checks) {
                ::core::unreachable!()
            }
        }
    }
}
