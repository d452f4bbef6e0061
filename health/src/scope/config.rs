//! The settings of a scope: [`ScopeOptions`] as the builder collects them, and [`ScopeConfig`] after validation.

use std::{
    collections::HashSet,
    env::{self, VarError},
    rc::Rc,
    time::Duration,
};

use derive_more::{Display, Error, From};
use ipnet::IpNet;

use super::guard::{AccessControl, Deny, Predicate};
use crate::{
    access::{AllowSource, ForwardingHeader, ListError, NetworkSet, Policy, TrustedProxies},
    check::{Check, InvalidCheck, redaction_hint},
    discovery::state::FoundState,
    engine::{EngineConfig, Filter},
    process::LONG_DEADLINE_WARNING,
    redact::label,
    registry::Registry,
    report::{MAX_DURATION, Release},
};

/// The longest deadline.
///
/// The server does not notice that a client has disconnected before the response is written: a client may close only its half of
/// an HTTP/1 connection, so actix keeps the connection. With a deadline of hours, a check that hangs would keep the descriptors
/// of all disconnected clients.
const MAX_DEADLINE: Duration = Duration::from_secs(10);

/// The message of a scope without any check.
const NO_CHECKS: &str = "there are no checks: add `.probe(\"db\", pool.clone())` to health::scope(), derive HealthCheck for the \
                         application's state, or register a check; a service without dependencies adds `.allow_empty()`";

/// The settings of a scope, not validated.
pub(super) struct ScopeOptions {
    pub(super) path: String,
    pub(super) allow: AllowSource,
    pub(super) allow_unix: bool,
    pub(super) proxies: ProxyConfig,
    pub(super) authorize: Option<Predicate>,
    pub(super) deny: Deny,
    pub(super) deadline: Duration,
    pub(super) max_age: Duration,
    pub(super) refresh: Option<Duration>,
    pub(super) stall: Duration,
    pub(super) kubernetes_paths: bool,
    pub(super) states: Vec<FoundState>,
    pub(super) checks: Vec<Check>,
    pub(super) registries: Vec<Registry>,
    pub(super) allow_empty: bool,
    pub(super) include: Option<Vec<String>>,
    pub(super) exclude: Vec<String>,
    pub(super) release: Option<Release>,
    pub(super) server: ServerKind,
}

/// The server that a scope is on.
#[derive(Clone, Copy)]
pub(super) enum ServerKind {
    /// One whose workers serve the application.
    Main,
    /// That of [`serve`](crate::serve).
    Management,
}

/// The proxies to trust, and how they forward the address of the client.
#[derive(Clone, Debug, Default)]
pub(super) struct ProxyConfig {
    pub(super) networks: Option<Vec<IpNet>>,
    pub(super) unix: bool,
    pub(super) header: ForwardingHeader,
}

/// The validated settings of a scope.
pub(super) struct ScopeConfig {
    pub(super) access: Rc<AccessControl>,
    pub(super) stall: Duration,
    pub(super) server: ServerKind,
    pub(super) sources: ScopeSources,
}

/// Where the checks of a scope come from, and how they run.
#[derive(Clone)]
pub(super) struct ScopeSources {
    pub(super) path: String,
    pub(super) engine: EngineConfig,
    pub(super) states: Vec<FoundState>,
    pub(super) checks: Vec<Check>,
    pub(super) registries: Vec<Registry>,
    pub(super) filter: Filter,
    pub(super) release: Option<Release>,
}

/// The error of [`Scope::validate`](crate::Scope::validate): an invalid setting, which keeps the server from starting.
#[derive(Debug, Display, Error)]
#[display("invalid configuration: {_0}")]
pub struct ConfigError(#[error(not(source))] Box<Invalid>);

/// The kind of a [`ConfigError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigErrorKind {
    /// `HEALTHCHECK_IPS`, [`Scope::allow`](crate::Scope::allow) or [`Scope::trust_proxies`](crate::Scope::trust_proxies) has an entry
    /// that is invalid or trusts every client.
    Network,
    /// A check of the scope cannot run, or two have one name.
    Check,
    /// [`Scope::path`](crate::Scope::path) cannot be the path of a request.
    Path,
    /// A duration is zero.
    Duration,
    /// `HEALTHCHECK_EXCLUDE` is not valid UTF-8.
    Exclude,
    /// A scope with a predicate of [`Scope::authorize`](crate::Scope::authorize) is to be served over gRPC.
    Authorize,
}

