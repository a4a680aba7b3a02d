//! Lesser answers in place of failures, around a stack.

use std::{
    fmt,
    future::{Future, Ready, ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{Live, Stack, policies::Memory};
use crate::{
    fallback::{Served, Source, When, first},
    outcome::{CallError, Outcome},
};

/// Serves a lesser answer where a call through a stack failed: a layer to put around one.
///
/// It stands outside of the circuit, which therefore hears of every failure: nothing here hides an outage. What is there instead
/// is asked for with what became of the call and with the request, a clone of which is kept for that: so a stale answer can be
/// looked up by its key, and somebody else be asked. Of a request that is no `Clone`, such as `reqwest`'s, or that isn't worth it,
/// [`keeping`](Self::keeping) says what is kept in its place. What the upstream refused because the caller was mistaken is no failure
/// and isn't replaced.
///
/// The time of the call is over when somebody else is asked: whoever is has a stack, and a time, of its own.
///
/// # Example
/// ```
/// use quorate_resilience::{
///     fallback::{Alternate, Source, When},
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
/// let usual = Instead::new(When::default(), |_, article| Some((article * 100, Source::Static))).counted_by(&stack);
/// let served = usual.layer(stack.layer(upstream.clone())).call(7).await?;
/// assert_eq!((served.value, served.is_degraded()), (700, true));
///
/// let (archive, source) = (Upstream::new(&env), Alternate::new(&"archive".parse()?, &"prices".parse()?)?);
/// let other = Instead::asking(When::default(), move |_, article| {
///     let (mut archive, source) = (archive.clone(), Source::Alternate(source.clone()));
///     async move { Some((archive.call(article).await.ok()?, source)) }
/// });
/// assert_eq!(other.layer(stack.layer(upstream)).call(7).await?.value, 7);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Instead<A, K = Whole> {
    then: Then<A>,
    keep: K,
}

/// What is done when a call has failed.
#[derive(Clone)]
struct Then<A> {
    when: When,
    answer: A,
    memory: Option<Arc<Memory>>,
}

/// Keeps a clone of the request.
#[derive(Clone, Copy, Debug)]
pub struct Whole;

/// Keeps what a function says of the request.
#[derive(Clone, Copy)]
pub struct Part<F>(F);

/// A function that knows at once what there is instead.
#[derive(Clone, Copy)]
pub struct AtOnce<F>(F);

/// A function that asks somebody else.
#[derive(Clone, Copy)]
pub struct Asking<F>(F);

impl<F> Instead<AtOnce<F>> {
    /// Lesser answers for the failures that `when` names: `answer` gets what became of the call and the request, says what there
    /// is instead and where it comes from, and must not wait.
    pub const fn new(when: When, answer: F) -> Self {
        Self { then: Then { when, answer: AtOnce(answer), memory: None }, keep: Whole }
    }
}

impl<F> Instead<Asking<F>> {
    /// The same, where `answer` returns a future: it may ask somebody else.
    pub const fn asking(when: When, answer: F) -> Self {
        Self { then: Then { when, answer: Asking(answer), memory: None }, keep: Whole }
    }
}

impl<A> Instead<A> {
    /// The same, where what is there instead is asked for with what `keep` says of the request, in place of a clone of it.
    ///
    /// # Example
    /// ```
    /// use quorate_resilience::{
    ///     Outcome,
    ///     fallback::{Source, When},
    ///     stack::Instead,
    /// };
    ///
    /// struct Purchase {
    ///     article: u64,
    ///     receipt: std::fs::File,
    /// }
    ///
    /// let usual = Instead::new(When::default(), |_: Outcome, article: u64| Some((article * 100, Source::Static)));
    /// let usual = usual.keeping(|purchase: &Purchase| purchase.article);
    /// ```
    pub fn keeping<R, Kept, F: Fn(&R) -> Kept>(self, keep: F) -> Instead<A, Part<F>> {
        Instead { then: self.then, keep: Part(keep) }
    }
}

impl<A, K> Instead<A, K> {
    /// The same, with what is served counted among what `stack` counts: `quorate_fallbacks_total` where that is among
    /// [`Stacks`](super::Stacks).
    #[must_use]
    pub fn counted_by<C: CountsFallbacks>(self, stack: &C) -> Self {
        Self { then: Then { memory: Some(stack.memory().0), ..self.then }, ..self }
    }
}

/// What counts the lesser answers that are served in place of its own: a [`Stack`], or one that is [`Live`].
pub trait CountsFallbacks: sealed::Sealed {
    #[doc(hidden)]
    fn memory(&self) -> Counting;
}

/// Where they are counted.
#[doc(hidden)]
pub struct Counting(Arc<Memory>);

impl<P> CountsFallbacks for Stack<P> {
    fn memory(&self) -> Counting {
        Counting(self.policies.memory.clone())
    }
}

impl<P> CountsFallbacks for Live<P> {
    fn memory(&self) -> Counting {
        Counting(self.current.policies().memory.clone())
    }
}

mod sealed {
    pub trait Sealed {}
    impl<P> Sealed for super::Stack<P> {}
    impl<P> Sealed for super::Live<P> {}
}

/// What is kept of a request for the case that it fails.
pub trait Keeps<R> {
    /// It.
    type Kept;

    /// Says it.
    fn keep(&self, request: &R) -> Self::Kept;
}

impl<R: Clone> Keeps<R> for Whole {
    type Kept = R;

    fn keep(&self, request: &R) -> R {
        request.clone()
    }
}

impl<R, Kept, F: Fn(&R) -> Kept> Keeps<R> for Part<F> {
    type Kept = Kept;

    fn keep(&self, request: &R) -> Kept {
        (self.0)(request)
    }
}

/// What there is instead of an answer.
pub trait Replaces<R, T> {
    /// Says it.
    type Answer: Future<Output = Option<(T, Source)>>;

    /// What there is instead for a request of which `kept` is known and `outcome` became; `None`: nothing.
    fn replace(&self, outcome: Outcome, kept: R) -> Self::Answer;
}

impl<R, T, F: Fn(Outcome, R) -> Option<(T, Source)>> Replaces<R, T> for AtOnce<F> {
    type Answer = Ready<Option<(T, Source)>>;

    fn replace(&self, outcome: Outcome, kept: R) -> Self::Answer {
        ready((self.0)(outcome, kept))
    }
}

impl<R, T, F: Fn(Outcome, R) -> A, A: Future<Output = Option<(T, Source)>>> Replaces<R, T> for Asking<F> {
    type Answer = A;

    fn replace(&self, outcome: Outcome, kept: R) -> A {
        (self.0)(outcome, kept)
    }
}

impl<S, A: Clone, K: Clone> Layer<S> for Instead<A, K> {
    type Service = WithInstead<S, A, K>;

    fn layer(&self, service: S) -> Self::Service {
        WithInstead { service, instead: self.clone() }
    }
}

/// A stack's service with lesser answers in place of failures.
#[derive(Clone, Debug)]
pub struct WithInstead<S, A, K = Whole> {
    service: S,
    instead: Instead<A, K>,
}

impl<S, R, T, E, A, K> Service<R> for WithInstead<S, A, K>
where
    S: Service<R, Response = T, Error = CallError<E>>,
    K: Keeps<R>,
    A: Replaces<K::Kept, T> + Clone,
{
    type Response = Served<T>;
    type Error = CallError<E>;
    type Future = OrInstead<S::Future, A, K::Kept, T, E>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let kept = Some(self.instead.keep.keep(&request));
        OrInstead { state: State::Calls { call: self.service.call(request), kept }, then: self.instead.then.clone() }
    }
}

