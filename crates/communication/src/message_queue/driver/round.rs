//! One round: decide what has gathered, write it in one transaction, answer.

mod fetch;
mod settle;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use quorate_foundations::time::{Boot, Wall};

pub(super) use self::write::is_closed;
use self::write::{Unwritten, Writing, Written, is_untouched, write};
use super::{
    Core, Fate, How, Reply, Standing, Work,
    live::{Live, MAX_WAITING, Waiting},
    turns::Turning,
};
use crate::message_queue::{
    Cause, Delivery, Failure, Lease, Message, QueueError, Sent,
    machine::{Claim, Hand, Passed, Seq},
    message::Summed,
    rows::{Batch, Placed, Write},
};

/// Messages that one round hands out, and where each statement is a journey to a server.
const MAX_HANDS: usize = 2_048;
const MAX_HANDS_SHARED: usize = 128;
/// Messages that time does something to in one round, there.
const MAX_PASSED_SHARED: usize = 64;

/// A round that was not written. Everybody has been told.
pub(super) struct Failed {
    /// It may have been written all the same: what is known in memory is worth nothing now.
    pub(super) is_stale: bool,
    /// The store is closed: nothing will ever be written.
    pub(super) is_over: bool,
}

/// What came of a round.
pub(super) enum Rounded {
    Done,
    /// Another process was first: nothing was written, and this is to be decided again.
    Overtaken(Vec<Work>),
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
    /// Time is not done yet: what is ready may be outdated, and nothing is handed out.
    is_behind: bool,
    taken: Vec<Taken>,
    /// How many messages those are, and of how many bytes.
    hands: usize,
    bytes: usize,
    settled: Vec<Settled>,
    buried: Vec<Buried>,
    /// Messages that nobody had waited for.
    returned: Vec<Claim>,
    messages: BTreeMap<Seq, Arc<Message>>,
}

/// What holders said of their messages, and the claims that did not hold.
struct Settled {
    claims: Vec<Claim>,
    how: How,
    reply: Reply<Vec<Claim>>,
    lost: Vec<Claim>,
}

/// What is to become of dead letters, and how many there were.
struct Buried {
    seqs: Vec<Seq>,
    fate: Fate,
    reply: Reply<usize>,
    count: usize,
}

/// What one consumer is handed.
struct Taken {
    hands: Vec<Hand>,
    ttl: Duration,
    by: Waiting,
}

