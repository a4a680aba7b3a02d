//! The stack around a service, and the future of one call through it.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use quorate_foundations::time::Mono;
use quorate_runtime::BoxFuture;
use tower_service::Service;

use super::{
    attempt::Attempt,
    course::Course,
    permits::{Admitted, Permits},
    policies::{Held, Policies},
    protocol::{Answers, Intent, Requests},
};
use crate::{
    deadline::Deadline,
    outcome::{CallError, Outcome, Scope},
};

/// A service behind a [`Stack`](super::Stack). Cheap to clone, as far as `S` is.
///
/// Readiness is that of `S`: nothing is held by whoever is ready and doesn't call.
#[derive(Clone)]
pub struct Guarded<S, P> {
    service: S,
    policies: Held,
    protocol: P,
}

impl<S, P> Guarded<S, P> {
    pub(super) fn new(service: S, policies: Arc<Policies>, protocol: P) -> Self {
        // Of its own: the count of those who hold it isn't a line that all threads write which make calls.
        Self { service, policies: Arc::new(policies), protocol }
    }

    /// Lets other policies hold for the calls from now on.
    pub(super) fn adopt(&mut self, policies: Arc<Policies>) {
        self.policies = Arc::new(policies);
    }
}

impl<S, P, R> Service<R> for Guarded<S, P>
where
    P: Requests<R> + Answers<S::Response, S::Error> + Clone + Send + 'static,
    S: Service<<P as Requests<R>>::Sent> + Clone + Send + 'static,
    S::Future: Send,
    S::Response: Send,
    S::Error: Send,
    P::Sent: Send,
    P::Kept: Send,
    P::Answer: Send,
    R: 'static,
{
    type Response = P::Answer;
    type Error = CallError<S::Error>;
    type Future = Call<S, P, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.service.poll_ready(cx).map_err(|error| {
            let class = self.protocol.judge(Err(&error)).class;
            CallError::Upstream(error, class)
        })
    }

    fn call(&mut self, request: R) -> Self::Future {
        Call { state: self.begin(request) }
    }
}

impl<S, P> Guarded<S, P> {
    #[inline]
    fn begin<R>(&mut self, request: R) -> State<S, P, R>
    where
        P: Requests<R> + Answers<S::Response, S::Error> + Clone + Send + 'static,
        S: Service<<P as Requests<R>>::Sent> + Clone + Send + 'static,
        S::Future: Send,
        S::Response: Send,
        S::Error: Send,
        P::Sent: Send,
        P::Kept: Send,
        P::Answer: Send,
        R: 'static,
    {
        let policies = &self.policies;
        let now = policies.now();
        let mut intent = self.protocol.intent(&request, now);
        let deadline = policies.timeout.total(now, intent.hop.deadline);
        intent.ask.deadline = deadline;
        match policies.limit.take(now) {
            Some(Ok(())) => {}
            Some(Err(rejection)) => {
                policies.memory.counts.ended(Outcome::Rejected(rejection.by()));
                return State::refused(rejection.into());
            }
            None => return self.ask_first(request, intent, now),
        }
        let Admitted { permits, waits } = match Permits::admit(policies.clone(), now, &intent.ask) {
            Ok(admitted) => admitted,
            Err(rejection) => return State::refused(rejection.into()),
        };
        let (mut sent, kept) = self.protocol.split(request, policies.retries.is_some() || policies.hedge.is_some());
        let again = kept.map(|kept| (self.service.clone(), kept));
        let owner = again.is_some() && !intent.hop.owned;
        #[cfg(feature = "museum")]
        let owner = owner || policies.timers.env().planted("every-hop-retries");
        let protocol = self.protocol.clone();
        let mut course = Course { permits, protocol, again, intent, deadline, owner, attempts: None, copies: 0 };
        if waits || policies.hedge.is_some() {
            // The service that is ready is the one that is called.
            let clone = self.service.clone();
            let ready = std::mem::replace(&mut self.service, clone);
            return State::Further { call: Box::pin(course.begin(ready, sent, waits)) };
        }
        if let Err(rejection) = course.permits.begin_attempt(now, || self.protocol.asked(&sent)) {
            let refused = course.finish(now, super::course::Attempted::<S::Response, S::Error>::Refused(rejection));
            return State::refused(refused.err().unwrap_or_else(|| unreachable!("what was refused is no answer")));
        }
        self.protocol.stamp(&mut sent, course.told(false).within(policies.timeout.attempt(now, deadline)), now);
        let attempt = Attempt::new(self.service.call(sent), policies, now, deadline);
        State::First { course, attempt }
    }
}