pin_project! {
    /// A call, or what there is instead.
    ///
    /// # Cancel safety
    /// That of the call, and of whoever is asked instead.
    pub struct OrInstead<C, A: Replaces<R, T>, R, T, E> {
        #[pin]
        state: State<C, A::Answer, R, E>,
        then: Then<A>,
    }
}

pin_project! {
    #[project = Projected]
    enum State<C, I, R, E> {
        Calls { #[pin] call: C, kept: Option<R> },
        Asks { #[pin] answer: I, failed: Option<(CallError<E>, Outcome)> },
    }
}

impl<C, A, R, T, E> Future for OrInstead<C, A, R, T, E>
where
    C: Future<Output = Result<T, CallError<E>>>,
    A: Replaces<R, T>,
{
    type Output = Result<Served<T>, CallError<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                Projected::Calls { call, kept } => {
                    let error = match ready!(call.poll(cx)) {
                        Ok(answer) => return Poll::Ready(Ok(Served::fresh(answer))),
                        Err(error) => error,
                    };
                    let outcome = error.outcome();
                    let Some(kept) = kept.take().filter(|_| this.then.when.replaces(outcome)) else {
                        return Poll::Ready(Err(error));
                    };
                    let answer = this.then.answer.replace(outcome, kept);
                    State::Asks { answer, failed: Some((error, outcome)) }
                }
                Projected::Asks { answer, failed } => {
                    let answer = ready!(answer.poll(cx));
                    let Some((error, outcome)) = failed.take() else { panic!("a call was polled after its end") };
                    let Some(served) = first(outcome, [answer]) else { return Poll::Ready(Err(error)) };
                    tracing::debug!(?outcome, source = served.source.word(), "a lesser answer is served");
                    if let Some(memory) = &this.then.memory {
                        memory.fell_back(&served.source);
                    }
                    return Poll::Ready(Ok(served));
                }
            };
            this.state.set(next);
        }
    }
}

impl<A, K> fmt::Debug for Instead<A, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instead").field("when", &self.then.when).finish_non_exhaustive()
    }
}
