//! What one call holds of the policies it passes, given back whatever becomes of it.

use std::time::Duration;

use quorate_foundations::time::Mono;

use super::policies::{Held, Leave, Policies, Probed};
use crate::{
    bulkhead::{Ask, Taken},
    circuit_breaker::{Asked, machine::Ticket},
    deadline::Deadline,
    outcome::{Class, Outcome, Rejection, Scope},
};

/// What a call holds. Dropping it gives everything back: the call said nothing.
pub(super) struct Permits {
    pub(super) policies: Held,
    pub(super) began: Mono,
    /// Its place in the bulkhead.
    place: Option<Taken>,
    dependency: Option<Ticket>,
    /// That of the endpoint: for the first attempt, while it is made in place, and for the one whose answer is to come.
    endpoint: Option<Leave>,
    /// When the attempt began that `endpoint` is for.
    tried: Mono,
    /// Whom the last attempt that failed was to find well again.
    probed: Option<Probed>,
    /// When the answer began, if it has.
    answered: Option<Mono>,
    /// Whether an attempt of it failed, or had time enough not to.
    failed: bool,
    /// Whether the dependency's circuit and the counts know what became of it.
    told: bool,
    ended: bool,
}

/// Leave for a call.
pub(super) struct Admitted {
    pub(super) permits: Permits,
    /// Whether it still has to wait for a place in the bulkhead.
    pub(super) waits: bool,
}

impl Permits {
    /// Asks the policies of the dependency, its rate limit aside, for a call that has to end by `deadline`.
    #[inline]
    pub(super) fn admit(policies: Held, now: Mono, ask: &Ask) -> Result<Admitted, Rejection> {
        let dependency = policies.admit(now, ask.deadline).inspect_err(|rejection| {
            policies.memory.counts.ended(Outcome::Rejected(rejection.by()));
        })?;
        // From here on whatever is held is given back when this is dropped.
        let mut permits = Self {
            policies,
            began: now,
            place: None,
            dependency,
            endpoint: None,
            tried: now,
            probed: None,
            answered: None,
            failed: false,
            told: false,
            ended: false,
        };
        let mut waits = false;
        if let Some(bulkhead) = &permits.policies.bulkhead {
            match bulkhead.take_or_wait(now, ask) {
                Ok(Some(taken)) => permits.place = Some(taken),
                Ok(None) => waits = true,
                Err(rejected) => {
                    let rejection = Rejection::from(rejected);
                    permits.end(now, Outcome::Rejected(rejection.by()), None);
                    return Err(rejection);
                }
            }
        }
        Ok(Admitted { permits, waits })
    }

    /// All that is held, for a call that goes on elsewhere.
    pub(super) fn taken(&mut self) -> Self {
        self.ended = true;
        Self {
            policies: self.policies.clone(),
            place: self.place.take(),
            dependency: self.dependency.take(),
            endpoint: self.endpoint.take(),
            probed: self.probed.take(),
            ended: false,
            ..*self
        }
    }

    /// The call has a place, for which it had to wait.
    pub(super) fn entered(&mut self, place: Taken) {
        self.place = Some(place);
    }

    /// Whether the call is one that tries whether the dependency is well again.
    pub(super) fn is_probe(&self) -> bool {
        self.dependency.is_some_and(|ticket| ticket.probe.is_some())
    }

    /// Whether it has to stay one call: it tries a circuit that refuses others meanwhile.
    pub(super) fn is_lone_probe(&self) -> bool {
        self.is_probe() && self.policies.breaker.as_ref().is_some_and(|breaker| !breaker.is_operated())
    }

