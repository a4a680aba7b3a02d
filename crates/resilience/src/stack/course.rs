//! The course of one call: its attempts, what is told to whom after each, and what the caller is given.

use std::{future::poll_fn, time::Duration};

use quorate_foundations::time::Mono;
use tower_service::Service;

use super::{
    Rest,
    attempt::Attempt,
    permits::{Permits, Tried},
    policies::Policies,
    protocol::{Answers, Intent, Requests, Try},
};
use crate::{
    deadline::Deadline,
    outcome::{CallError, Class, Outcome, Rejection, Scope, Verdict},
    retry::{Attempts, Decision, Ended, Stop},
};

/// One call.
pub(super) struct Course<S, P, K> {
    pub(super) permits: Permits,
    pub(super) protocol: P,
    /// What it takes to send it again.
    pub(super) again: Option<(S, K)>,
    pub(super) intent: Intent,
    pub(super) deadline: Deadline,
    /// Whether this hop is the one that retries.
    pub(super) owner: bool,
    /// Made when an attempt has failed.
    pub(super) attempts: Option<Attempts>,
}

/// How an attempt ended.
pub(super) enum Attempted<T, E> {
    Answered(Result<T, E>, Verdict),
    TimedOut(Scope),
    Refused(Rejection),
}

/// The next attempt: what is sent, after which wait.
pub(super) struct Next<Q> {
    sent: Q,
    after: Duration,
    fresh_connection: bool,
}

impl<T, E> Attempted<T, E> {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Answered(_, verdict) => Outcome::Upstream(verdict.class),
            Self::TimedOut(scope) => Outcome::Timeout(*scope),
            Self::Refused(rejection) => Outcome::Rejected(rejection.by()),
        }
    }

    fn verdict(&self) -> Option<Verdict> {
        match self {
            Self::Answered(_, verdict) => Some(*verdict),
            Self::TimedOut(_) | Self::Refused(_) => None,
        }
    }
}

impl<S, P, K> Course<S, P, K> {
    /// What the next hop is told with the current attempt.
    pub(super) fn told(&self, fresh_connection: bool) -> Try {
        let number = self.attempts.as_ref().map_or(1, Attempts::number);
        // What can't be repeated here may be made of calls that can further on: those have no owner yet.
        let claims = self.owner && self.permits.policies.claims(self.intent.repeatable);
        Try { hop: self.intent.hop.next(number, claims, self.deadline), fresh_connection }
    }

    /// Tells the endpoint's policies how an attempt ended.
    pub(super) fn judge<T, E>(&self, now: Mono, tried: Tried, ended: Result<Result<T, E>, Scope>) -> Attempted<T, E>
    where
        P: Answers<T, E>,
    {
        let attempted = match ended {
            Ok(result) => {
                let verdict = self.protocol.judge(result.as_ref());
                Attempted::Answered(result, verdict)
            }
            Err(scope) => Attempted::TimedOut(scope),
        };
        let retry_after = attempted.verdict().and_then(|verdict| verdict.retry_after);
        tried.end(now, attempted.outcome(), retry_after);
        attempted
    }

