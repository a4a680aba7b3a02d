//! What webhooks tell of themselves.

use std::time::Duration;

use quorate_data::{event::Position, subscription};
use quorate_foundations::{name::Name, time::Wall};
use quorate_resilience::circuit_breaker;

use super::super::{Config, Secret};

/// An attempt to deliver an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Rises with every attempt of the endpoint: the fence of its lease.
    pub number: u64,
    /// The event's place in the log.
    pub position: Position,
    /// What the delivery is called: `webhook-id`.
    pub message: String,
    /// The event's type.
    pub kind: String,
    /// How often the event has now been sent, counted from 1.
    pub attempt: u32,
    /// When it began, by the wall clock.
    pub began: Wall,
    /// How long it took.
    pub took: Duration,
    /// The answer's status, if there was one.
    pub status: Option<u16>,
    /// What became of it, for people.
    pub outcome: String,
}

/// Since when and why nothing is sent to an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disabled {
    /// By the wall clock.
    pub since: Wall,
    /// For people.
    pub why: String,
    /// Whether the node did it, for what came of calling the endpoint: then another address or another secret lifts it. What a person
    /// disabled stays so until a person enables it.
    pub is_automatic: bool,
}

/// A secret of an endpoint, as far as it may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// See [`Secret::fingerprint`].
    pub fingerprint: String,
    /// Until when it signs, by the wall clock; `None`: until it is replaced.
    pub until: Option<Wall>,
}

/// An endpoint in a listing.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Its name.
    pub name: Name,
    /// As it was declared last.
    pub config: Config,
    /// Why nothing is sent, if nothing is.
    pub disabled: Option<Disabled>,
    /// Since when it has taken nothing, by the wall clock, if its last attempt failed.
    pub failing: Option<Wall>,
    /// Until when it is left alone, by the wall clock, as it asked for.
    pub paused: Option<Wall>,
    /// Whether it is being deleted.
    pub is_deleting: bool,
}

/// How an endpoint stands.
#[derive(Clone, Debug)]
pub struct Description {
    /// Name, configuration, whether it is disabled or failing.
    pub summary: Summary,
    /// Its secrets that sign, the newest first.
    pub signers: Vec<Signer>,
    /// How its subscription stands: checkpoint, lag, what rests and is parked. `None` if that is gone.
    pub subscription: Option<subscription::Description>,
    /// How its breaker stands in this process; `None` while nothing was sent.
    pub breaker: Option<circuit_breaker::Snapshot>,
}

/// What came of declaring an endpoint.
#[derive(Clone, Debug)]
pub struct Declared {
    /// How it stands.
    pub description: Description,
    /// Its secret, if it was drawn just now: it is shown this once.
    pub secret: Option<Secret>,
    /// Whether there was none of that name.
    pub is_new: bool,
}

/// What an endpoint said to a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tested {
    /// What the delivery was called.
    pub message: String,
    /// Whether it was taken.
    pub is_delivered: bool,
    /// The answer's status, if there was one.
    pub status: Option<u16>,
    /// What became of it, with the beginning of what the endpoint said.
    pub outcome: String,
    /// How long it took.
    pub took: Duration,
}
