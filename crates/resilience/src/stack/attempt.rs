//! One attempt: the work, and the time it may take.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use quorate_foundations::time::Mono;
use quorate_runtime::Env;

use super::alarm::Alarm;
use crate::{deadline::Deadline, outcome::Scope};

pin_project! {
    /// Work that is dropped when its time is up.
    pub(super) struct Attempt<F> {
        #[pin]
        work: F,
        alarm: Alarm,
        scope: Scope,
    }
}

/// The time an attempt may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    at: Deadline,
    scope: Scope,
}

impl Limit {
    /// What ends first of the whole call's time and that of an attempt that begins at `now`.
    pub(super) fn of(total: Deadline, attempt: Option<std::time::Duration>, now: Mono) -> Self {
        let attempt = attempt.map_or(Deadline::NEVER, |span| Deadline::after(now, span));
        let scope = if attempt < total { Scope::Attempt } else { Scope::Total };
        Self { at: attempt.earliest(total), scope }
    }
}

impl<F: Future> Attempt<F> {
    pub(super) fn new(work: F, limit: Limit, env: &Env) -> Self {
        Self { work, alarm: Alarm::new(env, limit.at), scope: limit.scope }
    }
}

impl<F: Future> Future for Attempt<F> {
    /// What the work gave, or which time was up.
    type Output = Result<F::Output, Scope>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // The work first: what is there in time counts, whenever it is looked at.
        if let Poll::Ready(done) = this.work.poll(cx) {
            return Poll::Ready(Ok(done));
        }
        Pin::new(this.alarm).poll(cx).map(|()| Err(*this.scope))
    }
}
