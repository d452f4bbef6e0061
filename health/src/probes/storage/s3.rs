//! A bucket of S3, with a client of the AWS SDK, and how errors of that client are classified.
//!
//! A client names no bucket, so the check is of a [`Bucket`]. Each run sends `HeadBucket` with the application's client, on its connections.
//! Permission: `s3:ListBucket`.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | refused, reset, no such host | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | wrong credentials, no permission | [`ProbeErrorKind::Rejected`] | DOWN |
//! | no response | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | no such bucket, or it is in another region; anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! By default the client sends a failed request twice more, which takes a second or more, and has no limit for a response. A run does not
//! retry; while a request is silent, it sends another one every 2 s. A client does not expose its endpoint, so messages do not contain one.
//!
//! Observation: `region`, that of the bucket.
//!
//! What a run costs: one request `HeadBucket`, which is billed; set a `max_age`.

use std::fmt;

use aws_sdk_s3::{
    Client,
    config::{Builder, http::HttpResponse, retry::RetryConfig},
    error::{ProvideErrorMetadata, SdkError},
    operation::head_bucket::{HeadBucketError, HeadBucketOutput},
};

use crate::{
    error::{ProbeError, ProbeErrorKind},
    observe::observe,
    probe::{LibraryProbe, library_probe},
    probes::{
        classify::Classify,
        support::{
            attempts::{INTERVAL, first_result},
            label::Label,
        },
    },
};

/// A bucket that the application uses.
///
/// # Examples
///
/// As a field of the state, next to the client:
///
/// ```
/// # mod example {
/// use health::{HealthCheck, probes::s3::Bucket};
///
/// #[derive(HealthCheck)]
/// struct AppState {
///     #[health(skip)]
///     s3: aws_sdk_s3::Client,
///     #[health(max_age = "30s")]
///     uploads: Bucket, // probed: storage.uploads
/// }
///
/// fn state(s3: aws_sdk_s3::Client) -> AppState {
///     AppState { uploads: Bucket::new(s3.clone(), "uploads"), s3 }
/// }
/// # }
/// ```
///
/// Or as a function for the field of the client:
///
/// ```
/// # mod example {
/// use health::{HealthCheck, Probe as _, ProbeError, probes::s3::Bucket};
///
/// #[derive(HealthCheck)]
/// struct AppState {
///     #[health(with = uploads, group = "storage", name = "uploads", max_age = "30s")]
///     s3: aws_sdk_s3::Client,
/// }
///
/// async fn uploads(s3: &aws_sdk_s3::Client) -> Result<(), ProbeError> {
///     Bucket::new(s3.clone(), "uploads").probe().await
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Bucket {
    client: Client,
    name: String,
}

impl Bucket {
    /// The bucket of that name, as the client sees it.
    pub fn new(client: Client, name: impl Into<String>) -> Self {
        Self { client, name: name.into() }
    }

    async fn head(&self) -> Result<HeadBucketOutput, HeadError> {
        let without_retries = Builder::new().retry_config(RetryConfig::disabled());
        let head = self.client.head_bucket().bucket(&self.name).customize().config_override(without_retries);
        head.send().await
    }
}

library_probe! { "storage", Bucket => |bucket: &Bucket| BucketProbe(bucket.clone()) }

struct BucketProbe(Bucket);

const LABEL: Label = Label::new("s3");

impl LibraryProbe for BucketProbe {
    async fn probe(&self) -> Result<(), ProbeError> {
        let result = first_result(INTERVAL, || self.0.head()).await;
        let head = result.map_err(|error| LABEL.error(error))?;
        if let Some(region) = head.bucket_region {
            observe("region", region);
        }
        Ok(())
    }

    fn resource(&self) -> Option<String> {
        Some(format!("the bucket {} of {LABEL}", self.0.name))
    }
}

type HeadError = SdkError<HeadBucketError, HttpResponse>;

impl<E> Classify for SdkError<E, HttpResponse>
where
    Self: std::error::Error,
    E: ProvideErrorMetadata + fmt::Debug + Send + Sync + 'static,
{
    fn classify(&self) -> ProbeErrorKind {
        match self {
            Self::TimeoutError(_) => ProbeErrorKind::TimedOut,
            Self::DispatchFailure(failure) if failure.is_timeout() => ProbeErrorKind::TimedOut,
            Self::DispatchFailure(failure) if failure.is_io() => ProbeErrorKind::Unreachable,
            Self::ServiceError(error) if matches!(error.raw().status().as_u16(), 401 | 403) => ProbeErrorKind::Rejected,
            _ => ProbeErrorKind::Failed,
        }
    }

    fn message(&self, name: &str) -> String {
        match self {
            Self::ServiceError(error) if error.raw().status().as_u16() == 404 => format!("no such bucket in {name}"),
            Self::ServiceError(error) if error.raw().status().as_u16() == 301 => {
                format!("the bucket is in another region of {name}")
            }
            _ => self.classify().message(name),
        }
    }
}
