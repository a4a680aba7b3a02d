//! A node of quorate as the broker: the embedded transport, reached over HTTP. A group `billing` of topic `orders` is the node's queue
//! `orders.billing`, as for relays and inboxes of the node itself.
//!
//! # What differs from the embedded transport
//! * A message for several groups is sent to each of their queues by itself. One that some have and others do not have yet is confirmed to
//!   nobody: it is published again, under the same id, and those that have it drop the copy. One that some have and another never will take is
//!   refused, and says so.
//! * What a receiver was handed and has not asked for yet when it is dropped comes again when its hold ends.
//! * JSON that the node finds flawed (nested deeper than 64, a number that no double holds) is refused.

mod call;
mod receiving;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::Method;
use quorate_runtime::{BoxFuture, Env};
use serde_json::json;

use self::{
    call::{Failed, Link, MAX_ANSWER_BYTES, PATIENCE},
    receiving::Member,
};
use super::{
    Capabilities, Confirmed, Confirms, Holds, Label, Outgoing, PublishError, Receiver, Topic, Transport,
    TransportError, address::in_address, message,
};
use crate::message_queue::{Config, Queue};

/// The largest message: what a node takes unless it is told otherwise.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// Bytes of messages that are sent in one request, unless one is larger.
const MAX_BATCH_BYTES: usize = 2 << 20;
/// Messages that are sent side by side, each by itself.
const BESIDE: usize = 16;

/// The transport over one node.
pub(super) struct Served {
    link: Arc<Link>,
    /// The queues of topics, as they were last seen. What is published is sent to them while it is asked whether there are others.
    boxes: Mutex<BTreeMap<Label, BTreeSet<String>>>,
}

/// What became of each message at one queue.
type Outcomes = Vec<Result<Confirmed, PublishError>>;

impl Served {
    pub(super) fn new(env: &Env, address: &str) -> Self {
        Self { link: Arc::new(Link::new(env, address)), boxes: Mutex::default() }
    }

    /// The queues of a topic's groups, all of them: one that was left out would be none that a message is confirmed for.
    async fn list(&self, topic: &Topic) -> Result<BTreeSet<String>, Failed> {
        let prefix = format!("{}.", topic.name);
        let (mut found, mut after) = (BTreeSet::new(), prefix.clone());
        loop {
            let mut has_come = false;
            let path = format!("/v1/queues?after={}", in_address(&after));
            let answer = self.link.ask(Method::GET, &path, None, PATIENCE, MAX_ANSWER_BYTES).await?;
            let page = wire::names(&answer.body).map_err(|what| Failed::Unknown { what })?;
            for name in page {
                // In order of their names: it gets no further by one that is none.
                if name <= after {
                    return Err(Failed::Unknown { what: format!("it lists `{name}` behind `{after}`") });
                }
                if !name.starts_with(&prefix) {
                    return Ok(found);
                }
                found.insert(name.clone());
                (after, has_come) = (name, true);
            }
            match (answer.has_next, has_come) {
                (true, true) => {}
                (true, false) => {
                    return Err(Failed::Unknown { what: "it says there are more queues, and lists none".to_owned() });
                }
                (false, _) => return Ok(found),
            }
        }
    }

    /// Sends messages to one queue: together, and one by one where they are refused together, which says nothing of each.
    async fn send(&self, topic: &Topic, queue: &str, messages: &[Outgoing]) -> Outcomes {
        let mut outcomes = Vec::with_capacity(messages.len());
        let mut left = messages;
        while !left.is_empty() {
            let mut bytes = 0;
            let fits = left.iter().take(Queue::MAX_BATCH).take_while(|message| {
                bytes += message.event.size();
                bytes <= MAX_BATCH_BYTES
            });
            let (chunk, rest) = left.split_at(fits.count().max(1));
            left = rest;
            match self.send_together(queue, chunk).await {
                Ok(sent) => outcomes.extend(sent.into_iter().map(Ok)),
                Err(Failed::Refused(refusal)) if chunk.len() > 1 && refusal.is_of_messages() => {
                    outcomes.extend(self.send_apart(topic, queue, chunk).await);
                }
                Err(failed) => {
                    outcomes.extend(chunk.iter().map(|_| Err(failed.clone().of_publishing(topic))));
                }
            }
        }
        outcomes
    }

