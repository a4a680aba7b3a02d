//! One stream, as it would be if it did one thing after the other.

use std::collections::{BTreeMap, BTreeSet};

use crate::check::{
    api::Expected,
    history::OpId,
    linearizability::{Contradiction, Model, Observed},
};

/// An event of the stream: the number of its id, and a digest of what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    /// See [`Stream::name`].
    pub id: u32,
    /// The digest.
    pub content: u64,
}

/// What is asked of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// That these events be appended.
    Append {
        /// What the stream should be before.
        expected: Expected,
        /// The events.
        events: Vec<Event>,
    },
    /// Its events.
    Read {
        /// Behind which version.
        after: u64,
        /// At most how many.
        limit: u64,
    },
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ret {
    /// The events are in it up to this version.
    Appended(u64),
    /// It isn't as expected; its version, if told.
    WrongVersion(Option<u64>),
    /// An id is known with other content, or only some of the ids are known.
    IdConflict,
    /// Events with their versions.
    Events(Vec<(u64, Event)>),
}

/// The model: appends with expected versions, idempotent by event id, and reads.
///
/// Known ids are looked at before the expected version, as the node does: a repeated append gets its first answer even
/// if the stream has moved on.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    names: Vec<String>,
}

impl Stream {
    /// Gives an id its number.
    pub fn name(&mut self, id: &str) -> u32 {
        let number = u32::try_from(self.names.len()).expect("fewer than four billion events");
        self.names.push(id.to_owned());
        number
    }

    fn name_of(&self, event: Event) -> &str {
        self.names.get(event.id as usize).map_or("?", String::as_str)
    }
}

/// The stream at some instant.
///
/// Since a stream only grows, every state of an explanation is a beginning of the stream that the answers show. So a
/// state is its length, and those events at versions of which no answer tells.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct State {
    version: u64,
    /// By version, ascending.
    untold: Vec<(u64, Event)>,
}

/// What the answers tell of the stream, whatever the order of operations.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    events: BTreeMap<u64, (Event, OpId)>,
    versions: BTreeMap<u32, (u64, OpId)>,
}

/// Which of an append's events the stream has already.
struct Known {
    all: bool,
    none: bool,
    /// One of them says something else.
    differs: bool,
    newest: u64,
}

impl Facts {
    /// The version of `id` in `state`, and what is there.
    fn find(&self, state: &State, id: u32) -> Option<(u64, Event)> {
        if let Some((version, _)) = self.versions.get(&id) {
            let (event, _) = self.events[version];
            return (*version <= state.version).then_some((*version, event));
        }
        state.untold.iter().find(|(_, event)| event.id == id).copied()
    }

    fn known(&self, state: &State, events: &[Event]) -> Known {
        let mut known = Known { all: true, none: true, differs: false, newest: 0 };
        for event in events {
            match self.find(state, event.id) {
                None => known.all = false,
                Some((version, there)) => {
                    known.none = false;
                    known.differs |= there != *event;
                    known.newest = known.newest.max(version);
                }
            }
        }
        known
    }

    /// `state` with `events` at its end, unless the answers say that something else is there.
    fn extended(&self, state: &State, events: &[Event]) -> Option<State> {
        let mut extended = state.clone();
        for event in events {
            extended.version += 1;
            match self.events.get(&extended.version) {
                Some((there, _)) if there == event => {}
                Some(_) => return None,
                None if self.versions.contains_key(&event.id) => return None,
                None => extended.untold.push((extended.version, *event)),
            }
        }
        Some(extended)
    }

    /// Notes that `operation` was told that `event` is at `version`.
    fn note(&mut self, stream: &Stream, version: u64, event: Event, operation: OpId) -> Result<(), Contradiction> {
        let (there, first) = *self.events.entry(version).or_insert((event, operation));
        if there != event {
            let (a, b) = (stream.name_of(there), stream.name_of(event));
            let sentence = if there.id == event.id {
                format!("version {version} is event {a} to {first} and to {operation}, with different content")
            } else {
                format!("version {version} is event {a} to {first} and event {b} to {operation}")
            };
            return Err(contradiction(first, operation, sentence));
        }
        let (other, first) = *self.versions.entry(event.id).or_insert((version, operation));
        if other != version {
            let id = stream.name_of(event);
            let sentence = format!("event {id} is version {other} to {first} and version {version} to {operation}");
            return Err(contradiction(first, operation, sentence));
        }
        Ok(())
    }
}

fn contradiction(first: OpId, second: OpId, sentence: String) -> Contradiction {
    let mut operations = vec![first, second];
    operations.sort_unstable();
    operations.dedup();
    Contradiction { operations, sentence }
}

impl Model for Stream {
    type State = State;
    type Op = Op;
    type Ret = Ret;
    type Facts = Facts;

    /// The second time its events are known.
    const REPEATS_CHANGE_NOTHING: bool = true;

    fn initial(&self) -> State {
        State { version: 0, untold: Vec::new() }
    }

    fn step(&self, facts: &Facts, state: &State, op: &Op, ret: Option<&Ret>) -> Option<State> {
        match (op, ret) {
            (Op::Append { expected, events }, ret) => append(facts, state, *expected, events, ret),
            (Op::Read { after, limit }, Some(Ret::Events(events))) => {
                shows(state.version, *after, *limit, events).then(|| state.clone())
            }
            (Op::Read { .. }, None) => Some(state.clone()),
            (Op::Read { .. }, Some(_)) => None,
        }
    }

