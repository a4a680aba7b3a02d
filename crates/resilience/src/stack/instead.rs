//! Lesser answers in place of failures, around a stack.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    fallback::{Served, Source, When, first},
    outcome::{CallError, Class, Outcome},
};

/// Serves a lesser answer where a call through a stack failed: a layer to put around one.
///
/// It stands outside of the circuit, which therefore hears of every failure: nothing here hides an outage. `answer` is asked
/// with what became of the call, and says what there is instead and where it comes from; it must not wait.
///
/// # Example
/// ```
/// use quorate_resilience::{
///     fallback::{Source, When},
///     kit::{Reply, Upstream},
///     stack::{Instead, Plain, Stack},
///     timeout::Timers,
/// };
/// use quorate_runtime::Env;
/// use tower_layer::Layer as _;
/// use tower_service::Service as _;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let env = Env::real();
/// let upstream = Upstream::new(&env);
/// upstream.always(Reply::Fail);
/// let stack = Stack::builder("prices".parse()?).build(&Timers::new(&env), Plain::idempotent())?;
/// let usual = Instead::new(When::default(), |_| Some((100, Source::Static)));
/// let served = usual.layer(stack.layer(upstream)).call(7).await?;
/// assert_eq!((served.value, served.is_degraded()), (100, true));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Instead<F> {
    when: When,
    answer: F,
}

impl<F> Instead<F> {
    /// Lesser answers for the failures that `when` names.
    pub const fn new(when: When, answer: F) -> Self {
        Self { when, answer }
    }
}

impl<S, F: Clone> Layer<S> for Instead<F> {
    type Service = WithInstead<S, F>;

    fn layer(&self, service: S) -> Self::Service {
        WithInstead { service, instead: self.clone() }
    }
}

/// A stack's service with lesser answers in place of failures.
#[derive(Clone, Debug)]
pub struct WithInstead<S, F> {
    service: S,
    instead: Instead<F>,
}

impl<S, R, T, E, F> Service<R> for WithInstead<S, F>
where
    S: Service<R, Response = T, Error = CallError<E>>,
    F: Fn(Outcome) -> Option<(T, Source)> + Clone,
{
    type Response = Served<T>;
    type Error = CallError<E>;
    type Future = OrInstead<S::Future, F>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        OrInstead { call: self.service.call(request), instead: self.instead.clone() }
    }
}

pin_project! {
    /// A call, or what there is instead.
    pub struct OrInstead<C, F> {
        #[pin]
        call: C,
        instead: Instead<F>,
    }
}

impl<C, T, E, F> Future for OrInstead<C, F>
where
    C: Future<Output = Result<T, CallError<E>>>,
    F: Fn(Outcome) -> Option<(T, Source)>,
{
    type Output = Result<Served<T>, CallError<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let error = match ready!(this.call.poll(cx)) {
            Ok(answer) => return Poll::Ready(Ok(Served::fresh(answer))),
            Err(error) => error,
        };
        let outcome = error.outcome(|_| Class::Fault);
        let served = this.instead.when.replaces(outcome).then(|| first(outcome, [(this.instead.answer)(outcome)]));
        match served.flatten() {
            Some(served) => {
                tracing::debug!(?outcome, source = served.source.word(), "a lesser answer is served");
                Poll::Ready(Ok(served))
            }
            None => Poll::Ready(Err(error)),
        }
    }
}
