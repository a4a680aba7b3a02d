//! One round: decide what has gathered, write it in one transaction, answer.

mod settle;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use quorate_foundations::time::{Boot, Wall};

use self::write::{Written, is_closed, is_untouched, write};
use super::{
    Core, Reply, Standing, Work,
    live::{Live, MAX_WAITING, Waiting},
};
use crate::message_queue::{
    Cause, Delivery, Failure, Lease, Message, QueueError, Sent,
    machine::{Claim, Hand, Passed, Seq},
    message::Summed,
    rows::{self, Batch, Fetched, Placed, Write},
};

/// Messages that one round hands out.
const MAX_HANDS: usize = 2_048;
/// Remembered ids that are looked at, at once.
const SWEEP: u32 = 256;

/// A round that was not written. Everybody has been told.
pub(super) struct Failed {
    /// It may have been written all the same: what is known in memory is worth nothing now.
    pub(super) is_stale: bool,
    /// The store is closed: nothing will ever be written.
    pub(super) is_over: bool,
}

/// What a round decided.
#[derive(Default)]
struct Round {
    now: Boot,
    wall: Wall,
    batch: Batch,
    sends: Vec<(Vec<Summed>, Reply<Vec<Sent>>)>,
    /// How many messages those are.
    sending: usize,
    taken: Vec<Taken>,
    /// How many messages those are, and of how many bytes.
    hands: usize,
    bytes: usize,
    settled: Vec<(Reply<Vec<Claim>>, Vec<Claim>)>,
    buried: Vec<(Reply<usize>, usize)>,
    messages: BTreeMap<Seq, Arc<Message>>,
}

/// What one consumer is handed.
struct Taken {
    hands: Vec<Hand>,
    ttl: Duration,
    by: Waiting,
}

impl Live {
    /// Does `works`, and what time and those who wait ask for.
    pub(super) async fn round(&mut self, core: &Arc<Core>, works: Vec<Work>) -> Result<(), Failed> {
        let env = core.store.env();
        let mut round = Round { now: core.now(), wall: env.wall(), ..Round::default() };
        self.machine.begin();
        self.pass_time(core, &mut round);
        for claim in std::mem::take(&mut self.returned) {
            self.hand_back(claim, &mut round);
        }
        for work in works {
            self.decide(core, work, &mut round);
        }
        self.serve(core, &mut round);
        // Where there is more than one round hands out, the next one follows at once.
        if !round.is_full(core) {
            self.let_go(round.now);
        }
        if let Err(cause) = self.fetch(core, &mut round).await {
            self.machine.take_back();
            round.refuse(&cause);
            return Err(Failed { is_stale: false, is_over: is_closed(&cause) });
        }
        self.sweep(core, &mut round).await;
        let Round { batch, sends, .. } = &mut round;
        let written = if batch.is_empty() && sends.is_empty() {
            Ok(Written { sent: Vec::new(), settled: Vec::new() })
        } else {
            let sends: Vec<_> = sends.iter_mut().map(|(messages, _)| std::mem::take(messages)).collect();
            let written = write(core, Arc::new((std::mem::take(batch), sends))).await;
            written.map(|(written, sends)| {
                round.sends.iter_mut().zip(sends).for_each(|((messages, _), sent)| *messages = sent);
                written
            })
        };
        match written {
            Ok(written) => {
                self.machine.keep();
                self.answer(core, round, written);
                self.make_room();
                Ok(())
            }
            Err(cause) => {
                self.machine.take_back();
                env.reached("queue: a round was not written");
                let is_stale = !is_untouched(&cause);
                round.refuse(&cause);
                Err(Failed { is_stale, is_over: is_closed(&cause) })
            }
        }
    }

    fn pass_time(&mut self, core: &Core, round: &mut Round) {
        for passed in self.machine.tick(round.now) {
            match passed {
                Passed::Outdated(seq) => {
                    self.take_message(seq);
                    round.batch.gone.push(seq);
                }
                Passed::Parked(claim, attempts) => {
                    let failure = Failure::new(attempts, round.wall, Cause::Expired, "");
                    round.park(core, claim, failure);
                }
            }
        }
    }

    fn hand_back(&mut self, claim: Claim, round: &mut Round) {
        if self.machine.hand_back(claim) {
            let attempts = self.machine.get(claim.seq).map_or(0, |entry| entry.attempts);
            round.batch.writes.push(Write::Back { claim, attempts });
        }
    }

