//! What the machine knows of one event.

use std::{sync::Arc, time::Duration};

use quorate_foundations::time::{Boot, Wall};
use serde::{Deserialize, Serialize};

use super::super::Claim;
use crate::event::Position;

/// What makes events belong together; see [`OrderKey`](super::super::OrderKey).
pub type Key = Arc<str>;

/// When something happens: by the clock that decides, and by the one that people read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Decides what expired and what is due.
    pub boot: Boot,
    /// Only written down.
    pub wall: Wall,
}

/// An event that is not simply behind the checkpoint or ahead of the window.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) state: State,
    /// How often it was handed out, ever.
    pub(super) attempts: u32,
    /// How many of those were before the last replay, and no longer count.
    pub(super) forgiven: u32,
    pub(super) failures: Vec<Failure>,
    /// The row that holds it, if one does.
    pub(super) saved: Option<Saved>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum State {
    /// May be handed out when it is the first of its key.
    Waiting,
    /// Handed out. An expired lease stands until someone else is given the event.
    Leased { fence: u64, owner: Arc<str>, ttl: Duration, expires_at: Boot },
    /// Failed, and rests.
    Resting { rest: Duration, due_at: Boot },
    /// Set aside with everything of its key behind it.
    Parked,
    /// Settled ahead of the checkpoint.
    Settled,
}

/// Which version of a row: its content can only be that of the revision that wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The subscription's revision that wrote it.
    pub changed: u64,
    /// The state it holds.
    pub state: Phase,
}

/// Where an event stands, as stored: the numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// May be handed out.
    Waiting = 0,
    /// Handed out.
    Leased = 1,
    /// Failed, and rests.
    Resting = 2,
    /// Set aside.
    Parked = 3,
    /// Settled ahead of the checkpoint, or by a transaction that the machine has yet to hear of.
    Settled = 4,
}

/// Why an event was not settled in one of its attempts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which attempt; 0 where none was made.
    pub attempt: u32,
    /// When, in nanoseconds since 1970, by the wall clock of the process that noticed.
    pub at: i64,
    /// How.
    pub cause: Cause,
    /// What the consumer said; may be empty.
    pub reason: String,
}

/// How an attempt ended without settling the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The consumer refused it.
    Nacked,
    /// The consumer's lease expired.
    Expired,
    /// The consumer parked it.
    Parked,
    /// An event of its key, before it, is parked.
    Behind,
}

/// An event's row.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// The event.
    pub position: Position,
    /// What it belongs to.
    pub key: Key,
    /// Where it stands.
    pub phase: Phase,
    /// How often it was handed out.
    pub attempts: u32,
    /// How many of those no longer count.
    pub forgiven: u32,
    /// The fence of its lease; 0 unless leased.
    pub fence: u64,
    /// Who holds it; empty unless leased.
    pub owner: Arc<str>,
    /// How long it is leased or rests, since whoever watches saw it begin.
    pub span: Duration,
    /// Its last failures, oldest first.
    pub failures: Vec<Failure>,
    /// The revision that wrote the row.
    pub changed: u64,
}

impl Failure {
    /// How many are kept of each event.
    pub const KEPT: usize = 5;
    /// The longest reason, in bytes; the rest is cut off.
    pub const MAX_REASON_BYTES: usize = 512;
    /// All that is kept of an event's failures, in bytes as JSON: beyond that reasons are cut, the oldest first.
    pub const MAX_BYTES: usize = 1_024;
    /// What the JSON form takes around a reason, at most.
    const FRAME_BYTES: usize = 88;

    /// At most so many bytes as JSON.
    fn bytes(&self) -> usize {
        Self::FRAME_BYTES + self.reason.chars().map(escaped).sum::<usize>()
    }

    /// Cuts reasons until `failures` keep [`MAX_BYTES`](Self::MAX_BYTES).
    fn fit(failures: &mut [Self]) {
        let mut beyond = failures.iter().map(Self::bytes).sum::<usize>().saturating_sub(Self::MAX_BYTES);
        for failure in failures {
            let mut end = failure.reason.len();
            for (at, char) in failure.reason.char_indices().rev() {
                if beyond == 0 {
                    break;
                }
                (end, beyond) = (at, beyond.saturating_sub(escaped(char)));
            }
            failure.reason.truncate(end);
        }
    }
}

