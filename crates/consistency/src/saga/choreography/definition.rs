//! What a choreographed process is: which events belong to it, what is expected after what, and who reacts to what.

use std::{sync::Arc, time::Duration};

use quorate_data::{
    event::{NewEvent, Recorded},
    store::{AppendError, DynTx, Query, QueryItem, SqlError},
};
use quorate_foundations::{jq::Program, name::Name};
use quorate_runtime::BoxFuture;
use serde_json::Value;

use super::{ProcessError, cycle};

/// A process that nobody leads: services react to each other's events, and this says what is to come of it.
#[derive(Clone)]
pub struct Process {
    pub(super) name: Name,
    pub(super) description: Arc<str>,
    pub(super) by: By,
    pub(super) begins: Vec<Arc<str>>,
    pub(super) ends: Vec<Arc<str>>,
    pub(super) undone: Vec<Arc<str>>,
    pub(super) expectations: Vec<Expectation>,
    pub(super) reactions: Vec<Reaction>,
    pub(super) start: Start,
    pub(super) max_depth: u32,
    pub(super) max_repeats: u32,
    pub(super) keep: Duration,
}

/// What says which course of the process an event belongs to.
#[derive(Clone, Debug)]
pub enum By {
    /// Its `correlationid`; an event without one begins a conversation under its own id.
    Correlation,
    /// Its `subject`.
    Subject,
    /// The name of its stream.
    Stream,
    /// What this program finds in its data: a text or a whole number. Data about a [data subject](NewEvent::data_subject) is not looked at:
    /// what is found is kept, and would outlive an erasure.
    Data(Arc<Program>),
}

/// What is to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// Behind an event of this type …
    pub after: Arc<str>,
    /// … one of any of these types is expected …
    pub any_of: Vec<Arc<str>>,
    /// … at most so much later.
    pub within: Duration,
}

/// From where on the log is followed when a process is declared for the first time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// From now on.
    #[default]
    Now,
    /// From the beginning: what was not answered in time and is not answered yet is overdue at once.
    Beginning,
}

/// Who answers an event of some type with which others.
#[derive(Clone)]
pub struct Reaction {
    /// The type that is reacted to.
    pub on: Arc<str>,
    /// The types that may come of it.
    pub emits: Vec<Arc<str>>,
    /// Who reacts, for people.
    pub by: Arc<str>,
    /// Whether it is meant to lead back to itself, as trying again does: then only the limits of a chain bound it.
    pub again: bool,
    pub(super) act: Option<Act>,
}

pub(super) type Act =
    Arc<dyn for<'t> Fn(&'t mut DynTx, Reacting) -> BoxFuture<'t, Result<Reacted, ReactError>> + Send + Sync>;

/// What a process manager reacts to.
#[derive(Clone, Debug)]
pub struct Reacting {
    /// The event.
    pub event: Recorded,
    /// The course that it belongs to.
    pub key: Arc<str>,
    /// What the process manager left with [`Reacted::state`] last; `null` at first.
    pub state: Value,
}

/// What a process manager answers.
#[derive(Clone, Debug, Default)]
pub struct Reacted {
    /// What it wants to know the next time: at most [`Process::MAX_STATE_BYTES`] of JSON.
    pub state: Value,
    /// Events to append, each to its stream. Ids, `correlationid` and `causationid` are given to them; their `source` stays.
    pub events: Vec<(Name, NewEvent)>,
}

