//! Receiving from a node's queue: one request waits there for messages, and what it brings is handed out one by one.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Method;
use quorate_foundations::time::Boot;
use quorate_runtime::BoxFuture;
use serde_json::{Value, json};

use super::{
    call::{Failed, Link, PATIENCE},
    wire::{self, Handed},
};
use crate::{
    message_queue::Failure,
    transports::{Delivery, Hold, Receiver, TransportError},
};

/// How long a request waits for messages. A node that is told to wait for less (`http.max-wait`) cannot be received from.
const WAIT: Duration = Duration::from_secs(10);
/// Messages that are taken at once.
const MAX: usize = 16;

type Polling = BoxFuture<'static, Result<Vec<Handed>, Failed>>;

/// A receiver: the queue, and what it was handed beyond the message that was asked for.
pub(super) struct Member {
    link: Arc<Link>,
    queue: Arc<str>,
    hold: Duration,
    handed: VecDeque<(Handed, Boot)>,
    /// Kept over calls: a request that is dropped may bring messages that nobody sees until their leases end.
    polling: Option<Polling>,
}

impl Member {
    pub(super) fn new(link: &Arc<Link>, queue: String, hold: Duration) -> Self {
        Self { link: link.clone(), queue: queue.into(), hold, handed: VecDeque::new(), polling: None }
    }

    /// Asks for messages, and waits a while for some.
    fn poll(&self) -> Polling {
        let (link, path) = (self.link.clone(), format!("/v1/queues/{}/receive", self.queue));
        let asked = json!({ "max": MAX, "wait": wire::span(WAIT), "ttl": wire::span(self.hold) });
        Box::pin(async move {
            let body = Bytes::from(asked.to_string());
            let answer = link.call(Method::POST, &path, Some(body), WAIT + PATIENCE).await?;
            wire::deliveries(&answer).map_err(|what| Failed::Unknown { what })
        })
    }
}

impl Receiver for Member {
    fn next(&mut self) -> BoxFuture<'_, Result<Delivery, TransportError>> {
        Box::pin(async move {
            loop {
                while let Some((handed, expires_at)) = self.handed.pop_front() {
                    // One whose lease is over comes again by itself.
                    if self.link.env.boot() < expires_at {
                        let hold = Held { link: self.link.clone(), queue: self.queue.clone(), lease: handed.lease };
                        return Ok(Delivery { message: handed.message, hold: Box::new(hold) });
                    }
                }
                if self.polling.is_none() {
                    self.polling = Some(self.poll());
                }
                let polling = self.polling.as_mut().unwrap_or_else(|| unreachable!("invariant: it was just begun"));
                let came = polling.as_mut().await;
                self.polling = None;
                let expires_at = self.link.env.boot() + self.hold;
                self.handed.extend(came?.into_iter().map(|handed| (handed, expires_at)));
            }
        })
    }
}

struct Held {
    link: Arc<Link>,
    queue: Arc<str>,
    lease: String,
}

impl Held {
    /// Does with the message what `how` says, which is a route of its queue.
    async fn settle(&self, how: &str, mut said: Value) -> Result<(), TransportError> {
        said["leases"] = json!([self.lease]);
        let path = format!("/v1/queues/{}/{how}", self.queue);
        self.link.call(Method::POST, &path, Some(Bytes::from(said.to_string())), PATIENCE).await?;
        Ok(())
    }
}

impl Hold for Held {
    fn ack(&self) -> BoxFuture<'_, Result<(), TransportError>> {
        Box::pin(self.settle("ack", json!({})))
    }

    fn nack<'a>(&'a self, delay: Duration, reason: &'a str) -> BoxFuture<'a, Result<(), TransportError>> {
        let reason: String = reason.chars().take(Failure::MAX_REASON_BYTES).collect();
        Box::pin(self.settle("nack", json!({ "delay": wire::span(delay), "reason": reason })))
    }

    fn extend(&self) -> BoxFuture<'_, Result<(), TransportError>> {
        Box::pin(self.settle("extend", json!({})))
    }
}
