//! Who is handed what, whom to answer and with what: the rules of requests, without a clock, a wire or a wait.
//!
//! Invariant: every request has exactly one outcome, unless its caller left before. A request takes memory from [`send`](Machine::send) on until its
//! outcome is told *and* its body is here no more: with a responder [elsewhere](Seat::Elsewhere) that is once it has begun, and with one here once it is
//! done or has let go. Of that there is never more than [`Limits`] say. So a responder elsewhere that never lets go has its own places taken, and nobody else's.

mod outcome;
mod parts;
mod stopping;

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
};

use quorate_foundations::{name::Name, time::Mono};
use quorate_resilience::deadline::Deadline;

pub use outcome::{Outcome, Receipt, Refusal, TooManyResponders, Unknown, Verdict};
use parts::{Kind, Place, Request, Responder, Work};
pub use parts::{Seat, Standing};

use super::{Counts, Limits, Payload};

/// A request, as long as its process lives: rises in the order of sending, and is never used again. What correlates an answer with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(super) u64);

/// Somebody who serves a type, until they leave; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResponderId(u64);

/// What a responder is to work on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What its answer is given under.
    pub id: RequestId,
    /// What is asked.
    pub body: Payload,
    /// When nobody waits any more.
    pub deadline: Deadline,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Have a responder work on a request.
    Hand(ResponderId, Call),
    /// Tell a responder that nobody waits any more. Its place is taken until it [lets go](Machine::let_go), answers or leaves.
    Stop(ResponderId, RequestId),
    /// Tell a caller.
    Settle(RequestId, Outcome),
}

/// All requests and responders of a process.
#[derive(Debug)]
pub struct Machine {
    limits: Limits,
    requests: BTreeMap<RequestId, Request>,
    responders: BTreeMap<ResponderId, Responder>,
    kinds: BTreeMap<Name, Kind>,
    deadlines: BTreeSet<(Mono, RequestId)>,
    held: usize,
    bytes: usize,
    last: u64,
    is_closing: bool,
    counts: Counts,
}