    fn describe(&self, op: &Op, ret: Option<&Ret>) -> String {
        let names = |events: &[Event]| events.iter().map(|event| self.name_of(*event)).collect::<Vec<_>>().join(", ");
        let asked = match op {
            Op::Append { expected, events } => format!("append {} expecting {expected}", names(events)),
            Op::Read { after, .. } => format!("read after {after}"),
        };
        match ret {
            None => asked,
            Some(Ret::Appended(version)) => format!("{asked}: at version {version}"),
            Some(Ret::WrongVersion(Some(actual))) => format!("{asked}: wrong, it is {actual}"),
            Some(Ret::WrongVersion(None)) => format!("{asked}: wrong version"),
            Some(Ret::IdConflict) => format!("{asked}: id conflict"),
            Some(Ret::Events(events)) => match events.last() {
                None => format!("{asked}: nothing"),
                Some((version, _)) => format!("{asked}: {} events up to version {version}", events.len()),
            },
        }
    }

    fn learn(&self, operations: &[Observed<Op, Ret>]) -> Result<Facts, Contradiction> {
        let batches = Batches::of(operations);
        let mut facts = Facts::default();
        for Observed { id, op, answer, .. } in operations {
            match (op, answer) {
                (Op::Append { events, .. }, Some((Ret::Appended(version), _))) if batches.fix(events) => {
                    let Some(before) = version.checked_sub(events.len() as u64) else {
                        let sentence = format!("{id} appended {} events up to version {version}", events.len());
                        return Err(Contradiction { operations: vec![*id], sentence });
                    };
                    for (version, event) in (before + 1..).zip(events) {
                        facts.note(self, version, *event, *id)?;
                    }
                }
                (Op::Read { after, .. }, Some((Ret::Events(events), _))) => {
                    for (expected, (version, event)) in (after + 1..).zip(events) {
                        if *version != expected {
                            let sentence = format!("{id} read version {version} where version {expected} belongs");
                            return Err(Contradiction { operations: vec![*id], sentence });
                        }
                        facts.note(self, *version, *event, *id)?;
                    }
                }
                _ => {}
            }
        }
        Ok(facts)
    }

    fn never_again(&self, facts: &Facts, state: &State, op: &Op, ret: &Ret) -> bool {
        match (op, ret) {
            (Op::Append { events, .. }, Ret::Appended(version)) => {
                let known = facts.known(state, events);
                if known.all {
                    return known.differs || known.newest != *version;
                }
                // None is known, and whoever appends them does so behind what is there.
                known.none && *version < state.version + events.len() as u64
            }
            (Op::Append { events, .. }, Ret::WrongVersion(actual)) => {
                !facts.known(state, events).none || actual.is_some_and(|actual| actual < state.version)
            }
            (Op::Read { after, limit }, Ret::Events(events)) => {
                let seen = events.len() as u64;
                seen < *limit && state.version > after + seen
            }
            _ => false,
        }
    }

    fn only_looks(&self, _: &State, _: &Op, _: &Ret) -> bool {
        // A refusal or a read never changes the stream; a repeat finds its events there from now on.
        true
    }

    fn bytes(&self, state: &State) -> usize {
        size_of::<State>() + state.untold.len() * size_of::<(u64, Event)>()
    }
}

fn append(facts: &Facts, state: &State, expected: Expected, events: &[Event], ret: Option<&Ret>) -> Option<State> {
    let known = facts.known(state, events);
    let fits = known.none && expected.accepts(state.version);
    match ret {
        Some(Ret::Appended(version)) if known.all => {
            (!known.differs && known.newest == *version).then(|| state.clone())
        }
        Some(Ret::Appended(version)) => {
            let at_end = fits && state.version + events.len() as u64 == *version;
            if at_end { facts.extended(state, events) } else { None }
        }
        Some(Ret::WrongVersion(actual)) => {
            let told_right = actual.is_none_or(|actual| actual == state.version);
            (known.none && !fits && told_right).then(|| state.clone())
        }
        Some(Ret::IdConflict) => (known.differs || !(known.none || known.all)).then(|| state.clone()),
        Some(Ret::Events(_)) => None,
        None if fits => facts.extended(state, events),
        None => Some(state.clone()),
    }
}

/// Whether a read of a stream at `version` returns this many events. Which ones they are is a fact already.
fn shows(version: u64, after: u64, limit: u64, events: &[(u64, Event)]) -> bool {
    events.len() as u64 == version.saturating_sub(after).min(limit)
}

/// Which appends tell by their answer where each of their events is.
///
/// An append of several events may have been answered because all of them were known from different earlier ones; then
/// only the newest version is told. That can't be if nobody sent any of them in another company.
struct Batches<'o> {
    first: BTreeMap<u32, &'o [Event]>,
    mixed: BTreeSet<u32>,
}

impl<'o> Batches<'o> {
    fn of(operations: &'o [Observed<Op, Ret>]) -> Self {
        let mut batches = Self { first: BTreeMap::new(), mixed: BTreeSet::new() };
        for Observed { op, .. } in operations {
            let Op::Append { events, .. } = op else { continue };
            for event in events {
                let first = batches.first.entry(event.id).or_insert(events);
                if !first.iter().map(|event| event.id).eq(events.iter().map(|event| event.id)) {
                    batches.mixed.insert(event.id);
                }
            }
        }
        batches
    }

    fn fix(&self, events: &[Event]) -> bool {
        events.len() == 1 || !events.iter().any(|event| self.mixed.contains(&event.id))
    }
}

#[cfg(test)]
mod tests;
