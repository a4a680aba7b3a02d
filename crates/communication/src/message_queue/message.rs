//! Messages on their way in and out.

use std::{sync::Arc, time::Duration};

use quorate_data::event::NewEvent;
use quorate_foundations::time::Wall;
use serde::{Deserialize, Serialize};

use super::{Config, Lease, QueueError};

/// A message to send: a CloudEvent, and how the queue is to treat it.
///
/// # Example
/// ```
/// use quorate_communication::message_queue::NewMessage;
/// use quorate_data::event::NewEvent;
/// let mail = NewMessage::of(NewEvent::new("0197-1", "/shop", "mail.due").json(&br#"{"to": "a@b.c"}"#[..]))
///     .in_group("customer-17")
///     .after(std::time::Duration::from_secs(60));
/// assert_eq!(mail.priority, NewMessage::DEFAULT_PRIORITY);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct NewMessage {
    /// What it says. Its source and id together are what makes it the same message when it is sent again.
    pub event: NewEvent,
    /// Messages of the same group are handed out in the order in which they were sent, one at a time.
    pub group: Option<Arc<str>>,
    /// 0 to 9; a higher one is handed out first. Inside a group the order of sending decides alone. Default 4.
    pub priority: u8,
    /// How long it rests before it is handed out for the first time.
    pub delay: Duration,
    /// How long after sending it is of no use any more: it is then dropped, unless a consumer holds it.
    pub ttl: Option<Duration>,
    /// While a message with this key waits, rests or is worked on, no other one with it is sent: [`Sent::held_by`] says so.
    /// A dead letter does not hold its key.
    pub unique: Option<Arc<str>>,
}

/// A message on its way in, with the sum of what it says.
pub(super) type Summed = (Arc<Message>, i64);

/// What became of a message that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its id.
    pub id: Arc<str>,
    /// Whether it had been sent before, so that nothing changed now.
    pub repeated: bool,
    /// The id of the message that had its [unique key](method@NewMessage::unique), so that this one was not sent. Its id is not
    /// remembered: it can be sent once that message is done.
    pub held_by: Option<Arc<str>>,
}

/// A message as the queue keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// What it says.
    pub event: NewEvent,
    /// Its group.
    pub group: Option<Arc<str>>,
    /// Its priority.
    pub priority: u8,
    /// When it was sent, by the wall clock.
    pub sent_at: Wall,
    /// The key of which no other message is sent while this one waits or is worked on.
    pub unique: Option<Arc<str>>,
    pub(super) delay: Duration,
    pub(super) ttl: Option<Duration>,
}

/// A message to work on.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The message.
    pub message: Arc<Message>,
    /// The right to settle it.
    pub lease: Lease,
    /// How often it has now been handed out, counted from 1. Above 1, an earlier attempt may have done some or all of the
    /// work.
    pub attempt: u32,
    /// How long the lease lasts, from the moment of the reply.
    pub ttl: Duration,
}

/// A message that was set aside: no consumer gets it until somebody replays it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// The message.
    pub message: Arc<Message>,
    /// How often it was handed out since it was sent or last replayed.
    pub attempts: u32,
    /// Its last failures, oldest first; the last one says why it is here.
    pub failures: Vec<Failure>,
    pub(super) seq: u64,
}

/// One attempt that came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which attempt, counted from 1.
    pub attempt: u32,
    /// When, in nanoseconds since the Unix epoch, by the wall clock.
    pub at: i64,
    /// What happened.
    pub cause: Cause,
    /// What the consumer said, at most [`Failure::MAX_REASON_BYTES`].
    pub reason: String,
}

/// What happened to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The consumer gave it back.
    Nacked,
    /// The lease expired.
    Expired,
    /// It was set aside: by the consumer, or because it cannot be read.
    Parked,
    /// Somebody let it be handed out again.
    Replayed,
}

impl Failure {
    /// The longest reason that is kept; what is beyond it is cut off.
    pub const MAX_REASON_BYTES: usize = 1_024;
    /// The most failures that are kept of a message; older ones are forgotten.
    pub const MAX_KEPT: usize = 10;

    pub(crate) fn new(attempt: u32, at: Wall, cause: Cause, reason: &str) -> Self {
        let mut end = reason.len().min(Self::MAX_REASON_BYTES);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        Self { attempt, at: at.unix_nanos(), cause, reason: reason[..end].to_owned() }
    }
}

