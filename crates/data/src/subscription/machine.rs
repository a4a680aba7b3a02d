//! Who may have which event next: the rules of a durable subscription, without clock, log or tables.
//!
//! ```text
//!      checkpoint                    scanned        head of the log
//!  ────────┼──────────────────────────┼─ ─ ─ ─ ─ ─ ─ ─┼
//!   settled│  the window: waiting,    │  not yet looked at
//!  or parked  leased, resting, settled│
//! ```
//!
//! * Everything at or before the checkpoint was settled (acknowledged or discarded) or parked.
//! * Of each key only the first unsettled event may be handed out, so a leased, resting or parked one holds back the
//!   rest of its key and nobody else's. What is behind a parked event is parked behind it.
//! * An attempt is counted, and its fence drawn, by the change that must be durable *before* the event leaves.
//! * A lease that has expired stands until someone else is given the event or it is parked: only then do its holder's
//!   words count for nothing.
//!
//! Rows hold what cannot be read off the log again: leased, resting and parked events, replayed ones, and those settled
//! ahead of the checkpoint. Waiting events that were never handed out have none.

mod entry;
mod hand_out;
mod settle;
mod unsaved;
mod vocabulary;
mod window;

pub use entry::{Cause, Failure, Key, Moment, Phase, Saved, Stored};
use quorate_foundations::time::Boot;
pub use vocabulary::{Changes, Counts, Effect, Input, Rules, Selection, Stall};
use window::Window;

use super::Claim;
use crate::event::Position;

/// Says who may have which event next: the state of one durable subscription.
#[derive(Debug)]
pub struct Dispatcher {
    rules: Rules,
    /// The last fence given out.
    fence: u64,
    window: Window,
}

impl Dispatcher {
    /// The machine that `rows`, in order of position, describe, at `revision` with `checkpoint` and `fence` as stored.
    ///
    /// Leases and rests begin anew, except those that `before`, an earlier machine of the same process, has been
    /// watching already: for a row it knows in the same version, its deadline stands.
    ///
    /// Leases behind another event of their key were never handed out: what was to be written with them is not all there.
    /// Such an event waits, and its attempt is taken back. Of a lease that is the first of its key nobody can tell whether its
    /// holder heard of it: it stands until it expires, and its attempt counts.
    pub fn restore(
        rules: Rules,
        (revision, checkpoint, fence): (u64, Position, u64),
        rows: &[Stored],
        before: Option<&Self>,
        now: Moment,
    ) -> Self {
        let before = before.map(|before| &before.window);
        Self { rules, fence, window: Window::restore((revision, checkpoint), rows, before, now) }
    }

    /// Takes one input at `now` and pushes what should happen, once [`changes`](Self::changes) are durable.
    pub fn step(&mut self, now: Moment, input: Input, effects: &mut Vec<Effect>) {
        self.tick(now);
        match input {
            Input::Scanned { events, to } => self.window.scan(events, to, now),
            Input::PassedOver(positions) => self.window.pass_over(&positions),
            Input::Take { max, owner } => self.take(max, &owner, now, effects),
            Input::Ack(claim) => self.held(claim, effects, |machine| machine.window.settle(claim.position, now)),
            Input::SettledElsewhere(claim) => self.settled_elsewhere(claim, now),
            Input::Nack { claim, rest, reason } => {
                self.held(claim, effects, |machine| machine.nack(claim.position, rest, &reason, now));
            }
            Input::Extend { claim, ttl } => {
                self.held(claim, effects, |machine| machine.extend(claim.position, ttl, now));
            }
            Input::Park { claim, reason } => self.held(claim, effects, |machine| {
                machine.window.fail(claim.position, Cause::Parked, &reason, now);
                machine.window.park(claim.position, now);
            }),
            Input::Return(claim) => self.held(claim, effects, |machine| machine.put_back(claim.position, now)),
            Input::Replay(which) => self.replay(&which, now, effects),
            Input::Discard(which) => self.discard(&which, now, effects),
        }
        self.window.advance();
    }

    /// Lets time alone act.
    pub fn tick(&mut self, now: Moment) {
        while let Some(position) = self.window.due(now.boot) {
            self.time_is_up(position, now);
        }
        self.window.advance();
    }

    /// When [`tick`](Self::tick) is next due.
    pub fn wake_at(&self) -> Option<Boot> {
        self.window.next_due()
    }

    /// Every event that is to be handed out, up to here, was settled or parked. Never moves back.
    pub fn checkpoint(&self) -> Position {
        self.window.checkpoint
    }

    /// The same machine, of a subscription that had passed over so many events when its checkpoint was stored.
    #[must_use]
    pub fn having_passed_over(mut self, events: u64) -> Self {
        self.window.restore_passed_over(events);
        self
    }

    /// How many events up to the checkpoint were there for this subscription and gone before their turn.
    pub fn passed_over(&self) -> u64 {
        self.window.passed_over
    }

    /// How far the log was looked at.
    pub fn scanned(&self) -> Position {
        self.window.scanned
    }

    /// The revision its rows are at.
    pub fn revision(&self) -> u64 {
        self.window.unsaved.revision
    }

    /// How many events can be handed out right now.
    pub fn ready(&self) -> usize {
        if self.window.parked.len() < self.rules.max_parked { self.window.ready.len() } else { 0 }
    }

    /// How many more events the window takes.
    pub fn room(&self) -> usize {
        if self.window.parked.len() >= self.rules.max_parked {
            return 0;
        }
        self.rules.window.saturating_sub(self.window.used())
    }

    /// What holds the subscription up, if something does.
    pub fn stall(&self) -> Option<Stall> {
        if self.window.parked.len() >= self.rules.max_parked {
            return Some(Stall::Parked(self.window.parked.len()));
        }
        (self.room() == 0).then_some(Stall::Window(self.window.used()))
    }

    /// The first event that is neither settled nor parked.
    pub fn oldest(&self) -> Option<Position> {
        self.window.oldest()
    }

    /// Whether the event is held under that fence.
    pub fn holds(&self, claim: Claim) -> bool {
        self.window.get(claim.position).is_some_and(|entry| entry.is_held_under(claim.fence))
    }

    /// Whether the event is known and has not been handed out.
    pub fn waits(&self, position: Position) -> bool {
        self.window.waits(position)
    }

    /// Numbers for people.
    pub fn counts(&self) -> Counts {
        self.window.counts()
    }

    /// What must be durable before any effect so far is carried out; `None` if nothing must.
    pub fn changes(&self) -> Option<Changes> {
        (!self.window.unsaved.is_empty()).then(|| self.window.changes(self.fence, usize::MAX))
    }

    /// As [`changes`](Self::changes), and also when the checkpoint alone has moved by `stride` or more; of rows no more than
    /// `most` bytes, or one. Once they are [`saved`](Self::saved), ask for the rest.
    ///
    /// The checkpoint moves, and rows behind it go, with the last. What is written first so says less than was decided, but for
    /// one thing: an event may be leased because the one before it of its key was settled, and that one's row still stands.
    /// [`restore`](Self::restore) takes such a lease back.
    pub fn changes_or_checkpoint(&self, stride: u64, most: usize) -> Option<Changes> {
        let moved = self.window.checkpoint.get() - self.window.unsaved.checkpoint.get() >= stride;
        (moved || !self.window.unsaved.is_empty()).then(|| self.window.changes(self.fence, most))
    }

    /// `changes`, which nothing was stepped since, are durable.
    pub fn saved(&mut self, changes: &Changes) {
        self.window.saved(changes);
    }
}

#[cfg(test)]
mod tests;
