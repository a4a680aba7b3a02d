//! What one call holds of the policies it passes, given back whatever becomes of it.

use std::sync::Arc;

use quorate_foundations::time::Mono;

use super::policies::Policies;
use crate::{
    circuit_breaker::machine::Ticket,
    deadline::Deadline,
    outcome::{Class, Outcome, Rejection},
};

/// What a call holds. Dropping it gives everything back: the call said nothing.
pub(super) struct Permits {
    pub(super) policies: Arc<Policies>,
    pub(super) began: Mono,
    dependency: Option<Ticket>,
    ended: bool,
}

impl Permits {
    /// Asks the policies of the dependency for a call that has to end by `deadline`.
    pub(super) fn admit(policies: Arc<Policies>, now: Mono, deadline: Deadline) -> Result<Self, Rejection> {
        let dependency = policies.admit(now, deadline).inspect_err(|rejection| {
            policies.counts.ended(Outcome::Rejected(rejection.by()));
        })?;
        if let Some(retries) = &policies.retries {
            retries.call(now);
        }
        Ok(Self { policies, began: now, dependency, ended: false })
    }

    /// Tells everybody what became of the call.
    pub(super) fn end(mut self, now: Mono, outcome: Outcome, retry_after: Option<std::time::Duration>) {
        self.ended = true;
        let took = now.saturating_since(self.began);
        if let (Some(breaker), Some(ticket)) = (&self.policies.breaker, self.dependency.take()) {
            breaker.settle(now, ticket, (outcome, took), retry_after);
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
