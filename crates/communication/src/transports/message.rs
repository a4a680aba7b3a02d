//! Messages on their way out and in.

use std::{fmt, sync::Arc, time::Duration};

use quorate_data::event::{NewEvent, Scalar};

use super::{Hold, PublishError, TransportError};
use crate::attributes;

/// A message to publish: a CloudEvent and the key that it is kept in order by.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    /// Messages with the same key come in the order in which they were published, one at a time. At most 512 bytes.
    pub key: Arc<str>,
    /// What it says. Its source and id together are what makes it the same message when it is published again.
    pub event: NewEvent,
}

/// A message that came.
#[derive(Clone, Debug, PartialEq)]
pub struct Incoming {
    /// What makes it the same message when it comes again: see [`Outgoing::identity`].
    pub identity: Arc<str>,
    /// What it is kept in order by.
    pub key: Arc<str>,
    /// What it says. Where it cannot be read, what could be.
    pub event: NewEvent,
    /// What keeps it from being read, if something does: handlers would make nothing of it.
    pub unreadable: Option<String>,
    /// Whether it may have been handed out before.
    pub redelivered: bool,
    /// How often it has now been handed out, counted from 1, as far as the broker counts.
    pub attempt: u32,
}

/// A message that is held, until it is settled or the hold ends.
///
/// Dropping it settles nothing: it comes again when the hold ends.
pub struct Delivery {
    /// The message.
    pub message: Incoming,
    pub(crate) hold: Box<dyn Hold>,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery").field("message", &self.message).finish_non_exhaustive()
    }
}

impl Outgoing {
    /// The longest key, in bytes.
    pub const MAX_KEY_BYTES: usize = 512;

    /// A message that says `event`, in order with others of `key`.
    pub fn new(key: impl Into<Arc<str>>, event: NewEvent) -> Self {
        Self { key: key.into(), event }
    }

    /// What makes it the same message when it is published again: see [`Incoming::identity`].
    pub fn identity(&self) -> Arc<str> {
        identity(&self.event)
    }

    /// Whether it keeps the rules of CloudEvents and our limits.
    pub(super) fn check(&self, max_bytes: usize) -> Result<(), String> {
        if self.key.is_empty() || self.key.len() > Self::MAX_KEY_BYTES || self.key.chars().any(char::is_control) {
            return Err(format!("a key is 1 to {} bytes without control characters", Self::MAX_KEY_BYTES));
        }
        self.event.check().map_err(|wrong| wrong.to_string())?;
        let bytes = self.event.size();
        if bytes > max_bytes {
            return Err(format!("a message has at most {max_bytes} bytes here, this one has {bytes}"));
        }
        Ok(())
    }
}

/// The largest data of a message that is received from a broker, in bytes: what is larger is unreadable, so that it can still be parked.
#[cfg(any(feature = "nats", feature = "rabbitmq"))]
pub(super) const MAX_DATA_BYTES: usize = 8 << 20;

/// `key` as transports and stores take it: of one that is too long, or holds control characters, its hash.
pub(crate) fn fitting(key: &str) -> Arc<str> {
    match key {
        "" => "-".into(),
        key if key.len() <= Outgoing::MAX_KEY_BYTES && !key.chars().any(char::is_control) => key.into(),
        key => format!("blake3 {}", blake3::hash(key.as_bytes()).to_hex()).into(),
    }
}

/// The longest identity that is its text.
const LONGEST: usize = 200;

/// `source` and `id`, and behind them `aggregatetype` and `aggregateid` where there are both, with blanks between them; where such a text would be long,
/// hold what some broker does not take, or be that of another message, a BLAKE3 hash of the same.
///
/// The store tells events by their streams as well, so that two streams may have events of one source and id: the aggregate tells
/// those apart. Part of the format: inboxes remember it.
pub(super) fn identity(event: &NewEvent) -> Arc<str> {
    let of = |name: &str| event.extensions.get(name).map(attributes::text);
    let (kind, aggregate) = of("aggregatetype").zip(of("aggregateid")).unzip();
    let mut parts: Vec<&str> = vec![&event.source, &event.id];
    parts.extend(kind.as_deref().into_iter().chain(aggregate.as_deref()));
    let text = parts.join(" ");
    let is_plain = text.len() <= LONGEST && text.chars().all(|c| c.is_ascii_graphic() || c == ' ');
    // With a blank in one of the parts before the last, or in an id that is the last, other parts would make the same text.
    if is_plain && text.matches(' ').count() == parts.len() - 1 {
        return text.into();
    }
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    format!("blake3 {}", hasher.finalize().to_hex()).into()
}

/// The extension that holds the id of an event that was told apart.
pub(super) const OWN_ID: &str = "quorateownid";

/// `message` as queues keep it, [told apart](told_apart), if it keeps the rules.
pub(super) fn for_a_queue(message: Outgoing, max_bytes: usize) -> Result<Outgoing, PublishError> {
    message.check(max_bytes).map_err(PublishError::refused)?;
    if message.event.extensions.contains_key(OWN_ID) {
        return Err(PublishError::refused(format!("the extension `{OWN_ID}` is the transport's own")));
    }
    Ok(Outgoing { event: told_apart(message.event), ..message })
}