impl NewMessage {
    /// The priority of a message that says nothing about it.
    pub const DEFAULT_PRIORITY: u8 = 4;
    /// The highest priority.
    pub const MAX_PRIORITY: u8 = 9;
    /// The longest name of a group, and the longest unique key, in bytes.
    pub const MAX_GROUP_BYTES: usize = 512;

    /// A message that says `event`.
    pub fn of(event: NewEvent) -> Self {
        Self { event, group: None, priority: Self::DEFAULT_PRIORITY, delay: Duration::ZERO, ttl: None, unique: None }
    }

    /// The same in the group `group`.
    #[must_use]
    pub fn in_group(mut self, group: impl Into<Arc<str>>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// The same, not sent while another message with the key `key` waits or is worked on.
    #[must_use]
    pub fn unique(mut self, key: impl Into<Arc<str>>) -> Self {
        self.unique = Some(key.into());
        self
    }

    /// The same with this priority, 0 to 9.
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = priority;
        self
    }

    /// The same, not handed out before `delay` has passed.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// The same, of no use once `ttl` has passed.
    #[must_use]
    pub fn expiring(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// The bytes it will roughly take.
    pub fn size(&self) -> usize {
        let own = [&self.group, &self.unique].into_iter().flatten().map(|text| text.len()).sum::<usize>();
        self.event.size() + own + 64
    }

    /// Whether it keeps the rules, as message `index` of its batch.
    pub(super) fn check(&self, index: usize, max_bytes: usize) -> Result<(), QueueError> {
        self.event.check().map_err(|cause| QueueError::Message { index, cause })?;
        let wrong = |what: String| Err(QueueError::invalid(format!("message {index}: {what}")));
        if self.event.data_subject.is_some() {
            return wrong("data of a data subject cannot be kept in a queue: it could not be erased there".to_owned());
        }
        if self.event.size() > max_bytes {
            return wrong(format!("a message has at most {max_bytes} bytes, this one has {}", self.event.size()));
        }
        if self.priority > Self::MAX_PRIORITY {
            return wrong(format!("`priority` is 0 to {}, {} was asked for", Self::MAX_PRIORITY, self.priority));
        }
        for (what, text) in [("group", &self.group), ("unique", &self.unique)] {
            let max = Self::MAX_GROUP_BYTES;
            if let Some(text) = text
                && (text.is_empty() || text.len() > max || text.chars().any(char::is_control))
            {
                return wrong(format!("`{what}` is 1 to {max} bytes without control characters"));
            }
        }
        let longest = Config::MAX_SPAN;
        if self.delay > longest || self.ttl.is_some_and(|ttl| ttl.is_zero() || ttl > longest) {
            return wrong(format!("`delay` is at most, and `ttl` more than nothing and at most, {longest:?}"));
        }
        if self.ttl.is_some_and(|ttl| ttl <= self.delay) {
            return wrong("`ttl` is longer than `delay`, or nobody would ever get it".to_owned());
        }
        Ok(())
    }
}

impl Message {
    pub(super) fn new(new: NewMessage, sent_at: Wall) -> Self {
        let NewMessage { event, group, priority, delay, ttl, unique } = new;
        Self { event, group, priority, sent_at, unique, delay, ttl }
    }

    /// The bytes it roughly takes.
    pub(super) fn size(&self) -> usize {
        let own = [&self.group, &self.unique].into_iter().flatten().map(|text| text.len()).sum::<usize>();
        self.event.size() + own + 64
    }

    /// What tells it from another message with the same id: everything that it says and how it is to be treated.
    pub(super) fn sum(&self) -> i64 {
        let mut hasher = blake3::Hasher::new();
        let event = &self.event;
        let mut part = |bytes: Option<&[u8]>| {
            hasher.update(&bytes.map_or(u64::MAX, |bytes| bytes.len() as u64).to_le_bytes());
            hasher.update(bytes.unwrap_or_default());
        };
        part(Some(event.kind.as_bytes()));
        part(event.content_type.as_deref().map(str::as_bytes));
        part(event.data.as_deref());
        part(super::rows::attributes(event).as_deref().map(str::as_bytes));
        part(self.group.as_deref().map(str::as_bytes));
        let how = (self.priority, self.delay.as_millis(), self.ttl.map(|ttl| ttl.as_millis()));
        part(Some(format!("{how:?}").as_bytes()));
        if let Some(key) = &self.unique {
            part(Some(key.as_bytes()));
        }
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        i64::from_le_bytes(first)
    }
}