/// Why a process manager could not react.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReactError {
    /// It never will: the course is stopped, and shows why.
    #[error("{0}")]
    Refused(String),
    /// A statement failed. Where the store is at fault it is tried again; else the course is stopped.
    #[error("a statement failed")]
    Sql(#[from] SqlError),
    /// An append failed. Where the store is at fault it is tried again; else the course is stopped.
    #[error("an event could not be appended")]
    Append(#[from] AppendError),
}

impl Reacted {
    /// Nothing but the state.
    pub fn with(state: Value) -> Self {
        Self { state, events: Vec::new() }
    }

    /// The same, with an event more.
    #[must_use]
    pub fn append(mut self, stream: Name, event: NewEvent) -> Self {
        self.events.push((stream, event));
        self
    }
}

impl Process {
    /// The most types of events of one process.
    pub const MAX_TYPES: usize = Query::MAX_WORDS;
    /// The most expectations, and the most reactions, of one process.
    pub const MAX_RULES: usize = 100;
    /// The most events of one course; one more stops it.
    pub const MAX_EVENTS: usize = 1_000;
    /// The longest name, which is part of the name of the stream that its alarms stand in.
    pub const MAX_NAME_BYTES: usize = 200;
    /// The most events that a process manager answers one with.
    pub const MAX_EMITTED: usize = 100;
    /// The longest key of a course in bytes; an event with a longer one belongs to none.
    pub const MAX_KEY_BYTES: usize = 512;
    /// The most a process manager keeps of a course.
    pub const MAX_STATE_BYTES: usize = 64 << 10;
    /// The longest time something is expected within, and the longest that courses are kept.
    pub const MAX_SPAN: Duration = Duration::from_secs(10 * 366 * 86_400);
    /// The deepest chain of causes that can be allowed.
    pub const MAX_DEPTH: u32 = 1_000;
    /// How deep a chain of causes may be unless told otherwise.
    pub const DEPTH: u32 = 64;
    /// How often a type may come on one chain of causes unless told otherwise.
    pub const REPEATS: u32 = 8;
    /// How long a course is kept behind its end unless told otherwise.
    pub const KEEP: Duration = Duration::from_secs(30 * 86_400);

    /// A process without rules, whose events belong together by their correlation.
    pub fn new(name: Name) -> Self {
        Self {
            name,
            description: "".into(),
            by: By::Correlation,
            begins: Vec::new(),
            ends: Vec::new(),
            undone: Vec::new(),
            expectations: Vec::new(),
            reactions: Vec::new(),
            start: Start::Now,
            max_depth: Self::DEPTH,
            max_repeats: Self::REPEATS,
            keep: Self::KEEP,
        }
    }

    /// What people read of it.
    #[must_use]
    pub fn described(mut self, description: &str) -> Self {
        self.description = description.into();
        self
    }

    /// Its events belong together by this.
    #[must_use]
    pub fn by(mut self, by: By) -> Self {
        self.by = by;
        self
    }

    /// A course begins with any of these.
    #[must_use]
    pub fn begins(mut self, types: &[&str]) -> Self {
        self.begins.extend(types.iter().map(|kind| Arc::from(*kind)));
        self
    }

    /// A course has come to its end with any of these.
    #[must_use]
    pub fn ends(mut self, types: &[&str]) -> Self {
        self.ends.extend(types.iter().map(|kind| Arc::from(*kind)));
        self
    }

    /// A course was undone with any of these.
    #[must_use]
    pub fn undone(mut self, types: &[&str]) -> Self {
        self.undone.extend(types.iter().map(|kind| Arc::from(*kind)));
        self
    }

    /// Behind `after` any of `any_of` is expected within that time.
    #[must_use]
    pub fn expect(mut self, after: &str, any_of: &[&str], within: Duration) -> Self {
        let any_of = any_of.iter().map(|kind| Arc::from(*kind)).collect();
        self.expectations.push(Expectation { after: after.into(), any_of, within });
        self
    }

    /// Somebody else reacts to `on` with these. Nothing is done about it here: it is drawn, and looked at for cycles.
    #[must_use]
    pub fn reaction(mut self, by: &str, on: &str, emits: &[&str]) -> Self {
        self.reactions.push(Reaction::of(by, on, emits));
        self
    }

    /// A process manager: `act` is called for each event of type `on`, once, in the transaction that records it. What it changes there, and the events that it
    /// answers with, are there with that record or not at all. It may answer with `emits` and nothing else; what it appends by the transaction itself has no
    /// cause, is in no graph, and is bound by no limit of a chain.
    ///
    /// It may be run again, and awaits nothing but the transaction. It is not called for events that come once more, or behind the end.
    #[must_use]
    pub fn react<F>(mut self, by: &str, on: &str, emits: &[&str], act: F) -> Self
    where
        F: for<'t> Fn(&'t mut DynTx, Reacting) -> BoxFuture<'t, Result<Reacted, ReactError>> + Send + Sync + 'static,
    {
        self.reactions.push(Reaction { act: Some(Arc::new(act)), ..Reaction::of(by, on, emits) });
        self
    }

    /// The reactions to `on` are meant to lead back to themselves, as trying again does: they are no cycle, and the limits of a [chain](Self::chain)
    /// bound them within each course. A circle that begins another course each time has no limit.
    #[must_use]
    pub fn meant(mut self, on: &str) -> Self {
        self.reactions.iter_mut().filter(|one| *one.on == *on).for_each(|one| one.again = true);
        self
    }

    /// From where on the log is followed when it is declared for the first time.
    #[must_use]
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// How deep a chain of causes may be (1 to [`MAX_DEPTH`](Self::MAX_DEPTH)), and how often one type may come on it (1 to that): one more
    /// stops the course.
    #[must_use]
    pub fn chain(mut self, max_depth: u32, max_repeats: u32) -> Self {
        (self.max_depth, self.max_repeats) = (max_depth, max_repeats);
        self
    }

    /// How long a course is kept behind its end, or its last event if it never began. One that was stopped is kept until somebody has it go on.
    #[must_use]
    pub fn keep(mut self, keep: Duration) -> Self {
        self.keep = keep;
        self
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// What people read of it.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// What its events belong together by.
    pub fn joined_by(&self) -> &By {
        &self.by
    }

    /// What is expected.
    pub fn expectations(&self) -> &[Expectation] {
        &self.expectations
    }

    /// Who reacts to what.
    pub fn reactions(&self) -> &[Reaction] {
        &self.reactions
    }

    /// The types that begin a course.
    pub fn begun_by(&self) -> &[Arc<str>] {
        &self.begins
    }

    /// The types that end a course.
    pub fn ended_by(&self) -> &[Arc<str>] {
        &self.ends
    }

    /// The types by which a course is undone.
    pub fn undone_by(&self) -> &[Arc<str>] {
        &self.undone
    }

    /// All types of its events, in order.
    pub fn types(&self) -> Vec<Arc<str>> {
        let expected = self.expectations.iter().flat_map(|one| one.any_of.iter().chain([&one.after]));
        let reacted = self.reactions.iter().flat_map(|one| one.emits.iter().chain([&one.on]));
        let bounds = self.begins.iter().chain(&self.ends).chain(&self.undone);
        let mut all: Vec<Arc<str>> = bounds.chain(expected).chain(reacted).cloned().collect();
        all.sort();
        all.dedup();
        all
    }

    pub(super) fn query(&self) -> Query {
        Query::of([QueryItem::types(self.types().iter().map(|kind| kind.to_string()))])
    }

    /// Whether it can be followed.
    ///
    /// # Errors
    /// [`ProcessError::Invalid`] says what is wrong, [`ProcessError::Cycle`] on which path its reactions lead back to themselves.
    pub fn check(&self) -> Result<(), ProcessError> {
        let wrong = |what: String| Err(ProcessError::Invalid { what });
        let (name, max) = (self.name.as_str().len(), Self::MAX_NAME_BYTES);
        if name > max {
            return wrong(format!("a process has a name of at most {max} bytes, this one of {name}"));
        }
        if self.begins.is_empty() {
            return wrong("a process begins with at least one type of event".to_owned());
        }
        let types = self.types();
        if types.len() > Self::MAX_TYPES {
            return wrong(format!(
                "a process has at most {} types of events, this one has {}",
                Self::MAX_TYPES,
                types.len()
            ));
        }
        if let Some(odd) = types.iter().find(|kind| kind.is_empty() || kind.len() > 512) {
            return wrong(format!("a type of event has 1 to 512 bytes, not {}", odd.len()));
        }
        if let Some(both) = self.ends.iter().find(|kind| self.undone.contains(kind)) {
            return wrong(format!("`{both}` cannot both end a course and say that it was undone"));
        }
        if self.expectations.len().max(self.reactions.len()) > Self::MAX_RULES {
            return wrong(format!("a process has at most {} expectations, and as many reactions", Self::MAX_RULES));
        }
        for (n, one) in self.expectations.iter().enumerate() {
            if one.any_of.is_empty() || one.within.is_zero() || one.within > Self::MAX_SPAN {
                return wrong(format!(
                    "expectation {n} names at least one event, and a time from 1 ns to {:?}",
                    Self::MAX_SPAN
                ));
            }
            if self.expectations[..n].iter().any(|other| (&other.after, &other.any_of) == (&one.after, &one.any_of)) {
                return wrong(format!("the same is expected twice behind `{}`", one.after));
            }
        }
        if let Some(silent) = self.reactions.iter().find(|one| one.emits.is_empty() && one.act.is_none()) {
            return wrong(format!("a reaction to `{}` says which events come of it", silent.on));
        }
        let chain = 1..=Self::MAX_DEPTH;
        if !chain.contains(&self.max_depth) || !chain.contains(&self.max_repeats) {
            return wrong(format!("a chain of causes has 1 to {} events, and as many of one type", Self::MAX_DEPTH));
        }
        if self.keep > Self::MAX_SPAN {
            return wrong(format!("a course is kept for at most {:?}", Self::MAX_SPAN));
        }
        cycle::check([self])
    }
}

impl Reaction {
    fn of(by: &str, on: &str, emits: &[&str]) -> Self {
        let emits = emits.iter().map(|kind| Arc::from(*kind)).collect();
        Self { on: on.into(), emits, by: by.into(), again: false, act: None }
    }

    /// Whether it is a process manager of this program.
    pub fn is_ours(&self) -> bool {
        self.act.is_some()
    }
}

impl std::fmt::Debug for Reaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { on, emits, by, again, act: _ } = self;
        f.debug_struct("Reaction")
            .field("on", on)
            .field("emits", emits)
            .field("by", by)
            .field("again", again)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process")
            .field("name", &self.name)
            .field("expectations", &self.expectations)
            .finish_non_exhaustive()
    }
}
