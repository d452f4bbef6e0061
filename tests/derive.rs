//! Which fields the derive probes, and how it names their checks.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    marker::PhantomData,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use actix_web::web;
use health::{CheckOptions, Checks, HealthCheck, Probe, ProbeError, Role};
use sqlx::{MySqlPool, PgPool, SqlitePool};

use crate::common::test_server::TestServer;

#[derive(Clone)]
struct Mail;

impl Probe for Mail {
    const GROUP: &'static str = "service";

    async fn probe(&self) -> Result<(), ProbeError> {
        Ok(())
    }
}

/// Not `Clone`, like many clients, so a state holds it in an `Arc`.
struct Search;

impl Probe for Search {
    const GROUP: &'static str = "search";

    async fn probe(&self) -> Result<(), ProbeError> {
        Ok(())
    }
}

fn names(state: &impl HealthCheck) -> Vec<String> {
    Checks::of(state).iter().map(ToString::to_string).collect()
}

/// The fields without a check, as `Debug` shows them.
fn ignored(state: &impl HealthCheck) -> String {
    let checks = format!("{:?}", Checks::of(state));
    let (_, ignored) = checks.split_once("ignored: ").unwrap();
    ignored[..=ignored.find(']').unwrap()].to_owned()
}

fn pg() -> PgPool {
    PgPool::connect_lazy("postgres://localhost/x").unwrap()
}

fn mysql() -> MySqlPool {
    MySqlPool::connect_lazy("mysql://localhost/x").unwrap()
}

fn sqlite() -> SqlitePool {
    SqlitePool::connect_lazy("sqlite::memory:").unwrap()
}

fn client() -> redis::Client {
    redis::Client::open("redis://127.0.0.1").unwrap()
}

type Aliased = PgPool;

mod deep {
    pub(super) use sqlx::Pool as Renamed;
}

/// The struct of README.md, with every kind of field that applications have.
#[derive(HealthCheck)]
#[allow(dead_code)]
struct Plain {
    db: PgPool,
    mysql: MySqlPool,
    aliased: Aliased,
    renamed: deep::Renamed<sqlx::Sqlite>,
    sessions: redis::Client,
    r#type: Mail,
    title: String,
    secret: [u8; 32],
    callback: Box<dyn Fn() -> u8>,
    shared: Arc<std::sync::Mutex<Vec<String>>>,
    http: reqwest::Client,
    auth: auth::Client,
    mail: EmailClient,
    bare: Client,
    marker: PhantomData<PgPool>,
    options: sqlx::postgres::PgPoolOptions,
    function: fn() -> PgPool,
    none_of_it: Option<Vec<u8>>,
    repository: Arc<dyn Repository>,
}

mod reqwest {
    pub(super) struct Client;
}

mod auth {
    pub(super) struct Client;
}

use auth::Client;
use reqwest::Client as EmailClient;

trait Repository: Send + Sync {}

impl Repository for Search {}

#[actix_web::test]
async fn fields_are_probed_by_type_and_all_others_are_ignored() {
    let state = Plain {
        db: pg(),
        mysql: mysql(),
        aliased: pg(),
        renamed: sqlite(),
        sessions: client(),
        r#type: Mail,
        title: String::new(),
        secret: [0; 32],
        callback: Box::new(|| 1),
        shared: Arc::default(),
        http: reqwest::Client,
        auth: Client,
        mail: EmailClient,
        bare: Client,
        marker: PhantomData,
        options: sqlx::postgres::PgPoolOptions::new(),
        function: pg,
        none_of_it: None,
        repository: Arc::new(Search),
    };
    assert_eq!(
        names(&state),
        ["database.db", "database.mysql", "database.aliased", "database.renamed", "cache.sessions", "service.type"]
    );
    assert_eq!(
        ignored(&state),
        r#"["title", "secret", "callback", "shared", "http", "auth", "mail", "bare", "marker", "options", "function", "none_of_it", "repository"]"#
    );
}

