//! A batch, and what the schemas say of it.
//!
//! Events are held against their schemas where whoever appends them runs, before the writer sees them. The writer only
//! asks whether the schemas are still the same, and looks again if not; a refusal waits until it is known that the batch
//! is new: what was appended once is answered as the first time, whatever was registered since. The same goes for the
//! batch's conditions: the writer only looks at what came since.

use std::sync::Arc;

use quorate_foundations::name::Name;

use super::{AppendBatch, AppendError, Timeline};
use crate::{
    event::{NewEvent, Position},
    schema::{Candidate, Rejection, SchemaRegistry},
};

/// A batch that was held against the schemas in force: made by [`Store::check`](super::Store::check).
#[derive(Clone, Debug)]
pub struct CheckedBatch {
    pub(super) batch: AppendBatch,
    pub(super) verdict: Verdict,
    pub(super) looked: Looked,
}

/// What was found out about a batch's conditions, the first ones first; the rest is to be looked at.
///
/// Positions are never reused and events never move: what was seen up to a position holds for as long as its timeline does.
#[derive(Clone, Debug, Default)]
pub struct Looked {
    timeline: Option<Timeline>,
    conditions: Vec<Look>,
}

/// What was found out about a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Up to here no event matches it.
    Clear {
        /// A position that was readable.
        until: Position,
    },
    /// The event at this position does.
    Matched(Position),
    /// All that conditions may look at was looked at, in vain.
    Spent(Spent),
}

/// Which limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// So many looks.
    Looks(usize),
    /// The time that a transaction has.
    Time,
}

impl Looked {
    /// Nothing yet, on this timeline.
    pub(super) fn new(timeline: Timeline) -> Self {
        Self { timeline: Some(timeline), conditions: Vec::new() }
    }

    /// Adds what was found out about the next condition.
    pub(super) fn push(&mut self, look: Look) {
        self.conditions.push(look);
    }

    /// What was found out about the `n`-th condition, as far as it tells anything about `timeline`.
    pub(super) fn at(&self, timeline: Timeline, n: usize) -> Option<&Look> {
        self.conditions.get(n).filter(|_| self.timeline == Some(timeline))
    }
}

/// What the schemas say of a batch, as of one moment.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    /// Which schemas: see [`SchemaRegistry::generation`].
    generation: u64,
    objection: Option<Objection>,
}

/// Why the schemas refuse a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Objection {
    /// The stream of the first event that does not fit.
    pub stream: Name,
    /// Which event of that stream's, counted from 0.
    pub index: usize,
    /// Its type.
    pub event_type: Arc<str>,
    /// What is wrong with it.
    pub cause: Rejection,
}

impl CheckedBatch {
    /// Nothing was asked yet: the backend will.
    pub(super) fn unchecked(batch: AppendBatch) -> Self {
        Self { batch, verdict: Verdict { generation: Verdict::NEVER, objection: None }, looked: Looked::default() }
    }

    pub(super) fn of(batch: AppendBatch, looked: Looked, schemas: &SchemaRegistry) -> Self {
        let events = batch.streams.iter().flat_map(|part| part.events.iter().map(move |event| (&part.stream, event)));
        let verdict = Verdict::of(schemas, || events.map(|(stream, event)| (stream, Candidate::from(event))));
        Self { batch, verdict, looked }
    }

    /// The same, as the schemas are now.
    pub(super) fn renewed(self, schemas: &SchemaRegistry) -> Self {
        if self.verdict.is_current(schemas) { self } else { Self::of(self.batch, self.looked, schemas) }
    }

    /// What the schemas have against it; the log may still know it.
    pub fn objection(&self) -> Option<&Objection> {
        self.verdict.objection.as_ref()
    }
}

impl Verdict {
    /// No generation of any schemas.
    const NEVER: u64 = u64::MAX;

    /// What `schemas` say now of events, those of one stream one after the other.
    pub(super) fn of<'e, I>(schemas: &SchemaRegistry, events: impl FnOnce() -> I) -> Self
    where
        I: Iterator<Item = (&'e Name, Candidate<'e>)>,
    {
        if schemas.accepts_everything() {
            return Self { generation: 0, objection: None };
        }
        let current = schemas.current();
        let (mut stream, mut index) = (None, 0);
        let objection = events().find_map(|(of, event)| {
            index = if stream == Some(of) { index + 1 } else { 0 };
            stream = Some(of);
            let cause = current.check_candidate(event).err()?;
            Some(Objection { stream: of.clone(), index, event_type: event.event_type().into(), cause })
        });
        Self { generation: current.generation(), objection }
    }

    /// Whether the schemas are still those that were asked.
    pub(super) fn is_current(&self, schemas: &SchemaRegistry) -> bool {
        self.generation == schemas.generation()
    }

    /// Refuses what the schemas object to.
    pub(super) fn enforce(&self) -> Result<(), AppendError> {
        self.objection.clone().map_or(Ok(()), |objection| Err(objection.into()))
    }
}

impl From<Objection> for AppendError {
    fn from(Objection { stream, index, event_type, cause }: Objection) -> Self {
        Self::Schema { stream, index, event_type, cause }
    }
}

/// Data that is checked where the async threads are; more goes elsewhere, since checking takes its time.
const INLINE_BYTES: usize = 16 << 10;

/// Whether holding `batch` against `schemas` may keep a thread for long.
pub(super) fn takes_long(batch: &AppendBatch, schemas: &SchemaRegistry) -> bool {
    if schemas.accepts_everything() {
        return false;
    }
    let bytes = |event: &NewEvent| event.data.as_ref().map_or(0, |data| data.len());
    let events = || batch.streams.iter().flat_map(|part| &part.events);
    let current = schemas.current();
    events().map(bytes).sum::<usize>() > INLINE_BYTES || !events().all(|event| current.is_quick(event))
}
