//! Definitions: which steps there are, how each is done and made up for, and which of them is next.

mod action;
mod child;
mod step;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use quorate_data::store::StoreError;
use quorate_foundations::name::Name;
use quorate_runtime::BoxFuture;
use serde_json::Value;

pub use self::{
    action::{Action, Answer, Call, Output},
    child::Child,
    step::{Kind, Step},
};
use super::{
    SagaError,
    journal::{Journal, State},
};

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

/// What is done before a turn's transaction, for what its local steps would otherwise have to wait for inside.
pub(super) type Before = dyn Fn() -> BoxFuture<'static, Result<(), StoreError>> + Send + Sync;

/// Finds the business key in what a saga is started with.
pub(super) type KeyOf = dyn Fn(&Value) -> Result<Option<String>, String> + Send + Sync;

/// A kind of saga, in one version.
#[derive(Clone)]
pub struct Definition {
    pub(super) name: Name,
    pub(super) version: u32,
    pub(super) steps: BTreeMap<Arc<str>, Step>,
    in_order: Vec<Vec<Arc<str>>>,
    plan: Option<Arc<Plan>>,
    pub(super) deadline: Option<Duration>,
    pub(super) before: Option<Arc<Before>>,
    /// Finds the business key of one that a step starts.
    pub(super) key_of: Option<Arc<KeyOf>>,
    /// The text that it was made of.
    pub(super) document: Option<Arc<str>>,
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
        let (plan, deadline, before, key_of, document, twice) = (None, None, None, None, None, None);
        Self { name, version, steps, in_order, plan, deadline, before, key_of, document, is_in_order: false, twice }
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

    /// With something that is done before the transaction of each turn. Where it fails, nothing is written, and the turn comes again.
    pub(super) fn before(mut self, before: Arc<Before>) -> Self {
        self.before = Some(before);
        self
    }

    /// With what finds its business key in its input.
    pub(super) fn keyed(mut self, key_of: Arc<KeyOf>) -> Self {
        self.key_of = Some(key_of);
        self
    }

    /// Made of a document.
    pub(super) fn of_document(mut self, text: Arc<str>) -> Self {
        self.document = Some(text);
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