    /// Whether the last attempt found an endpoint ill that it was to find well, and one that asks for what `asked` says would try the
    /// same one.
    pub(super) fn would_probe<'a>(&self, now: Mono, asked: impl FnOnce() -> Asked<'a>) -> bool {
        self.probed.as_ref().is_some_and(|probed| self.policies.endpoint.passes(now, asked, probed))
    }

    /// The answer of the last attempt is the caller's after all: its time begins now, for nobody has waited for it since.
    pub(super) fn take_up(&mut self, now: Mono) {
        self.tried = now;
    }

    /// Asks the policies of the endpoint for the first attempt, which asks for what `asked` says.
    #[inline]
    pub(super) fn begin_attempt<'a>(&mut self, now: Mono, asked: impl FnOnce() -> Asked<'a>) -> Result<(), Rejection> {
        self.endpoint = self.policies.endpoint.acquire(now, asked)?;
        self.policies.reaches(now);
        Ok(())
    }

    /// Tells the policies of the endpoint what became of the first attempt, which began with the call. What they hold for a
    /// success stays held until the answer has come.
    #[inline]
    pub(super) fn end_attempt(&mut self, now: Mono, outcome: Outcome, retry_after: Option<Duration>) {
        if outcome == Outcome::Upstream(Class::Success) {
            self.policies.memory.latency.record(now, now.saturating_since(self.tried));
        } else {
            self.fail_attempt(now, outcome, retry_after);
        }
    }

    #[cold]
    fn fail_attempt(&mut self, now: Mono, outcome: Outcome, retry_after: Option<Duration>) {
        let outcome = self.policies.blame(outcome, self.began, self.tried, now);
        self.failed |= is_failure(outcome);
        self.probed = self.policies.endpoint.probed(self.endpoint.as_ref());
        self.policies.attempted((self.tried, now), self.endpoint.take(), outcome, retry_after);
    }

    /// What became of an attempt after the first, or of a copy that won: its answer, good or not, has to be complete in the time that
    /// began with it.
    pub(super) fn hold(&mut self, failed: bool, answers: Option<Tried>) {
        self.failed |= failed;
        if let Some(mut tried) = answers {
            (self.endpoint, self.tried, self.probed) = (tried.leave.take(), tried.began, tried.probed.take());
        }
    }

    /// By when the answer has to be complete of the attempt that gave it, and which time that is.
    pub(super) fn completes(&self, total: Deadline) -> (Deadline, Scope) {
        let at = self.policies.timeout.attempt(self.tried, total);
        (at, if at < total { Scope::Attempt } else { Scope::Total })
    }

    /// An answer has begun that may come until `until`. If it says all there is to say, everybody is told now; its place is held
    /// until it is complete.
    #[inline]
    pub(super) fn answer(&mut self, now: Mono, outcome: Outcome, until: Deadline, retry_after: Option<Duration>) {
        self.answered = Some(now);
        // Nobody can wait for the end of what may have none to learn whether the upstream is well.
        if outcome != Outcome::Upstream(Class::Success) || self.outlasts(until) {
            self.tell(now, outcome, retry_after);
        }
    }

    /// Whether it tries somebody whose circuit would have given it up before an answer that comes until `until` is complete.
    #[inline]
    fn outlasts(&self, until: Deadline) -> bool {
        let outlasts = |since, probe: Option<Duration>| probe.is_some_and(|span| until >= Deadline::after(since, span));
        let dependency = self.policies.breaker.as_ref().filter(|_| self.is_probe());
        let endpoint = self.endpoint.as_ref().and_then(|leave| self.policies.endpoint.probes_for(leave));
        outlasts(self.began, dependency.map(|breaker| breaker.probe_timeout())) || outlasts(self.tried, endpoint)
    }

    /// Tells everybody what became of the call.
    #[inline]
    pub(super) fn end(&mut self, now: Mono, outcome: Outcome, retry_after: Option<Duration>) {
        if self.ended {
            return;
        }
        // The place first: whoever is told something may panic, and what is left is given back then.
        if let (Some(bulkhead), Some(mut place)) = (&self.policies.bulkhead, self.place.take()) {
            bulkhead.settle(&mut place, now, self.blamed(outcome));
        }
        self.tell(now, outcome, retry_after);
        self.ended = true;
    }

    #[inline]
    fn tell(&mut self, now: Mono, outcome: Outcome, retry_after: Option<Duration>) {
        if self.told {
            return;
        }
        let until = self.answered.unwrap_or(now);
        if let Some(leave) = self.endpoint.take() {
            let blamed = self.policies.blame(outcome, self.began, self.tried, now);
            self.policies.endpoint.settle(now, leave, (blamed, until.saturating_since(self.tried)), retry_after);
        }
        if let (Some(breaker), Some(ticket)) = (&self.policies.breaker, self.dependency.take()) {
            breaker.settle(now, ticket, (self.blamed(outcome), until.saturating_since(self.began)), retry_after);
        }
        self.policies.memory.counts.ended(outcome);
        self.told = true;
    }

    /// The call's time ran out while its answer came, and it was the upstream that was waited for.
    pub(super) fn expire(&mut self, now: Mono, scope: Scope) {
        let outcome = Outcome::Timeout(scope);
        self.failed |= is_failure(self.policies.blame(outcome, self.began, self.tried, now));
        self.end(now, outcome, None);
    }

    /// The call ended with `outcome`, of which nothing can be said but that: the circuits hear nothing.
    pub(super) fn abandon(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.ended, true) {
            self.give_back(outcome);
        }
    }

    /// Whose doing it is that the call ended so. A call that ran out of time after one of its attempts had failed, or had had
    /// time enough, was kept waiting by its upstream.
    fn blamed(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Timeout(Scope::Total) if self.failed => Outcome::Timeout(Scope::Attempt),
            other => other,
        }
    }

    #[cold]
    fn give_back(&mut self, outcome: Outcome) {
        if let (Some(bulkhead), Some(mut place)) = (&self.policies.bulkhead, self.place.take()) {
            bulkhead.give_back(&mut place);
        }
        if let Some(leave) = self.endpoint.take() {
            self.policies.endpoint.give_back(self.began, leave);
        }
        if let (Some(breaker), Some(ticket)) = (&self.policies.breaker, self.dependency.take()) {
            breaker.give_back(self.began, ticket);
        }
        if !std::mem::replace(&mut self.told, true) {
            self.policies.memory.counts.ended(outcome);
        }
    }
}

