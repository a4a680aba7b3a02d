//! A batch made ready where its caller runs: checked, encoded, hashed, so that the one writer has less to do.

use std::collections::BTreeSet;

use quorate_foundations::name::Name;

use super::{
    keys::{KeyRing, Keys},
    tail::identity,
};
use crate::{
    event::{NewEvent, Prepared, Recorded},
    schema::{Candidate, SchemaRegistry},
    store::{
        AppendBatch, AppendCondition, AppendError, CheckedBatch, ExpectedVersion, Limits, StoreError, StreamAppend,
        checked::Verdict, erasure::SubjectHash,
    },
};

/// The most conditions of one append.
const MAX_CONDITIONS: usize = 100;

/// A batch that keeps the limits.
pub(super) struct Ready {
    pub(super) streams: Vec<ReadyStream>,
    pub(super) conditions: Vec<AppendCondition>,
    pub(super) bytes: usize,
    /// How many erasures there had been when its secrets were sealed; `None` without secrets.
    sealed: Option<u64>,
    /// What the schemas say of it.
    verdict: Verdict,
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
    /// The event in the clear, where its data is sealed: to seal it again with another key.
    pub(super) secret: Option<Box<NewEvent>>,
    pub(super) identity: u128,
    pub(super) source: std::sync::Arc<str>,
    pub(super) id: std::sync::Arc<str>,
}

impl Ready {
    /// Checks and encodes `batch`. Blocks where it [has secrets](has_secrets) whose keys are not at hand.
    pub(super) fn new(batch: CheckedBatch, limits: &Limits, keys: &KeyRing) -> Result<Self, AppendError> {
        let CheckedBatch { batch, verdict } = batch;
        let total: usize = batch.streams.iter().map(|part| part.events.len()).sum();
        if total > limits.batch_events {
            return Err(malformed(format!(
                "an append has at most {} events, this one has {total}",
                limits.batch_events
            )));
        }
        if batch.streams.is_empty() {
            return Err(malformed("an append names at least one stream".to_owned()));
        }
        for (n, part) in batch.streams.iter().enumerate() {
            check_stream(part, limits)?;
            if batch.streams[..n].iter().any(|earlier| earlier.stream == part.stream) {
                return Err(malformed(format!("stream `{}` appears twice in one append", part.stream)));
            }
        }
        if batch.conditions.len() > MAX_CONDITIONS {
            let count = batch.conditions.len();
            return Err(malformed(format!("an append has at most {MAX_CONDITIONS} conditions, this one has {count}")));
        }
        for condition in &batch.conditions {
            condition.fail_if_match.check().map_err(|cause| malformed(cause.to_string()))?;
        }
        let sealed = has_secrets(&batch).then(|| keys.erasures());
        let living = living(keys, batch.streams.iter().flat_map(|part| &part.events))?;
        let ready = |part: StreamAppend| ReadyStream::new(part, keys, &living);
        let streams: Vec<ReadyStream> = batch.streams.into_iter().map(ready).collect();
        let bytes = streams.iter().flat_map(|part| &part.events).map(|event| event.prepared.len()).sum();
        if bytes > limits.batch_bytes {
            return Err(malformed(format!("an append has at most {} bytes, this one has {bytes}", limits.batch_bytes)));
        }
        check_repeats(&streams)?;
        Ok(Self { streams, conditions: batch.conditions, bytes, sealed, verdict })
    }

    /// Whether it has events whose data is sealed.
    pub(super) fn is_sealed(&self) -> bool {
        self.sealed.is_some()
    }

    /// The same batch sealed with keys of today; `None` if it is. Keys may be destroyed while a batch waits.
    ///
    /// The writer asks: erasures happen where it happens, so that the answer holds until the batch is written.
    pub(super) fn renewed(&self, keys: &KeyRing) -> Result<Option<Self>, AppendError> {
        if self.sealed.is_none_or(|sealed| sealed == keys.erasures()) {
            return Ok(None);
        }
        let secrets = self.streams.iter().flat_map(|part| &part.events).filter_map(|event| event.secret.as_deref());
        let living = living(keys, secrets)?;
        let streams = self.streams.iter().map(|part| part.renewed(keys, &living)).collect();
        let conditions = self.conditions.clone();
        let (sealed, verdict) = (Some(keys.erasures()), self.verdict.clone());
        Ok(Some(Self { streams, conditions, bytes: self.bytes, sealed, verdict }))
    }

