//! What a runner does while its saga cannot be read or written.

use std::{pin::pin, sync::Arc, time::Duration};

use quorate_data::store::{Retry, StoreError};

use super::{Onward, Runner};
use crate::saga::{SagaError, rows::SagaKey, service::Shared};

impl Runner {
    /// What could not be written is written, or wanted no more.
    pub(super) fn untrouble(&mut self) {
        // Where it cannot be seen what became of one below, that stays in the way.
        if !self.is_blind() && std::mem::take(&mut self.is_troubled) {
            self.shared.trouble(&self.saga, None);
        }
    }

    /// Waits after it could not be written.
    pub(super) async fn rest_unwritten(&mut self, cause: &SagaError) -> Onward {
        let is_needed = !self.answers.is_empty() || self.wants_something(&self.journal);
        let Some(rest) = self.failed(cause, is_needed) else { return Onward::No };
        let env = self.shared.store.env().clone();
        let rested = env.tasks().stop().run_until_cancelled(env.sleep(rest)).await;
        if rested.is_some() { Onward::Yes } else { Onward::No }
    }

    /// Waits after it could not be read. What is next is asked of nobody: nobody knows what happened. Whoever asks hears why.
    pub(super) async fn rest_unread(&mut self, cause: &SagaError) -> Onward {
        let Some(rest) = self.failed(cause, true) else { return Onward::No };
        let env = self.shared.store.env().clone();
        let mut rested = pin!(env.sleep(rest));
        loop {
            let asked = tokio::select! {
                biased;
                () = env.tasks().stop().cancelled() => return Onward::No,
                () = &mut rested => return Onward::Yes,
                // What passes by itself is waited for.
                Some(asked) = self.inbox.recv(), if cause.retry() == Retry::Never => asked,
            };
            let mut refused = Vec::new();
            self.sort(asked, &mut refused);
            for reply in refused.into_iter().filter_map(|post| post.reply) {
                drop(reply.send(Err(cause.clone())));
            }
        }
    }

    /// Notes that it could not be read or written. How long to rest, unless nothing more can come of it.
    fn failed(&mut self, cause: &SagaError, is_needed: bool) -> Option<Duration> {
        if matches!(cause, SagaError::Store(StoreError::Closed)) {
            return None;
        }
        self.failures = self.failures.saturating_add(1);
        let (name, id) = (self.saga.name.as_str(), &*self.saga.id);
        if self.failures.is_power_of_two() {
            tracing::warn!(saga = name, id, error = %cause, "a saga could not be read or written; it is tried again");
        }
        if cause.retry() == Retry::Never && is_needed {
            // It cannot write down itself that it cannot be written.
            self.is_troubled = true;
            self.shared.trouble(&self.saga, Some(cause.to_string()));
            // Whoever waits for it to show looks there.
            self.seen.send_modify(|_| {});
        }
        Some(Duration::from_millis(50).saturating_mul(1 << self.failures.min(8)))
    }
}

/// A runner that leaves, however that comes about.
pub(super) struct Leaving {
    shared: Arc<Shared>,
    saga: Arc<SagaKey>,
    is_in_order: bool,
}

impl Leaving {
    pub(super) fn new(shared: Arc<Shared>, saga: Arc<SagaKey>) -> Self {
        Self { shared, saga, is_in_order: false }
    }

    /// It leaves as it should.
    pub(super) fn in_order(mut self) {
        self.is_in_order = true;
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let torn = || "who ran it panicked; whoever asks for it has it run again".to_owned();
        self.shared.trouble(&self.saga, (!self.is_in_order).then(torn));
        self.shared.forget(&self.saga);
    }
}
