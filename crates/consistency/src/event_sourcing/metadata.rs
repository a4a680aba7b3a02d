//! What travels with a command, and what comes back.

use std::sync::Arc;

use quorate_data::{
    event::{Position, Recorded, Scalar, Timestamp, Version},
    store::{Store, Token},
};

use serde::Serialize;

use super::Decider;

/// What is known about a command besides what it asks for. It is kept with the events that it leads to.
///
/// # Example
/// ```
/// use quorate_consistency::event_sourcing::Metadata;
/// let metadata = Metadata::command("0197f1f4-73c1").correlated("order-17").caused_by("message-4");
/// assert_eq!(metadata.causation_id.as_deref(), Some("message-4"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Names the command: repeated with the same id it is carried out once and answered as the first time. The ids of
    /// its events are made of it. Whether it asks for the same thing is only known where there is a [`digest`](Self::digest).
    pub command_id: Option<Arc<str>>,
    /// The message that caused the command. Where there is none, its events name the command itself as their cause.
    pub causation_id: Option<Arc<str>>,
    /// The conversation the command belongs to.
    pub correlation_id: Option<Arc<str>>,
    /// Who says so: `source` of the events, a URI reference. Where there is none, that of the [`Config`](super::Config).
    ///
    /// Part of an event's identity: a command is repeated only by the same source.
    pub source: Option<Arc<str>>,
    /// What the command asks for, in short: kept with its events, so that another command under the same id is refused
    /// ([`HandleError::CommandIdReused`](super::HandleError::CommandIdReused)) rather than answered as the first one was. Events
    /// about a data subject don't get it: it would outlive an erasure, and whoever guesses what was erased could try.
    pub digest: Option<Arc<str>>,
    /// When it happened, where that is known better than "when it was recorded".
    pub time: Option<Timestamp>,
}

impl Metadata {
    /// A command with an id of its own.
    pub fn command(id: impl Into<Arc<str>>) -> Self {
        Self { command_id: Some(id.into()), ..Self::default() }
    }

    /// The same, as part of a conversation.
    #[must_use]
    pub fn correlated(mut self, id: impl Into<Arc<str>>) -> Self {
        self.correlation_id = Some(id.into());
        self
    }

    /// The same, as the consequence of a message.
    #[must_use]
    pub fn caused_by(mut self, id: impl Into<Arc<str>>) -> Self {
        self.causation_id = Some(id.into());
        self
    }

    /// The same, said by `source`.
    #[must_use]
    pub fn said_by(mut self, source: impl Into<Arc<str>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same, with a [digest](Self::digest) of what `command` asks for: a hash of it as JSON, whatever the order of its maps.
    /// Lists count as they are: keep sets ordered. A command whose type got another member since is another command.
    ///
    /// # Errors
    /// It can't be written as JSON.
    pub fn asking(mut self, command: &impl Serialize) -> Result<Self, serde_json::Error> {
        self.digest =
            Some(blake3::hash(&serde_json::to_vec(&serde_json::to_value(command)?)?).to_hex().as_str().into());
        Ok(self)
    }

    /// The same, for something that happened at `time`.
    #[must_use]
    pub fn happened_at(mut self, time: Timestamp) -> Self {
        self.time = Some(time);
        self
    }
}

/// The extension attribute that keeps a command's digest.
pub(super) const DIGEST: &str = "commanddigest";

/// Whether `event`, of a command with the same id, may be one of a command with this `metadata`.
pub(super) fn asks_the_same(event: &Recorded, metadata: &Metadata) -> bool {
    let Some(asked) = metadata.digest.as_deref() else { return true };
    event.extensions().get(DIGEST).is_none_or(|kept| *kept == Scalar::Text(asked.to_owned()))
}

/// The id of the `index`-th event, counted from 0, of the command `command_id`.
///
/// Distinct pairs give distinct ids, since what follows the last dot is the index.
pub(super) fn event_id(command_id: &str, index: usize) -> Arc<str> {
    format!("{command_id}.{index}").into()
}

/// Which event of the command `command_id` has the id `id`; `None` where it is none of them.
pub(super) fn event_index(id: &str, command_id: &str) -> Option<usize> {
    let digits = id.strip_prefix(command_id)?.strip_prefix('.')?;
    let canonical = digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    digits.parse().ok().filter(|_| canonical)
}

/// What a command led to.
pub struct Outcome<D: Decider> {
    /// What happened; empty if there was nothing to do.
    pub events: Vec<D::Event>,
    /// The stream's version after them.
    pub version: Version,
    /// Presents this outcome to a later read. Without events: the newest append that the decision saw.
    pub token: Token,
    /// The state after the events.
    pub state: Arc<D::State>,
    /// Whether the command had been carried out before: this is the answer of the first time.
    pub repeated: bool,
}

/// A state as it is now, or was.
pub struct Loaded<D: Decider> {
    /// The state.
    pub state: Arc<D::State>,
    /// The version of the last event in it; zero before the first.
    pub version: Version,
    /// The newest append that was seen.
    pub token: Token,
}

/// The token of the append that the event at `position` came with. Where appends are not numbered by positions it is that of
/// the newest append that can be read, behind which that event is.
pub(super) fn token_at(store: &Store, position: Position) -> Token {
    if store.capabilities().tokens_are_positions {
        return Token::new(store.timeline(), position.get());
    }
    store.token_from(position)
}

impl<D: Decider<State: std::fmt::Debug, Event: std::fmt::Debug>> std::fmt::Debug for Outcome<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outcome")
            .field("events", &self.events)
            .field("version", &self.version)
            .field("token", &self.token)
            .field("state", &self.state)
            .field("repeated", &self.repeated)
            .finish()
    }
}

impl<D: Decider<State: std::fmt::Debug>> std::fmt::Debug for Loaded<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded")
            .field("state", &self.state)
            .field("version", &self.version)
            .field("token", &self.token)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{event_id, event_index};

    #[test]
    fn an_events_id_leads_back_to_its_place_in_its_command_and_to_no_other() {
        for (command, index) in [("c", 0), ("c", 10), ("c.1", 0), ("c.1.", 7), ("", 3)] {
            assert_eq!(event_index(&event_id(command, index), command), Some(index));
        }
        for (id, command) in [("c.1.0", "c"), ("c.01", "c"), ("c.+1", "c"), ("c.", "c"), ("c", "c"), ("d.1", "c")] {
            assert_eq!(event_index(id, command), None, "{id}");
        }
    }
}
