//! What a round reads: the messages that it hands out, and ids that may be too old to be remembered.

use std::{collections::BTreeMap, sync::Arc};

use quorate_data::event::NewEvent;

use super::{Buried, Round, Taken};
use crate::message_queue::{
    Cause, Failure, Message, QueueError,
    driver::{Core, Fate, live::Live},
    machine::{Hand, Seq},
    rows::{self, Fetched},
};

/// Remembered ids that are looked at, at once; fewer where what is forgotten are journeys to a server. In any case as many as are sent, twice.
const SWEEP: usize = 256;
const SWEEP_SHARED: usize = 64;

/// Has messages say what the round itself writes: the rows that were read do not say it yet.
fn as_edited(Round { buried, messages, .. }: &mut Round) {
    for Buried { seqs, fate, .. } in buried {
        let Fate::Replay(Some(edited)) = fate else { continue };
        for seq in seqs {
            if let Some(message) = messages.get_mut(seq) {
                *message = Arc::new(Message { event: NewEvent::clone(edited), ..Message::clone(message) });
            }
        }
    }
}

impl Live {
    /// Gets the messages that are handed out, from memory or from their rows.
    pub(super) async fn fetch(&mut self, core: &Core, round: &mut Round) -> Result<(), QueueError> {
        let seqs = round.taken.iter().flat_map(|taken| &taken.hands).map(|hand| hand.claim.seq);
        let mut missing = Vec::new();
        for seq in seqs {
            match self.take_message(seq) {
                Some(message) => drop(round.messages.insert(seq, message)),
                None => missing.push(seq),
            }
        }
        let Fetched { found, unreadable } = rows::messages(&core.store, &missing).await?;
        round.messages.extend(found);
        as_edited(round);
        if !unreadable.is_empty() {
            self.set_aside(core, &unreadable, round);
        }
        Ok(())
    }

    /// Makes dead letters of messages that cannot be read: nobody could do anything with them.
    fn set_aside(&mut self, core: &Core, unreadable: &BTreeMap<Seq, QueueError>, round: &mut Round) {
        for Taken { hands, ttl, by } in std::mem::take(&mut round.taken) {
            let (bad, hands): (Vec<Hand>, Vec<Hand>) =
                hands.into_iter().partition(|hand| unreadable.contains_key(&hand.claim.seq));
            for Hand { claim, .. } in &bad {
                let (Some(attempts), Some(cause)) = (self.machine.park(*claim), unreadable.get(&claim.seq)) else {
                    continue;
                };
                tracing::warn!(queue = %core.name, message = rows::count_of(claim.seq), %cause, "a message cannot be read and is set aside");
                let reason = format!("it cannot be read: {cause}");
                round.park(core, *claim, Failure::new(attempts, round.wall, Cause::Parked, &reason));
            }
            if hands.is_empty() && !bad.is_empty() {
                // The next round may have another one for it.
                self.waiting.push_front(by);
            } else {
                round.taken.push(Taken { hands, ttl, by });
            }
        }
    }

    /// Looks through some of the remembered ids, more than are sent, for those that are too old to be remembered.
    pub(super) async fn sweep(&mut self, core: &Core, round: &mut Round) {
        let least = if core.is_shared() { SWEEP_SHARED } else { SWEEP };
        self.sweep.due += 2 * round.sending;
        if round.wall.unix_nanos() < self.sweep.next_ns {
            self.sweep.due = 0;
            return;
        }
        let mut left = least.max(2 * round.sending);
        while self.sweep.due >= least && left > 0 {
            let some = SWEEP.min(self.sweep.due).min(left);
            self.sweep.due -= some;
            left -= some;
            if !self.look_through(core, round, some).await {
                return;
            }
        }
    }

    /// Whether there may be more of them behind those.
    async fn look_through(&mut self, core: &Core, round: &mut Round, some: usize) -> bool {
        let horizon = i64::try_from(core.config().dedupe.as_nanos()).unwrap_or(i64::MAX);
        let now = round.wall.unix_nanos();
        let limit = u32::try_from(some).unwrap_or(u32::MAX);
        let Ok(found) = rows::known(&core.store, core.id, self.sweep.at.as_ref(), limit).await else { return false };
        let oldest = &mut self.sweep.oldest_ns;
        for known in &found {
            // A message that is still here must not be sent once more, however old it is.
            if now.saturating_sub(known.sent_ns) > horizon && self.machine.get(known.seq).is_none() {
                round.batch.outdated.push(known.clone());
            } else {
                *oldest = Some(oldest.map_or(known.sent_ns, |oldest| oldest.min(known.sent_ns)));
            }
        }
        let is_last = found.len() < some;
        self.sweep.at = found.into_iter().next_back().filter(|_| !is_last);
        if is_last {
            let oldest = self.sweep.oldest_ns.take().unwrap_or(now);
            // Messages that are old and still here would have it look again and again.
            self.sweep.next_ns = oldest.saturating_add(horizon).max(now.saturating_add(horizon / 16));
        }
        !is_last
    }
}
