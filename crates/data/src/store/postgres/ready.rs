//! A batch made ready where its caller runs: checked, encoded, hashed.

use quorate_foundations::name::Name;

use super::words::Words;
use crate::{
    event::{NewEvent, Prepared, Recorded},
    schema::{Candidate, SchemaRegistry},
    store::{
        AppendCondition, AppendError, CheckedBatch, ExpectedVersion, Limits, StoreError, StreamAppend,
        checked::Verdict,
        shape::{self, identity},
    },
};

/// A batch that keeps the limits.
pub(super) struct Ready {
    pub(super) streams: Vec<ReadyStream>,
    pub(super) conditions: Vec<AppendCondition>,
    pub(super) bytes: usize,
    pub(super) words: Words,
    pub(super) verdict: Verdict,
}

/// The part of a batch that goes to one stream.
pub(super) struct ReadyStream {
    pub(super) stream: Name,
    pub(super) expected: ExpectedVersion,
    pub(super) events: Vec<ReadyEvent>,
}

/// One event, encoded.
pub(super) struct ReadyEvent {
    pub(super) prepared: Prepared,
    /// What it is known by.
    pub(super) key: u128,
}

impl Ready {
    /// Checks and encodes `batch` for the store of that number.
    pub(super) fn new(batch: CheckedBatch, limits: &Limits, store: u64) -> Result<Self, AppendError> {
        let CheckedBatch { batch, verdict, looked: _ } = batch;
        shape::check(&batch, limits)?;
        if batch.streams.iter().flat_map(|part| &part.events).any(NewEvent::is_secret) {
            return Err(StoreError::Unsupported {
                engine: super::backend::ENGINE,
                what: "seal data of a data subject",
            }
            .into());
        }
        let streams: Vec<ReadyStream> = batch.streams.into_iter().map(ReadyStream::new).collect();
        let bytes = streams.iter().flat_map(|part| &part.events).map(|event| event.prepared.len()).sum();
        if bytes > limits.batch_bytes {
            return Err(shape::too_large(limits, bytes));
        }
        for part in &streams {
            shape::check_repeats(&part.stream, part.events.iter().map(|event| event.key))?;
        }
        let words = Words::of(store, &streams, &batch.conditions);
        Ok(Self { streams, conditions: batch.conditions, bytes, words, verdict })
    }

    /// Refuses it if the schemas object, those that are in force now: some may have been registered while it waited.
    pub(super) fn check(&self, schemas: &SchemaRegistry) -> Result<(), AppendError> {
        if self.verdict.is_current(schemas) {
            return self.verdict.enforce();
        }
        let events: Vec<(&Name, Recorded)> = self.streams.iter().flat_map(ReadyStream::unplaced).collect();
        Verdict::of(schemas, || events.iter().map(|(stream, event)| (*stream, Candidate::from(event)))).enforce()
    }

    /// The stream whose appends it stays in order with.
    pub(super) fn home(&self) -> &str {
        self.streams.first().map_or("", |part| part.stream.as_str())
    }

    /// How many events it has.
    pub(super) fn len(&self) -> usize {
        self.streams.iter().map(|part| part.events.len()).sum()
    }
}

impl ReadyStream {
    fn unplaced(&self) -> impl Iterator<Item = (&Name, Recorded)> {
        self.events.iter().map(|event| (&self.stream, event.prepared.unplaced()))
    }

    fn new(StreamAppend { stream, expected, events }: StreamAppend) -> Self {
        let ready = |event: NewEvent| ReadyEvent {
            key: identity(stream.as_str(), &event.source, &event.id),
            prepared: Prepared::new(&event, stream.as_str()),
        };
        let events = events.into_iter().map(ready).collect();
        Self { stream, expected, events }
    }
}
