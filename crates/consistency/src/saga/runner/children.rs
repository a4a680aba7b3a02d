//! Sagas that this one started: run, looked at, and called back.
//!
//! Nothing here is written down: what is to be done follows from the journal and the children's rows, and is done again by the next process.

use std::{sync::atomic::Ordering, time::Duration};

use quorate_data::store::{Retry, StoreError};
use quorate_foundations::time::Boot;
use serde_json::Value;

use super::{NAP, Runner};
use crate::saga::{
    SagaError, Sagas,
    definition::Output,
    event::{ChildRef, Direction, Failure, Leg, Verb, clipped},
    journal::{Phase, Status},
    machine::{self, Input, Operation, Refusal},
    rows::{self, SagaKey},
    service::Shared,
};

/// Whether a saga looks what became of those that it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looking {
    /// There is nothing to be seen.
    No,
    /// At once.
    Now,
    /// It could not, and tries again then.
    Again(Boot),
}

/// How soon it looks again where it could not: each time in a row later, up to a minute.
const AGAIN: Duration = Duration::from_secs(1);
/// How soon one that goes ahead behind its pivot is told again, each time later. Its pivot may turn out not to be done.
const TOLD: Duration = Duration::from_secs(1);
/// The longest rest between two looks, or words.
const REST: Duration = Duration::from_secs(60);

impl Runner {
    /// For how long it sleeps at most.
    pub(super) fn longest_nap(&self, now: Boot) -> Duration {
        if let Looking::Again(at) = self.looking { at.saturating_since(now).min(NAP) } else { NAP }
    }

    /// Whether it could not see what became of one.
    pub(super) fn is_blind(&self) -> bool {
        matches!(self.looking, Looking::Again(_))
    }

    /// Looks again, if it is time.
    pub(super) fn look_again(&mut self, now: Boot) {
        if matches!(self.looking, Looking::Again(at) if at <= now) {
            self.looking = Looking::Now;
        }
    }

    /// Has those sagas run that a turn began, or had undone.
    pub(super) fn run_children(&self, born: Vec<SagaKey>, reopened: Vec<SagaKey>) {
        // Ordering: a count; nothing else is read by it.
        self.shared.counters.started.fetch_add(born.len() as u64, Ordering::Relaxed);
        for child in born {
            // Whoever is in its place found it there, and runs it.
            drop(self.shared.clone().take_over(&self.room, child, None));
        }
        // Whoever is in the place of one that had ended may be about to leave.
        reopened.into_iter().for_each(|child| self.tell(child, Input::Look));
    }

    /// Has the children turn back where nothing of this saga is wanted any more. It waits for them: they may be past their pivots.
    pub(super) fn call_children_back(&mut self) {
        let is_meant = |leg: &Leg| {
            leg.direction == Direction::Forward && machine::is_called_back(&self.journal, &self.definition, &leg.step)
        };
        let meant = self.journal.open_children().filter(|(leg, ..)| is_meant(leg));
        let open: Vec<_> = meant.map(|(leg, attempt, child)| ((leg, attempt), child.key())).collect();
        if open.is_empty() {
            return;
        }
        let (saga, why) = (&self.saga, self.journal.abort.as_deref().unwrap_or_default());
        let note =
            clipped(format!("saga `{}` `{}`, whose step it is, is given up: {why}", saga.name.as_str(), saga.id));
        let by = format!("saga {}", saga.name.as_str());
        for (attempt, child) in open {
            if self.told.insert(attempt) {
                let (by, note) = (by.as_str().into(), note.clone());
                let abort = Operation { verb: Verb::Abort, step: None, by, note, output: Value::Null };
                self.tell(child, Input::Operate(abort));
            }
        }
    }

    /// Tells a child something, for as long as it takes.
    fn tell(&self, child: SagaKey, input: Input) {
        let sagas = Sagas::of(self.shared.clone(), self.room.clone());
        let (env, post) = (self.shared.store.env().clone(), self.post.clone());
        env.tasks().clone().spawn("saga child", async move {
            let told = async {
                let (mut rest, mut later) = (Duration::from_millis(50), TOLD);
                // Whoever goes on with the saga tells it anew.
                while !post.is_closed() {
                    let told = sagas.ask(child.clone(), input.clone()).await;
                    match heard(&told, &child) {
                        Heard::Yes => return,
                        Heard::No => {
                            env.sleep(rest).await;
                            rest = (rest * 2).min(Duration::from_secs(5));
                        }
                        // To ask takes it from whoever runs it, and cuts off its calls: it is asked again once it would turn back.
                        Heard::Unfit => loop {
                            env.sleep(later).await;
                            later = (later * 2).min(REST);
                            if post.is_closed() {
                                return;
                            }
                            match may_turn_back(sagas.shared(), &child).await {
                                Some(true) => break,
                                Some(false) => {}
                                None => return,
                            }
                        },
                    }
                }
            };
            env.tasks().stop().run_until_cancelled(told).await;
        });
    }