impl Live {
    /// Does `works`, and what time and those who wait ask for.
    pub(super) async fn round(&mut self, core: &Arc<Core>, works: Vec<Work>) -> Result<Rounded, Failed> {
        let env = core.store.env();
        let mut round = Round { now: core.now(), wall: env.wall(), ..Round::default() };
        self.machine.begin();
        self.pass_time(core, &mut round);
        round.returned = std::mem::take(&mut self.returned);
        for claim in round.returned.clone() {
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
        let Round { batch, sends, now, .. } = &mut round;
        let ahead = self.machine.spent_ahead(*now);
        let turn = core.is_shared().then(|| self.known.turning(batch, ahead)).flatten();
        let written = if batch.is_empty() && sends.is_empty() && turn.is_none() {
            Ok(Written::default())
        } else {
            let sends: Vec<_> = sends.iter_mut().map(|(messages, _)| std::mem::take(messages)).collect();
            let writing = Writing { batch: std::mem::take(batch), sends, turn };
            let (written, Writing { batch, sends, turn }) = write(core, Arc::new(writing)).await;
            if written.is_ok() {
                core.waiters.wake(batch.ended());
            }
            round.sends.iter_mut().zip(sends).for_each(|((messages, _), sent)| *messages = sent);
            written.inspect(|written| self.follow(written, turn.as_ref()))
        };
        match written {
            Ok(written) => {
                self.machine.keep();
                self.answer(core, round, written);
                self.make_room();
                Ok(Rounded::Done)
            }
            Err(Unwritten::Overtaken) => {
                self.machine.take_back();
                env.reached("queue: another process was first");
                Ok(Rounded::Overtaken(self.again(round)))
            }
            Err(Unwritten::Failed(cause)) => {
                self.machine.take_back();
                env.reached("queue: a round was not written");
                let is_stale = !is_untouched(&cause);
                if is_stale {
                    core.waiters.wake_all();
                }
                round.refuse(&cause);
                Err(Failed { is_stale, is_over: is_closed(&cause) })
            }
        }
    }

    /// Takes in what this process itself told others.
    fn follow(&mut self, written: &Written, turn: Option<&Turning>) {
        if let Some(turn) = turn {
            self.known.turned(turn);
        }
        if let Some((id, seqs)) = written.told.clone() {
            self.known.told(id, seqs);
        }
    }

    /// What is to be decided again. Those who wait keep their places.
    fn again(&mut self, round: Round) -> Vec<Work> {
        let Round { sends, taken, settled, buried, returned, .. } = round;
        self.returned.extend(returned);
        taken.into_iter().rev().for_each(|taken| self.waiting.push_front(taken.by));
        let sends = sends.into_iter().map(|(messages, reply)| Work::Send { messages, bytes: 0, reply });
        let settled = settled.into_iter().map(|Settled { claims, how, reply, .. }| Work::Settle { claims, how, reply });
        let buried = buried.into_iter().map(|Buried { seqs, fate, reply, .. }| Work::Bury { seqs, fate, reply });
        settled.chain(buried).chain(sends).collect()
    }

    fn pass_time(&mut self, core: &Core, round: &mut Round) {
        let most = if core.is_shared() { MAX_PASSED_SHARED } else { usize::MAX };
        let passed = self.machine.tick_some(round.now, most);
        round.is_behind = passed.len() >= most;
        for passed in passed {
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
                let lost = claims.iter().copied().filter(|claim| !self.settle(core, *claim, &how, round)).collect();
                #[cfg(feature = "museum")]
                if core.store.env().planted("queue-ack-before-write") {
                    drop(reply.send(Ok(lost)));
                    return;
                }
                round.settled.push(Settled { claims, how, reply, lost });
            }
            Work::Bury { seqs, fate, reply } => {
                let count = seqs.iter().filter(|seq| self.bury(core, **seq, &fate, round)).count();
                round.buried.push(Buried { seqs, fate, reply, count });
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
        let (max, bytes) = (
            by.room().min(most_hands(core).saturating_sub(round.hands)),
            core.round_bytes().saturating_sub(round.bytes),
        );
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

    fn answer(&mut self, core: &Core, round: Round, Written { sent, settled, .. }: Written) {
        for ((messages, reply), placed) in round.sends.into_iter().zip(sent) {
            drop(reply.send(placed.map(|placed| self.take_in(core, messages, placed))));
        }
        round.settled.into_iter().for_each(|one| drop(one.reply.send(Ok(one.lost))));
        round.buried.into_iter().for_each(|one| drop(one.reply.send(Ok(one.count))));
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
                for claim in deliveries.iter().map(|delivery| delivery.lease.claim) {
                    self.placed.insert(claim.seq, (claim.delivery, window.take(claim)));
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

/// Messages that one round hands out.
fn most_hands(core: &Core) -> usize {
    if core.is_shared() { MAX_HANDS_SHARED } else { MAX_HANDS }
}

impl Round {
    /// Whether it hands out no more.
    fn is_full(&self, core: &Core) -> bool {
        self.is_behind || self.hands >= most_hands(core) || self.bytes >= core.round_bytes()
    }

    fn park(&mut self, core: &Core, claim: Claim, failure: Failure) {
        core.store.env().reached("queue: a message became a dead letter");
        self.batch.writes.push(Write::Parked { claim, failure });
    }

    fn refuse(self, cause: &QueueError) {
        self.sends.into_iter().for_each(|(_, reply)| drop(reply.send(Err(cause.clone()))));
        self.taken.into_iter().for_each(|taken| drop(taken.by.reply.send(Err(cause.clone()))));
        self.settled.into_iter().for_each(|one| drop(one.reply.send(Err(cause.clone()))));
        self.buried.into_iter().for_each(|one| drop(one.reply.send(Err(cause.clone()))));
    }
}
