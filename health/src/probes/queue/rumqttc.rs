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
};

use ::rumqttc::{
    AsyncClient, ClientError, PublishNoticeError, PublishOptions, QoS,
    mqttbytes::v5::{PubAckReason, PubRecReason, PublishProperties},
};
use tokio::sync::Mutex;

use crate::{
    error::{ProbeError, ProbeErrorKind},
    probe::{LibraryProbe, library_probe},
    probes::{classify::Classify, support::label::Label},
};

const TOPIC: &str = "health/probe";

/// How long the broker keeps a message for subscribers that are not connected.
const EXPIRY_S: u32 = 10;

library_probe! { "queue", AsyncClient => ClientProbe::of }

/// What messages call the broker. A client does not expose its address.
const LABEL: Label = Label::new("mqtt");

type Acknowledgement = Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send>>;

/// A client, and the message that the broker has not acknowledged yet.
struct ClientProbe {
    client: AsyncClient,
    in_flight: Mutex<Option<Acknowledgement>>,
}

impl ClientProbe {
    fn of(client: &AsyncClient) -> Self {
        Self { client: client.clone(), in_flight: Mutex::default() }
    }

    /// Waits for the message in flight. If this future is dropped, the message stays in flight.
    async fn acknowledged(in_flight: &mut Option<Acknowledgement>) -> Option<Result<(), ProbeError>> {
        let result = in_flight.as_mut()?.await;
        *in_flight = None;
        Some(result)
    }
}

impl LibraryProbe for ClientProbe {
    async fn probe(&self) -> Result<(), ProbeError> {
        let mut in_flight = self.in_flight.lock().await;
        // The message of an earlier run may have been acknowledged long ago.
        Self::acknowledged(&mut in_flight).await;
        *in_flight = Some(Box::pin(publish(self.client.clone())));
        Self::acknowledged(&mut in_flight).await.unwrap_or(Ok(()))
    }

    fn resource(&self) -> Option<String> {
        None
    }
}

async fn publish(client: AsyncClient) -> Result<(), ProbeError> {
    let properties = PublishProperties { message_expiry_interval: Some(EXPIRY_S), ..PublishProperties::default() };
    let options = PublishOptions::new(QoS::AtLeastOnce).properties(properties);
    loop {
        let nonce = RandomState::new().hash_one(TOPIC).to_string();
        // Waits while the queue of the client is full, which is not a failure of the broker.
        let published = client.publish_tracked(TOPIC, nonce, options.clone()).await;
        let notice = published.map_err(|error| LABEL.error(error))?;
        match notice.wait_completion_async().await {
            // The message was lost with its connection, and there is a new one.
            Err(PublishNoticeError::SessionReset) => {}
            result => return result.map_err(|error| LABEL.error(error)),
        }
    }
}

impl Classify for ClientError {
    fn classify(&self) -> ProbeErrorKind {
        match self {
            Self::RequestChannelDisconnected(_) => ProbeErrorKind::Unreachable,
            // The event loop is not polled, or the broker is stopped.
            Self::RequestChannelFull(_) => ProbeErrorKind::TimedOut,
            _ => ProbeErrorKind::Failed,
        }
    }
}

impl Classify for PublishNoticeError {
    fn classify(&self) -> ProbeErrorKind {
        match self {
            Self::Recv | Self::SessionReset | Self::Qos0NotFlushed => ProbeErrorKind::Unreachable,
            Self::V5PubAck(PubAckReason::NotAuthorized) | Self::V5PubRec(PubRecReason::NotAuthorized) => {
                ProbeErrorKind::Rejected
            }
            Self::V5PubAck(PubAckReason::QuotaExceeded) | Self::V5PubRec(PubRecReason::QuotaExceeded) => {
                ProbeErrorKind::ReadOnly
            }
            _ => ProbeErrorKind::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_whose_quota_is_exceeded_is_read_only() {
        let kind = |reason| PublishNoticeError::V5PubAck(reason).classify();
        assert_eq!(kind(PubAckReason::QuotaExceeded), ProbeErrorKind::ReadOnly);
        assert_eq!(kind(PubAckReason::NotAuthorized), ProbeErrorKind::Rejected);
        assert_eq!(kind(PubAckReason::UnspecifiedError), ProbeErrorKind::Failed);
    }
}
