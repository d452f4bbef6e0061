//! [`Route`]: the paths of a scope, and [`Endpoint`]: what one of them reports on.

use std::borrow::Cow;

use actix_web::dev::ResourceDef;
use percent_encoding::percent_decode_str;

use crate::engine::Selection;

/// A path of the scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Health,
    Ready,
    Live,
    Startup,
    Metrics,
    Schema,
    OpenApi,
    /// Only with the feature `page`.
    Page,
    /// `/{group}`, which belongs to the application if there is no such group.
    Group,
    /// `/{group}/{name}`, which belongs to the application if there is no such check.
    Check,
}

/// What a report is about.
#[derive(Debug, PartialEq)]
pub(super) enum Endpoint<'a> {
    Health,
    Ready,
    Live,
    Startup,
    Group(Cow<'a, str>),
    Check(Cow<'a, str>, Cow<'a, str>),
}

impl Route {
    /// The routes with a path of their own, each with its tail below the path of the scope, the most frequent first.
    const FIXED: [(Self, &'static str); 8] = [
        (Self::Health, ""),
        (Self::Ready, "/ready"),
        (Self::Live, "/live"),
        (Self::Startup, "/startup"),
        (Self::Metrics, "/metrics"),
        (Self::Schema, "/schema"),
        (Self::OpenApi, "/openapi.json"),
        (Self::Page, "/page"),
    ];

    /// The paths that the Kubernetes API server has.
    const KUBERNETES: [(Self, &'static str); 3] =
        [(Self::Health, "/healthz"), (Self::Ready, "/readyz"), (Self::Live, "/livez")];

    /// The patterns of all paths of a scope at `path`, which does not end in a slash. Those of fixed paths are plain text, which is
    /// matched faster than a pattern.
    pub(super) fn patterns(path: &str, kubernetes_paths: bool) -> Vec<(Self, ResourceDef)> {
        let fixed = Self::FIXED.iter().filter(|(route, _)| cfg!(feature = "page") || *route != Self::Page);
        let fixed = fixed.map(|(route, tail)| (*route, format!("{path}{tail}")));
        let kubernetes = Self::KUBERNETES.iter().filter(|_| kubernetes_paths);
        let kubernetes = kubernetes.map(|(route, path)| (*route, (*path).to_owned()));
        let with_slash = |(route, path): (Self, String)| {
            let slash = (route, format!("{path}/"));
            [(route, path), slash].into_iter().filter(|(_, path)| !path.is_empty())
        };
        let fixed = fixed.chain(kubernetes).flat_map(with_slash);
        let patterns = fixed.map(|(route, path)| (route, ResourceDef::new(path)));
        let named = |tail: &str| ResourceDef::new([format!("{path}{tail}"), format!("{path}{tail}/")]);
        // Prefixed, so that they do not collide with the segments of an enclosing scope.
        let (group, check) = ("/{health_group_of_check}", "/{health_group_of_check}/{health_name_of_check}");
        patterns.chain([(Self::Group, named(group)), (Self::Check, named(check))]).collect()
    }

    /// Whether the path names a group or a check.
    pub(super) fn is_named(self) -> bool {
        matches!(self, Self::Group | Self::Check)
    }

    /// The endpoint of a request whose percent-encoded path matches the route; `None` for a path that has no report.
    pub(super) fn endpoint(self, path: &str) -> Option<Endpoint<'_>> {
        // A route does not depend on the segments before, which may be those of enclosing scopes.
        let mut segments = path.strip_suffix('/').unwrap_or(path).rsplit('/');
        let mut last = || percent_decode_str(segments.next().unwrap_or_default()).decode_utf8_lossy();
        Some(match self {
            Self::Health => Endpoint::Health,
            Self::Ready => Endpoint::Ready,
            Self::Live => Endpoint::Live,
            Self::Startup => Endpoint::Startup,
            Self::Group => Endpoint::Group(last()),
            Self::Check => {
                let name = last();
                Endpoint::Check(last(), name)
            }
            Self::Metrics | Self::Schema | Self::OpenApi | Self::Page => return None,
        })
    }
}

impl Endpoint<'_> {
    pub(super) fn selection(&self) -> Selection<'_> {
        match self {
            Self::Health | Self::Ready => Selection::All,
            Self::Live => Selection::Live,
            Self::Startup => Selection::Required,
            Self::Group(group) => Selection::Group(group),
            Self::Check(group, name) => Selection::Check(group, name),
        }
    }

    /// The name in texts.
    pub(super) fn name(&self) -> Cow<'_, str> {
        match self {
            Self::Health => "health".into(),
            Self::Ready => "ready".into(),
            Self::Live => "live".into(),
            Self::Startup => "startup".into(),
            Self::Group(group) => (&**group).into(),
            Self::Check(group, name) => format!("{group}.{name}").into(),
        }
    }

    /// The index of a fixed path; `None` for a path that contains the name of a group.
    pub(super) fn fixed_index(&self) -> Option<usize> {
        match self {
            Self::Health => Some(0),
            Self::Ready => Some(1),
            Self::Live => Some(2),
            Self::Startup => Some(3),
            Self::Group(_) | Self::Check(..) => None,
        }
    }
}

/// The number of endpoints with a fixed path.
pub(super) const FIXED_PATH_COUNT: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_last_segments_of_the_path_decoded() {
        assert_eq!(Route::Group.endpoint("/api/v1/health/database/"), Some(Endpoint::Group("database".into())));
        assert_eq!(
            Route::Check.endpoint("/health/database/big%20corp%2F%C3%A4"),
            Some(Endpoint::Check("database".into(), "big corp/ä".into()))
        );
    }

    #[test]
    fn only_the_routes_of_groups_and_checks_are_named() {
        assert!(Route::Group.is_named() && Route::Check.is_named());
        assert!(Route::FIXED.iter().all(|(route, _)| !route.is_named()));
    }

    #[test]
    fn each_endpoint_has_a_name_and_those_with_a_fixed_path_an_index() {
        let fixed = [Route::Health, Route::Ready, Route::Live, Route::Startup];
        let fixed = fixed.map(|route| route.endpoint("/health").unwrap());
        assert_eq!(fixed.each_ref().map(Endpoint::name), ["health", "ready", "live", "startup"]);
        assert_eq!(fixed.each_ref().map(Endpoint::fixed_index), [Some(0), Some(1), Some(2), Some(3)]);
        assert_eq!(fixed.len(), FIXED_PATH_COUNT);

        let group = Endpoint::Group("database".into());
        assert_eq!((&*group.name(), group.fixed_index()), ("database", None));
        let check = Endpoint::Check("database".into(), "db".into());
        assert_eq!((&*check.name(), check.fixed_index()), ("database.db", None));
    }

    #[test]
    fn a_scope_at_the_root_has_no_empty_pattern() {
        let patterns = Route::patterns("", true);
        let matches = |path: &str| patterns.iter().find(|(_, pattern)| pattern.is_match(path)).map(|(route, _)| *route);
        assert_eq!(matches("/"), Some(Route::Health));
        assert_eq!(matches("/readyz/"), Some(Route::Ready));
        assert_eq!(matches("/live"), Some(Route::Live));
        assert_eq!(matches("/database"), Some(Route::Group));
        assert_eq!(matches("/database/db/"), Some(Route::Check));
        assert_eq!(matches("/a/b/c"), None);
    }
}
