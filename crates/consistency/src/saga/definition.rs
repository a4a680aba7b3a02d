//! Definitions: which steps there are, how each is done and made up for, and which of them is next.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use quorate_data::store::{DynTx, SqlError};
use quorate_foundations::name::Name;
use quorate_resilience::retry::Backoff;
use quorate_runtime::BoxFuture;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    SagaError,
    event::{Direction, Failure},
    journal::{Journal, State},
    value::{as_read, small},
};

/// What an attempt comes to.
pub type Answer = Result<Value, Failure>;

/// What an attempt that did what it was for leaves.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// What it answered.
    Kept(Value),
    /// It answered more than [is kept](super::Config::MAX_VALUE_BYTES): it is done all the same, and its output is null.
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
    /// [barrier](super::Barrier) for instance.
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

    pub(super) fn is_local(&self) -> bool {
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

/// What becomes of a saga when a step fails, and what of the step when the saga does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It can be made up for. Where it fails, the saga turns back.
    Compensatable,
    /// The point of no return: once it is done the saga only goes ahead. Where it is refused, the saga turns back.
    Pivot,
    /// It stands behind the pivot, and is tried until it is done; where its attempts run out, it is stuck.
    Retriable,
}

/// A step of a definition.
#[derive(Clone)]
pub struct Step {
    pub(super) name: Arc<str>,
    pub(super) kind: Kind,
    pub(super) forward: Action,
    pub(super) compensation: Option<Action>,
    pub(super) attempts: Option<u32>,
    pub(super) compensation_attempts: u32,
    pub(super) backoff: Option<Backoff>,
    pub(super) time: Duration,
    pub(super) quiet: Option<Duration>,
    pub(super) may_be_refused: bool,
}

impl Step {
    /// The most attempts of a step.
    pub const MAX_ATTEMPTS: u32 = 1_000_000;
    /// The longest that an attempt may take, and the longest quiet time.
    pub const MAX_TIME: Duration = Duration::from_secs(7 * 86_400);

    /// How often a step is tried that can be made up for, or is the pivot: with the usual rests for some ten seconds.
    pub const USUAL_ATTEMPTS: u32 = 10;
    /// How often a step is tried that has to be done at last, behind the pivot or on the way back: with the usual rests for half a day.
    pub const USUAL_ATTEMPTS_AT_LAST: u32 = 1_000;

    /// A step that `forward` does. Compensatable, with nothing that makes up for it; [so many](Self::USUAL_ATTEMPTS) attempts forward and
    /// [so many](Self::USUAL_ATTEMPTS_AT_LAST) back, 30 s each. Rests grow from 100 ms to 5 s, and to a minute where it has to be done at last.
    pub fn new(name: &str, forward: Action) -> Self {
        Self {
            name: name.into(),
            kind: Kind::Compensatable,
            forward,
            compensation: None,
            attempts: None,
            compensation_attempts: Self::USUAL_ATTEMPTS_AT_LAST,
            backoff: None,
            time: Duration::from_secs(30),
            quiet: None,
            may_be_refused: false,
        }
    }

    /// Made up for by `action`.
    #[must_use]
    pub fn compensated_by(mut self, action: Action) -> Self {
        self.compensation = Some(action);
        self
    }

    /// The point of no return.
    #[must_use]
    pub fn pivot(mut self) -> Self {
        self.kind = Kind::Pivot;
        self
    }

    /// Behind the point of no return: tried until it is done.
    #[must_use]
    pub fn retriable(mut self) -> Self {
        self.kind = Kind::Retriable;
        self
    }

    /// With so many attempts forward, and so many of its compensation. With 1 a call is never repeated: one without an
    /// answer is compensated, or stuck behind the pivot.
    #[must_use]
    pub fn attempts(mut self, forward: u32, compensation: u32) -> Self {
        (self.attempts, self.compensation_attempts) = (Some(forward), compensation);
        self
    }