    fn decide(&mut self, core: &Core, work: Work, round: &mut Round) {
        match work {
            Work::Send { messages, reply, .. } => {
                let (there, max) = (self.machine.len() + round.sending, self.machine.config().max_messages);
                if there + messages.len() > max {
                    let full = QueueError::Full { name: core.name.clone(), messages: there, max };
                    drop(reply.send(Err(full)));
                } else {
                    round.sending += messages.len();
                    round.sends.push((messages, reply));
                }
            }
            Work::Take { max, ttl, until, window, reply } => {
                let waiting = Waiting { max, ttl, until: until.unwrap_or(round.now), window, reply };
                if until.is_none() && round.is_full(core) {
                    self.waiting.push_back(waiting);
                } else if until.is_none() {
                    self.hand_out(core, waiting, round);
                } else if self.waiting.len() >= MAX_WAITING {
                    let crowded = QueueError::Crowded { name: core.name.clone(), max: MAX_WAITING };
                    drop(waiting.reply.send(Err(crowded)));
                } else {
                    self.waiting.push_back(waiting);
                }
            }
            Work::Settle { claims, how, reply } => {
                let lost = claims.into_iter().filter(|claim| !self.settle(core, *claim, &how, round)).collect();
                #[cfg(feature = "museum")]
                if core.store.env().planted("queue-ack-before-write") {
                    drop(reply.send(Ok(lost)));
                    return;
                }
                round.settled.push((reply, lost));
            }
            Work::Bury { seqs, fate, reply } => {
                let buried = seqs.into_iter().filter(|seq| self.bury(core, *seq, &fate, round)).count();
                round.buried.push((reply, buried));
            }
            Work::Configure { config, reply } => {
                self.machine.configure(config);
                drop(reply.send(Ok(())));
            }
            Work::Look { reply } => {
                self.waiting.retain(|one| !one.reply.is_closed());
                let (counts, oldest_ns) = (self.machine.counts(), self.machine.oldest());
                drop(reply.send(Ok(Standing { counts, oldest_ns, consumers: self.waiting.len() })));
            }
            Work::Parked { after, limit, reply } => {
                drop(reply.send(Ok(self.machine.parked(after).take(limit).collect())));
            }
        }
    }

    /// Gives those who wait what there is, in the order in which they came.
    fn serve(&mut self, core: &Core, round: &mut Round) {
        let mut without_room = Vec::new();
        while !round.is_full(core) && self.machine.has_ready(round.now) {
            let Some(waiting) = self.waiting.pop_front() else { break };
            match (waiting.reply.is_closed(), waiting.room()) {
                (true, _) => {}
                (false, 0) => without_room.push(waiting),
                (false, _) => self.hand_out(core, waiting, round),
            }
        }
        // They keep their place.
        without_room.into_iter().rev().for_each(|waiting| self.waiting.push_front(waiting));
    }

    fn hand_out(&mut self, core: &Core, by: Waiting, round: &mut Round) {
        let ttl = by.ttl.unwrap_or(self.machine.config().lease_ttl);
        let (max, bytes) = (by.room().min(MAX_HANDS - round.hands), core.round_bytes().saturating_sub(round.bytes));
        let hands = self.machine.take(round.now, max, bytes, ttl);
        round.hands += hands.len();
        let entries = hands.iter().filter_map(|hand| self.machine.get(hand.claim.seq));
        round.bytes += entries.map(|entry| entry.bytes as usize).sum::<usize>();
        let mut first = Vec::new();
        for Hand { claim, attempt, lapsed } in &hands {
            if claim.delivery == 1 {
                first.push(claim.seq);
                continue;
            }
            if *lapsed {
                core.store.env().reached("queue: a lease ran out and its message was handed out again");
            }
            let failure = lapsed.then(|| Failure::new(attempt - 1, round.wall, Cause::Expired, ""));
            round.batch.writes.push(Write::Again { claim: *claim, attempt: *attempt, ttl, failure });
        }
        if !first.is_empty() {
            round.batch.first.push((ttl, first));
        }
        round.taken.push(Taken { hands, ttl, by });
    }