    /// Sends messages to one queue one by one, some side by side, of each key one at a time. Where the queue is full, or the node away, the rest
    /// would fare no better, and is not sent.
    async fn send_apart(&self, topic: &Topic, queue: &str, messages: &[Outgoing]) -> Outcomes {
        let mut outcomes: Outcomes = Vec::with_capacity(messages.len());
        let mut left = messages;
        while !left.is_empty() {
            let mut keys = BTreeSet::new();
            let beside = left.iter().take(BESIDE).take_while(|message| keys.insert(&message.key)).count();
            let (beside, rest) = left.split_at(beside);
            left = rest;
            let sent = join_all(beside.iter().map(|one| self.send_together(queue, std::slice::from_ref(one)))).await;
            let mut stopped = None;
            for one in sent {
                let outcome = one.map(|mut sent| sent.remove(0)).map_err(|failed| failed.of_publishing(topic));
                match &outcome {
                    Err(full @ PublishError::Full { .. }) => stopped = Some(full.clone()),
                    Err(away @ (PublishError::Unavailable { .. } | PublishError::Unknown { .. })) => {
                        stopped =
                            Some(PublishError::unavailable(format!("it was not sent after one before it: {away}")));
                    }
                    _ => {}
                }
                outcomes.push(outcome);
            }
            if let Some(stopped) = stopped {
                outcomes.extend(left.iter().map(|_| Err(stopped.clone())));
                break;
            }
        }
        outcomes
    }

    /// Sends messages to one queue, all or none. Returns as many as there are.
    async fn send_together(&self, queue: &str, messages: &[Outgoing]) -> Result<Vec<Confirmed>, Failed> {
        let path = format!("/v1/queues/{}/messages", in_address(queue));
        let answer = self.link.call(Method::POST, &path, Some(wire::sending(messages))).await?;
        let sent = wire::sent(&answer).map_err(|what| Failed::Unknown { what })?;
        if sent.len() != messages.len() {
            let what = format!("the node tells of {} messages, and {} were sent", sent.len(), messages.len());
            return Err(Failed::Unknown { what });
        }
        Ok(sent)
    }

    async fn send_to(&self, topic: &Topic, queues: &BTreeSet<String>, messages: &[Outgoing]) -> Vec<Outcomes> {
        join_all(queues.iter().map(|queue| self.send(topic, queue, messages))).await
    }

    /// Publishes messages that keep the rules.
    async fn publish_all(&self, topic: &Topic, messages: &[Outgoing]) -> Outcomes {
        let known = {
            let boxes = self.boxes.lock().unwrap_or_else(PoisonError::into_inner);
            boxes.get(&topic.name).cloned().unwrap_or_default()
        };
        // The question is asked after this was called, so that whoever had joined by then is in its answer.
        let (sent, listed) = tokio::join!(self.send_to(topic, &known, messages), self.list(topic));
        let mut by_queue: BTreeMap<&String, Outcomes> = known.iter().zip(sent).collect();
        let listed = match listed {
            Ok(listed) => listed,
            Err(failed) if known.is_empty() => {
                let away = PublishError::unavailable(&failed);
                return messages.iter().map(|_| Err(away.clone())).collect();
            }
            Err(failed) => {
                let others =
                    PublishError::unknown(format!("whether there are other groups could not be asked: {failed}"));
                let others = messages.iter().map(|_| Err(others.clone())).collect();
                return combined(topic, messages.len(), by_queue.into_values().chain([others]));
            }
        };
        let new: BTreeSet<String> = listed.difference(&known).cloned().collect();
        by_queue.extend(new.iter().zip(self.send_to(topic, &new, messages).await));
        // What became of messages for a group that is not there any more is nobody's concern.
        by_queue.retain(|queue, _| listed.contains(*queue));
        let outcomes = combined(topic, messages.len(), by_queue.into_values());
        self.boxes.lock().unwrap_or_else(PoisonError::into_inner).insert(topic.name.clone(), listed);
        outcomes
    }
}

/// What became of each of `count` messages, from what became of it at each queue.
fn combined(topic: &Topic, count: usize, queues: impl Iterator<Item = Outcomes>) -> Outcomes {
    let mut all: Vec<Vec<_>> = (0..count).map(|_| Vec::new()).collect();
    for outcomes in queues {
        all.iter_mut().zip(outcomes).for_each(|(of_message, outcome)| of_message.push(outcome));
    }
    all.into_iter().map(|of_message| combined_one(topic, of_message)).collect()
}

/// Published is what every group has. What some have and others might get is unknown: it is to be published again.
fn combined_one(topic: &Topic, outcomes: Outcomes) -> Result<Confirmed, PublishError> {
    let mut published: Option<Confirmed> = None;
    let mut failures = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok(Confirmed { repeated }) => {
                let before = published.is_none_or(|before| before.repeated);
                published = Some(Confirmed { repeated: before && repeated });
            }
            // Its queue was deleted meanwhile.
            Err(PublishError::Unroutable { .. }) => {}
            Err(failed) => failures.push(failed),
        }
    }
    // The worst first: what may have been done, what never will be, what will be once there is room.
    failures.sort_by_key(|failed| match failed {
        PublishError::Unknown { .. } => 0,
        PublishError::Refused { .. } => 1,
        PublishError::Full { .. } => 2,
        _ => 3,
    });
    match (failures.into_iter().next(), published) {
        (None, Some(confirmed)) => Ok(confirmed),
        (None, None) => Err(PublishError::unroutable(topic)),
        (Some(PublishError::Unavailable { what }), Some(_)) => {
            Err(PublishError::unknown(format!("some groups have it, and others could not be reached: {what}")))
        }
        (Some(PublishError::Refused { what }), Some(_)) => {
            Err(PublishError::refused(format!("some groups have it, and others never will: {what}")))
        }
        (Some(failed), _) => Err(failed),
    }
}

