//! `probes::s3::Bucket` and `object_store::ObjectStore`, with the same server of S3.

use std::{any::Any, sync::Arc, time::Duration};

use ::object_store::{GetOptions, ObjectStore, RetryConfig, aws::AmazonS3Builder, memory::InMemory};
use actix_web::web;
use aws_sdk_s3::{
    Client,
    config::{BehaviorVersion, Config, Credentials, Region},
};
use health::{HealthCheck, Probe, ProbeError, ProbeErrorKind, probes::s3::Bucket};

use crate::{
    acceptance::{Backend, ExpectedMessage, Password, Unsupported, WRONG, acceptance},
    common::{
        PASSWORD, USER, eventually,
        responses::{MAX_AGE, assert_down, assert_not_leaked, assert_up},
        servers::FaultInjection as _,
        test_server::TestServer,
    },
    servers::{
        connections_to,
        s3::{BUCKET, S3},
    },
};

const REGION: &str = "eu-central-1";

fn client(s3: &S3, password: &str) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .endpoint_url(s3.url())
        .force_path_style(true)
        .credentials_provider(Credentials::new(USER, password, None, None, "test"))
        .http_client(aws_smithy_http_client::Builder::new().build_http());
    Client::from_conf(config.build())
}

fn bucket(s3: &S3, password: &str) -> Bucket {
    Bucket::new(client(s3, password), BUCKET)
}

fn store_with(s3: &S3, password: &str, retries: RetryConfig) -> Arc<dyn ObjectStore> {
    // Its HTTP client cannot be built without one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = AmazonS3Builder::new()
        .with_endpoint(s3.url())
        .with_allow_http(true)
        .with_region(REGION)
        .with_bucket_name(BUCKET)
        .with_access_key_id(USER)
        .with_secret_access_key(password)
        .with_retry(retries);
    Arc::new(builder.build().unwrap())
}

fn store(s3: &S3, password: &str) -> Arc<dyn ObjectStore> {
    store_with(s3, password, RetryConfig { max_retries: 0, ..RetryConfig::default() })
}

/// A backend whose resource `$open` opens, that is called `$name` in messages, and whose driver reports an error of the server as `$error`.
macro_rules! backend {
    ($backend:ident, $resource:ty, $open:ident, $name:literal, $rejected:literal) => {
        struct $backend;

        impl Backend for $backend {
            type Resource = $resource;
            type Server = S3;

            fn prepare() -> S3 {
                S3::prepared()
            }

            async fn open(s3: &S3, password: Password) -> Result<$resource, Unsupported> {
                Ok($open(s3, if password == Password::Right { PASSWORD } else { WRONG }))
            }

            fn unreachable(_: &S3) -> (ExpectedMessage, &'static str) {
                let message = concat!("unable to connect to ", $name);
                (ExpectedMessage::Message(message.to_owned()), "Connection refused")
            }

            fn rejected(_: &S3) -> Result<(ExpectedMessage, &'static str), Unsupported> {
                Ok((ExpectedMessage::Message(concat!($name, " denied access").to_owned()), $rejected))
            }

            async fn saturate(_: &$resource) -> Result<(Box<dyn Any>, u32), Unsupported> {
                Err("a client opens a connection when none is idle, so there is nothing to use up")
            }

            async fn queries(s3: &S3) -> Result<u64, Unsupported> {
                Ok(s3.requests())
            }

            async fn connections(s3: &S3) -> Result<usize, Unsupported> {
                Ok(connections_to(s3.port()))
            }
        }
    };
}

backend!(OfBucket, Bucket, bucket, "s3", "service error");
backend!(OfStore, Arc<dyn ObjectStore>, store, "the object store", "SignatureDoesNotMatch");
acceptance!(s3, OfBucket);
acceptance!(object_store, OfStore);

fn started() -> S3 {
    let mut s3 = S3::prepared();
    s3.restart();
    s3
}

#[derive(HealthCheck)]
struct State {
    bucket: Option<Bucket>,
    store: Option<Arc<dyn ObjectStore>>,
}

