//! Receiving from a node's queue: one request waits there for messages, and what it brings is handed out one by one.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Method;
use quorate_foundations::time::Boot;
use quorate_runtime::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{
    call::{Failed, Link, MAX_MESSAGES_BYTES, PATIENCE},
    wire::{self, Handed},
};
use crate::{
    message_queue::Failure,
    transports::{Delivery, Hold, Incoming, Receiver, TransportError},
};

/// How long a request waits for messages. A node that is told to wait for less (`http.max-wait`) cannot be received from.
const WAIT: Duration = Duration::from_secs(10);
/// Messages that are taken at once, where answers of that many arrive.
const MAX: usize = 16;

/// What a request brought, and when.
type Came = Result<(Boot, Vec<Handed>), Failed>;

/// A receiver: the queue, and what it was handed beyond the message that was asked for.
pub(super) struct Member {
    link: Arc<Link>,
    queue: Arc<str>,
    hold: Duration,
    /// Messages, and when their leases end.
    handed: VecDeque<(Incoming, Held, Boot)>,
    /// Kept over calls: a request that is dropped may bring messages that nobody sees until their leases end.
    polling: Option<oneshot::Receiver<Came>>,
    /// Messages that are asked for next. Fewer after an answer that did not arrive, or messages that nobody got to: they were held up for
    /// nothing.
    max: usize,
}

impl Member {
    pub(super) fn new(link: &Arc<Link>, queue: String, hold: Duration) -> Self {
        Self { link: link.clone(), queue: queue.into(), hold, handed: VecDeque::new(), polling: None, max: MAX }
    }

    /// Asks for messages, and waits a while for some. It goes on while nobody looks, so that leases are as old as they are; it ends with its
    /// receiver.
    fn poll(&self) -> oneshot::Receiver<Came> {
        let (link, path) = (self.link.clone(), format!("/v1/queues/{}/receive", self.queue));
        let asked =
            json!({ "max": self.max, "wait": wire::span(WAIT), "ttl": wire::span(self.hold), "data": "base64" });
        let (mut tell, told) = oneshot::channel();
        let (tasks, stop) = (self.link.env.tasks(), self.link.env.tasks().stop().clone());
        tasks.spawn("request for messages", async move {
            let body = Some(Bytes::from(asked.to_string()));
            let asking = async {
                let answer = link.ask(Method::POST, &path, body, WAIT + PATIENCE, MAX_MESSAGES_BYTES).await?;
                let handed = wire::deliveries(&answer.body).map_err(|what| Failed::Unknown { what })?;
                Ok((answer.came_at, handed))
            };
            let came = tokio::select! {
                () = tell.closed() => return,
                () = stop.cancelled() => return,
                came = asking => came,
            };
            let _nobody_looks_any_more = tell.send(came);
        });
        told
    }

    /// The first of what was handed out, under a lease that has some time to go.
    async fn first(&mut self) -> Result<Option<Delivery>, TransportError> {
        while let Some((_, held, expires_at)) = self.handed.front_mut() {
            let now = self.link.env.boot();
            // One whose lease is over comes again by itself.
            let mut is_ours = now < *expires_at;
            if is_ours && expires_at.saturating_since(now) < self.hold / 2 {
                match held.extend().await {
                    Ok(()) => *expires_at = now + self.hold,
                    Err(TransportError::Lost { .. }) => is_ours = false,
                    Err(failed) => return Err(failed),
                }
            }
            match self.handed.pop_front().filter(|_| is_ours) {
                Some((message, held, _)) => return Ok(Some(Delivery { message, hold: Box::new(held) })),
                None => self.max = (self.max / 2).max(1),
            }
        }
        Ok(None)
    }
}

impl Receiver for Member {
    fn next(&mut self) -> BoxFuture<'_, Result<Delivery, TransportError>> {
        Box::pin(async move {
            loop {
                if let Some(first) = self.first().await? {
                    return Ok(first);
                }
                if self.polling.is_none() {
                    self.polling = Some(self.poll());
                }
                let polling = self.polling.as_mut().unwrap_or_else(|| unreachable!("invariant: it was just begun"));
                let came = polling.await;
                self.polling = None;
                let came = came.map_err(|_| TransportError::unavailable("whoever runs tasks here is stopping"))?;
                self.max = if came.is_ok() { MAX.min(self.max + 1) } else { (self.max / 2).max(1) };
                let (came_at, all) = came?;
                self.handed.extend(all.into_iter().map(|Handed { message, lease }| {
                    let held = Held { link: self.link.clone(), queue: self.queue.clone(), lease, hold: self.hold };
                    (message, held, came_at + self.hold)
                }));
            }
        })
    }
}

struct Held {
    link: Arc<Link>,
    queue: Arc<str>,
    lease: String,
    /// For how long it is held, whatever others of the group told the queue.
    hold: Duration,
}

impl Held {
    /// Does with the message what `how` says, which is a route of its queue.
    async fn settle(&self, how: &str, mut said: Value) -> Result<(), TransportError> {
        said["leases"] = json!([self.lease]);
        let path = format!("/v1/queues/{}/{how}", self.queue);
        self.link.call(Method::POST, &path, Some(Bytes::from(said.to_string()))).await?;
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
        Box::pin(self.settle("extend", json!({ "ttl": wire::span(self.hold) })))
    }
}
