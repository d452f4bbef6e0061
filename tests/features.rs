//! Without the features: the crate builds and serves custom checks, and a pool that it can't probe does not compile.
//!
//! Each is a project of its own, for the features of one build are the same for all that is in it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A project that depends on `health` without its default features.
struct Project(tempfile::TempDir);

impl Project {
    fn new(features: &str, dependencies: &str, main: &str) -> Self {
        let workspace = workspace();
        let folder = tempfile::tempdir().unwrap();
        let health = workspace.join("health").display().to_string();
        let manifest = format!(
            "[package]\nname = \"project\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n\
             health = {{ package = \"actix-health\", path = {health:?}, default-features = false, features = [{features}] }}\n{dependencies}\n"
        );
        fs::create_dir(folder.path().join("src")).unwrap();
        fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
        fs::write(folder.path().join("src/main.rs"), main).unwrap();
        // The same versions as in the workspace.
        fs::copy(workspace.join("Cargo.lock"), folder.path().join("Cargo.lock")).unwrap();
        Self(folder)
    }

    fn cargo(&self, command: &str) -> Output {
        Command::new(env!("CARGO"))
            .args([command, "--quiet"])
            .current_dir(self.0.path())
            // One folder for all of them, kept from run to run.
            .env("CARGO_TARGET_DIR", workspace().join("target/features"))
            .output()
            .unwrap()
    }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

const ACTIX: &str = "actix-web = { version = \"4\", default-features = false, features = [\"macros\"] }";
const SQLX: &str =
    "sqlx = { version = \"0.9\", default-features = false, features = [\"postgres\", \"runtime-tokio\"] }";
const REDIS: &str =
    "redis = { version = \"1\", default-features = false, features = [\"connection-manager\", \"tokio-comp\"] }";

/// The struct of README.md.
const STATE: &str = "
    #[derive(health::HealthCheck)]
    struct AppState {
        db: sqlx::PgPool,
        sessions: redis::aio::ConnectionManager,
        title: String,
    }
    fn main() {
        let _ = health::scope();
    }";

#[test]
fn the_state_of_the_readme_compiles_with_both_features_and_without_one_says_what_to_do() {
    let dependencies = format!("{SQLX}\n{REDIS}");
    let compiles = Project::new("\"sqlx\", \"redis\"", &dependencies, STATE).cargo("check");
    assert!(compiles.status.success(), "{}", String::from_utf8_lossy(&compiles.stderr));

    let refused = |features: &str| {
        let output = Project::new(features, &dependencies, STATE).cargo("check");
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let pool = "looks like a database pool, but `health` can't probe it";
    let redis = "looks like a connection to redis, but `health` can't probe it";
    let error = refused("\"redis\"");
    assert!(
        error.contains(pool) && error.contains("the feature `sqlx` of `health`") && !error.contains(redis),
        "{error}"
    );
    assert!(error.contains("db: sqlx::PgPool"), "{error}");
    let error = refused("\"sqlx\"");
    assert!(
        error.contains(redis) && error.contains("the feature `redis` of `health`") && !error.contains(pool),
        "{error}"
    );
    let error = refused("");
    assert!(error.contains(pool) && error.contains(redis), "{error}");
}

/// What applications hold, and the feature that probes it.
const CATALOGUE: [(&str, &str); 20] = [
    ("sqlx-0_8", "sqlx_0_8::PgPool"),
    ("sea-orm", "sea_orm::DatabaseConnection"),
    ("diesel", "diesel::r2d2::Pool<diesel::r2d2::ConnectionManager<diesel::SqliteConnection>>"),
    ("diesel-async", "diesel_async::pooled_connection::deadpool::Pool<diesel_async::AsyncPgConnection>"),
    ("tokio-postgres", "std::sync::Arc<tokio_postgres::Client>"),
    ("deadpool-postgres", "deadpool_postgres::Pool"),
    ("redis", "redis::Client"),
    ("redis-cluster", "redis::cluster::ClusterClient"),
    ("redis-cluster", "redis::cluster_async::ClusterConnection"),
    ("redis-sentinel", "std::sync::Arc<tokio::sync::Mutex<redis::sentinel::SentinelClient>>"),
    ("deadpool-redis", "deadpool_redis::Pool"),
    ("bb8-redis", "bb8_redis::bb8::Pool<bb8_redis::RedisConnectionManager>"),
    ("fred", "fred::clients::Client"),
    ("fred", "fred::clients::Pool"),
    ("memcache", "memcache::Client"),
    ("lapin", "std::sync::Arc<lapin::Connection>"),
    ("lapin", "lapin::Channel"),
    ("async-nats", "async_nats::Client"),
    ("async-nats", "async_nats::jetstream::Context"),
    ("rumqttc", "rumqttc::AsyncClient"),
];

const DRIVERS: &str = r#"
async-nats = { version = "0.51", default-features = false, features = ["jetstream", "ring"] }
bb8-redis = "0.26"
deadpool-postgres = { version = "0.14", default-features = false }
deadpool-redis = { version = "0.23", default-features = false }
diesel = { version = "2.3", default-features = false, features = ["r2d2", "sqlite"] }
diesel-async = { version = "0.9", default-features = false, features = ["deadpool", "postgres"] }
fred = { version = "10.1", default-features = false }
lapin = { version = "4", default-features = false, features = ["tokio"] }
memcache = { version = "0.21", default-features = false }
redis = { version = "1", default-features = false, features = ["cluster-async", "sentinel", "tokio-comp"] }
rumqttc = { package = "rumqttc-next", version = "0.34", default-features = false }
sea-orm = { version = "2.0", default-features = false }
sqlx_0_8 = { package = "sqlx", version = "0.8", default-features = false, features = ["postgres"] }
tokio = { version = "1", features = ["sync"] }
tokio-postgres = { version = "0.7", default-features = false }
"#;

#[test]
fn what_a_feature_would_probe_does_not_compile_without_it_and_names_it() {
    let field = |(at, (_, ty)): (usize, &(&str, &str))| format!("field_{at}: {ty},\n");
    let fields: String = CATALOGUE.iter().enumerate().map(field).collect();
    let main = format!("#[derive(health::HealthCheck)]\nstruct AppState {{\n{fields}}}\nfn main() {{}}");
    let output = Project::new("", DRIVERS, &main).cargo("check");
    assert!(!output.status.success());
    let errors = String::from_utf8(output.stderr).unwrap();
    for (at, (feature, ty)) in CATALOGUE.iter().enumerate() {
        let field = format!("field_{at}: ");
        let error = errors.split("\n\n").find(|error| error.starts_with("error") && error.contains(&field));
        let error = error.unwrap_or_else(|| panic!("{ty} passes in silence: {errors}"));
        let named = format!("`{feature}`");
        assert!(error.contains("but `health` can't probe it") && error.contains(&named), "{ty}: {error}");
    }
}

#[test]
fn without_features_custom_checks_are_served() {
    let main = r#"
        use actix_web::{App, test};
        #[actix_web::main]
        async fn main() {
            let check = health::Check::new("queue", "orders", || async { Ok::<_, String>(()) });
            let app = test::init_service(App::new().service(health::scope().check(check))).await;
            let request = test::TestRequest::get().uri("/health").peer_addr("127.0.0.1:1".parse().unwrap());
            let body = test::call_and_read_body(&app, request.to_request()).await;
            println!("{}", String::from_utf8_lossy(&body));
        }"#;
    let output = Project::new("", ACTIX, main).cargo("run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(
        String::from_utf8(output.stdout).unwrap().trim(),
        r#"{"status":"UP","checks":{"queue":{"orders":"UP"}}}"#
    );
}

#[test]
fn the_features_of_sqlx_and_redis_bring_no_driver_no_tls_and_no_macro_along() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--package", "actix-health", "--features", "redis,sqlx", "--edges", "normal,build"])
        .args(["--prefix", "none", "--format", "{p} {f}"])
        .current_dir(workspace())
        .output()
        .unwrap();
    let tree = String::from_utf8(tree.stdout).unwrap();
    assert!(tree.contains("sqlx-core") && tree.contains("redis"), "{tree}");
    let unwanted = [
        "sqlx-postgres",
        "sqlx-mysql",
        "sqlx-sqlite",
        "sqlx-macros",
        "rustls",
        "native-tls",
        "openssl",
        "sea-orm",
        "diesel",
        "tokio-postgres",
        "deadpool",
        "bb8",
        "fred",
        "memcache",
        "lapin",
        "async-nats",
        "rumqttc",
        "reqwest",
        "hyper",
        "x509",
    ];
    assert_eq!(tree.lines().filter(|line| line.starts_with("sqlx v")).count(), 1, "{tree}");
    for line in tree.lines() {
        assert!(!unwanted.iter().any(|unwanted| line.starts_with(unwanted)), "{line}");
    }
}

#[test]
fn no_feature_brings_a_crypto_provider_of_rustls() {
    let tree = |features: &[&str]| {
        let tree = Command::new(env!("CARGO"))
            .args([
                "tree",
                "--package",
                "actix-health",
                "--edges",
                "normal,build,features",
                "--prefix",
                "none",
                "--locked",
            ])
            .args(features)
            .current_dir(workspace())
            .output()
            .unwrap();
        assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
        String::from_utf8(tree.stdout).unwrap()
    };
    let all = tree(&["--all-features"]);
    assert!(all.contains("rustls feature \"std\"") && all.contains("tokio-rustls"), "{all}");
    let providers = ["ring", "aws_lc_rs", "aws-lc-rs", "prefer-post-quantum", "fips"];
    for line in all.lines() {
        let is_provider = |provider| line.contains(&format!("rustls feature \"{provider}\""));
        assert!(!providers.into_iter().any(is_provider), "{line}");
    }
    // Where a driver brings one of these crates, it is the driver's own choice.
    let own = tree(&["--no-default-features", "--features", "certificate,https"]);
    assert!(own.contains("rustls feature \"std\""), "{own}");
    for line in own.lines() {
        assert!(!line.starts_with("ring v") && !line.starts_with("aws-lc"), "{line}");
    }
}
