//! The features of `health`: which error names them, and which dependencies they bring.
//!
//! `compile-errors/ui/missing_features.rs` shows the errors for types that only look like those of the drivers. The tests named `long_`
//! compile projects of their own, because all tests of one build share its features.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A project that depends on `health` with only the given features.
struct Project(tempfile::TempDir);

impl Project {
    fn new(features: &[&str], dependencies: &str, main: &str) -> Self {
        let health = workspace().join("health");
        let manifest = fs::read_to_string(health.join("Cargo.toml")).unwrap();
        let path = health.display().to_string();
        let package = manifest.lines().find_map(|line| line.strip_prefix("name = ")).unwrap();
        let manifest = format!(
            "[package]\nname = \"project\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n\
             health = {{ package = {package}, path = {path:?}, default-features = false, features = {features:?} }}\n\
             {dependencies}\n"
        );
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("src")).unwrap();
        fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
        fs::write(folder.path().join("src/main.rs"), main).unwrap();
        // The same versions as in the workspace.
        fs::copy(workspace().join("Cargo.lock"), folder.path().join("Cargo.lock")).unwrap();
        Self(folder)
    }

    fn cargo(&self, command: &str) -> Output {
        Command::new(env!("CARGO"))
            .args([command, "--quiet"])
            .current_dir(self.0.path())
            // Shared by all projects, and kept from run to run.
            .env("CARGO_TARGET_DIR", workspace().join("target/features"))
            .output()
            .unwrap()
    }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

const EVERY_BACKEND: &str = include_str!("compile-errors/ui/shared/every_backend.rs");

/// The fields of `EVERY_BACKEND`, as written, each with the feature that probes it.
fn fields() -> Vec<(&'static str, &'static str)> {
    let fields: Vec<_> =
        EVERY_BACKEND.lines().filter_map(|line| line.strip_prefix("    ")?.split_once(", // ")).collect();
    assert!(fields.len() > 20, "{fields:?}");
    fields
}

/// Asserts that each field has an error of its own that names its feature.
fn assert_each_field_names_its_feature(errors: &str) {
    for (field, feature) in fields() {
        let is_at_field = |error: &&str| error.starts_with("error") && error.contains(field);
        let error = errors.split("\n\n").find(is_at_field).unwrap_or_else(|| panic!("no error at {field}: {errors}"));
        assert!(error.contains("but cannot be probed"), "{field}: {error}");
        assert!(error.contains(&format!("`{feature}`")), "{field} needs {feature}: {error}");
    }
}

