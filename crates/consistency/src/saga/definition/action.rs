//! Actions: what a step does, what it is told, and what it answers.

use std::{sync::Arc, time::Duration};

use quorate_data::store::{DynTx, SqlError};
use quorate_foundations::name::Name;
use quorate_runtime::BoxFuture;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::child::Child;
use crate::saga::{
    event::{Direction, Failure},
    journal::Journal,
    value::{as_read, small},
};

/// What an attempt comes to.
pub type Answer = Result<Value, Failure>;

/// What an attempt that did what it was for leaves.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// What it answered.
    Kept(Value),
    /// It answered more than [is kept](crate::saga::Config::MAX_VALUE_BYTES): it is done all the same, and its output is null.
    TooLarge,
}

impl From<Value> for Output {
    fn from(value: Value) -> Self {
        if small(&value) { Self::Kept(as_read(value)) } else { Self::TooLarge }
    }
}

type InStore = dyn for<'t> Fn(&'t mut DynTx, Call) -> BoxFuture<'t, Answer> + Send + Sync;
type Elsewhere = dyn Fn(Call) -> BoxFuture<'static, Result<Output, Failure>> + Send + Sync;

/// What a step does, or what makes up for it.
#[derive(Clone)]
pub enum Action {
    /// Something in the store that keeps the saga, in the transaction of the record that it was done.
    Local(Arc<InStore>),
    /// Something anywhere else. It may be called several times, under the same [`Call::key`].
    Remote(Arc<Elsewhere>),
    /// A saga of its own, in the same store: it begins in the transaction of the step's record, and the step ends when it has ended.
    Child(Arc<Child>),
    /// The saga that the step forward is, or was: it makes up for all that it did, if its pivot is not done.
    Undo,
}

impl Action {
    /// Something in the saga's own store: it and its record become durable together, and where it fails nothing of it is left.
    /// It may be run again, as [`Store::transact`](quorate_data::store::Store::transact) says, and awaits nothing but the transaction.
    pub fn local<F>(action: F) -> Self
    where
        F: for<'t> Fn(&'t mut DynTx, Call) -> BoxFuture<'t, Answer> + Send + Sync + 'static,
    {
        Self::Local(Arc::new(action))
    }

    /// Something anywhere else. It must know repeated calls by their [key](Call::key), with a
    /// [barrier](crate::saga::Barrier) for instance.
    pub fn remote<F, R>(action: F) -> Self
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = Answer> + Send + 'static,
    {
        Self::Remote(Arc::new(move |call| {
            let answer = action(call);
            Box::pin(async move { answer.await.map(Output::from) })
        }))
    }

    /// A saga of its own: see [`Child`].
    pub fn child(child: Child) -> Self {
        Self::Child(Arc::new(child))
    }

    pub(in crate::saga) fn is_child(&self) -> bool {
        matches!(self, Self::Child(_) | Self::Undo)
    }

    pub(in crate::saga) fn is_local(&self) -> bool {
        matches!(self, Self::Local(_))
    }
}

/// What an action is told.
#[derive(Clone, Debug)]
pub struct Call {
    /// The saga's definition.
    pub saga: Name,
    /// The saga's id.
    pub id: Arc<str>,
    /// The step, by its name in this saga.
    pub step: Arc<str>,
    /// Which way.
    pub direction: Direction,
    /// The how manieth attempt this is, counted from 1. Nothing that a request says may depend on it: see [`key`](Self::key).
    pub attempt: u32,
    /// How long the attempt may take. A participant that may go on for longer must not begin.
    pub time: Duration,
    /// What the plan gave this step; null if nothing.
    pub given: Value,
    /// What had happened when the step was first begun in this direction: the same for every attempt, over restarts, and whatever
    /// happens in between. So what is made of it is the same under the same key, as participants that compare repeated requests
    /// expect. Steps that were under way then show as running, without attempts.
    pub journal: Arc<Journal>,
}

impl Call {
    /// The idempotency key: `<saga>/<id>/<step>/<direction>`. The same for every attempt, over restarts, and whoever runs
    /// the saga. What is asked for under it has to stay the same too, so make it of [`given`](field@Self::given) and
    /// [`journal`](field@Self::journal) alone: no clock, no dice, no [`attempt`](field@Self::attempt).
    pub fn key(&self) -> String {
        format!("{}/{}", self.operation(), self.direction.word())
    }

    /// What the two directions of the step have in common: `<saga>/<id>/<step>`.
    pub fn operation(&self) -> String {
        format!("{}/{}/{}", self.saga.as_str(), self.id, self.step)
    }

    /// What the saga was started with.
    ///
    /// # Errors
    /// [`Failure::Refused`] where it is no `T`.
    pub fn input<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let input = self.journal.input();
        input.map_err(|cause| Failure::Refused(format!("the saga's input is not what `{}` takes: {cause}", self.step)))
    }

    /// What a step before answered.
    ///
    /// # Errors
    /// [`Failure::Refused`] where it is not done, its answer was too large to be kept, or it is no `T`.
    pub fn output<T: DeserializeOwned>(&self, step: &str) -> Result<T, Failure> {
        if self.journal.step(step).is_some_and(|step| step.forward.unkept) {
            let what = format!("step `{step}` answered more than is kept, and `{}` takes its output", self.step);
            return Err(Failure::Refused(what));
        }
        let Some(output) = self.journal.output(step) else {
            return Err(Failure::Refused(format!("step `{step}` is not done, and `{}` takes its output", self.step)));
        };
        let refused =
            |cause| Failure::Refused(format!("the output of `{step}` is not what `{}` takes: {cause}", self.step));
        T::deserialize(output).map_err(refused)
    }
}

impl From<SqlError> for Failure {
    fn from(error: SqlError) -> Self {
        match error {
            SqlError::Store(cause) => Self::Transient(cause.to_string()),
            other => Self::Refused(other.to_string()),
        }
    }
}