    /// Refuses it if the schemas object. Schemas may be registered while a batch waits: it is held against those that are
    /// in force now.
    ///
    /// The writer asks: schemas come into force where it happens, so that the answer holds until the batch is written.
    pub(super) fn check(&self, schemas: &SchemaRegistry) -> Result<(), AppendError> {
        if self.verdict.is_current(schemas) {
            return self.verdict.enforce();
        }
        let events: Vec<(&Name, Looked<'_>)> = self.streams.iter().flat_map(ReadyStream::looked_at).collect();
        let candidates = || events.iter().map(|(stream, event)| (*stream, event.candidate()));
        Verdict::of(schemas, candidates).enforce()
    }

    /// How many events it has.
    pub(super) fn len(&self) -> usize {
        self.streams.iter().map(|part| part.events.len()).sum()
    }
}

impl ReadyStream {
    fn new(StreamAppend { stream, expected, events }: StreamAppend, keys: &KeyRing, living: &Keys) -> Self {
        let ready = |event: NewEvent| ReadyEvent {
            prepared: prepare(&event, &stream, keys, living),
            identity: identity(stream.as_str(), &event.source, &event.id),
            source: event.source.clone(),
            id: event.id.clone(),
            secret: event.is_secret().then(|| Box::new(event)),
        };
        let events = events.into_iter().map(ready).collect();
        Self { stream, expected, events }
    }

    fn looked_at(&self) -> impl Iterator<Item = (&Name, Looked<'_>)> {
        self.events.iter().map(|event| (&self.stream, event.looked_at()))
    }

    fn renewed(&self, keys: &KeyRing, living: &Keys) -> Self {
        let events = self.events.iter().map(|event| ReadyEvent {
            prepared: event
                .secret
                .as_ref()
                .map_or_else(|| event.prepared.clone(), |secret| prepare(secret, &self.stream, keys, living)),
            secret: event.secret.clone(),
            identity: event.identity,
            source: event.source.clone(),
            id: event.id.clone(),
        });
        Self { stream: self.stream.clone(), expected: self.expected, events: events.collect() }
    }
}

impl ReadyEvent {
    fn looked_at(&self) -> Looked<'_> {
        match &self.secret {
            Some(secret) => Looked::Secret(secret),
            None => Looked::Clear(self.prepared.unplaced()),
        }
    }
}

/// An encoded event whose data can be looked at.
enum Looked<'e> {
    Secret(&'e NewEvent),
    Clear(Recorded),
}

impl Looked<'_> {
    fn candidate(&self) -> Candidate<'_> {
        match self {
            Self::Secret(event) => Candidate::from(*event),
            Self::Clear(event) => Candidate::from(event),
        }
    }
}

/// Whether making `batch` ready needs keys, and may block.
pub(super) fn has_secrets(batch: &AppendBatch) -> bool {
    batch.streams.iter().flat_map(|part| &part.events).any(NewEvent::is_secret)
}

fn living<'e>(keys: &KeyRing, events: impl Iterator<Item = &'e NewEvent>) -> Result<Keys, StoreError> {
    let subjects = events.filter(|event| event.is_secret()).filter_map(|event| event.data_subject.as_deref());
    let subjects: BTreeSet<SubjectHash> = subjects.map(|subject| keys.hash(subject)).collect();
    if subjects.is_empty() { Ok(Keys::new()) } else { keys.living(subjects) }
}

fn prepare(event: &NewEvent, stream: &Name, keys: &KeyRing, living: &Keys) -> Prepared {
    let Some(subject) = event.data_subject.as_deref().filter(|_| event.is_secret()) else {
        return Prepared::new(event, stream.as_str());
    };
    let key = living.get(&keys.hash(subject)).unwrap_or_else(|| unreachable!("every subject was given its key"));
    Prepared::sealed(event, stream.as_str(), |header, data| key.seal(header, data))
}

fn check_stream(part: &StreamAppend, limits: &Limits) -> Result<(), AppendError> {
    if part.events.is_empty() {
        return Err(malformed(format!("stream `{}` is given no event", part.stream)));
    }
    for (index, event) in part.events.iter().enumerate() {
        event.check().map_err(|cause| AppendError::Invalid { stream: part.stream.clone(), index, cause })?;
        let bytes = event.data.as_ref().map_or(0, |data| data.len());
        if bytes > limits.event_bytes {
            let what = format!(
                "event {index} of stream `{}` has {bytes} bytes of data, at most {} are allowed",
                part.stream, limits.event_bytes
            );
            return Err(malformed(what));
        }
    }
    Ok(())
}

/// An event twice in one batch would be refused as known by its own batch; it is said more clearly here.
fn check_repeats(streams: &[ReadyStream]) -> Result<(), AppendError> {
    for part in streams.iter().filter(|part| part.events.len() > 1) {
        let mut identities: Vec<(u128, usize)> = part.events.iter().map(|event| event.identity).zip(0..).collect();
        identities.sort_unstable();
        if let Some(pair) = identities.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let (first, second) = (pair[0].1, pair[1].1);
            let what = format!("events {first} and {second} of stream `{}` have the same source and id", part.stream);
            return Err(malformed(what));
        }
    }
    Ok(())
}

fn malformed(what: String) -> AppendError {
    AppendError::Malformed { what }
}