impl Drop for Permits {
    #[inline]
    fn drop(&mut self) {
        if !self.ended {
            self.give_back(Outcome::Cancelled);
        }
    }
}

/// Whether an attempt that ended so is one that the upstream failed.
fn is_failure(outcome: Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Upstream(Class::Fault | Class::Throttled | Class::Untrusted) | Outcome::Timeout(Scope::Attempt)
    )
}

impl Policies {
    /// Refuses what would probably be cut off: too little is left until `deadline`.
    #[inline]
    pub(super) fn in_time(&self, now: Mono, deadline: Deadline) -> Result<(), Rejection> {
        Ok(self.timeout.admit(now, deadline, self.memory.latency.median(now))?)
    }

    #[inline]
    fn admit(&self, now: Mono, deadline: Deadline) -> Result<Option<Ticket>, Rejection> {
        self.in_time(now, deadline)?;
        Ok(self.breaker.as_ref().map(|breaker| breaker.acquire(now)).transpose()?)
    }

    /// Counts a call whose first attempt reaches the upstream: what is refused before feeds no budget of retries.
    #[inline]
    fn reaches(&self, now: Mono) {
        if let Some(retries) = &self.retries {
            retries.call(now);
        }
    }

    /// Whose doing it is that an attempt which began at `attempt`, of a call that began at `call`, ended so. If it ran out of the
    /// whole call's time, it is the upstream's where the attempt had as long as half of the calls need; where that isn't known,
    /// half of the call, and a tenth of what it may take here: a caller can choose to leave so little that nobody could answer.
    fn blame(&self, outcome: Outcome, call: Mono, attempt: Mono, now: Mono) -> Outcome {
        if outcome != Outcome::Timeout(Scope::Total) {
            return outcome;
        }
        let had = now.saturating_since(attempt);
        let enough = match self.memory.latency.median(now) {
            Some(median) => had >= median,
            None => {
                let may_take = self.timeout.attempt.or(self.timeout.total).unwrap_or_default();
                had.saturating_mul(2) >= now.saturating_since(call) && had >= may_take / 10
            }
        };
        if enough { Outcome::Timeout(Scope::Attempt) } else { outcome }
    }

    /// Tells the endpoint's circuit what became of an attempt, which took from the one time to the other.
    fn attempted(
        &self,
        (began, now): (Mono, Mono),
        leave: Option<Leave>,
        outcome: Outcome,
        retry_after: Option<Duration>,
    ) {
        if let Some(leave) = leave {
            self.endpoint.settle(now, leave, (outcome, now.saturating_since(began)), retry_after);
        }
    }
}

/// What an attempt after the first, or a copy of it, holds of the endpoint.
pub(super) struct Tried {
    policies: Held,
    leave: Option<Leave>,
    /// When the call began.
    call: Mono,
    began: Mono,
    /// Whom it was to find well again, once it has failed.
    probed: Option<Probed>,
}

impl Tried {
    /// Asks the policies of the endpoint for an attempt, which asks for what `asked` says, of a call that began at `call`: its
    /// `first` or another one.
    pub(super) fn admit<'a>(
        policies: &Held,
        now: Mono,
        asked: impl FnOnce() -> Asked<'a>,
        (call, first): (Mono, bool),
    ) -> Result<Self, Rejection> {
        let leave = policies.endpoint.acquire(now, asked)?;
        if first {
            policies.reaches(now);
        }
        Ok(Self { policies: policies.clone(), leave, call, began: now, probed: None })
    }

    /// Whether it tries whether the endpoint is well again.
    pub(super) fn is_probe(&self) -> bool {
        self.policies.endpoint.probed(self.leave.as_ref()).is_some()
    }

    /// Tells everybody what became of the attempt, and says whether the upstream failed it. What is held for a success stays
    /// held until the answer has come; of any other end there may be a body to come as well, and what is given back says since when.
    pub(super) fn end(mut self, now: Mono, outcome: Outcome, retry_after: Option<Duration>) -> (bool, Option<Self>) {
        if outcome == Outcome::Upstream(Class::Success) {
            self.policies.memory.latency.record(now, now.saturating_since(self.began));
            return (false, Some(self));
        }
        let outcome = self.policies.blame(outcome, self.call, self.began, now);
        self.probed = self.policies.endpoint.probed(self.leave.as_ref());
        self.policies.attempted((self.began, now), self.leave.take(), outcome, retry_after);
        (is_failure(outcome), Some(self))
    }
}

impl Drop for Tried {
    fn drop(&mut self) {
        if let Some(leave) = self.leave.take() {
            self.policies.endpoint.give_back(self.began, leave);
        }
    }
}
