//! The course of one call: its attempts, what is told to whom after each, and what the caller is given.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use quorate_foundations::time::Mono;
use tower_service::Service;

use super::{
    Rest,
    attempt::Attempt,
    permits::{Permits, Tried},
    policies::Held,
    protocol::{Answers, Intent, Requests, Try},
};
use crate::{
    bulkhead::Bulkhead,
    deadline::Deadline,
    hedge::{Plan, race},
    outcome::{CallError, Class, Outcome, Rejection, Scope, Verdict},
    retry::{Attempts, Decision, Ended, Repeatable, Stop},
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
    /// Copies that were sent because an attempt was late.
    pub(super) copies: u32,
}

/// How an attempt ended.
pub(super) enum Attempted<T, E> {
    Answered(Result<T, E>, Verdict),
    TimedOut(Scope),
    Refused(Rejection),
}

/// An attempt that has ended, and what it leaves to its call.
struct Done<T, E> {
    attempted: Attempted<T, E>,
    /// Whether the upstream failed it.
    failed: bool,
    /// What is held of the endpoint for an answer that is to come, and since when it is tried.
    answers: Option<Tried>,
}

/// What is sent, by a service that is ready for it or not, with the endpoint's leave.
struct Sending<Q, S> {
    sent: Q,
    service: S,
    is_ready: bool,
    tried: Tried,
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
    /// The course of a call that goes on elsewhere; what is left here holds nothing.
    #[cold]
    pub(super) fn taken(&mut self) -> Self
    where
        P: Clone,
    {
        let Self { permits, protocol, again, intent, deadline, owner, attempts, copies } = self;
        Self {
            permits: permits.taken(),
            protocol: protocol.clone(),
            again: again.take(),
            intent: intent.clone(),
            deadline: *deadline,
            owner: *owner,
            attempts: attempts.take(),
            copies: *copies,
        }
    }

    /// What the next hop is told with the current attempt.
    pub(super) fn told(&self, fresh_connection: bool) -> Try {
        let number = self.attempts.as_ref().map_or(1, Attempts::number).saturating_add(self.copies);
        // What can't be repeated here may be made of calls that can further on: those have no owner yet.
        let claims = self.owner && self.permits.policies.claims(self.intent.repeatable);
        Try { hop: self.intent.hop.next(number, claims, self.deadline), fresh_connection }
    }

    /// Tells the endpoint's policies how the first attempt ended.
    #[inline]
    pub(super) fn judge_first<T, E>(&mut self, now: Mono, ended: Result<Result<T, E>, Scope>) -> Attempted<T, E>
    where
        P: Answers<T, E>,
    {
        let (attempted, retry_after) = judge(&self.protocol, ended);
        self.permits.end_attempt(now, attempted.outcome(), retry_after);
        attempted
    }

    /// What is sent next, if anything is.
    #[inline]
    pub(super) fn decide<R, T, E>(&mut self, now: Mono, attempted: &Attempted<T, E>) -> Option<Next<P::Sent>>
    where
        P: Requests<R, Kept = K>,
    {
        let outcome = attempted.outcome();
        if outcome == Outcome::Upstream(Class::Success) {
            None
        } else {
            self.decide_on::<R>(now, outcome, attempted.verdict())
        }
    }