/// The features that `full` enables.
fn all_features() -> Vec<String> {
    let manifest = fs::read_to_string(workspace().join("health/Cargo.toml")).unwrap();
    let (_, full) = manifest.split_once("full = [").unwrap();
    let (full, _) = full.split_once(']').unwrap();
    full.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_error_for_a_resource_names_every_feature_for_a_driver() {
    let errors = fs::read_to_string(workspace().join("tests/compile-errors/ui/one_missing_feature.stderr")).unwrap();
    // Features for what is probed by a value of this crate, so that no field looks like it, and for formats.
    let others = [
        "aws-sdk-s3",
        "certificate",
        "disk",
        "dns",
        "memory",
        "metrics",
        "page",
        "reqwest",
        "sqlx-migrate",
        "tcp",
        "utoipa",
    ];
    let features: Vec<_> = all_features().into_iter().filter(|feature| !others.contains(&&**feature)).collect();
    assert!(features.len() > 15, "{features:?}");
    for feature in features {
        assert!(errors.contains(&format!("`{feature}`")), "{feature} is not named: {errors}");
    }
}

#[test]
fn the_error_for_a_missing_feature_names_a_feature_that_exists() {
    let errors = fs::read_to_string(workspace().join("tests/compile-errors/ui/missing_features.stderr")).unwrap();
    assert_each_field_names_its_feature(&errors);
    let manifest = fs::read_to_string(workspace().join("health/Cargo.toml")).unwrap();
    for (field, feature) in fields() {
        assert!(manifest.contains(&format!("\n{feature} = [")), "{field}: there is no feature {feature}");
    }
}

/// The crates of `EVERY_BACKEND`, with the features that bring its types.
const DRIVERS: &str = r#"
async-nats = { version = "0.51", default-features = false, features = ["jetstream", "ring"] }
bb8-postgres = "0.9"
bb8-redis = "0.26"
deadpool-lapin = { version = "0.14", default-features = false }
deadpool-postgres = { version = "0.14", default-features = false }
deadpool-redis = { version = "0.23", default-features = false }
diesel = { version = "2.3", default-features = false, features = ["r2d2", "sqlite"] }
diesel-async = { version = "0.9", default-features = false, features = ["bb8", "deadpool", "postgres"] }
fred = { version = "10.1", default-features = false }
lapin = { version = "4", default-features = false, features = ["tokio"] }
lettre = { version = "0.11", default-features = false, features = ["smtp-transport", "tokio1"] }
memcache = { version = "0.21", default-features = false, features = ["tokio"] }
mongodb = { version = "3.9", default-features = false, features = ["bson-2", "compat-3-3-0", "rustls-tls"] }
object_store = { version = "0.14", default-features = false }
rdkafka = { version = "0.39", default-features = false, features = ["tokio"] }
redis = { version = "1", default-features = false, features = ["cluster-async", "connection-manager", "sentinel", "tokio-comp"] }
mysql = { version = "28", default-features = false, features = ["minimal-rust"] }
mysql_async = { version = "0.37", default-features = false, features = ["minimal-rust"] }
r2d2 = "0.8"
rskafka = { version = "0.6", default-features = false }
r2d2_sqlite = { version = "0.25", default-features = false }
rusqlite = { version = "0.32", default-features = false }
rumqttc = { package = "rumqttc-next", version = "0.34", default-features = false }
sea-orm = { version = "2.0", default-features = false }
sqlx = { version = "0.9", default-features = false, features = ["postgres"] }
sqlx_0_8 = { package = "sqlx", version = "0.8", default-features = false, features = ["postgres"] }
tokio = { version = "1", features = ["sync"] }
tokio-postgres = { version = "0.7", default-features = false }
tonic = { version = "0.14", default-features = false, features = ["channel"] }
"#;

#[test]
fn long_each_type_of_a_driver_is_probed_with_its_feature_and_an_error_without() {
    let main = format!("{EVERY_BACKEND}\nfn main() {{}}");
    let output = Project::new(&[], DRIVERS, &main).cargo("check");
    assert!(!output.status.success());
    assert_each_field_names_its_feature(&String::from_utf8(output.stderr).unwrap());

    let mut features: Vec<_> = fields().into_iter().map(|(_, feature)| feature).collect();
    features.dedup();
    let output = Project::new(&features, DRIVERS, &main).cargo("check");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

const ACTIX: &str = "actix-web = { version = \"4\", default-features = false, features = [\"macros\"] }";

#[test]
fn long_custom_checks_are_served_without_features() {
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
    let output = Project::new(&[], ACTIX, main).cargo("run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(
        String::from_utf8(output.stdout).unwrap().trim(),
        r#"{"status":"UP","checks":{"queue":{"orders":"UP"}}}"#
    );
}

#[test]
fn long_the_examples_compile_with_their_default_features() {
    let output = Command::new(env!("CARGO"))
        .args(["check", "--quiet", "--bins", "--locked"])
        .current_dir(workspace().join("examples"))
        .env("CARGO_TARGET_DIR", workspace().join("target/features"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The dependencies of `health` with the given features, one per line.
fn dependencies(features: &[&str], edges: &str) -> String {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--edges", edges, "--prefix", "none", "--locked"])
        .args(features)
        .current_dir(workspace().join("health"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_features_sqlx_and_redis_bring_no_driver_no_tls_and_no_macros() {
    let tree = dependencies(&["--no-default-features", "--features", "sqlx,redis"], "normal,build");
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
fn no_feature_but_mongodb_brings_a_crypto_provider_of_rustls() {
    let without_mongodb: Vec<_> = all_features().into_iter().filter(|feature| feature != "mongodb").collect();
    let features = without_mongodb.join(",");
    let all = dependencies(&["--no-default-features", "--features", &features], "normal,build,features");
    assert!(all.contains("rustls feature \"std\"") && all.contains("tokio-rustls"), "{all}");
    let providers = ["ring", "aws_lc_rs", "aws-lc-rs", "prefer-post-quantum", "fips"];
    for line in all.lines() {
        let is_provider = |provider| line.contains(&format!("rustls feature \"{provider}\""));
        assert!(!providers.into_iter().any(is_provider), "{line}");
    }
    // Only a driver may depend on a provider's crate.
    let own = dependencies(&["--no-default-features", "--features", "certificate,reqwest"], "normal,build,features");
    assert!(own.contains("rustls feature \"std\""), "{own}");
    for line in own.lines() {
        assert!(!line.starts_with("ring v") && !line.starts_with("aws-lc"), "{line}");
    }
}