    /// Resting between attempts as `backoff` says.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = Some(backoff);
        self
    }

    /// Taking at most so long for an attempt; then it is given up, and its outcome is unknown.
    #[must_use]
    pub fn time(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// How long an attempt that was given up may still take effect at the participant: for so long it is not compensated. As
    /// long as an attempt may take, if nothing is said. Zero is right where the participant has a [barrier](super::Barrier).
    #[must_use]
    pub fn quiet(mut self, quiet: Duration) -> Self {
        self.quiet = Some(quiet);
        self
    }

    /// A definite refusal of it does not turn the saga back: the plan looks at it
    /// ([`Journal::is_refused`]) and decides.
    #[must_use]
    pub fn may_be_refused(mut self) -> Self {
        self.may_be_refused = true;
        self
    }

    pub(super) fn action(&self, direction: Direction) -> Option<&Action> {
        match direction {
            Direction::Forward => Some(&self.forward),
            Direction::Compensation => self.compensation.as_ref(),
        }
    }

    pub(super) fn allowed(&self, direction: Direction) -> u32 {
        match direction {
            Direction::Forward if self.kind == Kind::Retriable => self.attempts.unwrap_or(Self::USUAL_ATTEMPTS_AT_LAST),
            Direction::Forward => self.attempts.unwrap_or(Self::USUAL_ATTEMPTS),
            Direction::Compensation => self.compensation_attempts,
        }
    }

    /// How it rests between attempts.
    pub(super) fn pace(&self, direction: Direction) -> Backoff {
        let at_last = direction == Direction::Compensation || self.kind == Kind::Retriable;
        let cap = Duration::from_secs(if at_last { 60 } else { 5 });
        self.backoff.unwrap_or(Backoff { base: Duration::from_millis(100), cap, ..Backoff::default() })
    }

    pub(super) fn quiet_time(&self) -> Duration {
        self.quiet.unwrap_or(self.time)
    }

    fn check(&self) -> Result<(), String> {
        let Self { name, compensation_attempts, time, .. } = self;
        let attempts = &self.allowed(Direction::Forward);
        let max = Self::MAX_ATTEMPTS;
        check_word("a step's name", name)?;
        for attempts in [attempts, compensation_attempts] {
            if !(1..=max).contains(attempts) {
                return Err(format!("step `{name}` has 1 to {max} attempts, not {attempts}"));
            }
        }
        let max = Self::MAX_TIME;
        for (what, span) in
            [("time", *time), ("quiet time", self.quiet_time()), ("rest", self.pace(Direction::Forward).cap)]
        {
            if span > max {
                return Err(format!("the {what} of step `{name}` is at most {max:?}, not {span:?}"));
            }
        }
        if time.is_zero() {
            return Err(format!("an attempt of step `{name}` needs some time"));
        }
        if self.kind != Kind::Compensatable && self.compensation.is_some() {
            return Err(format!(
                "step `{name}` cannot be undone, being {:?}, and has a compensation: make it compensatable",
                self.kind
            ));
        }
        Ok(())
    }
}

/// One step that a plan wants done.
#[derive(Clone, Debug, PartialEq)]
pub struct Todo {
    /// Its name in this saga.
    pub name: Arc<str>,
    /// The step of the definition.
    pub of: Arc<str>,
    /// What it is given: [`Call::given`](field@Call::given).
    pub input: Option<Value>,
}

impl Todo {
    /// The step `of` the definition, once.
    pub fn step(of: impl Into<Arc<str>>) -> Self {
        let of = of.into();
        Self { name: of.clone(), of, input: None }
    }

    /// Under another name, so that a step of the definition can be done several times.
    #[must_use]
    pub fn named(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = name.into();
        self
    }

    /// Given `input`.
    #[must_use]
    pub fn given(mut self, input: Value) -> Self {
        self.input = Some(input);
        self
    }
}

