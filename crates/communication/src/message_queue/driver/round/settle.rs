//! What holders say of their messages, and what becomes of dead letters.

use super::{
    super::{Core, Fate, How, live::Live},
    Round,
};
use crate::message_queue::{
    Cause, Failure,
    machine::{Claim, Returned, Seq},
    rows::{UNKNOWN_DELIVERIES, Write},
};

impl Live {
    /// Does with a message what its holder says; whether the claim holds.
    pub(super) fn settle(&mut self, core: &Core, claim: Claim, how: &How, round: &mut Round) -> bool {
        #[cfg(feature = "museum")]
        let claim = match self.machine.get(claim.seq) {
            Some(entry) if core.store.env().planted("queue-unfenced") => Claim { delivery: entry.deliveries, ..claim },
            _ => claim,
        };
        let failed = |attempt, cause, reason: &str| Failure::new(attempt, round.wall, cause, reason);
        let attempts = self.machine.get(claim.seq).map_or(0, |entry| entry.attempts);
        match how {
            How::Ack => {
                let held = self.machine.ack(claim);
                round.batch.gone.extend(held.then_some(claim.seq));
                held
            }
            How::Back => {
                let held = self.machine.holds(claim);
                self.hand_back(claim, round);
                held
            }
            How::Nack { delay, reason } => {
                let Some(returned) = self.machine.nack(round.now, claim, *delay) else { return false };
                let failure = failed(attempts, Cause::Nacked, reason);
                match returned {
                    Returned::Parked => round.park(core, claim, failure),
                    Returned::Rests(rest) => {
                        let due_ns = (round.wall + rest).unix_nanos();
                        round.batch.writes.push(Write::Rests { claim, due_ns, rest, failure });
                    }
                }
                true
            }
            How::Extend { ttl } => {
                let ttl = ttl.unwrap_or(self.machine.config().lease_ttl);
                let held = self.machine.extend(round.now, claim, ttl);
                round.batch.writes.extend(held.then_some(Write::Held { claim, ttl }));
                held
            }
            How::Park { reason } => {
                let Some(attempts) = self.machine.park(claim) else { return false };
                let failure = failed(attempts, Cause::Parked, reason);
                round.park(core, claim, failure);
                true
            }
        }
    }

    /// Does with a dead letter what is to become of it; whether it was one.
    pub(super) fn bury(&mut self, core: &Core, seq: Seq, fate: &Fate, round: &mut Round) -> bool {
        match fate {
            Fate::Replay(edited) => {
                let replayed = self.machine.replay(seq);
                if replayed {
                    core.store.env().reached("queue: a dead letter was replayed");
                }
                let failure = Failure::new(0, round.wall, Cause::Replayed, "");
                let (delivery, edited) = (self.machine.get(seq).map_or(0, |entry| entry.deliveries), edited.clone());
                let claim = Claim { seq, delivery };
                round.batch.writes.extend(replayed.then_some(Write::Replayed { claim, failure, edited }));
                replayed
            }
            Fate::Discard => {
                // A row that cannot be read does not prove that it is one still.
                let is_readable = self.machine.get(seq).is_some_and(|entry| entry.deliveries != UNKNOWN_DELIVERIES);
                let discarded = self.machine.discard(seq);
                round.batch.discarded.extend((discarded && is_readable && core.is_shared()).then_some(seq));
                round.batch.gone.extend(discarded.then_some(seq));
                discarded
            }
        }
    }
}