#[derive(HealthCheck)]
#[allow(clippy::vec_box, reason = "applications contain it")]
struct Wrapped {
    arc: Arc<PgPool>,
    boxed: Box<PgPool>,
    data: web::Data<PgPool>,
    thin: web::ThinData<PgPool>,
    leaked: &'static PgPool,
    some: Option<PgPool>,
    none: Option<PgPool>,
    list: Vec<PgPool>,
    by_key: HashMap<String, PgPool>,
    ordered: BTreeMap<u16, PgPool>,
    deep: Arc<Option<Vec<Box<PgPool>>>>,
    not_clone: Arc<Search>,
    lists_by_key: BTreeMap<&'static str, Vec<Arc<PgPool>>>,
}

#[actix_web::test]
async fn wrappers_are_transparent() {
    let state = Wrapped {
        arc: pg().into(),
        boxed: pg().into(),
        data: web::Data::new(pg()),
        thin: web::ThinData(pg()),
        leaked: Box::leak(Box::new(pg())),
        some: Some(pg()),
        none: None,
        list: vec![pg(), pg()],
        by_key: HashMap::from([("primary".into(), pg()), ("replica".into(), pg())]),
        ordered: BTreeMap::from([(1, pg()), (2, pg())]),
        deep: Arc::new(Some(vec![Box::new(pg())])),
        not_clone: Arc::new(Search),
        lists_by_key: BTreeMap::from([("eu", vec![Arc::new(pg()), Arc::new(pg())])]),
    };
    assert_eq!(
        names(&state),
        [
            "database.arc",
            "database.boxed",
            "database.data",
            "database.thin",
            "database.leaked",
            "database.some",
            "database.list.0",
            "database.list.1",
            "database.by_key.primary",
            "database.by_key.replica",
            "database.ordered.1",
            "database.ordered.2",
            "database.deep.0",
            "search.not_clone",
            "database.lists_by_key.eu.0",
            "database.lists_by_key.eu.1",
        ]
    );
}

#[derive(HealthCheck)]
struct Inner {
    db: PgPool,
    by_key: BTreeMap<&'static str, PgPool>,
}

#[derive(HealthCheck)]
struct Outer {
    one: Inner,
    shared: Arc<Inner>,
    off: Option<Inner>,
    many: Vec<Inner>,
    keyed: BTreeMap<&'static str, Inner>,
    boxed: Box<dyn HealthCheck>,
    thin: web::ThinData<Option<Arc<Inner>>>,
    leaked: &'static Inner,
    #[health(flatten)]
    flat: Arc<Inner>,
}

fn inner() -> Inner {
    Inner { db: pg(), by_key: BTreeMap::from([("k", pg())]) }
}

#[actix_web::test]
async fn the_checks_of_nested_structs_are_prefixed_with_the_field() {
    let state = Outer {
        one: inner(),
        shared: inner().into(),
        off: None,
        many: vec![inner()],
        keyed: BTreeMap::from([("eu", inner())]),
        boxed: Box::new(inner()),
        thin: web::ThinData(Some(inner().into())),
        leaked: Box::leak(Box::new(inner())),
        flat: inner().into(),
    };
    assert_eq!(
        names(&state),
        [
            "database.one.db",
            "database.one.by_key.k",
            "database.shared.db",
            "database.shared.by_key.k",
            "database.many.0.db",
            "database.many.0.by_key.k",
            "database.keyed.eu.db",
            "database.keyed.eu.by_key.k",
            "database.boxed.db",
            "database.boxed.by_key.k",
            "database.thin.db",
            "database.thin.by_key.k",
            "database.leaked.db",
            "database.leaked.by_key.k",
            "database.db",
            "database.by_key.k",
        ]
    );
}

#[derive(HealthCheck)]
struct Flattened {
    #[health(flatten)]
    tenants: BTreeMap<&'static str, PgPool>,
    #[health(flatten)]
    shards: Vec<PgPool>,
    #[health(flatten)]
    regions: Arc<BTreeMap<&'static str, Inner>>,
    #[health(flatten)]
    off: Option<PgPool>,
}