fn serve(state: State) -> TestServer {
    let state = web::Data::new(state);
    TestServer::start(1, move |app| {
        app.app_data(state.clone()).service(health::scope().max_age(MAX_AGE));
    })
}

#[actix_web::test]
async fn a_missing_bucket_is_down() {
    let s3 = started();
    let of_bucket = serve(State { bucket: Some(bucket(&s3, PASSWORD)), store: None });
    let of_store = serve(State { bucket: None, store: Some(store(&s3, PASSWORD)) });
    assert_up(&of_bucket, "storage", "bucket").await;
    assert_up(&of_store, "storage", "store").await;
    s3.delete_bucket();
    tokio::time::sleep(MAX_AGE).await;
    let response = assert_down(&of_bucket, "storage", "bucket", "no such bucket in s3").await;
    assert_not_leaked(&of_bucket, &response, &["NotFound"]).await;
    let response = assert_down(&of_store, "storage", "store", "no such bucket in the object store").await;
    assert_not_leaked(&of_store, &response, &["NoSuchBucket"]).await;
}

#[actix_web::test]
async fn a_refused_request_is_not_repeated_though_the_client_of_the_application_would() {
    let mut s3 = started();
    let client = client(&s3, PASSWORD);
    let rig = serve(State { bucket: Some(Bucket::new(client.clone(), BUCKET)), store: None });
    assert_up(&rig, "storage", "bucket").await;
    s3.stop();
    tokio::time::sleep(MAX_AGE).await;
    let started = std::time::Instant::now();
    client.head_bucket().bucket(BUCKET).send().await.unwrap_err();
    let with_retries = started.elapsed();
    let response = assert_down(&rig, "storage", "bucket", "unable to connect to s3").await;
    assert!(response.took < Duration::from_millis(100), "{:?}, with retries {with_retries:?}", response.took);
}

#[actix_web::test]
async fn a_store_that_retries_is_a_timeout_until_its_last_retry_and_up_soon_after_its_server_is_back() {
    let mut s3 = started();
    let rig = serve(State { bucket: None, store: Some(store_with(&s3, PASSWORD, RetryConfig::default())) });
    assert_up(&rig, "storage", "store").await;
    s3.stop();
    tokio::time::sleep(MAX_AGE).await;
    assert_down(&rig, "storage", "store", "timed out after 800 ms").await;
    let is_unreachable = || async { rig.health().await.body.contains("unable to connect to the object store") };
    eventually("its retries are used up", is_unreachable).await;
    s3.restart();
    eventually("it is up again", || async { rig.health().await.status == 200 }).await;
}

#[actix_web::test]
async fn a_silent_request_is_followed_by_another_one() {
    let s3 = started();
    let bucket = bucket(&s3, PASSWORD);
    bucket.probe().await.unwrap();
    s3.freeze();
    let frozen = tokio::time::timeout(Duration::from_millis(2_500), bucket.probe()).await;
    assert!(frozen.is_err(), "{frozen:?}");
    s3.resume();
    bucket.probe().await.unwrap();
    eventually("both requests arrived", || async { s3.requests() == 4 }).await;
}

#[actix_web::test]
async fn a_store_in_memory_is_up() {
    let rig = serve(State { bucket: None, store: Some(Arc::new(InMemory::new())) });
    assert_up(&rig, "storage", "store").await;
}

#[actix_web::test]
async fn the_class_of_an_error_survives_a_check_of_the_users() {
    let stopped = S3::prepared();
    let path = ::object_store::path::Path::from("order");
    let error = store(&stopped, PASSWORD).get_opts(&path, GetOptions::default()).await.unwrap_err();
    assert_eq!(ProbeError::from(error).kind(), ProbeErrorKind::Unreachable);

    let mut s3 = S3::prepared();
    s3.restart();
    let error = store(&s3, WRONG).get_opts(&path, GetOptions::default()).await.unwrap_err();
    let error = anyhow::Error::from(error).context("while an order is read");
    assert_eq!(ProbeError::from_error(error).kind(), ProbeErrorKind::Rejected);
}
