//! What one call holds of the policies it passes, given back whatever becomes of it.

use std::sync::Arc;

use quorate_foundations::time::Mono;

use super::{Place, policies::Policies};
use crate::{
    bulkhead::{Ask, Bulkhead, Why},
    circuit_breaker::machine::Ticket,
    deadline::Deadline,
    outcome::{Class, Outcome, Rejection},
};

/// What a call holds. Dropping it gives everything back: the call said nothing.
pub(super) struct Permits {
    pub(super) policies: Arc<Policies>,
    pub(super) began: Mono,
    /// Its place in the bulkhead.
    pub(super) place: Option<Place>,
    dependency: Option<Ticket>,
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
    pub(super) fn admit(policies: Arc<Policies>, now: Mono, ask: &Ask) -> Result<Admitted, Rejection> {
        let dependency = policies.admit(now, ask.deadline).inspect_err(|rejection| {
            policies.counts.ended(Outcome::Rejected(rejection.by()));
        })?;
        // From here on whatever is held is given back when this is dropped.
        let mut permits = Self { policies, began: now, place: None, dependency, ended: false };
        let entered = permits.policies.bulkhead.clone().map(|bulkhead| Bulkhead::try_enter(bulkhead, now, ask));
        let waits = match entered {
            None => false,
            Some(Ok(place)) => {
                permits.place = Some(place);
                false
            }
            Some(Err(rejected)) if rejected.why == Why::Full => true,
            Some(Err(rejected)) => {
                let rejection = Rejection::from(rejected);
                permits.end(now, Outcome::Rejected(rejection.by()), None);
                return Err(rejection);
            }
        };
        if let Some(retries) = &permits.policies.retries {
            retries.call(now);
        }
        Ok(Admitted { permits, waits })
    }

    /// Tells everybody what became of the call.
    pub(super) fn end(mut self, now: Mono, outcome: Outcome, retry_after: Option<std::time::Duration>) {
        self.ended = true;
        let took = now.saturating_since(self.began);
        if let (Some(breaker), Some(ticket)) = (&self.policies.breaker, self.dependency.take()) {
            breaker.settle(now, ticket, (outcome, took), retry_after);
        }
        if let Some(place) = self.place.take() {
            place.settle(now, outcome);
        }
        self.policies.counts.ended(outcome);
    }
}

impl Drop for Permits {
    fn drop(&mut self) {
        if let (Some(breaker), Some(ticket)) = (&self.policies.breaker, self.dependency.take()) {
            breaker.give_back(self.began, ticket);
        }
        if !self.ended {
            self.policies.counts.ended(Outcome::Cancelled);
        }
    }
}

impl Policies {
    fn admit(&self, now: Mono, deadline: Deadline) -> Result<Option<Ticket>, Rejection> {
        if let Some(limiter) = &self.limiter {
            limiter.take(now, 1)?;
        }
        self.timeout.admit(now, deadline, self.latency.median(now))?;
        Ok(self.breaker.as_ref().map(|breaker| breaker.acquire(now)).transpose()?)
    }
}

/// What an attempt holds of the endpoint.
pub(super) struct Tried {
    policies: Arc<Policies>,
    ticket: Option<Ticket>,
    began: Mono,
}

impl Tried {
    /// Asks the policies of the endpoint.
    pub(super) fn admit(policies: &Arc<Policies>, now: Mono) -> Result<Self, Rejection> {
        let ticket = policies.endpoint.as_ref().map(|breaker| breaker.acquire(now)).transpose()?;
        Ok(Self { policies: policies.clone(), ticket, began: now })
    }

    /// Tells everybody what became of the attempt.
    pub(super) fn end(mut self, now: Mono, outcome: Outcome, retry_after: Option<std::time::Duration>) {
        let took = now.saturating_since(self.began);
        if outcome == Outcome::Upstream(Class::Success) {
            self.policies.latency.record(now, took);
        }
        if let (Some(breaker), Some(ticket)) = (&self.policies.endpoint, self.ticket.take()) {
            breaker.settle(now, ticket, (outcome, took), retry_after);
        }
    }
}

impl Drop for Tried {
    fn drop(&mut self) {
        if let (Some(breaker), Some(ticket)) = (&self.policies.endpoint, self.ticket.take()) {
            breaker.give_back(self.began, ticket);
        }
    }
}