    /// Takes in how those children ended that have.
    pub(super) async fn look_at_children(&mut self) {
        if self.looking != Looking::Now {
            return;
        }
        self.looking = Looking::No;
        let again = AGAIN.saturating_mul(1 << self.unseen.min(6)).min(REST);
        let again = self.shared.store.env().boot() + again;
        let known = self.waited_for();
        let open = self.journal.open_children().filter(|(leg, attempt, _)| !known.contains(&(leg.clone(), *attempt)));
        let open: Vec<_> = open.map(|(leg, attempt, child)| (leg, attempt, child.clone())).collect();
        for (leg, attempt, child) in open {
            match self.end_of(&leg, &child).await {
                Ok(Some(answer)) => self.answers.push(Input::Answer { leg, attempt, answer }),
                Ok(None) => self.run_what_nobody_runs(child.key()).await,
                Err(cause) => {
                    self.looking = Looking::Again(again);
                    if cause.retry() == Retry::Never && !matches!(cause, SagaError::Store(StoreError::Closed)) {
                        // It is its own answer that it lacks.
                        self.is_troubled = true;
                        self.shared.trouble(&self.saga, Some(cause.to_string()));
                    }
                }
            }
        }
        self.unseen = if self.is_blind() { self.unseen.saturating_add(1) } else { 0 };
    }

    /// Runs an open child of this process that nobody runs: it was not known whether the turn was written that began it, or whoever ran it
    /// panicked.
    async fn run_what_nobody_runs(&self, child: SagaKey) {
        let owner = rows::owner(&self.shared.store, &child).await;
        if owner.is_ok_and(|owner| owner == Some(self.shared.owner)) {
            // Whoever runs it goes on.
            drop(self.shared.clone().take_over(&self.room, child, None));
        }
    }

    /// What a child's end comes to for its step; `None` while it has not ended.
    async fn end_of(&self, leg: &Leg, child: &ChildRef) -> Result<Option<Result<Output, Failure>>, SagaError> {
        let (saga, store) = (child.key(), &self.shared.store);
        let status = rows::status(store, &saga).await?.ok_or_else(|| saga.not_found())?;
        if !status.is_ended() {
            return Ok(None);
        }
        let said = |what: &str| format!("saga `{}` `{}` {what}", child.saga.as_str(), child.id);
        let forward = self.journal.step(&leg.step).and_then(|step| step.forward.child.as_deref());
        let undoes = leg.direction == Direction::Compensation && forward == Some(child);
        Ok(Some(match status {
            Status::Compensated if undoes => Ok(Output::Kept(Value::Null)),
            Status::Completed if undoes => return Ok(None),
            Status::Completed => {
                let journal = rows::read(store, &saga).await?.journal;
                // What it ended with may be forgotten; that it completed is not.
                if journal.events == 0 { Ok(Output::TooLarge) } else { Ok(Output::from(journal.output.clone())) }
            }
            Status::Compensated => {
                let journal = rows::read(store, &saga).await?.journal;
                let why = journal.abort.as_deref().unwrap_or_default();
                Err(Failure::Refused(said(&format!("was compensated: {why}"))))
            }
            _ => Err(Failure::Unknown(said("was ended as it was, by somebody's decision"))),
        }))
    }
}

/// What became of word to a child.
enum Heard {
    /// There is nothing more to be told.
    Yes,
    /// It did not hear, and may yet.
    No,
    /// It only goes ahead, as things are, or has turned back.
    Unfit,
}

/// Whether one that refused to turn back would by now; nothing where it has turned back, or ended.
async fn may_turn_back(shared: &Shared, child: &SagaKey) -> Option<bool> {
    let Ok(kept) = rows::read(&shared.store, child).await else { return Some(false) };
    if kept.journal.phase != Phase::Forward {
        return None;
    }
    let definition = shared.definition(&child.name, Some(kept.journal.version));
    Some(definition.is_some_and(|definition| !machine::is_past_pivot(&kept.journal, &definition)))
}

fn heard<T>(told: &Result<T, SagaError>, child: &SagaKey) -> Heard {
    match told {
        Err(SagaError::Refused { cause: Refusal::Unfit { .. }, .. }) => Heard::Unfit,
        Ok(_) | Err(SagaError::Refused { .. } | SagaError::NotFound { .. } | SagaError::Store(StoreError::Closed)) => {
            Heard::Yes
        }
        Err(cause) => {
            let (name, id) = (child.name.as_str(), &*child.id);
            tracing::debug!(saga = name, id, error = %cause, "a saga did not hear the one above; it is told again");
            Heard::No
        }
    }
}