impl ConfigError {
    /// The kind of the error.
    pub fn kind(&self) -> ConfigErrorKind {
        match &*self.0 {
            Invalid::Network(_) | Invalid::TrustsEveryone(_) => ConfigErrorKind::Network,
            Invalid::Check(_) | Invalid::DuplicateCheck(_) => ConfigErrorKind::Check,
            Invalid::Path(_) => ConfigErrorKind::Path,
            Invalid::ZeroDuration(_) => ConfigErrorKind::Duration,
            Invalid::ExcludeVariable => ConfigErrorKind::Exclude,
            #[cfg(feature = "tonic")]
            Invalid::PredicateOverGrpc => ConfigErrorKind::Authorize,
        }
    }
}

impl From<Invalid> for ConfigError {
    fn from(invalid: Invalid) -> Self {
        Self(Box::new(invalid))
    }
}

/// An invalid setting.
#[derive(Debug, Display, From)]
pub(super) enum Invalid {
    #[from]
    Network(ListError),
    #[from]
    Check(InvalidCheck),
    #[display("{EXCLUDE_VAR} is not valid UTF-8")]
    ExcludeVariable,
    #[cfg(feature = "tonic")]
    #[display(
        "the predicate of .authorize takes a request of actix-web, so it cannot decide on a gRPC request: pass a scope without it, and write an \
         interceptor of tonic"
    )]
    PredicateOverGrpc,
    #[display("two checks of the scope are named {_0}{}", redaction_hint(_0))]
    DuplicateCheck(String),
    #[display(".path: no request has the path `{}`, because a path ends before `?` and `#`", label(_0))]
    Path(String),
    #[display("{_0} must be greater than zero")]
    ZeroDuration(&'static str),
    #[display(
        "{}: the networks contain `{_0}`, which trusts every client; list only the networks of your proxies",
        TRUST_PROXIES
    )]
    TrustsEveryone(IpNet),
}

/// The groups and checks that an operator excludes, separated by commas.
const EXCLUDE_VAR: &str = "HEALTHCHECK_EXCLUDE";

/// How errors name the list of proxies.
const TRUST_PROXIES: &str = ".trust_proxies";

impl Default for ScopeOptions {
    fn default() -> Self {
        Self {
            path: "/health".to_owned(),
            allow: AllowSource::Default,
            allow_unix: false,
            proxies: ProxyConfig::default(),
            authorize: None,
            deny: Deny::default(),
            deadline: Duration::from_millis(800),
            max_age: Duration::from_secs(1),
            refresh: None,
            stall: Duration::from_secs(10),
            kubernetes_paths: false,
            states: Vec::new(),
            checks: Vec::new(),
            registries: Vec::new(),
            allow_empty: false,
            include: None,
            exclude: Vec::new(),
            release: None,
            server: ServerKind::Main,
        }
    }
}

impl ScopeOptions {
    pub(super) fn validate(&self) -> Result<ScopeConfig, Invalid> {
        let Self { deadline, max_age, refresh, stall, .. } = *self;
        for (setting, time) in [("deadline", Some(deadline)), ("refresh", refresh), ("stall", Some(stall))] {
            if time.is_some_and(|time| time.is_zero()) {
                return Err(Invalid::ZeroDuration(setting));
            }
        }
        if self.path.contains(['?', '#']) {
            return Err(Invalid::Path(self.path.clone()));
        }
        validate_checks(&self.checks)?;
        let policy = Policy::new(&self.allow, self.allow_unix, self.proxies.clone().validate()?)?;
        if deadline > MAX_DEADLINE {
            warn_long_deadline_once(deadline);
        }
        Ok(ScopeConfig {
            access: Rc::new(AccessControl { policy, authorize: self.authorize.clone(), deny: self.deny }),
            stall: stall.min(MAX_DURATION),
            server: self.server,
            sources: ScopeSources {
                path: self.path.clone(),
                engine: EngineConfig {
                    deadline: deadline.min(MAX_DEADLINE),
                    max_age: max_age.min(MAX_DURATION),
                    refresh: refresh.map(|interval| interval.min(MAX_DURATION)),
                    if_empty: (!self.allow_empty).then_some(NO_CHECKS),
                },
                states: self.states.clone(),
                checks: self.checks.clone(),
                registries: self.registries.clone(),
                filter: self.filter()?,
                release: self.release.clone(),
            },
        })
    }

