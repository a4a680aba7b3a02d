//! What a stack has to know of requests and answers, whatever they are.

use crate::{
    bulkhead::Ask,
    circuit_breaker::Asked,
    deadline::Deadline,
    hop::Hop,
    outcome::{ByResult, Classify, Verdict},
    retry::Repeatable,
};
use quorate_foundations::time::Mono;

use super::Rest;

/// What a request wants of the policies it passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// What doing it twice would do.
    pub repeatable: Repeatable,
    /// What it brought from the hop before.
    pub hop: Hop,
    /// How much it matters, and whose it is. The deadline in it is not looked at: that is the hop's.
    pub ask: Ask,
}

/// An attempt as the service below sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Try {
    /// What the next hop is told.
    pub hop: Hop,
    /// Whether it has to be sent on a new connection, since the last one was found closed.
    pub fresh_connection: bool,
}

impl Try {
    /// The same for a next hop that nobody listens to beyond `until`.
    #[inline]
    pub(super) fn within(self, until: Deadline) -> Self {
        Self { hop: Hop { deadline: until, ..self.hop }, ..self }
    }
}

/// Reads requests, keeps what is needed to send them again, and writes on them what the next hop is told.
pub trait Requests<R> {
    /// What the service below is given.
    type Sent;
    /// What is kept to send it again.
    type Kept;

    /// What `request` wants. `now` is when it came.
    fn intent(&self, request: &R, now: Mono) -> Intent;

    /// Takes `request` apart: what is sent, and if `keep` asks for it what is kept.
    fn split(&self, request: R, keep: bool) -> (Self::Sent, Option<Self::Kept>);

    /// The request once more; `None` when it can't be told again, say because its body was too long to be kept.
    fn again(&self, kept: &Self::Kept) -> Option<Self::Sent>;

    /// Writes on a request what the next hop is told.
    fn stamp(&self, sent: &mut Self::Sent, attempt: Try, now: Mono);

    /// Whom an attempt asks, and for what: what it has a circuit of its own for where [that is told apart](crate::circuit_breaker::Each).
    fn asked<'a>(&self, sent: &'a Self::Sent) -> Asked<'a> {
        let _ = sent;
        Asked::default()
    }
}

/// Judges answers, and hands them over.
pub trait Answers<T, E> {
    /// What the caller is given.
    type Answer;

    /// What `result` says about the upstream.
    fn judge(&self, result: Result<&T, &E>) -> Verdict;

    /// Hands over an answer. `rest` is what the call still holds, and by when the answer has to be
    /// complete: one that is calls [`Rest::complete`].
    fn deliver(&self, answer: T, rest: Rest<'_>) -> Self::Answer;
}

/// Requests that can be cloned and are all alike, and answers that are complete when they come.
///
/// A future of the caller's, a database, a function: anything that knows no headers. Nothing is told to the next hop.
#[derive(Clone, Copy, Debug)]
pub struct Plain<C = ByResult> {
    repeatable: Repeatable,
    classify: C,
}

impl Plain {
    /// Requests of which nobody knows what doing them twice would do. Every error is a fault.
    pub const fn new() -> Self {
        Self { repeatable: Repeatable::No, classify: ByResult }
    }

    /// Requests that do no more when they are done twice. Every error is a fault.
    pub const fn idempotent() -> Self {
        Self { repeatable: Repeatable::Idempotent, classify: ByResult }
    }
}

impl Default for Plain {
    fn default() -> Self {
        Self::new()
    }
}

impl<C> Plain<C> {
    /// The same, with answers judged by `classify`.
    pub fn judged_by<D>(self, classify: D) -> Plain<D> {
        Plain { repeatable: self.repeatable, classify }
    }
}

impl<R: Clone, C> Requests<R> for Plain<C> {
    type Sent = R;
    type Kept = R;

    fn intent(&self, _: &R, _: Mono) -> Intent {
        Intent { repeatable: self.repeatable, hop: Hop::FIRST, ask: Ask::default() }
    }

    fn split(&self, request: R, keep: bool) -> (R, Option<R>) {
        let kept = keep.then(|| request.clone());
        (request, kept)
    }

    fn again(&self, kept: &R) -> Option<R> {
        Some(kept.clone())
    }

    fn stamp(&self, _: &mut R, _: Try, _: Mono) {}
}

impl<T, E, C: Classify<T, E>> Answers<T, E> for Plain<C> {
    type Answer = T;

    fn judge(&self, result: Result<&T, &E>) -> Verdict {
        self.classify.classify(result)
    }

    fn deliver(&self, answer: T, rest: Rest<'_>) -> T {
        rest.complete();
        answer
    }
}
