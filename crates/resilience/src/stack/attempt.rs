//! One attempt: the work, and the time it may take.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use quorate_foundations::time::Mono;

use super::policies::Policies;
use crate::{deadline::Deadline, outcome::Scope, timeout::Alarm};

pin_project! {
    /// Work that is dropped when its time is up.
    pub(super) struct Attempt<F> {
        #[pin]
        work: F,
        alarm: Alarm,
        scope: Scope,
    }
}

impl<F: Future> Attempt<F> {
    /// `work` that begins at `now`, for as long as an attempt may take and the whole call's deadline, `total`, allows.
    pub(super) fn new(work: F, policies: &Policies, now: Mono, total: Deadline) -> Self {
        let at = policies.timeout.attempt(now, total);
        let scope = if at < total { Scope::Attempt } else { Scope::Total };
        Self { work, alarm: policies.timers.alarm(at), scope }
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
        this.alarm.ring(cx).map(|()| Err(*this.scope))
    }
}