    #[cold]
    fn decide_on<R>(&mut self, now: Mono, outcome: Outcome, verdict: Option<Verdict>) -> Option<Next<P::Sent>>
    where
        P: Requests<R, Kept = K>,
    {
        let (name, retries) = (&self.permits.policies.name, self.permits.policies.retries.as_ref()?);
        if self.permits.is_lone_probe() && outcome != Outcome::Upstream(Class::Stale) {
            // It has found out what it was to find out; one more would be another probe.
            tracing::debug!(dependency = name.as_str(), ?outcome, "a probe is not sent again");
            return None;
        }
        // Whether it can be told again is known before the budget is charged for it.
        let sent = self.protocol.again(&self.again.as_ref()?.1);
        let Some(sent) = sent else {
            tracing::debug!(dependency = name.as_str(), "a call cannot be sent again: its body was not kept");
            return None;
        };
        if outcome != Outcome::Upstream(Class::Stale) && self.permits.would_probe(now, || self.protocol.asked(&sent)) {
            tracing::debug!(dependency = name.as_str(), ?outcome, "a probe of an endpoint is not sent again");
            return None;
        }
        let attempts =
            self.attempts.get_or_insert_with(|| retries.begin(self.intent.repeatable, self.owner, self.deadline));
        let ended = Ended { outcome, verdict, answer_begun: false };
        let needs = self.permits.policies.memory.latency.median(now).unwrap_or_default();
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
    #[inline]
    pub(super) fn finish<T, E>(&mut self, now: Mono, attempted: Attempted<T, E>) -> Result<P::Answer, CallError<E>>
    where
        P: Answers<T, E>,
    {
        let Self { permits, protocol, deadline, .. } = self;
        let (outcome, began) = (attempted.outcome(), permits.began);
        let retry_after = attempted.verdict().and_then(|verdict| verdict.retry_after);
        match attempted {
            // An answer is a part of the call for as long as it is still to come.
            Attempted::Answered(Ok(answer), _) => {
                let (deadline, scope) = permits.completes(*deadline);
                permits.answer(now, outcome, deadline, retry_after);
                return Ok(protocol.deliver(answer, Rest { deadline, scope, permits, now, outcome }));
            }
            _ => permits.end(now, outcome, retry_after),
        }
        match attempted {
            Attempted::Answered(Ok(_), _) => unreachable!("an answer was delivered"),
            Attempted::Answered(Err(error), verdict) => Err(CallError::Upstream(error, verdict.class)),
            Attempted::TimedOut(scope) => Err(CallError::Timeout { scope, waited: now.saturating_since(began) }),
            Attempted::Refused(rejection) => Err(CallError::Rejected(rejection)),
        }
    }

    /// Waits for a place in the bulkhead if it has to, makes the first attempt with `service`, and goes on.
    pub(super) async fn begin<R>(
        mut self,
        service: S,
        sent: P::Sent,
        waits: bool,
    ) -> Result<P::Answer, CallError<S::Error>>
    where
        P: Requests<R, Kept = K> + Answers<S::Response, S::Error> + Clone,
        S: Service<P::Sent> + Clone,
    {
        let policies = self.permits.policies.clone();
        if let (true, Some(bulkhead)) = (waits, &policies.bulkhead) {
            match Bulkhead::enter(&**bulkhead, &policies.timers, policies.now(), self.intent.ask.clone()).await {
                Ok(place) => {
                    self.permits.entered(place.taken());
                    // It was worth beginning when it came, and has waited since.
                    let now = policies.now();
                    if let Err(hopeless) = policies.in_time(now, self.deadline) {
                        return self.finish(now, Attempted::Refused(hopeless));
                    }
                }
                Err(rejected) => return self.finish(policies.now(), Attempted::Refused(rejected.into())),
            }
        }
        let tried = match self.admit::<R>(&sent) {
            Ok(tried) => tried,
            Err(rejection) => return self.finish(policies.now(), Attempted::Refused(rejection)),
        };
        let first = Next { sent, after: Duration::ZERO, fresh_connection: false };
        let attempted = self.attempt(first, tried, Some(service)).await;
        let now = policies.now();
        match self.decide(now, &attempted) {
            Some(next) => self.go_on(next, attempted).await,
            None => self.finish(now, attempted),
        }
    }

    /// Asks the policies of the endpoint for an attempt that sends `sent`.
    fn admit<R>(&self, sent: &P::Sent) -> Result<Tried, Rejection>
    where
        P: Requests<R, Kept = K>,
    {
        let (policies, first) = (&self.permits.policies, self.attempts.is_none());
        Tried::admit(policies, policies.now(), || self.protocol.asked(sent), (self.permits.began, first))
    }

    /// Waits, sends it again, and so on until it ends. What the attempt before came to is kept until the next one may be made: what is
    /// refused here, behind something that was sent, is not a call of which nothing was.
    pub(super) async fn go_on<R>(
        mut self,
        mut next: Next<P::Sent>,
        mut before: Attempted<S::Response, S::Error>,
    ) -> Result<P::Answer, CallError<S::Error>>
    where
        P: Requests<R, Kept = K> + Answers<S::Response, S::Error> + Clone,
        S: Service<P::Sent> + Clone,
    {
        loop {
            let policies = self.permits.policies.clone();
            if !next.after.is_zero() {
                // It is to end before the deadline: nothing else would have been decided.
                policies.timers.alarm(Deadline::after(policies.now(), next.after)).await;
            }
            #[cfg(feature = "museum")]
            if let Some(retries) = policies.retries.as_ref()
                && policies.timers.env().planted("retry-charged-late")
            {
                _ = retries.charge(policies.now());
            }
            let now = policies.now();
            if self.deadline.has_passed(now) {
                // Alarms have a grain, and threads other work.
                self.permits.take_up(now);
                return self.finish(now, before);
            }
            let tried = match self.admit::<R>(&next.sent) {
                Ok(tried) => tried,
                Err(rejection) => {
                    let (name, now) = (policies.name.as_str(), policies.now());
                    tracing::debug!(dependency = name, %rejection, "a call is not sent again: its endpoint is refused");
                    self.permits.take_up(now);
                    return self.finish(now, before);
                }
            };
            drop(before);
            let attempted = self.attempt(next, tried, None).await;
            let now = policies.now();
            match self.decide(now, &attempted) {
                Some(again) => (next, before) = (again, attempted),
                None => return self.finish(now, attempted),
            }
        }
    }

    /// Makes one attempt, which `tried` allows, and copies of it if it is late and may be copied. `ready` is a service that is ready
    /// for it.
    async fn attempt<R>(
        &mut self,
        next: Next<P::Sent>,
        tried: Tried,
        ready: Option<S>,
    ) -> Attempted<S::Response, S::Error>
    where
        P: Requests<R, Kept = K> + Answers<S::Response, S::Error> + Clone,
        S: Service<P::Sent> + Clone,
    {
        let (policies, protocol, deadline) = (self.permits.policies.clone(), self.protocol.clone(), self.deadline);
        let told = self.told(next.fresh_connection);
        let is_ready = ready.is_some();
        let Some(service) = ready.or_else(|| self.again.as_ref().map(|(service, _)| service.clone())) else {
            unreachable!("what is sent again was kept")
        };
        let first = Sending { sent: next.sent, service, is_ready, tried };
        // One that tries whether the upstream is well again is one call, however late.
        let hedge = policies.hedge.filter(|_| !self.permits.is_lone_probe() && !first.tried.is_probe());
        let (Some(config), Some((copied, kept)), true) = (hedge, &mut self.again, self.owner) else {
            let done = one_attempt(policies, protocol, first, told, deadline).await;
            return self.ended(done);
        };
        let plan = Plan {
            config,
            delay: config.delay(|part| policies.memory.latency.quantile(policies.now(), part)),
            repeatable: self.intent.repeatable,
            deadline,
        };
        let sending = Mutex::new(Some(first));
        let slot = || sending.lock().unwrap_or_else(PoisonError::into_inner);
        let (of_copies, of_protocol) = (policies.clone(), protocol.clone());
        let copy = move |number: u32| {
            let Some(sending) = slot().take() else { unreachable!("what is sent was asked for") };
            let told = Try { hop: told.hop.copied(number), ..told };
            let done = one_attempt(of_copies.clone(), of_protocol.clone(), sending, told, deadline);
            Box::pin(async move { (number, done.await) })
        };
        // A body that can't be told twice has no copy, nor has what its endpoint's circuit refuses: then the first one goes on, and the
        // budget is not charged.
        let call = self.permits.began;
        let of_charge = policies.clone();
        let charge = move |now| {
            let Some(sent) = protocol.again(kept) else { return false };
            let Ok(tried) = Tried::admit(&of_charge, now, || protocol.asked(&sent), (call, false)) else {
                return false;
            };
            let paid = of_charge.retries.as_ref().is_some_and(|retries| retries.charge(now));
            if paid {
                *slot() = Some(Sending { sent, service: copied.clone(), is_ready: false, tried });
            }
            paid
        };
        // What the first is refused its copies would be as well. What a copy is refused, or a call that is known by a
        // key, may be so because of the other one.
        let repeatable = self.intent.repeatable;
        let is_good = |(number, done): &(u32, Done<S::Response, S::Error>)| match done.attempted.outcome() {
            Outcome::Upstream(Class::Success) => true,
            Outcome::Upstream(Class::Refusal) => *number == 0 && repeatable == Repeatable::Idempotent,
            _ => false,
        };
        let began = policies.now();
        let won = race(&policies.timers, began, plan, charge, copy, is_good).await;
        self.copies = self.copies.saturating_add(won.sent.saturating_sub(1));
        let (_, done) = won.answer;
        if won.copy > 0 && done.attempted.outcome() == Outcome::Upstream(Class::Success) {
            // The first one was late, by nobody knows how much: it took so long at least. If only those were known that
            // won, ever quicker ones would count as late.
            let now = policies.now();
            policies.memory.latency.record(now, now.saturating_since(began));
        }
        if won.sent > 1 {
            let (name, copy, sent) = (policies.name.as_str(), won.copy, won.sent);
            tracing::debug!(dependency = name, copy, sent, "a late call was sent again");
        }
        self.ended(done)
    }

    /// An attempt has ended: what it leaves is the call's.
    fn ended<T, E>(&mut self, done: Done<T, E>) -> Attempted<T, E> {
        self.permits.hold(done.failed, done.answers);
        done.attempted
    }
}

/// One attempt, from the endpoint's leave to what it is told of the end.
async fn one_attempt<R, P, S>(
    policies: Held,
    protocol: P,
    sending: Sending<P::Sent, S>,
    told: Try,
    deadline: Deadline,
) -> Done<S::Response, S::Error>
where
    P: Requests<R> + Answers<S::Response, S::Error>,
    S: Service<P::Sent>,
{
    let Sending { mut sent, mut service, is_ready, tried } = sending;
    let now = policies.now();
    protocol.stamp(&mut sent, told.within(policies.timeout.attempt(now, deadline)), now);
    let work = async move {
        if !is_ready {
            poll_fn(|cx| service.poll_ready(cx)).await?;
        }
        service.call(sent).await
    };
    let mut attempt = pin!(Attempt::new(work, &policies, now, deadline));
    let ended = poll_fn(|cx| attempt.as_mut().poll(cx, &policies)).await;
    let (attempted, retry_after) = judge(&protocol, ended);
    let (failed, answers) = tried.end(policies.now(), attempted.outcome(), retry_after);
    Done { attempted, failed, answers }
}

/// How an attempt ended, and when the upstream asked to be called again.
#[inline]
fn judge<P, T, E>(protocol: &P, ended: Result<Result<T, E>, Scope>) -> (Attempted<T, E>, Option<Duration>)
where
    P: Answers<T, E>,
{
    let attempted = match ended {
        Ok(result) => {
            let verdict = protocol.judge(result.as_ref());
            Attempted::Answered(result, verdict)
        }
        Err(scope) => Attempted::TimedOut(scope),
    };
    let retry_after = attempted.verdict().and_then(|verdict| verdict.retry_after);
    (attempted, retry_after)
}