#[actix_web::test]
async fn flatten_leaves_the_name_of_a_field_out() {
    let state = Flattened {
        tenants: BTreeMap::from([("acme", pg())]),
        shards: vec![pg(), pg()],
        regions: BTreeMap::from([("eu", inner())]).into(),
        off: None,
    };
    assert_eq!(names(&state), ["database.acme", "database.0", "database.1", "database.eu.db", "database.eu.by_key.k"]);
}

#[derive(HealthCheck)]
#[health(name = "billing")]
struct Billing {
    db: PgPool,
    tenants: BTreeMap<&'static str, PgPool>,
    #[health(name = "cache")]
    sessions: redis::Client,
    #[health(with = any)]
    folder: PathBuf,
    #[health(flatten)]
    inner: Inner,
    title: String,
    #[health(skip)]
    #[allow(dead_code)]
    skipped: PgPool,
}

fn billing() -> Billing {
    Billing {
        db: pg(),
        tenants: BTreeMap::from([("acme", pg())]),
        sessions: client(),
        folder: PathBuf::new(),
        inner: inner(),
        title: String::new(),
        skipped: pg(),
    }
}

#[derive(HealthCheck)]
struct OfBilling {
    part: Billing,
    #[health(flatten)]
    flat: Billing,
}

#[actix_web::test]
async fn the_name_of_a_struct_is_before_the_names_of_its_checks() {
    let of_billing = [
        "database.billing.db",
        "database.billing.tenants.acme",
        "cache.billing.cache",
        "service.billing.folder",
        "database.billing.db",
        "database.billing.by_key.k",
    ]
    .map(str::to_owned);
    assert_eq!(names(&billing()), of_billing);
    assert_eq!(ignored(&billing()), r#"["billing.title", "billing.skipped"]"#);
    let state = OfBilling { part: billing(), flat: billing() };
    let nested = of_billing.clone().map(|name| name.replace(".billing.", ".part.billing."));
    assert_eq!(names(&state), [nested, of_billing].concat());
    assert_eq!(
        ignored(&state),
        r#"["part.billing.title", "part.billing.skipped", "billing.title", "billing.skipped"]"#
    );
}

#[derive(HealthCheck)]
struct Db(PgPool);

#[derive(HealthCheck)]
struct Replicas(#[health(optional)] Vec<Arc<PgPool>>);

#[derive(HealthCheck)]
struct Part(
    Inner,
    #[health(skip)]
    #[allow(dead_code)]
    PgPool,
);

#[derive(HealthCheck)]
struct Folder(#[health(with = any)] PathBuf);

#[derive(HealthCheck)]
#[health(name = "billing")]
struct Named(PgPool);

#[derive(HealthCheck)]
struct Newtypes {
    db: Db,
    shared: Arc<Db>,
    keyed: BTreeMap<&'static str, Db>,
    #[health(name = "copies")]
    replicas: Replicas,
    part: Part,
    folder: Folder,
    named: Named,
}

#[actix_web::test]
async fn the_check_of_a_newtype_bears_the_name_of_the_outer_field() {
    let state = Newtypes {
        db: Db(pg()),
        shared: Db(pg()).into(),
        keyed: BTreeMap::from([("eu", Db(pg()))]),
        replicas: Replicas(vec![pg().into(), pg().into()]),
        part: Part(inner(), pg()),
        folder: Folder(PathBuf::new()),
        named: Named(pg()),
    };
    assert_eq!(
        names(&state),
        [
            "database.db",
            "database.shared",
            "database.keyed.eu",
            "database.copies.0",
            "database.copies.1",
            "database.part.db",
            "database.part.by_key.k",
            "service.folder",
            "database.named.billing",
        ]
    );
    assert_eq!(ignored(&state), r#"["part.1"]"#);
}

#[actix_web::test]
async fn the_check_of_a_newtype_that_is_the_state_is_named_default() {
    assert_eq!(names(&Db(pg())), ["database.default"]);
    assert_eq!(names(&Replicas(vec![pg().into()])), ["database.0"]);
    assert_eq!(names(&Folder(PathBuf::new())), ["service.default"]);
    assert_eq!(names(&Named(pg())), ["database.billing"]);
}

trait Storage: Send + Sync {
    fn is_up(&self) -> bool;
}

impl Probe for dyn Storage {
    const GROUP: &'static str = "storage";

    async fn probe(&self) -> Result<(), ProbeError> {
        let failed = || ProbeError::new(health::ProbeErrorKind::Failed, "the storage is down");
        self.is_up().then_some(()).ok_or_else(failed)
    }
}

/// Its value is whether it is up.
struct Disk(bool);

impl Storage for Disk {
    fn is_up(&self) -> bool {
        self.0
    }
}

impl Clone for Box<dyn Storage> {
    fn clone(&self) -> Self {
        Box::new(Disk(self.is_up()))
    }
}

#[derive(HealthCheck)]
struct TraitObjects {
    arc: Arc<dyn Storage>,
    leaked: &'static dyn Storage,
    data: web::Data<dyn Storage>,
    boxed: Box<dyn Storage>,
    list: Vec<Option<Arc<dyn Storage>>>,
    ignored: Arc<dyn Repository>,
}

#[actix_web::test]
async fn a_trait_object_that_implements_probe_is_probed() {
    let down: Arc<dyn Storage> = Arc::new(Disk(false));
    let state = web::Data::new(TraitObjects {
        arc: Arc::new(Disk(true)),
        leaked: &Disk(true),
        data: down.clone().into(),
        boxed: Box::new(Disk(true)),
        list: vec![None, Some(down)],
        ignored: Arc::new(Search),
    });
    let server = TestServer::start(1, move |app| {
        app.app_data(state.clone()).service(health::scope());
    });
    assert_eq!(
        server.health().await.json()["checks"],
        serde_json::json!({"storage": {"arc": "UP", "leaked": "UP", "data": "DOWN", "boxed": "UP", "list.1": "DOWN"}})
    );
}

async fn ping(_: &Path) -> Result<(), Infallible> {
    Ok(())
}

async fn any<T>(_: &T) -> Result<(), Infallible> {
    Ok(())
}

mod functions {
    pub(super) async fn generic<T: Sync>(_: &T) -> Result<(), String> {
        Ok(())
    }

    pub(super) async fn any_error(_: &std::sync::Arc<super::Unclonable>) -> anyhow::Result<()> {
        anyhow::bail!("any")
    }
}

struct Unclonable;

#[derive(HealthCheck)]
struct Attributed {
    #[health(name = "main", group = "store", optional, timeout = "250ms", live)]
    db: PgPool,
    #[health(with = ping)]
    folder: PathBuf,
    #[health(with = functions::generic::<PgPool>, group = "database", name = "writes")]
    pool: PgPool,
    #[health(with = functions::any_error)]
    any: Arc<Unclonable>,
    #[health(skip)]
    #[allow(dead_code)]
    skipped: PgPool,
    #[health(name = "shard", timeout = "2s")]
    shards: BTreeMap<u8, PgPool>,
    #[health(optional, group = "reports", rise = 2, fall = 3)]
    nested: Inner,
    #[health(name = "main", shared, max_age = "30s")]
    cache: redis::Client,
    #[health(probe)]
    must: Option<PgPool>,
}

#[actix_web::test]
async fn attributes_override_names_groups_and_options() {
    let state = Attributed {
        db: pg(),
        folder: PathBuf::new(),
        pool: pg(),
        any: Arc::new(Unclonable),
        skipped: pg(),
        shards: BTreeMap::from([(1, pg())]),
        nested: inner(),
        cache: client(),
        must: Some(pg()),
    };
    assert_eq!(
        names(&state),
        [
            "store.main",
            "service.folder",
            "database.writes",
            "service.any",
            "database.shard.1",
            "reports.nested.db",
            "reports.nested.by_key.k",
            "cache.main",
            "database.must",
        ]
    );
    let options: Vec<_> = Checks::of(&state).into_iter().map(|check| check.options()).collect();
    assert_eq!((options[0].role, options[0].live), (Role::Optional, true));
    assert_eq!(options[0].timeout, Some(Duration::from_millis(250)));
    assert_eq!(options[1], CheckOptions::default());
    assert_eq!(options[4].timeout, Some(Duration::from_secs(2)));
    for nested in &options[5..=6] {
        assert_eq!((nested.role, nested.rise, nested.fall), (Role::Optional, 2, 3));
    }
    assert_eq!((options[7].role, options[7].max_age), (Role::Shared, Some(Duration::from_secs(30))));
}

#[derive(HealthCheck)]
struct Generic<'a, T, R: Probe + Clone, DB: sqlx::Database, const N: usize>
where
    T: Send,
{
    #[health(probe)]
    pool: sqlx::Pool<DB>,
    #[health(probe)]
    shared: Option<Arc<T>>,
    bounded: R,
    concrete: PgPool,
    #[allow(dead_code)]
    marker: std::marker::PhantomData<(&'a T, [DB; N])>,
    #[health(skip)]
    #[allow(dead_code)]
    skipped: Option<T>,
}

#[actix_web::test]
async fn generic_structs_derive_health_check() {
    let state: Generic<'static, Search, Mail, sqlx::MySql, 3> = Generic {
        pool: mysql(),
        shared: Some(Arc::new(Search)),
        bounded: Mail,
        concrete: pg(),
        marker: std::marker::PhantomData,
        skipped: None,
    };
    assert_eq!(names(&state), ["database.pool", "search.shared", "service.bounded", "database.concrete"]);
}

#[derive(HealthCheck)]
struct Tuple(
    #[health(name = "db")] PgPool,
    #[health(skip)]
    #[allow(dead_code)]
    String,
    #[health(flatten)] Inner,
);

#[actix_web::test]
async fn the_fields_of_tuple_structs_are_named_by_attributes() {
    let state = Tuple(pg(), String::new(), Inner { db: pg(), by_key: BTreeMap::default() });
    assert_eq!(names(&state), ["database.db", "database.db"]);
}

#[derive(HealthCheck)]
#[health(strict, crate = ::health)]
struct Strict {
    db: PgPool,
    #[health(skip)]
    #[allow(dead_code)]
    title: String,
    #[health(with = ping)]
    folder: PathBuf,
}

#[actix_web::test]
async fn a_strict_struct_skips_fields_explicitly() {
    assert_eq!(
        names(&Strict { db: pg(), title: String::new(), folder: PathBuf::new() }),
        ["database.db", "service.folder"]
    );
}

/// Uses `Self`, and functions with the names of local variables of the generated code.
#[derive(HealthCheck)]
struct Recursive {
    db: PgPool,
    inner: Option<Box<Self>>,
    #[health(with = checks)]
    a: u8,
    #[health(with = resource)]
    b: u8,
    #[health(with = path)]
    c: u8,
}

async fn checks(_: &u8) -> Result<(), String> {
    Ok(())
}

use checks as resource;
use checks as path;

macro_rules! state {
    ($name:ident, $called:literal, $with:path, $ty:ty) => {
        #[derive(HealthCheck)]
        #[deprecated]
        struct $name {
            #[health(name = $called, optional)]
            a: $ty,
            #[health(with = $with, optional)]
            b: u8,
            #[deprecated]
            c: Option<$ty>,
        }
    };
}

state!(ByExample, "called", checks, PgPool);

#[actix_web::test]
async fn structs_may_contain_themselves_and_come_from_macros() {
    let inner = Recursive { db: pg(), inner: None, a: 1, b: 2, c: 3 };
    let state = Recursive { db: pg(), inner: Some(Box::new(inner)), a: 1, b: 2, c: 3 };
    assert_eq!(
        names(&state),
        [
            "database.db",
            "database.inner.db",
            "service.inner.a",
            "service.inner.b",
            "service.inner.c",
            "service.a",
            "service.b",
            "service.c"
        ]
    );
    #[allow(deprecated)]
    let state = ByExample { a: pg(), b: 1, c: Some(pg()) };
    assert_eq!(names(&state), ["database.called", "service.b", "database.c"]);
}
