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
        at: Deadline,
        scope: Scope,
        // Set once the work turns out to take a while.
        alarm: Option<Alarm>,
    }
}

impl<F: Future> Attempt<F> {
    /// `work` that begins at `now`, for as long as an attempt may take and the whole call's deadline, `total`, allows.
    #[inline]
    pub(super) fn new(work: F, policies: &Policies, now: Mono, total: Deadline) -> Self {
        let at = policies.timeout.attempt(now, total);
        let scope = if at < total { Scope::Attempt } else { Scope::Total };
        Self { work, at, scope, alarm: None }
    }

    /// What the work gave, or which time was up.
    #[inline]
    pub(super) fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        policies: &Policies,
    ) -> Poll<Result<F::Output, Scope>> {
        let this = self.project();
        // The work first: what is there in time counts, whenever it is looked at.
        if let Poll::Ready(done) = this.work.poll(cx) {
            return Poll::Ready(Ok(done));
        }
        let (at, scope) = (*this.at, *this.scope);
        this.alarm.get_or_insert_with(|| policies.timers.alarm(at)).ring(cx).map(|()| Err(scope))
    }
}