/// The bytes of a character in a JSON text.
fn escaped(char: char) -> usize {
    match char {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        char if char < ' ' => 6,
        char => char.len_utf8(),
    }
}

impl Stored {
    /// What its row takes, at most.
    pub(super) fn bytes(&self) -> usize {
        64 + self.key.len() + self.owner.len() + self.failures.iter().map(Failure::bytes).sum::<usize>()
    }
}

impl Entry {
    pub(super) fn new(key: Key) -> Self {
        Self { key, state: State::Waiting, attempts: 0, forgiven: 0, failures: Vec::new(), saved: None }
    }

    /// Attempts since it last began afresh.
    pub(super) fn tried(&self) -> u32 {
        self.attempts - self.forgiven
    }

    pub(super) fn is_held_under(&self, fence: u64) -> bool {
        matches!(self.state, State::Leased { fence: held, .. } if held == fence)
    }

    pub(super) fn fail(&mut self, at: Wall, cause: Cause, reason: &str) {
        if self.failures.len() == Failure::KEPT {
            self.failures.remove(0);
        }
        let end = reason.floor_char_boundary(Failure::MAX_REASON_BYTES);
        let attempt = if cause == Cause::Behind { 0 } else { self.attempts };
        self.failures.push(Failure { attempt, at: at.unix_nanos(), cause, reason: reason[..end].to_owned() });
        Failure::fit(&mut self.failures);
    }

    pub(super) fn store(&self, position: Position, changed: u64) -> Stored {
        let (fence, owner, span) = match &self.state {
            State::Leased { fence, owner, ttl, .. } => (*fence, owner.clone(), *ttl),
            State::Resting { rest, .. } => (0, "".into(), *rest),
            State::Waiting | State::Parked | State::Settled => (0, "".into(), Duration::ZERO),
        };
        Stored {
            position,
            key: self.key.clone(),
            phase: self.state.phase(),
            attempts: self.attempts,
            forgiven: self.forgiven,
            fence,
            owner,
            span,
            failures: self.failures.clone(),
            changed,
        }
    }

    /// The entry of a row, as seen for the first time at `now`: its whole span lies ahead.
    pub(super) fn load(row: &Stored, now: Boot) -> Self {
        let state = match row.phase {
            Phase::Waiting => State::Waiting,
            Phase::Leased => {
                State::Leased { fence: row.fence, owner: row.owner.clone(), ttl: row.span, expires_at: now + row.span }
            }
            Phase::Resting => State::Resting { rest: row.span, due_at: now + row.span },
            Phase::Parked => State::Parked,
            Phase::Settled => State::Settled,
        };
        let mut failures = row.failures.clone();
        // Rows of earlier builds may hold more.
        Failure::fit(&mut failures);
        Self {
            key: row.key.clone(),
            state,
            attempts: row.attempts,
            forgiven: row.forgiven.min(row.attempts),
            failures,
            saved: Some(Saved { changed: row.changed, state: row.phase }),
        }
    }
}

impl State {
    pub(super) fn phase(&self) -> Phase {
        match self {
            Self::Waiting => Phase::Waiting,
            Self::Leased { .. } => Phase::Leased,
            Self::Resting { .. } => Phase::Resting,
            Self::Parked => Phase::Parked,
            Self::Settled => Phase::Settled,
        }
    }

    /// When time changes what may happen to it.
    pub(super) fn due_at(&self) -> Option<Boot> {
        match self {
            Self::Leased { expires_at, .. } => Some(*expires_at),
            Self::Resting { due_at, .. } => Some(*due_at),
            Self::Waiting | Self::Parked | Self::Settled => None,
        }
    }
}

impl Phase {
    /// The phase with this stored number.
    pub fn from_number(number: i64) -> Option<Self> {
        [Self::Waiting, Self::Leased, Self::Resting, Self::Parked, Self::Settled]
            .into_iter()
            .find(|phase| *phase as i64 == number)
    }
}

impl Claim {
    /// Position `position` under fence `fence`.
    pub const fn new(position: Position, fence: u64) -> Self {
        Self { position, fence }
    }
}
