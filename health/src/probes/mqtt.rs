//! `rumqttc::AsyncClient` of rumqttc-next, for MQTT 5, and how its errors are told apart.
//!
//! Each round publishes a fresh value with quality of service 1 to the topic `health/probe`, and waits until the broker has
//! acknowledged it: one round trip, by way of the application's own event loop, which must be polled for it as for everything.
//! The message is not retained, and expires after 10 s; who subscribes to `#` sees it. Permission: to write
//! `health/probe`.
//!
//! | what happens | kind | status |
//! | --- | --- | --- |
//! | not connected, for whatever reason; the event loop is not polled | [`ProbeErrorKind::TimedOut`] | DOWN |
//! | the event loop is gone | [`ProbeErrorKind::Unreachable`] | DOWN |
//! | no permission for the topic | [`ProbeErrorKind::Rejected`] | DOWN |
//! | the broker's quota is used up | [`ProbeErrorKind::ReadOnly`] | DOWN |
//! | anything else | [`ProbeErrorKind::Failed`] | DOWN |
//!
//! A client does not know whether it is connected, nor where to: its event loop does, and keeps what is published until it is
//! connected again. So there is no address in a message, a broker that is gone is one that does not answer, and why is told
//! where the application polls the event loop. While a message has no answer the check sends no other: an outage
//! leaves one message behind, however often it was asked.
//!
//! What a run costs the broker: one message. No connection is opened: after a failover the event loop connects again, and a
//! message that was lost with the old connection is published again on the new one.
//!
//! The client of plain rumqttc (0.25) is no probe: it has no way to be asked. To publish succeeds as soon as the message is
//! queued, and only the event loop sees an acknowledgement. There a [`Check::new`](crate::Check::new) can tell what the
//! application's own loop has seen of late.

use std::{
    future::Future,
    hash::{BuildHasher as _, RandomState},
    pin::Pin,
    sync::Arc,
};

use rumqttc::{
    AsyncClient, ClientError, PublishNoticeError, PublishOptions, QoS,
    mqttbytes::v5::{PubAckReason, PubRecReason, PublishProperties},
};
use tokio::sync::Mutex;

use crate::{
    error::{BoxError, ProbeError, ProbeErrorKind},
    probe::{DynProbe, Probe},
};

/// Where the messages go.
const TOPIC: &str = "health/probe";

/// How long a message is kept for who is not there, in seconds.
const EXPIRY: u32 = 10;

impl Probe for AsyncClient {
    const GROUP: &'static str = "queue";
    const NEVER_BLOCKS: bool = true;

    async fn probe(&self) -> Result<(), ProbeError> {
        Kept::new(self.clone()).probe().await
    }

    fn kept(&self) -> Option<Arc<dyn DynProbe>> {
        Some(Arc::new(Kept::new(self.clone())))
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

type Answer = Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send>>;

/// A client, and the message that has no answer yet.
struct Kept {
    client: AsyncClient,
    outstanding: Mutex<Option<Answer>>,
}

impl Kept {
    fn new(client: AsyncClient) -> Self {
        Self { client, outstanding: Mutex::default() }
    }

    /// Waits for the answer of the message that is outstanding. If that is dropped, it still is.
    async fn answer(outstanding: &mut Option<Answer>) -> Option<Result<(), ProbeError>> {
        let answer = outstanding.as_mut()?.await;
        *outstanding = None;
        Some(answer)
    }
}

impl DynProbe for Kept {
    fn probe(&self) -> Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + '_>> {
        Box::pin(async {
            let mut outstanding = self.outstanding.lock().await;
            // An answer to a message of an earlier round may be as old as that, and says nothing.
            Self::answer(&mut outstanding).await;
            *outstanding = Some(Box::pin(question(self.client.clone())));
            Self::answer(&mut outstanding).await.unwrap_or(Ok(()))
        })
    }

    fn never_blocks(&self) -> bool {
        true
    }
}

async fn question(client: AsyncClient) -> Result<(), ProbeError> {
    let properties = PublishProperties { message_expiry_interval: Some(EXPIRY), ..PublishProperties::default() };
    let options = PublishOptions::new(QoS::AtLeastOnce).properties(properties);
    loop {
        let nonce = RandomState::new().hash_one(TOPIC).to_string();
        // Waits for a place where the client's own queue is full: that alone tells nothing of the broker.
        let published = client.publish_tracked(TOPIC, nonce, options.clone()).await;
        let notice = published.map_err(|error| public(classify_client(&error), error))?;
        match notice.wait_completion_async().await {
            // Lost with its connection, and there is a new one.
            Err(PublishNoticeError::SessionReset) => {}
            answer => return answer.map_err(|error| public(classify_publish(&error), error)),
        }
    }
}

fn public(kind: ProbeErrorKind, error: impl Into<BoxError>) -> ProbeError {
    ProbeError::new(kind, kind.message("mqtt")).with_source(error)
}

/// The kind of an error of rumqttc-next, by its type and variant.
pub(crate) fn classify(error: &(dyn std::error::Error + 'static)) -> Option<ProbeErrorKind> {
    if let Some(error) = error.downcast_ref() {
        return Some(classify_client(error));
    }
    error.downcast_ref().map(classify_publish)
}

fn classify_client(error: &ClientError) -> ProbeErrorKind {
    match error {
        ClientError::RequestChannelDisconnected(_) => ProbeErrorKind::Unreachable,
        // Nobody takes anything out: also where the broker is gone.
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
    fn a_broker_whose_quota_is_used_up_takes_no_writes() {
        let told = |reason| classify_publish(&PublishNoticeError::V5PubAck(reason));
        assert_eq!(told(PubAckReason::QuotaExceeded), ProbeErrorKind::ReadOnly);
        assert_eq!(told(PubAckReason::NotAuthorized), ProbeErrorKind::Rejected);
        assert_eq!(told(PubAckReason::UnspecifiedError), ProbeErrorKind::Failed);
    }
}