/// What a plan wants next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// These, all at once. Those that are done or under way are left alone: name them until all you want to join are done.
    Do(Vec<Todo>),
    /// Wait for something to happen: a signal, a step under way, or this timer, which begins to run when it is first asked
    /// for.
    Wait(Option<(Arc<str>, Duration)>),
    /// Wait as with [`Wait`](Self::Wait), and let those who look at the saga see that it is for a signal of this name.
    Signal(Arc<str>, Option<(Arc<str>, Duration)>),
    /// It is done, with this output.
    Done(Value),
    /// It is to be undone.
    Abort(String),
    /// The plan does not know what is next: somebody has to look at it.
    Stuck(String),
}

impl Next {
    /// These steps of the definition.
    pub fn steps<'a>(steps: impl IntoIterator<Item = &'a str>) -> Self {
        Self::Do(steps.into_iter().map(Todo::step).collect())
    }

    /// Wait, but no longer than until `timer` has run for `span`.
    pub fn wait_at_most(timer: &str, span: Duration) -> Self {
        Self::Wait(Some((timer.into(), span)))
    }

    /// Wait for a signal of this name, for as long as it takes.
    pub fn signal(name: &str) -> Self {
        Self::Signal(name.into(), None)
    }

    /// Wait for a signal of this name, but no longer than until `timer` has run for `span`.
    pub fn signal_at_most(name: &str, timer: &str, span: Duration) -> Self {
        Self::Signal(name.into(), Some((timer.into(), span)))
    }
}

/// Says what is next: a pure function of what happened.
pub type Plan = dyn Fn(&Journal) -> Next + Send + Sync;

/// A kind of saga, in one version.
#[derive(Clone)]
pub struct Definition {
    pub(super) name: Name,
    pub(super) version: u32,
    pub(super) steps: BTreeMap<Arc<str>, Step>,
    in_order: Vec<Vec<Arc<str>>>,
    plan: Option<Arc<Plan>>,
    pub(super) deadline: Option<Duration>,
    /// Whether its plan does the steps in their order, and only leaves some out.
    is_in_order: bool,
    twice: Option<Arc<str>>,
}

impl Definition {
    /// The most steps of a definition.
    pub const MAX_STEPS: usize = 1_000;
    /// The longest deadline, and the longest timer.
    pub const MAX_SPAN: Duration = Duration::from_secs(3_660 * 86_400);

    /// Sagas called `name`, in `version`, counted from 1. Those that run keep their version: raise it with every change that
    /// they could notice, and keep the old one registered until they have ended.
    pub fn new(name: Name, version: u32) -> Self {
        let (steps, in_order) = (BTreeMap::new(), Vec::new());
        Self { name, version, steps, in_order, plan: None, deadline: None, is_in_order: false, twice: None }
    }

    /// With `step`, behind the ones before it if there is no [plan](Self::plan).
    #[must_use]
    pub fn step(self, step: Step) -> Self {
        self.parallel([step])
    }

    /// With steps that are done side by side; what follows waits for all of them.
    #[must_use]
    pub fn parallel(mut self, steps: impl IntoIterator<Item = Step>) -> Self {
        let mut together = Vec::new();
        for step in steps {
            together.push(step.name.clone());
            if let Some(known) = self.steps.insert(step.name.clone(), step) {
                self.twice = Some(known.name);
            }
        }
        self.in_order.push(together);
        self
    }

    /// By a plan of its own instead of one step after the other. It must be pure: it is asked again and again, and the
    /// answer may depend on nothing but what happened.
    #[must_use]
    pub fn plan(mut self, plan: impl Fn(&Journal) -> Next + Send + Sync + 'static) -> Self {
        self.plan = Some(Arc::new(plan));
        self
    }

    /// With a plan that does the steps in their order, and only leaves some out: their kinds are held against it.
    pub(super) fn in_order(mut self) -> Self {
        self.is_in_order = true;
        self
    }