    /// What is sent next, if anything is.
    pub(super) fn decide<R, T, E>(&mut self, now: Mono, attempted: &Attempted<T, E>) -> Option<Next<P::Sent>>
    where
        P: Requests<R, Kept = K>,
    {
        let (outcome, verdict) = (attempted.outcome(), attempted.verdict());
        if outcome == Outcome::Upstream(Class::Success) {
            return None;
        }
        let (name, retries) = (&self.permits.policies.name, self.permits.policies.retries.as_ref()?);
        // Whether it can be told again is known before the budget is charged for it.
        let sent = self.protocol.again(&self.again.as_ref()?.1);
        let Some(sent) = sent else {
            tracing::debug!(dependency = name.as_str(), "a call cannot be sent again: its body was not kept");
            return None;
        };
        let attempts =
            self.attempts.get_or_insert_with(|| retries.begin(self.intent.repeatable, self.owner, self.deadline));
        let ended = Ended { outcome, verdict, answer_begun: false };
        let needs = self.permits.policies.latency.median(now).unwrap_or_default();
        let env = self.permits.policies.timers.env();
        #[cfg(feature = "museum")]
        let decision = if env.planted("retry-charged-late") {
            retries.ended_uncharged(now, attempts, ended, needs)
        } else {
            retries.ended(now, attempts, ended, needs)
        };
        #[cfg(not(feature = "museum"))]
        let decision = retries.ended(now, attempts, ended, needs);
        match decision {
            Decision::Again { after, fresh_connection } => {
                env.reached("retry: a call was sent again");
                let attempt = attempts.number();
                tracing::debug!(dependency = name.as_str(), attempt, ?after, ?outcome, "a call is sent again");
                Some(Next { sent, after, fresh_connection })
            }
            Decision::Stop(Stop::Budget) => {
                env.reached("retry: the budget was spent");
                tracing::warn!(dependency = name.as_str(), ?outcome, "a call is not sent again: the budget is spent");
                None
            }
            Decision::Stop(why) => {
                if why == Stop::OwnedElsewhere {
                    env.reached("retry: another hop retries");
                }
                tracing::debug!(dependency = name.as_str(), ?why, ?outcome, "a call is not sent again");
                None
            }
        }
    }

    /// Tells the dependency's policies how the call ended, and gives the caller what there is.
    pub(super) fn finish<T, E>(self, now: Mono, attempted: Attempted<T, E>) -> Result<P::Answer, CallError<E>>
    where
        P: Answers<T, E>,
    {
        let (outcome, began, policies) = (attempted.outcome(), self.permits.began, self.permits.policies.clone());
        let retry_after = attempted.verdict().and_then(|verdict| verdict.retry_after);
        self.permits.end(now, outcome, retry_after);
        match attempted {
            Attempted::Answered(Ok(answer), _) => {
                let Policies { timers, timeout, .. } = &*policies;
                Ok(self.protocol.deliver(answer, Rest { deadline: self.deadline, idle: timeout.idle, timers }))
            }
            Attempted::Answered(Err(error), _) => Err(CallError::Upstream(error)),
            Attempted::TimedOut(scope) => Err(CallError::Timeout { scope, waited: now.saturating_since(began) }),
            Attempted::Refused(rejection) => Err(CallError::Rejected(rejection)),
        }
    }

    /// Waits, sends it again, and so on until it ends.
    pub(super) async fn go_on<R>(mut self, mut next: Next<P::Sent>) -> Result<P::Answer, CallError<S::Error>>
    where
        P: Requests<R, Kept = K> + Answers<S::Response, S::Error>,
        S: Service<P::Sent> + Clone,
    {
        loop {
            let policies = self.permits.policies.clone();
            if !next.after.is_zero() {
                // It ends before the deadline: nothing else would have been decided.
                policies.timers.alarm(Deadline::after(policies.now(), next.after)).await;
            }
            #[cfg(feature = "museum")]
            if let Some(retries) =
                policies.retries.as_ref().filter(|_| policies.timers.env().planted("retry-charged-late"))
            {
                _ = retries.charge(policies.now());
            }
            let attempted = self.attempt(next).await;
            let now = policies.now();
            match self.decide(now, &attempted) {
                Some(again) => next = again,
                None => return self.finish(now, attempted),
            }
        }
    }

    async fn attempt<R>(&mut self, next: Next<P::Sent>) -> Attempted<S::Response, S::Error>
    where
        P: Requests<R, Kept = K> + Answers<S::Response, S::Error>,
        S: Service<P::Sent> + Clone,
    {
        let Next { mut sent, fresh_connection, .. } = next;
        let policies = self.permits.policies.clone();
        let now = policies.now();
        let tried = match Tried::admit(&policies, now) {
            Ok(tried) => tried,
            Err(rejection) => return Attempted::Refused(rejection),
        };
        self.protocol.stamp(&mut sent, self.told(fresh_connection), now);
        let service = self.again.as_ref().map(|(service, _)| service.clone());
        let Some(mut service) = service else { unreachable!("what is sent again was kept") };
        let work = async move {
            poll_fn(|cx| service.poll_ready(cx)).await?;
            service.call(sent).await
        };
        let ended = Attempt::new(work, &policies, now, self.deadline).await;
        self.judge(policies.now(), tried, ended)
    }
}
