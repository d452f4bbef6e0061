//! [`Endpoint`]: the paths of a scope.

use std::borrow::Cow;

use actix_web::{HttpRequest, dev::ResourceDef};
use percent_encoding::percent_decode_str;

use crate::engine::Selection;

/// The names of the path's segments. Prefixed so that they do not collide with the segments of an enclosing scope.
const GROUP: &str = "health_group_of_check";
const NAME: &str = "health_name_of_check";

/// What a path of the scope reports on.
pub(super) enum Endpoint<'a> {
    Health,
    Ready,
    Live,
    Startup,
    Group(Cow<'a, str>),
    Check(Cow<'a, str>, Cow<'a, str>),
}

/// The patterns of all paths of a scope at `path`, which does not end in a slash.
///
/// The most frequent path has a pattern of its own, which is matched as plain text. At the root, that is `/`.
pub(super) fn patterns(path: &str) -> [ResourceDef; 2] {
    let (group, name) = (format!("{{{GROUP}}}"), format!("{{{NAME}}}"));
    let tails = [
        "/".to_owned(),
        format!("/{group}"),
        format!("/{group}/"),
        format!("/{group}/{name}"),
        format!("/{group}/{name}/"),
    ];
    let (first, tails) = if path.is_empty() { ("/", &tails[1..]) } else { (path, &tails[..]) };
    let tails: Vec<_> = tails.iter().map(|tail| format!("{path}{tail}")).collect();
    [ResourceDef::new(first), ResourceDef::new(tails)]
}

impl<'a> Endpoint<'a> {
    /// The endpoint of a request that one of [`patterns`] has matched.
    pub(super) fn of(request: &'a HttpRequest) -> Self {
        let segment = |name| request.match_info().get(name);
        let decoded = |raw| percent_decode_str(raw).decode_utf8_lossy();
        match (segment(GROUP), segment(NAME)) {
            (None, _) => Self::Health,
            (Some("ready"), None) => Self::Ready,
            (Some("live"), None) => Self::Live,
            (Some("startup"), None) => Self::Startup,
            (Some(group), None) => Self::Group(decoded(group)),
            (Some(group), Some(name)) => Self::Check(decoded(group), decoded(name)),
        }
    }

    pub(super) fn selection(&self) -> Selection<'_> {
        match self {
            Self::Health | Self::Ready => Selection::All,
            Self::Live => Selection::Live,
            Self::Startup => Selection::Critical,
            Self::Group(group) => Selection::Group(group),
            Self::Check(group, name) => Selection::Check(group, name),
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

/// The number of fixed paths.
pub(super) const FIXED_PATH_COUNT: usize = 4;