/// `event` under an id that no message of another identity has, its own one beside it, for whoever tells messages by source and id alone.
pub(super) fn told_apart(mut event: NewEvent) -> NewEvent {
    let identity = identity(&event);
    if *identity != *format!("{} {}", event.source, event.id) {
        let own = std::mem::replace(&mut event.id, identity);
        event.extensions.insert(OWN_ID.to_owned(), Scalar::Text(own.to_string()));
    }
    event
}

/// `event` under its own id, if it was [told apart](told_apart): where it goes on, it is the same message as before.
pub(crate) fn under_its_own_id(mut event: NewEvent) -> NewEvent {
    let Some(Scalar::Text(own)) = event.extensions.get(OWN_ID) else { return event };
    let id = std::mem::replace(&mut event.id, own.as_str().into());
    // An extension of that name that somebody else wrote is left to him.
    if identity(&event) == id {
        event.extensions.remove(OWN_ID);
    } else {
        event.id = id;
    }
    event
}

impl Incoming {
    /// What it says, under an id that no message of another identity has: where its source and id do not tell it apart by themselves (its aggregate does), its identity,
    /// with its own id in the extension `quorateownid`. For whoever keeps it where events are told by source and id alone.
    pub fn told_apart(&self) -> NewEvent {
        told_apart(self.event.clone())
    }
}

impl Delivery {
    /// Settles the message: it does not come again.
    ///
    /// # Errors
    /// [`TransportError::Lost`], [`TransportError::Unavailable`]: it comes again, or was settled and the answer is lost.
    pub async fn ack(self) -> Result<(), TransportError> {
        self.hold.ack().await
    }

    /// Gives the message back: it comes again after `delay`, or a little later, and what is behind it in its key waits. A broker that cannot
    /// wait leaves it with the caller meanwhile; then `nack` returns at once, and a broken connection brings it back earlier.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub async fn nack(self, delay: Duration, reason: &str) -> Result<(), TransportError> {
        self.hold.nack(delay, reason).await
    }

    /// Holds the message for another [`Topic::hold`](super::Topic::hold) from now on.
    ///
    /// # Errors
    /// [`TransportError::Lost`] where it is not held any more.
    pub async fn extend(&self) -> Result<(), TransportError> {
        self.hold.extend().await
    }
}

#[cfg(test)]
mod tests {
    use quorate_data::event::{NewEvent, Scalar};

    use super::{OWN_ID, identity, told_apart, under_its_own_id};

    #[test]
    fn messages_of_other_sources_or_ids_have_other_identities_that_any_broker_takes() {
        let long = "x".repeat(300);
        let identity = |source: &str, id: &str| identity(&NewEvent::new(id, source, "t"));
        let all = [
            identity("/a", "b c"),
            identity("/a", "b"),
            identity("/b", "b"),
            identity("/a", &long),
            identity("/ä", "b"),
        ];
        for (n, one) in all.iter().enumerate() {
            assert!(one.len() <= 255 && one.is_ascii(), "{one}");
            assert!(all.iter().skip(n + 1).all(|other| other != one));
        }
        assert_eq!(&*all[1], "/a b");
    }

    #[test]
    fn what_is_an_id_in_one_message_and_an_aggregate_in_another_makes_two_messages() {
        let of = |id: &str, aggregate: Option<[Scalar; 2]>| {
            let mut event = NewEvent::new(id, "/shop", "order.placed");
            let names = ["aggregatetype", "aggregateid"].map(str::to_owned);
            event.extensions.extend(names.into_iter().zip(aggregate.into_iter().flatten()));
            identity(&event)
        };
        let text = |text: &str| Scalar::Text(text.to_owned());
        let named = of("1", Some([text("order"), text("17")]));
        assert_eq!(&*named, "/shop 1 order 17");
        assert_ne!(named, of("1 order 17", None));
        assert_ne!(of("1 order", Some([text("a"), text("b")])), of("1", Some([text("order"), text("a b")])));
        // A broker may make a text of a number.
        assert_eq!(named, of("1", Some([text("order"), Scalar::Integer(17)])));
    }

    #[test]
    fn what_was_told_apart_is_itself_again_and_what_only_says_so_is_left_alone() {
        let mut event = NewEvent::new("1", "/shop", "order.placed");
        for (name, value) in [("aggregatetype", "order"), ("aggregateid", "17")] {
            event.extensions.insert(name.to_owned(), Scalar::Text(value.to_owned()));
        }
        for event in [event, NewEvent::new("a b", "/shop", "x"), NewEvent::new("1", "/shop", "x")] {
            let (identity, apart) = (identity(&event), told_apart(event.clone()));
            let again = under_its_own_id(apart);
            assert_eq!((super::identity(&again), &again), (identity, &event));
        }
        let mut forged = NewEvent::new("1", "/shop", "x");
        forged.extensions.insert(OWN_ID.to_owned(), Scalar::Text("2".to_owned()));
        assert_eq!(under_its_own_id(forged.clone()), forged);
    }

    #[test]
    fn events_of_two_streams_that_share_a_source_and_an_id_are_two_messages() {
        let of = |aggregate: &str| {
            let mut event = NewEvent::new("1", "/shop", "order.placed");
            for (name, value) in [("aggregatetype", "order"), ("aggregateid", aggregate)] {
                event.extensions.insert(name.to_owned(), Scalar::Text(value.to_owned()));
            }
            identity(&event)
        };
        assert_ne!(of("17"), of("18"));
        assert_eq!(of("17"), of("17"));
    }
}
