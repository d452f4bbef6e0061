//! Inspects types as they are written: the wrappers around a type, and the types that it mentions.

use syn::{GenericArgument, Generics, Ident, PathArguments, PathSegment, ReturnType, Type, TypePath};

/// Whether the type mentions a type parameter, or is one.
pub(crate) fn mentions_parameter(ty: &Type, generics: &Generics) -> bool {
    segments(ty).any(|(before, segment)| before.is_empty() && is_parameter(&segment.ident, generics))
}

fn is_parameter(ident: &Ident, generics: &Generics) -> bool {
    generics.type_params().any(|parameter| parameter.ident == *ident)
}

/// The type inside all transparent wrappers.
pub(crate) fn innermost(ty: &Type) -> &Type {
    unwrapped(ty).map_or(ty, |(_, inner)| innermost(inner))
}

/// The type that implements `Probe` if the field is probed: the innermost one, with the pointers directly around it, because a
/// pointer to a probe is a probe.
pub(crate) fn probe_type(ty: &Type) -> &Type {
    match unwrapped(ty) {
        Some((Wrapper::Collection | Wrapper::Option, inner)) => probe_type(inner),
        Some((Wrapper::Pointer, inner)) => {
            let probe = probe_type(inner);
            if std::ptr::eq(probe, inner) { ty } else { probe }
        }
        None => ty,
    }
}

/// The type and all types that it mentions. `PhantomData` contains no value of the type that it mentions.
pub(crate) fn mentioned(ty: &Type) -> Vec<&Type> {
    let inner: Vec<&Type> = match ty {
        Type::Path(TypePath { path, .. }) => {
            let segments = path.segments.iter().filter(|segment| segment.ident != "PhantomData");
            segments
                .flat_map(|segment| match &segment.arguments {
                    PathArguments::AngleBracketed(_) => arguments(segment).collect(),
                    _ => Vec::new(),
                })
                .collect()
        }
        Type::Paren(inner) => return mentioned(&inner.elem),
        Type::Group(inner) => return mentioned(&inner.elem),
        Type::Reference(inner) => vec![&inner.elem],
        Type::Array(inner) => vec![&inner.elem],
        Type::Slice(inner) => vec![&inner.elem],
        Type::Tuple(inner) => inner.elems.iter().collect(),
        // The types in a function pointer or a trait object are not contained in its value.
        _ => return Vec::new(),
    };
    std::iter::once(ty).chain(inner.into_iter().flat_map(mentioned)).collect()
}

/// Whether the type can contain several values, whose checks therefore need a prefix.
pub(crate) fn is_collection(ty: &Type) -> bool {
    unwrapped(ty).is_some_and(|(wrapper, inner)| matches!(wrapper, Wrapper::Collection) || is_collection(inner))
}

enum Wrapper {
    Pointer,
    Option,
    Collection,
}

fn unwrapped(ty: &Type) -> Option<(Wrapper, &Type)> {
    let path = match ty {
        Type::Path(TypePath { qself: None, path, .. }) => path,
        Type::Paren(inner) => return unwrapped(&inner.elem),
        Type::Group(inner) => return unwrapped(&inner.elem),
        _ => return None,
    };
    let last = path.segments.last()?;
    let mut types = arguments(last);
    let (wrapper, inner) = match &*last.ident.to_string() {
        "Arc" | "Box" | "Data" => (Wrapper::Pointer, types.next()),
        "Option" => (Wrapper::Option, types.next()),
        "Vec" => (Wrapper::Collection, types.next()),
        "HashMap" | "BTreeMap" => (Wrapper::Collection, types.nth(1)),
        _ => return None,
    };
    Some((wrapper, inner?))
}

/// The segments of all paths in a type, each with the segments before it in its path, outermost type first. Omits
/// `PhantomData`.
pub(crate) fn segments(ty: &Type) -> Box<dyn Iterator<Item = (Vec<&PathSegment>, &PathSegment)> + '_> {
    match ty {
        Type::Path(TypePath { qself, path, .. }) => {
            let qualified = qself.iter().flat_map(|qself| segments(&qself.ty));
            let own = path.segments.iter().enumerate().filter(|(_, segment)| segment.ident != "PhantomData");
            Box::new(qualified.chain(own.flat_map(|(index, segment)| {
                let before = path.segments.iter().take(index).collect();
                std::iter::once((before, segment)).chain(arguments(segment).flat_map(segments))
            })))
        }
        Type::Paren(inner) => segments(&inner.elem),
        Type::Group(inner) => segments(&inner.elem),
        Type::Reference(inner) => segments(&inner.elem),
        Type::Array(inner) => segments(&inner.elem),
        Type::Slice(inner) => segments(&inner.elem),
        Type::Tuple(inner) => Box::new(inner.elems.iter().flat_map(segments)),
        // As in `mentioned`.
        _ => Box::new(std::iter::empty()),
    }
}

fn arguments(segment: &PathSegment) -> impl Iterator<Item = &Type> {
    let types: Vec<_> = match &segment.arguments {
        PathArguments::AngleBracketed(arguments) => arguments
            .args
            .iter()
            .filter_map(|argument| match argument {
                GenericArgument::Type(ty) => Some(ty),
                _ => None,
            })
            .collect(),
        PathArguments::Parenthesized(arguments) => match &arguments.output {
            ReturnType::Type(_, ty) => vec![&**ty],
            ReturnType::Default => Vec::new(),
        },
        PathArguments::None => Vec::new(),
    };
    types.into_iter()
}

#[cfg(test)]
mod tests {
    use quote::quote;
    use syn::parse_quote;

    use super::*;

    #[test]
    fn the_probe_type_keeps_its_pointers_and_loses_all_other_wrappers() {
        let cases: [(Type, Type, Type); 4] = [
            (parse_quote!(Option<T>), parse_quote!(T), parse_quote!(T)),
            (parse_quote!(Option<Arc<T>>), parse_quote!(T), parse_quote!(Arc<T>)),
            (parse_quote!(Arc<HashMap<String, T>>), parse_quote!(T), parse_quote!(T)),
            (parse_quote!(web::Data<Vec<Box<T>>>), parse_quote!(T), parse_quote!(Box<T>)),
        ];
        let printed = |ty: &Type| quote!(#ty).to_string();
        for (ty, inner, probe) in &cases {
            assert_eq!(printed(innermost(ty)), printed(inner));
            assert_eq!(printed(probe_type(ty)), printed(probe));
        }
    }
}
