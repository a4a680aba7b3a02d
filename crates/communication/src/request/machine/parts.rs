//! What the rules keep.

use std::collections::{BTreeMap, BTreeSet};

use quorate_foundations::name::Name;
use quorate_resilience::deadline::Deadline;

use super::{RequestId, ResponderId};
use crate::request::Payload;

/// What there is of a type at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Those who serve it.
    pub responders: usize,
    /// Requests that nobody has begun on.
    pub waiting: usize,
    /// Requests that a responder has begun on, and has not answered or let go.
    pub running: usize,
}

/// Where a responder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seat {
    /// In this process: it has what it works on in this process's memory.
    Here,
    /// Elsewhere: what it has begun on has left this process.
    Elsewhere,
}

/// A request without an outcome, or one without an answer that somebody has not done.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) kind: Name,
    pub(super) deadline: Deadline,
    pub(super) is_awaited: bool,
    pub(super) body: Payload,
    pub(super) at: Place,
}

/// Where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Waits,
    Handed(ResponderId),
}

/// What takes a place of a responder's window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    pub(super) bytes: usize,
    /// Whether it may have been done, in part or whole.
    pub(super) has_begun: bool,
    /// Whether it takes memory, of which there is only so much.
    pub(super) is_held: bool,
}

/// Somebody who is there.
#[derive(Debug)]
pub(super) struct Responder {
    pub(super) kind: Name,
    pub(super) seat: Seat,
    pub(super) window: usize,
    /// What it was handed; also what it was told to stop and has not let go.
    pub(super) running: BTreeMap<RequestId, Work>,
    /// When it was last handed something: of those that are equally busy, the one that rested longest is next.
    pub(super) turn: u64,
}

/// A type that somebody serves.
#[derive(Debug, Default)]
pub(super) struct Kind {
    pub(super) responders: usize,
    /// Responders with a free place, the least busy first.
    pub(super) free: BTreeSet<(usize, u64, ResponderId)>,
    /// Requests without a place, in the order of sending.
    pub(super) waiting: BTreeSet<RequestId>,
}

impl Responder {
    /// The lower, the sooner it is handed the next request.
    pub(super) fn rank(&self, id: ResponderId) -> (usize, u64, ResponderId) {
        (self.running.len(), self.turn, id)
    }
}