    fn filter(&self) -> Result<Filter, Invalid> {
        let variable = match env::var(EXCLUDE_VAR) {
            Ok(value) => value,
            Err(VarError::NotPresent) => String::new(),
            Err(VarError::NotUnicode(_)) => return Err(Invalid::ExcludeVariable),
        };
        let names = variable.split(',').map(str::trim).filter(|name| !name.is_empty());
        let excluded_by_variable = names.map(|name| (EXCLUDE_VAR, name.to_owned()));
        let exclude = self.exclude.iter().map(|name| (".exclude", name.clone()));
        Ok(Filter { include: self.include.clone(), exclude: exclude.chain(excluded_by_variable).collect() })
    }
}

impl ProxyConfig {
    fn validate(self) -> Result<Option<TrustedProxies>, Invalid> {
        if self.networks.is_none() && !self.unix {
            return Ok(None);
        }
        let networks = NetworkSet::new(TRUST_PROXIES, self.networks.unwrap_or_default())?;
        if let Some(all) = networks.network_of_all_clients() {
            return Err(Invalid::TrustsEveryone(all));
        }
        Ok(Some(TrustedProxies { header: self.header, networks, unix: self.unix }))
    }
}

fn validate_checks(checks: &[Check]) -> Result<(), Invalid> {
    let mut names = HashSet::new();
    for check in checks {
        check.validate()?;
        if !names.insert((check.group(), check.name())) {
            return Err(Invalid::DuplicateCheck(check.to_string()));
        }
    }
    Ok(())
}

fn warn_long_deadline_once(deadline: Duration) {
    if LONG_DEADLINE_WARNING.claim() {
        tracing::warn!(
            "health scope: the deadline of {} s is too long, so {} s is used: the connections of disconnected \
             clients stay open until the response is written",
            deadline.as_secs(),
            MAX_DEADLINE.as_secs()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_that_together_trust_every_client_are_an_error() {
        let error_of = |networks: &[&str]| {
            let networks = networks.iter().map(|network| network.parse().unwrap()).collect();
            let proxies = ProxyConfig { networks: Some(networks), ..ProxyConfig::default() };
            proxies.validate().err().map(|error| error.to_string())
        };
        for all in [
            &["0.0.0.0/0"][..],
            &["::/0"],
            &["::ffff:0.0.0.0/96"],
            &["10.0.0.0/8", "::ffff:0.0.0.0/96"],
            &["0.0.0.0/1", "128.0.0.0/1"],
            &["::ffff:0.0.0.0/97", "128.0.0.0/1"],
            &["::ffff:0.0.0.0/97", "::ffff:128.0.0.0/97"],
            &["0.0.0.0/2", "64.0.0.0/2", "128.0.0.0/1", "10.0.0.0/8"],
            &["::/1", "8000::/1"],
            &["2000::/3"],
            &["2000::/4", "3000::/4"],
        ] {
            let error = error_of(all).unwrap_or_else(|| panic!("{all:?}"));
            assert!(error.contains("trusts every client"), "{error}");
        }
        for some in
            [&["10.0.0.0/8", "::ffff:192.0.2.0/120", "fd00::/8"][..], &["0.0.0.0/1"], &["::ffff:0.0.0.0/97"], &[]]
        {
            assert_eq!(error_of(some), None, "{some:?}");
        }
    }
}
