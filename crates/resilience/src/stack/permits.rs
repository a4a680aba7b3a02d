//! What one call holds of the policies it passes, given back whatever becomes of it.

use std::time::Duration;

use quorate_foundations::time::Mono;

use super::policies::{Held, Policies};
use crate::{
    bulkhead::{Ask, Taken, Why},
    circuit_breaker::machine::Ticket,
    deadline::Deadline,
    outcome::{Class, Outcome, Rejection},
};

/// What a call holds. Dropping it gives everything back: the call said nothing.
pub(super) struct Permits {
    pub(super) policies: Held,
    pub(super) began: Mono,
    /// Its place in the bulkhead.
    place: Option<Taken>,
    dependency: Option<Ticket>,
    /// That of the endpoint for the first attempt, while it is made in place.
    endpoint: Option<Ticket>,
    ended: bool,
}

/// Leave for a call.
pub(super) struct Admitted {
    pub(super) permits: Permits,
    /// Whether it still has to wait for a place in the bulkhead.
    pub(super) waits: bool,
}

impl Permits {
    /// Asks the policies of the dependency for a call that has to end by `deadline`.
    #[inline]
    pub(super) fn admit(policies: Held, now: Mono, ask: &Ask) -> Result<Admitted, Rejection> {
        let dependency = policies.admit(now, ask.deadline).inspect_err(|rejection| {
            policies.memory.counts.ended(Outcome::Rejected(rejection.by()));
        })?;
        // From here on whatever is held is given back when this is dropped.
        let mut permits = Self { policies, began: now, place: None, dependency, endpoint: None, ended: false };
        let mut waits = false;
        if let Some(bulkhead) = &permits.policies.bulkhead {
            match bulkhead.take(now, ask) {
                Ok(taken) => permits.place = Some(taken),
                Err(rejected) if rejected.why == Why::Full => waits = true,
                Err(rejected) => {
                    let rejection = Rejection::from(rejected);
                    permits.end(now, Outcome::Rejected(rejection.by()), None);
                    return Err(rejection);
                }
            }
        }
        if let Some(retries) = &permits.policies.retries {
            retries.call(now);
        }
        Ok(Admitted { permits, waits })
    }

    /// All that is held, for a call that goes on elsewhere.
    pub(super) fn taken(&mut self) -> Self {
        self.ended = true;
        Self {
            policies: self.policies.clone(),
            began: self.began,
            place: self.place.take(),
            dependency: self.dependency.take(),
            endpoint: self.endpoint.take(),
            ended: false,
        }
    }

    /// The call has a place, for which it had to wait.
    pub(super) fn entered(&mut self, place: Taken) {
        self.place = Some(place);
    }

    /// What the answer goes on holding: its place is not given back with the rest.
    #[inline]
    pub(super) fn take_place(&mut self) -> Option<Taken> {
        self.place.take()
    }

    /// Asks the policies of the endpoint for the first attempt.
    #[inline]
    pub(super) fn begin_attempt(&mut self, now: Mono) -> Result<(), Rejection> {
        self.endpoint = self.policies.endpoint.as_ref().map(|breaker| breaker.acquire(now)).transpose()?;
        Ok(())
    }

    /// Tells the policies of the endpoint what became of the first attempt, which began with the call.
    #[inline]
    pub(super) fn end_attempt(&mut self, now: Mono, outcome: Outcome, retry_after: Option<Duration>) {
        self.policies.attempted((self.began, now), self.endpoint.take(), outcome, retry_after);
    }

    /// Tells everybody what became of the call.
    #[inline]
    pub(super) fn end(&mut self, now: Mono, outcome: Outcome, retry_after: Option<Duration>) {
        self.ended = true;
        let took = now.saturating_since(self.began);
        if let (Some(breaker), Some(ticket)) = (&self.policies.breaker, self.dependency.take()) {
            breaker.settle(now, ticket, (outcome, took), retry_after);
        }
        if let (Some(bulkhead), Some(mut place)) = (&self.policies.bulkhead, self.place.take()) {
            bulkhead.settle(&mut place, now, outcome);
        }
        self.policies.memory.counts.ended(outcome);
    }

    #[cold]
    fn give_back(&mut self) {
        if let (Some(breaker), Some(ticket)) = (&self.policies.endpoint, self.endpoint.take()) {
            breaker.give_back(self.began, ticket);
        }
        if let (Some(breaker), Some(ticket)) = (&self.policies.breaker, self.dependency.take()) {
            breaker.give_back(self.began, ticket);
        }
        if let (Some(bulkhead), Some(mut place)) = (&self.policies.bulkhead, self.place.take()) {
            bulkhead.give_back(&mut place);
        }
        self.policies.memory.counts.ended(Outcome::Cancelled);
    }
}

impl Drop for Permits {
    #[inline]
    fn drop(&mut self) {
        if !self.ended {
            self.give_back();
        }
    }
}

impl Policies {
    #[inline]
    fn admit(&self, now: Mono, deadline: Deadline) -> Result<Option<Ticket>, Rejection> {
        if let Some(limiter) = &self.limiter {
            limiter.take(now, 1)?;
        }
        self.timeout.admit(now, deadline, self.memory.latency.median(now))?;
        Ok(self.breaker.as_ref().map(|breaker| breaker.acquire(now)).transpose()?)
    }

    /// Tells the endpoint's policies what became of an attempt, which took from the one time to the other.
    #[inline]
    fn attempted(
        &self,
        (began, now): (Mono, Mono),
        ticket: Option<Ticket>,
        outcome: Outcome,
        retry_after: Option<Duration>,
    ) {
        let took = now.saturating_since(began);
        if outcome == Outcome::Upstream(Class::Success) {
            self.memory.latency.record(now, took);
        }
        if let (Some(breaker), Some(ticket)) = (&self.endpoint, ticket) {
            breaker.settle(now, ticket, (outcome, took), retry_after);
        }
    }
}

/// What an attempt after the first, or a copy of it, holds of the endpoint.
pub(super) struct Tried {
    policies: Held,
    ticket: Option<Ticket>,
    began: Mono,
}

impl Tried {
    /// Asks the policies of the endpoint.
    pub(super) fn admit(policies: &Held, now: Mono) -> Result<Self, Rejection> {
        let ticket = policies.endpoint.as_ref().map(|breaker| breaker.acquire(now)).transpose()?;
        Ok(Self { policies: policies.clone(), ticket, began: now })
    }

    /// Tells everybody what became of the attempt.
    pub(super) fn end(mut self, now: Mono, outcome: Outcome, retry_after: Option<Duration>) {
        self.policies.attempted((self.began, now), self.ticket.take(), outcome, retry_after);
    }
}

impl Drop for Tried {
    fn drop(&mut self) {
        if let (Some(breaker), Some(ticket)) = (&self.policies.endpoint, self.ticket.take()) {
            breaker.give_back(self.began, ticket);
        }
    }
}
