//! Inspects types as they are written: the wrappers around a type, and the types that it mentions.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{
    GenericArgument, Generics, Ident, Path, PathArguments, PathSegment, Type, TypeGroup, TypeParamBound, TypeParen,
    TypePath,
};

/// Locks and cells of the standard library, tokio, `parking_lot` and `once_cell`.
const CELLS: [&str; 9] =
    ["Cell", "LazyCell", "LazyLock", "Mutex", "OnceCell", "OnceLock", "ReentrantMutex", "RefCell", "RwLock"];

/// Whether the type mentions a type parameter, or is one.
pub(crate) fn mentions_parameter(ty: &Type, generics: &Generics) -> bool {
    let is_parameter = |ident: &Ident| generics.type_params().any(|parameter| parameter.ident == *ident);
    mentioned(ty).into_iter().filter_map(path).any(|path| is_parameter(&path.segments[0].ident))
}

/// The type inside all transparent wrappers.
pub(crate) fn innermost(ty: &Type) -> &Type {
    unwrapped(ty).map_or(ty, |(_, inner)| innermost(inner))
}

/// The type that implements `Probe` if the field is probed: the innermost one, with the pointers directly around it, because a
/// pointer to a probe is a probe.
pub(crate) fn probe_type(ty: &Type) -> &Type {
    let Some((is_pointer, inner)) = unwrapped(ty) else { return ty };
    let probe = probe_type(inner);
    if is_pointer && std::ptr::eq(probe, inner) { ty } else { probe }
}

/// The type inside a transparent wrapper, and whether that is a pointer.
fn unwrapped(ty: &Type) -> Option<(bool, &Type)> {
    let (is_pointer, index) = match last_name(ty).as_deref() {
        Some("Arc" | "Box" | "Data" | "ThinData") => (true, 0),
        Some("Option" | "Vec") => (false, 0),
        Some("HashMap" | "BTreeMap") => (false, 1),
        None if is_reference(ty) => (true, 0),
        _ => return None,
    };
    Some((is_pointer, contained(ty).get(index)?))
}

/// The lock or cell that a clone of the value would not share with it.
pub(crate) fn unshared_cell(ty: &Type) -> Option<String> {
    match last_name(ty) {
        Some(name) if name == "Arc" || name == "Data" => None,
        None if is_reference(ty) => None,
        _ => cell(ty).or_else(|| contained(ty).into_iter().find_map(unshared_cell)),
    }
}

/// The name of the type, if it is a lock or a cell.
pub(crate) fn cell(ty: &Type) -> Option<String> {
    last_name(ty).filter(|name| CELLS.contains(&&**name))
}

/// The type and all types that it mentions, outermost first. `PhantomData` contains no value of the type that it mentions.
pub(crate) fn mentioned(ty: &Type) -> Vec<&Type> {
    std::iter::once(ty).chain(contained(ty).into_iter().flat_map(mentioned)).collect()
}

/// The type. Of a trait object only the first trait, because `Probe` may be implemented for `dyn Trait`, while a field is written as
/// `dyn Trait + Send`.
pub(crate) fn without_auto_traits(ty: &Type) -> TokenStream {
    let object = if let Type::TraitObject(object) = ungrouped(ty) { Some(object) } else { None };
    let first = object.and_then(|object| object.bounds.iter().find(|bound| matches!(bound, TypeParamBound::Trait(_))));
    first.map_or_else(|| quote!(#ty), |first| quote!(dyn #first))
}

/// The types that the type itself mentions.
fn contained(ty: &Type) -> Vec<&Type> {
    match ungrouped(ty) {
        Type::Path(TypePath { qself, path, .. }) => {
            let segments = path.segments.iter().filter(|segment| segment.ident != "PhantomData");
            qself.iter().map(|qself| &*qself.ty).chain(segments.flat_map(arguments)).collect()
        }
        Type::Reference(inner) => vec![&inner.elem],
        Type::Array(inner) => vec![&inner.elem],
        Type::Slice(inner) => vec![&inner.elem],
        Type::Tuple(inner) => inner.elems.iter().collect(),
        // The types in a function pointer or a trait object are not contained in its value.
        _ => Vec::new(),
    }
}

fn arguments(segment: &PathSegment) -> impl Iterator<Item = &Type> {
    let arguments = match &segment.arguments {
        PathArguments::AngleBracketed(arguments) => Some(&arguments.args),
        _ => None,
    };
    arguments.into_iter().flatten().filter_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}

/// The path of the type, if it is one.
pub(crate) fn path(ty: &Type) -> Option<&Path> {
    if let Type::Path(TypePath { path, .. }) = ungrouped(ty) { Some(path) } else { None }
}

/// The path of the first trait, if the type is a trait object.
pub(crate) fn object_trait(ty: &Type) -> Option<&Path> {
    let Type::TraitObject(object) = ungrouped(ty) else { return None };
    object
        .bounds
        .iter()
        .find_map(|bound| if let TypeParamBound::Trait(bound) = bound { Some(&bound.path) } else { None })
}

fn is_reference(ty: &Type) -> bool {
    matches!(ungrouped(ty), Type::Reference(_))
}

fn last_name(ty: &Type) -> Option<String> {
    Some(path(ty)?.segments.last()?.ident.to_string())
}

/// A type that `macro_rules!` substituted is in an invisible group.
fn ungrouped(mut ty: &Type) -> &Type {
    while let Type::Paren(TypeParen { elem, .. }) | Type::Group(TypeGroup { elem, .. }) = ty {
        ty = elem;
    }
    ty
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    #[test]
    fn the_probe_type_keeps_its_pointers_and_loses_all_other_wrappers() {
        let cases: [(Type, Type); 6] = [
            (parse_quote!(Option<T>), parse_quote!(T)),
            (parse_quote!(Option<Arc<T>>), parse_quote!(Arc<T>)),
            (parse_quote!(Arc<HashMap<String, T>>), parse_quote!(T)),
            (parse_quote!(web::Data<Vec<Box<T>>>), parse_quote!(Box<T>)),
            (parse_quote!(Vec<&'static T>), parse_quote!(&'static T)),
            (parse_quote!(web::ThinData<Arc<T>>), parse_quote!(web::ThinData<Arc<T>>)),
        ];
        let printed = |ty: &Type| quote!(#ty).to_string();
        for (ty, probe) in &cases {
            assert_eq!(printed(probe_type(ty)), printed(probe));
        }
    }

    #[test]
    fn a_cell_is_shared_only_behind_a_pointer_whose_clones_share_the_value() {
        let unshared: [Type; 5] = [
            parse_quote!(OnceCell<PgPool>),
            parse_quote!(tokio::sync::RwLock<PgPool>),
            parse_quote!(Option<Box<OnceLock<PgPool>>>),
            parse_quote!((u8, [RefCell<Arc<PgPool>>; 2])),
            parse_quote!(web::ThinData<Mutex<PgPool>>),
        ];
        for ty in &unshared {
            assert!(unshared_cell(ty).is_some(), "{}", quote!(#ty));
        }
        let shared: [Type; 5] = [
            parse_quote!(Arc<OnceCell<PgPool>>),
            parse_quote!(web::Data<Mutex<PgPool>>),
            parse_quote!(&'static OnceLock<PgPool>),
            parse_quote!(Vec<Arc<Mutex<PgPool>>>),
            parse_quote!(PgPool),
        ];
        for ty in &shared {
            assert!(unshared_cell(ty).is_none(), "{}", quote!(#ty));
        }
    }
}