    /// Gets the messages that are handed out, from memory or from their rows.
    async fn fetch(&mut self, core: &Core, round: &mut Round) -> Result<(), QueueError> {
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
    async fn sweep(&mut self, core: &Core, round: &mut Round) {
        let horizon = i64::try_from(core.config().dedupe.as_nanos()).unwrap_or(i64::MAX);
        let now = round.wall.unix_nanos();
        self.sweep.due += 2 * round.sending;
        if now < self.sweep.next_ns {
            self.sweep.due = 0;
            return;
        }
        if self.sweep.due < SWEEP as usize {
            return;
        }
        self.sweep.due -= SWEEP as usize;
        let Ok(found) = rows::known(&core.store, core.id, self.sweep.at.as_ref(), SWEEP).await else { return };
        let oldest = &mut self.sweep.oldest_ns;
        for known in &found {
            // A message that is still here must not be sent once more, however old it is.
            if now.saturating_sub(known.sent_ns) > horizon && self.machine.get(known.seq).is_none() {
                round.batch.outdated.push(known.clone());
            } else {
                *oldest = Some(oldest.map_or(known.sent_ns, |oldest| oldest.min(known.sent_ns)));
            }
        }
        let is_last = found.len() < SWEEP as usize;
        self.sweep.at = found.into_iter().next_back().filter(|_| !is_last);
        if is_last {
            let oldest = self.sweep.oldest_ns.take().unwrap_or(now);
            // Messages that are old and still here would have it look again and again.
            self.sweep.next_ns = oldest.saturating_add(horizon).max(now.saturating_add(horizon / 16));
        }
    }

    fn answer(&mut self, core: &Core, round: Round, Written { sent, settled }: Written) {
        for ((messages, reply), placed) in round.sends.into_iter().zip(sent) {
            drop(reply.send(placed.map(|placed| self.take_in(core, messages, placed))));
        }
        round.settled.into_iter().for_each(|(reply, lost)| drop(reply.send(Ok(lost))));
        round.buried.into_iter().for_each(|(reply, count)| drop(reply.send(Ok(count))));
        let gone: BTreeSet<Seq> = settled.into_iter().collect();
        gone.iter().for_each(|seq| self.machine.forget(*seq));
        let epoch = core.store.timeline().epoch;
        for Taken { hands, ttl, by } in round.taken {
            let mut deliveries = Vec::with_capacity(hands.len());
            for Hand { claim, attempt, .. } in hands {
                let Some(message) = round.messages.get(&claim.seq).filter(|_| !gone.contains(&claim.seq)) else {
                    self.machine.forget(claim.seq);
                    continue;
                };
                let lease = Lease { epoch, queue: core.id, claim };
                deliveries.push(Delivery { message: message.clone(), lease, attempt, ttl });
            }
            // Before it knows of them: it may have settled them by the next line.
            if let Some(window) = &by.window {
                for Claim { seq, delivery } in deliveries.iter().map(|delivery| delivery.lease.claim) {
                    self.placed.insert(seq, (delivery, window.take()));
                }
            }
            if let Err(Ok(deliveries)) = by.reply.send(Ok(deliveries)) {
                self.returned.extend(deliveries.iter().map(|delivery| delivery.lease.claim));
            }
        }
    }

    fn take_in(&mut self, core: &Core, messages: Vec<Summed>, placed: Vec<Placed>) -> Vec<Sent> {
        let mut sent = Vec::with_capacity(messages.len());
        for ((message, _), placed) in messages.into_iter().zip(placed) {
            sent.push(placed.told(&message));
            if let Placed::New(seq) = placed {
                let entry = core.entry(&message, core.now());
                self.add(seq, entry, core.keep(message));
            }
        }
        sent
    }
}

impl Round {
    /// Whether it hands out no more.
    fn is_full(&self, core: &Core) -> bool {
        self.hands >= MAX_HANDS || self.bytes >= core.round_bytes()
    }

    fn park(&mut self, core: &Core, claim: Claim, failure: Failure) {
        core.store.env().reached("queue: a message became a dead letter");
        self.batch.writes.push(Write::Parked { claim, failure });
    }

    fn refuse(self, cause: &QueueError) {
        self.sends.into_iter().for_each(|(_, reply)| drop(reply.send(Err(cause.clone()))));
        self.taken.into_iter().for_each(|taken| drop(taken.by.reply.send(Err(cause.clone()))));
        self.settled.into_iter().for_each(|(reply, _)| drop(reply.send(Err(cause.clone()))));
        self.buried.into_iter().for_each(|(reply, _)| drop(reply.send(Err(cause.clone()))));
    }
}