impl Machine {
    /// Nobody is there.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            requests: BTreeMap::new(),
            responders: BTreeMap::new(),
            kinds: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            held: 0,
            bytes: 0,
            last: 0,
            is_closing: false,
            counts: Counts::default(),
        }
    }

    /// What became of all so far.
    pub fn counts(&self) -> Counts {
        Counts { held: self.held, held_bytes: self.bytes, responders: self.responders.len(), ..self.counts }
    }

    /// What there is of `kind`.
    pub fn standing(&self, kind: &Name) -> Standing {
        let Some(known) = self.kinds.get(kind) else { return Standing::default() };
        let of_kind = self.responders.values().filter(|responder| responder.kind == *kind);
        let (mut waiting, mut running) = (known.waiting.len(), 0);
        for work in of_kind.flat_map(|responder| responder.running.values()) {
            *if work.has_begun { &mut running } else { &mut waiting } += 1;
        }
        Standing { responders: known.responders, waiting, running }
    }

    /// When a [`tick`](Self::tick) is next due; `None` while nothing is pending.
    pub fn wake_at(&self) -> Option<Mono> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Somebody serves `kind`, with at most `window` requests at once.
    pub fn join(
        &mut self,
        now: Mono,
        kind: &Name,
        (seat, window): (Seat, NonZeroUsize),
        effects: &mut Vec<Effect>,
    ) -> Result<ResponderId, TooManyResponders> {
        self.tick(now, effects);
        if self.responders.len() >= self.limits.responders {
            return Err(TooManyResponders { max: self.limits.responders });
        }
        let id = ResponderId(self.next());
        let responder = Responder { kind: kind.clone(), seat, window: window.get(), running: BTreeMap::new(), turn: 0 };
        self.responders.insert(id, responder);
        let known = self.kinds.entry(kind.clone()).or_default();
        known.responders += 1;
        known.free.insert((0, 0, id));
        self.serve(kind, effects);
        Ok(id)
    }

    /// A responder is gone: what it had begun on is unknown, and what it had not waits for another one. If it was the last one, what waits has nobody.
    pub fn leave(&mut self, now: Mono, id: ResponderId, effects: &mut Vec<Effect>) {
        self.tick(now, effects);
        let Some(gone) = self.responders.remove(&id) else { return };
        let Some(kind) = self.kinds.get_mut(&gone.kind) else { return };
        kind.responders -= 1;
        kind.free.remove(&gone.rank(id));
        for (request, work) in gone.running {
            match self.requests.get_mut(&request).filter(|_| !work.has_begun) {
                Some(unseen) => {
                    unseen.at = Place::Waits;
                    self.kinds.entry(gone.kind.clone()).or_default().waiting.insert(request);
                }
                None => {
                    self.give_back(work);
                    self.settle(request, Outcome::Unknown(Unknown::ResponderLeft), effects);
                }
            }
        }
        let is_last = self.kinds.get(&gone.kind).is_some_and(|kind| kind.responders == 0);
        if is_last {
            self.turn_away(&gone.kind, &Outcome::NoResponder, effects);
            self.kinds.remove(&gone.kind);
        } else if self.is_closing {
            self.turn_away(&gone.kind, &Outcome::Refused(Refusal::Closing), effects);
        } else {
            self.serve(&gone.kind, effects);
        }
    }

    /// Gives what waits for `kind` this outcome.
    fn turn_away(&mut self, kind: &Name, outcome: &Outcome, effects: &mut Vec<Effect>) {
        let waiting = self.kinds.get_mut(kind).map(|kind| std::mem::take(&mut kind.waiting)).unwrap_or_default();
        waiting.into_iter().for_each(|id| self.settle(id, outcome.clone(), effects));
    }

    /// A request, to be answered before `deadline`, or one without an answer, that is of no use after it.
    pub fn send(
        &mut self,
        now: Mono,
        kind: &Name,
        (body, deadline): (Payload, Deadline),
        is_awaited: bool,
        effects: &mut Vec<Effect>,
    ) -> RequestId {
        self.tick(now, effects);
        let id = RequestId(self.next());
        if let Err(refused) = self.admit(now, kind, body.len(), deadline) {
            self.counts.count(&refused, is_awaited);
            effects.push(Effect::Settle(id, refused));
            return id;
        }
        self.held += 1;
        self.bytes += body.len();
        let request = Request { kind: kind.clone(), deadline, is_awaited, body, at: Place::Waits };
        self.requests.insert(id, request);
        self.deadlines.extend(deadline.moment().map(|at| (at, id)));
        if !is_awaited {
            effects.push(Effect::Settle(id, Outcome::HandedOver));
        }
        if let Some(known) = self.kinds.get_mut(kind) {
            known.waiting.insert(id);
        }
        self.serve(kind, effects);
        id
    }

    fn admit(&self, now: Mono, kind: &Name, bytes: usize, deadline: Deadline) -> Result<(), Outcome> {
        let Limits { requests, bytes: max_bytes, .. } = self.limits;
        if self.is_closing {
            return Err(Outcome::Refused(Refusal::Closing));
        }
        if !self.kinds.contains_key(kind) {
            return Err(Outcome::NoResponder);
        }
        if deadline.has_passed(now) {
            return Err(Outcome::Refused(Refusal::Expired));
        }
        if self.held >= requests {
            return Err(Outcome::Refused(Refusal::Full { max: requests }));
        }
        if self.bytes + bytes > max_bytes {
            return Err(Outcome::Refused(Refusal::FullOfBytes { max: max_bytes }));
        }
        Ok(())
    }

    /// A caller is gone, and with it the wish: nobody is told an outcome.
    pub fn cancel(&mut self, now: Mono, id: RequestId, effects: &mut Vec<Effect>) {
        self.tick(now, effects);
        if self.requests.get(&id).is_some_and(|request| request.is_awaited) {
            self.counts.cancelled += 1;
            self.forget(id, effects);
        }
    }

    /// A responder begins on what it was handed: from now on it may have been done. `false` if nobody waits for it any more; its place is free then.
    pub fn begin(&mut self, now: Mono, responder: ResponderId, id: RequestId, effects: &mut Vec<Effect>) -> bool {
        self.tick(now, effects);
        if self.requests.contains_key(&id) {
            let handed = self.responders.get_mut(&responder).and_then(|responder| responder.running.get_mut(&id));
            return handed.map(|work| work.has_begun = true).is_some();
        }
        if let Some(kind) = self.free_place(responder, id) {
            self.serve(&kind, effects);
        }
        false
    }

    /// Whether a responder has begun on a request, and has not answered or let go of it.
    pub fn has_begun(&self, responder: ResponderId, id: RequestId) -> bool {
        let work = self.responders.get(&responder).and_then(|responder| responder.running.get(&id));
        work.is_some_and(|work| work.has_begun)
    }

    /// A responder says what came of a request that it has begun on.
    pub fn answer(
        &mut self,
        now: Mono,
        responder: ResponderId,
        id: RequestId,
        verdict: Verdict,
        effects: &mut Vec<Effect>,
    ) -> Receipt {
        self.tick(now, effects);
        let has_begun = self.has_begun(responder, id);
        let Some(kind) = has_begun.then(|| self.free_place(responder, id)).flatten() else { return Receipt::NotHeld };
        let is_waited_for = self.requests.contains_key(&id);
        if is_waited_for {
            self.settle(id, Outcome::Said(verdict), effects);
        } else {
            self.counts.late += 1;
        }
        self.serve(&kind, effects);
        if is_waited_for { Receipt::Taken } else { Receipt::Late }
    }

    /// A responder works no more on a request that it has begun on, and has nothing to say. `false` if it has not.
    pub fn let_go(&mut self, now: Mono, responder: ResponderId, id: RequestId, effects: &mut Vec<Effect>) -> bool {
        self.tick(now, effects);
        let has_begun = self.has_begun(responder, id);
        if let Some(kind) = has_begun.then(|| self.free_place(responder, id)).flatten() {
            self.settle(id, Outcome::Unknown(Unknown::Failed), effects);
            self.serve(&kind, effects);
        }
        has_begun
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        while let Some((_, id)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            let has_begun = match self.requests.get(&id).map(|request| request.at) {
                Some(Place::Handed(to)) => self.has_begun(to, id),
                _ => false,
            };
            let outcome =
                if has_begun { Outcome::Unknown(Unknown::Deadline) } else { Outcome::Refused(Refusal::Expired) };
            self.settle(id, outcome, effects);
        }
    }

    /// Gives what waits for `kind` to responders that have a place.
    fn serve(&mut self, kind: &Name, effects: &mut Vec<Effect>) {
        let Some(known) = self.kinds.get_mut(kind) else { return };
        while let (Some(id), Some((_, _, to))) = (known.waiting.first().copied(), known.free.first().copied()) {
            known.waiting.pop_first();
            known.free.pop_first();
            let (Some(request), Some(responder)) = (self.requests.get_mut(&id), self.responders.get_mut(&to)) else {
                unreachable!("invariant: what waits is a request, and what is free a responder");
            };
            request.at = Place::Handed(to);
            self.last += 1;
            responder.turn = self.last;
            responder.running.insert(id, Work { bytes: request.body.len(), has_begun: false, is_held: true });
            if responder.running.len() < responder.window {
                known.free.insert(responder.rank(to));
            }
            let call = Call { id, body: request.body.clone(), deadline: request.deadline };
            effects.push(Effect::Hand(to, call));
        }
    }

    /// The responder has a place more; of which type, if it held the request.
    fn free_place(&mut self, id: ResponderId, request: RequestId) -> Option<Name> {
        let responder = self.responders.get_mut(&id)?;
        let before = responder.rank(id);
        let work = responder.running.remove(&request)?;
        if let Some(kind) = self.kinds.get_mut(&responder.kind) {
            kind.free.remove(&before);
            kind.free.insert(responder.rank(id));
        }
        let kind = responder.kind.clone();
        self.give_back(work);
        Some(kind)
    }

    /// The memory that work took, if it still did.
    fn give_back(&mut self, work: Work) {
        if work.is_held {
            self.held -= 1;
            self.bytes -= work.bytes;
        }
    }

    /// Gives a request its outcome, if it has none.
    fn settle(&mut self, id: RequestId, outcome: Outcome, effects: &mut Vec<Effect>) {
        let Some(is_awaited) = self.requests.get(&id).map(|request| request.is_awaited) else { return };
        self.counts.count(&outcome, is_awaited);
        self.forget(id, effects);
        if is_awaited {
            effects.push(Effect::Settle(id, outcome));
        }
    }

    /// Nobody waits for it any more.
    fn forget(&mut self, id: RequestId, effects: &mut Vec<Effect>) {
        let Some(request) = self.requests.remove(&id) else { return };
        if let Some(at) = request.deadline.moment() {
            self.deadlines.remove(&(at, id));
        }
        match request.at {
            Place::Waits => {
                self.held -= 1;
                self.bytes -= request.body.len();
                if let Some(kind) = self.kinds.get_mut(&request.kind) {
                    kind.waiting.remove(&id);
                }
            }
            Place::Handed(to) => {
                let Some(responder) = self.responders.get_mut(&to) else { return };
                let Some(work) = responder.running.get_mut(&id) else { return };
                effects.push(Effect::Stop(to, id));
                if work.has_begun && responder.seat == Seat::Elsewhere {
                    let gone = std::mem::replace(work, Work { is_held: false, ..*work });
                    self.give_back(gone);
                }
            }
        }
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

#[cfg(test)]
mod tests;