    /// To be given up when it is not done so long after its start; behind the pivot that changes nothing any more.
    #[must_use]
    pub fn deadline(mut self, span: Duration) -> Self {
        self.deadline = Some(span);
        self
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Its version.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// What is next.
    pub(super) fn next(&self, journal: &Journal) -> Next {
        if let Some(plan) = &self.plan {
            return plan(journal);
        }
        let settled = |name: &Arc<str>| {
            let step = journal.step(name);
            step.is_some_and(|step| match step.forward.state {
                State::Done | State::Skipped => true,
                State::Refused => self.steps.get(name).is_some_and(|step| step.may_be_refused),
                _ => false,
            })
        };
        let open = self.in_order.iter().find(|together| !together.iter().all(settled));
        open.map_or(Next::Done(Value::Null), |together| Next::Do(together.iter().cloned().map(Todo::step).collect()))
    }

    /// Whether it can be run.
    ///
    /// # Errors
    /// [`SagaError::Invalid`] says what is wrong with it.
    pub fn check(&self) -> Result<(), SagaError> {
        let name = self.name.as_str();
        let invalid = |what: String| Err(SagaError::Invalid { what: format!("saga `{name}`: {what}") });
        if name.contains([':', '/']) || name.len() > 128 {
            return invalid("a name has at most 128 bytes, and neither `:` nor `/`".to_owned());
        }
        if self.version == 0 {
            return invalid("versions are counted from 1".to_owned());
        }
        if let Some(twice) = &self.twice {
            return invalid(format!("there are two steps `{twice}`"));
        }
        let (count, max) = (self.steps.len(), Self::MAX_STEPS);
        if count == 0 || count > max {
            return invalid(format!("a saga has 1 to {max} steps, not {count}"));
        }
        if self.deadline.is_some_and(|span| span > Self::MAX_SPAN) {
            return invalid(format!("a deadline is at most {:?}", Self::MAX_SPAN));
        }
        if let Err(what) = self.steps.values().try_for_each(Step::check) {
            return invalid(what);
        }
        if self.plan.is_none() || self.is_in_order { self.check_order().or_else(invalid) } else { Ok(()) }
    }

    /// Of steps one after the other: what stands behind the pivot is retriable, and nothing else is.
    fn check_order(&self) -> Result<(), String> {
        let mut pivot: Option<&str> = None;
        for together in &self.in_order {
            let steps = || together.iter().filter_map(|name| self.steps.get(name));
            for step in steps() {
                match (step.kind, pivot) {
                    (Kind::Retriable, None) => {
                        return Err(format!("step `{}` is retriable, and no pivot stands before it", step.name));
                    }
                    (Kind::Compensatable, Some(pivot)) => {
                        return Err(format!(
                            "step `{}` stands behind the pivot `{pivot}`: make it retriable",
                            step.name
                        ));
                    }
                    (Kind::Pivot, Some(first)) => {
                        return Err(format!("`{first}` and `{}` are both pivots: there is one", step.name));
                    }
                    _ => {}
                }
            }
            if let Some(step) = steps().find(|step| step.kind == Kind::Pivot) {
                if together.len() > 1 {
                    return Err(format!("the pivot `{}` stands alone, and not beside others", step.name));
                }
                pivot = Some(&step.name);
            }
        }
        Ok(())
    }
}

pub(super) fn check_word(what: &str, word: &str) -> Result<(), String> {
    if word.is_empty() || word.len() > 256 || word.contains(|letter: char| letter.is_control() || letter == '/') {
        return Err(format!("{what} has 1 to 256 bytes without `/` and control characters"));
    }
    Ok(())
}

impl From<SqlError> for Failure {
    fn from(error: SqlError) -> Self {
        match error {
            SqlError::Store(cause) => Self::Transient(cause.to_string()),
            other => Self::Refused(other.to_string()),
        }
    }
}
