//! Calls to somewhere else: each has its place, its time, and an answer that is owed.

use std::{collections::BTreeSet, sync::atomic::Ordering, time::Duration};

use tokio::sync::mpsc;

use super::{Post, Runner};
use crate::saga::{
    definition::{Action, Output, Step},
    event::{Failure, Leg},
    journal::weight,
    machine::{Attempt, Input},
    turn,
};

impl Runner {
    /// The attempts whose answers come here, or have come.
    pub(super) fn waited_for(&self) -> BTreeSet<(Leg, u32)> {
        let answered = self.answers.iter().filter_map(|answer| match answer {
            Input::Answer { leg, attempt, .. } => Some((leg.clone(), *attempt)),
            _ => None,
        });
        self.calling.iter().cloned().chain(answered).collect()
    }

    /// What the answers take that are not written yet, in bytes.
    pub(super) fn weight(&self) -> usize {
        let one = |answer: &Input| match answer {
            Input::Answer { answer: Ok(Output::Kept(output)), .. } => weight(output),
            _ => 0,
        };
        self.answers.iter().map(one).sum()
    }

    /// Makes a call that is recorded as begun.
    pub(super) fn call(&mut self, attempt: Attempt) {
        let Attempt { leg, of, number, .. } = attempt;
        let action = self.definition.steps.get(&of).and_then(|step| step.action(leg.direction));
        let Some(Action::Remote(action)) = action.cloned() else {
            return;
        };
        let time = self.definition.steps.get(&of).map_or(Duration::ZERO, Step::attempt_time);
        self.calling.insert((leg.clone(), number));
        let answer = Answering { post: self.post.clone(), leg: Some(leg.clone()), attempt: number };
        let post = self.post.clone();
        let (env, shared) = (self.shared.store.env().clone(), self.shared.clone());
        let (saga, definition, journal) = (self.saga.clone(), self.definition.clone(), self.journal.clone());
        let tasks = env.tasks().clone();
        tasks.spawn("saga step", async move {
            // Its time begins once it is its turn: so many are under way at once, and whoever came first goes first. What it
            // is told is put together only then: while it waits it shares the journal with everybody else.
            let made = async {
                let _place = shared.place().await;
                // Nobody waits for it any more: whoever runs the saga now has given it up, and may have made up for it.
                if post.is_closed() {
                    return None;
                }
                shared.counters.calls.fetch_add(1, Ordering::Relaxed);
                let call = turn::call(&saga, &definition, &journal, (&leg, &of, number), None);
                drop(journal);
                Some(env.timeout(time, action(call)).await)
            };
            let answered = env.tasks().stop().run_until_cancelled(made).await.flatten();
            match answered {
                Some(Some(answered)) => answer.give(answered),
                Some(None) => answer.give(Err(Failure::Unknown(format!("no answer within {time:?}")))),
                // The process stops, or it was not begun: whoever runs the saga next finds an attempt without an answer.
                None => answer.forgo(),
            }
        });
    }
}

/// An answer that is owed: whoever drops it says that the outcome is unknown.
struct Answering {
    post: mpsc::UnboundedSender<Post>,
    leg: Option<Leg>,
    attempt: u32,
}

impl Answering {
    fn give(mut self, answer: Result<Output, Failure>) {
        self.send(answer);
    }

    fn forgo(mut self) {
        self.leg = None;
    }

    fn send(&mut self, answer: Result<Output, Failure>) {
        if let Some(leg) = self.leg.take() {
            let input = Input::Answer { leg, attempt: self.attempt, answer };
            drop(self.post.send(Post { input, reply: None }));
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.send(Err(Failure::Unknown("the call panicked".to_owned())));
    }
}
