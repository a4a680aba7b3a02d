//! What goes into the machine and what comes out of it.

use std::{sync::Arc, time::Duration};

use super::{
    super::{Backoff, Claim, Config},
    Key,
    entry::{Saved, Stored},
};
use crate::event::Position;

/// The numbers a machine goes by.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// See [`Config::lease_ttl`].
    pub lease_ttl: Duration,
    /// See [`Config::max_attempts`].
    pub max_attempts: u32,
    /// See [`Config::window`].
    pub window: usize,
    /// See [`Config::max_parked`].
    pub max_parked: usize,
    /// See [`Config::backoff`].
    pub backoff: Backoff,
}

/// What can happen to a subscription.
#[derive(Clone, Debug)]
pub enum Input {
    /// The log was read up to `to`, from [`Dispatcher::scanned`](super::Dispatcher::scanned) on; these of its events are to be handed out.
    Scanned {
        /// In order of position.
        events: Vec<(Position, Key)>,
        /// How far was read.
        to: Position,
    },
    /// Of the events that were just scanned, nothing is left of these to work on: they are passed over.
    PassedOver(Vec<Position>),
    /// A consumer asks for events.
    Take {
        /// At most so many.
        max: usize,
        /// Who asks.
        owner: Arc<str>,
    },
    /// The holder is done with the event.
    Ack(Claim),
    /// The holder could not do it this time.
    Nack {
        /// What it holds.
        claim: Claim,
        /// How long to rest; `None` lets the backoff decide.
        rest: Option<Duration>,
        /// Why.
        reason: String,
    },
    /// The holder needs longer: `ttl` from now on.
    Extend {
        /// What it holds.
        claim: Claim,
        /// How long.
        ttl: Duration,
    },
    /// The holder says that trying again will not help.
    Park {
        /// What it holds.
        claim: Claim,
        /// Why.
        reason: String,
    },
    /// The event never reached the consumer: as if it had not been handed out.
    Return(Claim),
    /// A transaction that committed elsewhere has settled the event, and its row says so.
    SettledElsewhere(Claim),
    /// Parked events shall be handed out again, each with all its attempts.
    Replay(Selection),
    /// Parked events shall be given up.
    Discard(Selection),
}

/// Which parked events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All.
    All,
    /// Those of a key.
    Key(Key),
    /// One. Replaying it replays what is parked before it in its key too: order is kept.
    Event(Position),
}

/// What should happen. None may be carried out before the machine's [`Changes`] are durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Hand the event out.
    Hand {
        /// Which, and under which fence.
        claim: Claim,
        /// What it belongs to.
        key: Key,
        /// How often it has now been handed out, counted from 1.
        attempt: u32,
        /// For how long.
        ttl: Duration,
    },
    /// Tell the holder that the event is no longer its own; nothing changed.
    Lost(Claim),
    /// Tell the operator how many parked events were replayed or discarded.
    Selected(usize),
}

/// What must be durable before effects are carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct Changes {
    /// The revision they are based on; they make the next one. Another one found: nothing may be written.
    pub based_on: u64,
    /// See [`Dispatcher::checkpoint`](super::Dispatcher::checkpoint).
    pub checkpoint: Position,
    /// The last fence given out.
    pub fence: u64,
    /// See [`Dispatcher::passed_over`](super::Dispatcher::passed_over), as of the checkpoint.
    pub passed_over: u64,
    /// Rows to insert (`None`) or to replace, if they still are as known.
    pub put: Vec<(Stored, Option<Saved>)>,
    /// Rows to delete, if they still are as known.
    pub delete: Vec<(Position, Saved)>,
}

/// Why nothing more can be handed out although there is more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stall {
    /// So many events are unsettled.
    Window(usize),
    /// So many events are parked.
    Parked(usize),
}

/// Numbers for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Handed out and not settled.
    pub in_flight: usize,
    /// Resting after a failure.
    pub resting: usize,
    /// Known and waiting for their turn.
    pub waiting: usize,
    /// Set aside.
    pub parked: usize,
    /// Settled ahead of the checkpoint.
    pub settled_ahead: usize,
}

impl From<&Config> for Rules {
    fn from(config: &Config) -> Self {
        Self {
            lease_ttl: config.lease_ttl,
            max_attempts: config.max_attempts,
            window: config.window,
            max_parked: config.max_parked,
            backoff: config.backoff,
        }
    }
}
