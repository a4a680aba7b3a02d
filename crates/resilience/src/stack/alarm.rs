//! Waiting for a moment, at no cost before the first wait.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use quorate_runtime::{BoxFuture, Env};

use crate::deadline::Deadline;

/// Fires at a deadline. Nothing is set before it is polled.
pub(super) struct Alarm {
    env: Env,
    at: Deadline,
    set: Option<BoxFuture<'static, ()>>,
}

impl Alarm {
    pub(super) fn new(env: &Env, at: Deadline) -> Self {
        Self { env: env.clone(), at, set: None }
    }
}

impl Future for Alarm {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at.moment() else { return Poll::Pending };
        if self.set.is_none() {
            let env = self.env.clone();
            self.set = Some(Box::pin(async move { env.sleep_until(at).await }));
        }
        self.set.as_mut().map_or(Poll::Pending, |set| set.as_mut().poll(cx))
    }
}