impl<S, P> Guarded<S, P> {
    /// A call that waits for the count of a limit before anything else.
    #[cold]
    fn ask_first<R>(&mut self, request: R, intent: Intent, now: Mono) -> State<S, P, R>
    where
        P: Requests<R> + Answers<S::Response, S::Error> + Clone + Send + 'static,
        S: Service<<P as Requests<R>>::Sent> + Clone + Send + 'static,
        S::Future: Send,
        S::Response: Send,
        S::Error: Send,
        P::Sent: Send,
        P::Kept: Send,
        P::Answer: Send,
        R: 'static,
    {
        let (policies, protocol) = (self.policies.clone(), self.protocol.clone());
        let (sent, kept) = protocol.split(request, policies.retries.is_some() || policies.hedge.is_some());
        // The service that is ready is the one that is called.
        let clone = self.service.clone();
        let again = kept.map(|kept| (clone.clone(), kept));
        let ready = std::mem::replace(&mut self.service, clone);
        let call = async move {
            let (deadline, owner) = (intent.ask.deadline, again.is_some() && !intent.hop.owned);
            Asking::of(&policies).ask::<S::Error>(now, deadline).await?;
            let Admitted { permits, waits } = Permits::admit(policies.clone(), policies.now(), &intent.ask)?;
            let course = Course { permits, protocol, again, intent, deadline, owner, attempts: None, copies: 0 };
            course.begin(ready, sent, waits).await
        };
        State::Further { call: Box::pin(call) }
    }
}

/// A call that waits for the count of a limit. Dropping it is leaving.
struct Asking<'a> {
    policies: &'a Policies,
    ended: Option<Outcome>,
}

impl<'a> Asking<'a> {
    const fn of(policies: &'a Policies) -> Self {
        Self { policies, ended: Some(Outcome::Cancelled) }
    }

    async fn ask<E>(mut self, now: Mono, deadline: Deadline) -> Result<(), CallError<E>> {
        let policies = self.policies;
        let asked = policies.timers.within(now, deadline, Scope::Total, policies.limit.ask(now, deadline)).await;
        let error = match asked {
            Ok(Ok(())) => {
                self.ended = None;
                return Ok(());
            }
            Ok(Err(rejection)) => rejection.into(),
            Err(_) => CallError::Timeout { scope: Scope::Total, waited: policies.now().saturating_since(now) },
        };
        self.ended = Some(error.outcome());
        Err(error)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if let Some(outcome) = self.ended {
            self.policies.memory.counts.ended(outcome);
        }
    }
}

pin_project! {
    /// A call through a stack.
    ///
    /// # Cancel safety
    /// Dropping it drops the attempt in progress and gives back everything that the call holds; no policy counts it.
    /// Whether the upstream did what was asked is then unknown.
    pub struct Call<S, P, R>
    where
        P: Requests<R>,
        P: Answers<S::Response, S::Error>,
        S: Service<<P as Requests<R>>::Sent>,
    {
        #[pin]
        state: State<S, P, R>,
    }
}

pin_project! {
    /// While all is well a call is in place: nothing is allocated for it.
    #[project = Projected]
    enum State<S, P, R>
    where
        P: Requests<R>,
        P: Answers<S::Response, S::Error>,
        S: Service<<P as Requests<R>>::Sent>,
    {
        /// The first attempt.
        First { course: Course<S, P, P::Kept>, #[pin] attempt: Attempt<S::Future> },
        /// Those after it.
        Further { call: BoxFuture<'static, Result<P::Answer, CallError<S::Error>>> },
        /// A policy refused the call, or it has ended.
        Refused { error: Option<CallError<S::Error>> },
    }
}

impl<S, P, R> State<S, P, R>
where
    P: Requests<R> + Answers<S::Response, S::Error>,
    S: Service<<P as Requests<R>>::Sent>,
{
    #[cold]
    fn refused(error: CallError<S::Error>) -> Self {
        Self::Refused { error: Some(error) }
    }
}

impl<S, P, R> Future for Call<S, P, R>
where
    P: Requests<R> + Answers<S::Response, S::Error> + Clone + Send + 'static,
    S: Service<<P as Requests<R>>::Sent> + Clone + Send + 'static,
    S::Future: Send,
    S::Response: Send,
    S::Error: Send,
    P::Sent: Send,
    P::Kept: Send,
    P::Answer: Send,
    R: 'static,
{
    type Output = Result<P::Answer, CallError<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let call = match state.as_mut().project() {
                Projected::First { course, attempt } => {
                    let Poll::Ready(ended) = attempt.poll(cx, &course.permits.policies) else { return Poll::Pending };
                    let now = course.permits.policies.now();
                    let attempted = course.judge_first(now, ended);
                    let Some(next) = course.decide(now, &attempted) else {
                        let finished = course.finish(now, attempted);
                        state.set(State::Refused { error: None });
                        return Poll::Ready(finished);
                    };
                    Box::pin(course.taken().go_on(next, attempted))
                }
                Projected::Further { call } => return call.as_mut().poll(cx),
                Projected::Refused { error } => {
                    let Some(error) = error.take() else { panic!("a call was polled after its end") };
                    return Poll::Ready(Err(error));
                }
            };
            state.set(State::Further { call });
        }
    }
}
