//! `rumqttc::AsyncClient` of rumqttc-next, for MQTT 5, and how its errors are classified.
//!
//! Each run publishes a unique value with quality of service 1 to the topic `health/probe`, and waits until the broker has acknowledged it:
//! one round trip. The application's event loop sends it, so the application has to poll that. The message is not retained and expires after
//! 10 s; subscribers of `#` receive it. Permission: to publish to `health/probe`.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | not connected, for any reason; the event loop is not polled | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | the event loop was dropped | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | no permission for the topic | [`ProbeErrorKind::Rejected`] | DOWN |
//! | the broker's quota is exceeded | [`ProbeErrorKind::ReadOnly`] | DOWN |
//! | anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! A client knows neither its address nor whether it is connected; its event loop does, and keeps published messages until it has
//! reconnected. So messages contain no address, a stopped broker is reported as a timeout, and the event loop returns the cause to the
//! application. A run publishes no message while an earlier one is unacknowledged, so an outage leaves at most one message behind.
//!
//! What a run costs the broker: one message. No connection is opened. After a failover the event loop reconnects, and a message that was
//! lost with the old connection is published again on the new one.
//!
//! The client of plain rumqttc (0.25) is not supported: it returns as soon as a message is queued, and only the event loop receives the
//! acknowledgement. Use a [`Check::new`](crate::Check::new) that reports what the application's event loop has received.

use std::{
    future::Future,
    hash::{BuildHasher as _, RandomState},
    pin::Pin,
    sync::Arc,
};

use ::rumqttc::{
    AsyncClient, ClientError, PublishNoticeError, PublishOptions, QoS,
    mqttbytes::v5::{PubAckReason, PubRecReason, PublishProperties},
};
use tokio::sync::Mutex;

use crate::{
    error::{BoxError, ProbeError, ProbeErrorKind},
    probe::{DynProbe, Probe},
};

const TOPIC: &str = "health/probe";

/// How long the broker keeps a message for subscribers that are not connected.
const EXPIRY_S: u32 = 10;

impl Probe for AsyncClient {
    const GROUP: &'static str = "queue";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        ClientProbe::new(self.clone()).probe().await
    }

    fn kept(&self) -> Option<Arc<dyn DynProbe>> {
        Some(Arc::new(ClientProbe::new(self.clone())))
    }
}

impl From<ClientError> for ProbeError {
    fn from(error: ClientError) -> Self {
        Self::from_error(error)
    }
}

impl From<PublishNoticeError> for ProbeError {
    fn from(error: PublishNoticeError) -> Self {
        Self::from_error(error)
    }
}

type Acknowledgement = Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send>>;

/// A client, and the message that the broker has not acknowledged yet.
struct ClientProbe {
    client: AsyncClient,
    in_flight: Mutex<Option<Acknowledgement>>,
}

impl ClientProbe {
    fn new(client: AsyncClient) -> Self {
        Self { client, in_flight: Mutex::default() }
    }

    /// Waits for the message in flight. If this future is dropped, the message stays in flight.
    async fn acknowledged(in_flight: &mut Option<Acknowledgement>) -> Option<Result<(), ProbeError>> {
        let result = in_flight.as_mut()?.await;
        *in_flight = None;
        Some(result)
    }
}

impl DynProbe for ClientProbe {
    fn probe(&self) -> Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + '_>> {
        Box::pin(async {
            let mut in_flight = self.in_flight.lock().await;
            // The message of an earlier run may have been acknowledged long ago.
            Self::acknowledged(&mut in_flight).await;
            *in_flight = Some(Box::pin(publish(self.client.clone())));
            Self::acknowledged(&mut in_flight).await.unwrap_or(Ok(()))
        })
    }

    fn never_blocks(&self) -> bool {
        true
    }
}

async fn publish(client: AsyncClient) -> Result<(), ProbeError> {
    let properties = PublishProperties { message_expiry_interval: Some(EXPIRY_S), ..PublishProperties::default() };
    let options = PublishOptions::new(QoS::AtLeastOnce).properties(properties);
    loop {
        let nonce = RandomState::new().hash_one(TOPIC).to_string();
        // Waits while the queue of the client is full, which is not a failure of the broker.
        let published = client.publish_tracked(TOPIC, nonce, options.clone()).await;
        let notice = published.map_err(|error| probe_error(classify_client(&error), error))?;
        match notice.wait_completion_async().await {
            // The message was lost with its connection, and there is a new one.
            Err(PublishNoticeError::SessionReset) => {}
            result => return result.map_err(|error| probe_error(classify_publish(&error), error)),
        }
    }
}

fn probe_error(kind: ProbeErrorKind, error: impl Into<BoxError>) -> ProbeError {
    ProbeError::new(kind, kind.message("mqtt")).with_source(error)
}

/// Returns the kind of an error of rumqttc-next, from its type and variant.
pub(crate) fn classify(error: &(dyn std::error::Error + 'static)) -> Option<ProbeErrorKind> {
    if let Some(error) = error.downcast_ref() {
        return Some(classify_client(error));
    }
    error.downcast_ref().map(classify_publish)
}

fn classify_client(error: &ClientError) -> ProbeErrorKind {
    match error {
        ClientError::RequestChannelDisconnected(_) => ProbeErrorKind::Unreachable,
        // The event loop is not polled, or the broker is stopped.
        ClientError::RequestChannelFull(_) => ProbeErrorKind::TimedOut,
        _ => ProbeErrorKind::Failed,
    }
}

fn classify_publish(error: &PublishNoticeError) -> ProbeErrorKind {
    match error {
        PublishNoticeError::Recv | PublishNoticeError::SessionReset | PublishNoticeError::Qos0NotFlushed => {
            ProbeErrorKind::Unreachable
        }
        PublishNoticeError::V5PubAck(PubAckReason::NotAuthorized)
        | PublishNoticeError::V5PubRec(PubRecReason::NotAuthorized) => ProbeErrorKind::Rejected,
        PublishNoticeError::V5PubAck(PubAckReason::QuotaExceeded)
        | PublishNoticeError::V5PubRec(PubRecReason::QuotaExceeded) => ProbeErrorKind::ReadOnly,
        _ => ProbeErrorKind::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_whose_quota_is_exceeded_is_read_only() {
        let kind = |reason| classify_publish(&PublishNoticeError::V5PubAck(reason));
        assert_eq!(kind(PubAckReason::QuotaExceeded), ProbeErrorKind::ReadOnly);
        assert_eq!(kind(PubAckReason::NotAuthorized), ProbeErrorKind::Rejected);
        assert_eq!(kind(PubAckReason::UnspecifiedError), ProbeErrorKind::Failed);
    }
}