/// The queue of a group. Labels need no encoding in paths.
fn queue(topic: &Topic, group: &Label) -> String {
    format!("{}.{group}", topic.name)
}

impl Transport for Served {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "node",
            confirms: Confirms::Synced,
            dedupe: Some(Config::default().dedupe),
            holds: Holds::ForAWhile,
            delays: true,
            max_message_bytes: MAX_MESSAGE_BYTES,
            compares_partitions: false,
            gives_up: Some("the dead letters of the group's queue, at the node".into()),
        }
    }

    fn declare<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<(), TransportError>> {
        Box::pin(std::future::ready(topic.check()))
    }

    fn publish<'a>(&'a self, topic: &'a Topic, messages: Vec<Outgoing>) -> BoxFuture<'a, Outcomes> {
        Box::pin(async move {
            let checked: Vec<_> =
                messages.into_iter().map(|one| message::for_a_queue(one, MAX_MESSAGE_BYTES)).collect();
            let fit: Vec<Outgoing> = checked.iter().filter_map(|one| one.as_ref().ok().cloned()).collect();
            if fit.is_empty() {
                return checked.into_iter().filter_map(Result::err).map(Err).collect();
            }
            let mut published = self.publish_all(topic, &fit).await.into_iter();
            let lost = || PublishError::unknown("nothing is known of it");
            let outcome = |one: Result<Outgoing, _>| one.and_then(|_| published.next().unwrap_or_else(|| Err(lost())));
            checked.into_iter().map(outcome).collect()
        })
    }

    fn join<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Label,
    ) -> BoxFuture<'a, Result<Box<dyn Receiver>, TransportError>> {
        Box::pin(async move {
            topic.check()?;
            let max_messages = usize::try_from(topic.max_messages).unwrap_or(Config::MAX_MESSAGES);
            let wanted = json!({
                "lease-ttl": wire::span(topic.hold),
                "max-attempts": Config::MAX_ATTEMPTS,
                "max-messages": max_messages,
            });
            let queue = queue(topic, group);
            let path = format!("/v1/queues/{queue}");
            // One that is there stays as whoever operates it has declared it.
            match self.link.call(Method::GET, &path, None).await {
                Err(Failed::Refused(refusal)) if refusal.is("queue-not-found") => {
                    self.link.call(Method::PUT, &path, Some(Bytes::from(wanted.to_string()))).await?;
                }
                found => drop(found?),
            }
            Ok(Box::new(Member::new(&self.link, queue, topic.hold)) as Box<dyn Receiver>)
        })
    }

    fn remove<'a>(&'a self, topic: &'a Topic, group: &'a Label) -> BoxFuture<'a, Result<(), TransportError>> {
        Box::pin(async move {
            let path = format!("/v1/queues/{}", queue(topic, group));
            match self.link.call(Method::DELETE, &path, None).await {
                Err(Failed::Refused(refusal)) if refusal.is("queue-not-found") => Ok(()),
                other => other.map(drop).map_err(Into::into),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Confirmed, PublishError, Topic, combined_one};

    fn judged(outcomes: Vec<Result<Confirmed, PublishError>>) -> Result<Confirmed, PublishError> {
        combined_one(&Topic::new("orders".parse().unwrap()), outcomes)
    }

    #[test]
    fn published_is_what_every_group_has() {
        let (new, repeated) = (|| Ok(Confirmed { repeated: false }), || Ok(Confirmed { repeated: true }));
        assert_eq!(judged(vec![repeated(), repeated()]), repeated());
        assert_eq!(judged(vec![new(), repeated()]), new());
        assert!(matches!(judged(vec![]), Err(PublishError::Unroutable { .. })));
        let gone = || Err(PublishError::Unroutable { topic: "orders".to_owned() });
        assert_eq!(judged(vec![gone(), new()]), new(), "whoever left needs none");
        assert!(matches!(judged(vec![gone()]), Err(PublishError::Unroutable { .. })));
        let away = || Err(PublishError::unavailable("away"));
        assert!(matches!(judged(vec![away(), away()]), Err(PublishError::Unavailable { .. })), "nobody has it");
        assert!(matches!(judged(vec![new(), away()]), Err(PublishError::Unknown { .. })), "somebody has it");
        let lost = || Err(PublishError::unknown("lost"));
        assert!(matches!(judged(vec![away(), lost(), new()]), Err(PublishError::Unknown { .. })));
        let refused = || Err(PublishError::refused("never"));
        assert!(matches!(judged(vec![away(), refused()]), Err(PublishError::Refused { .. })));
        let some = judged(vec![new(), refused()]).unwrap_err();
        assert!(some.is_of_message() && some.to_string().contains("some groups have it"), "{some}");
    }
}
