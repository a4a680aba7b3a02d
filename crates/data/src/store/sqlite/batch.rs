//! A batch made ready where its caller runs: checked, encoded, hashed, so that the one writer has less to do.

use std::collections::BTreeSet;

use quorate_foundations::name::Name;

use super::keys::{KeyRing, Keys};
use crate::{
    event::{NewEvent, Prepared, Recorded},
    schema::{Candidate, SchemaRegistry},
    store::{
        AppendBatch, AppendCondition, AppendError, CheckedBatch, ExpectedVersion, Limits, StoreError, StreamAppend,
        checked::{Looked, Verdict},
        erasure::{SubjectHash, SubjectKey},
        shape::{self, identity},
    },
};

/// A batch that keeps the limits.
pub(super) struct Ready {
    pub(super) streams: Vec<ReadyStream>,
    pub(super) conditions: Vec<AppendCondition>,
    /// What was found out about them before the writer's turn.
    pub(super) looked: Looked,
    pub(super) bytes: usize,
    /// How many erasures there had been when its secrets were sealed; `None` without secrets.
    sealed: Option<u64>,
    /// Whether some of them wait for a key that is yet to be made: what stands for these is never written.
    keyless: bool,
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
    ///
    /// No key is made for it: it may be refused, or known. See [`is_keyless`](Self::is_keyless).
    pub(super) fn new(batch: CheckedBatch, limits: &Limits, keys: &KeyRing) -> Result<Self, AppendError> {
        let CheckedBatch { batch, verdict, looked } = batch;
        shape::check(&batch, limits)?;
        let sealed = has_secrets(&batch).then(|| keys.erasures());
        let (living, keyless) = existing(keys, batch.streams.iter().flat_map(|part| &part.events))?;
        let ready = |part: StreamAppend| ReadyStream::new(part, keys, &living);
        let streams: Vec<ReadyStream> = batch.streams.into_iter().map(ready).collect();
        let bytes = streams.iter().flat_map(|part| &part.events).map(|event| event.prepared.len()).sum();
        if bytes > limits.batch_bytes {
            return Err(shape::too_large(limits, bytes));
        }
        for part in &streams {
            shape::check_repeats(&part.stream, part.events.iter().map(|event| event.identity))?;
        }
        Ok(Self { streams, conditions: batch.conditions, looked, bytes, sealed, keyless, verdict })
    }

    /// Whether it has events whose data is sealed.
    pub(super) fn is_sealed(&self) -> bool {
        self.sealed.is_some()
    }

    /// Whether it has secrets of subjects that have no key. It can be judged, and then [be given keys](Self::keyed).
    pub(super) fn is_keyless(&self) -> bool {
        self.keyless
    }

    /// The same batch sealed with keys of today, as far as there are any; `None` if it is. Keys may be destroyed while a
    /// batch waits, and those that it lacks may be made for another: what stands for its secrets would be taken for others
    /// than those that the log has.
    ///
    /// The writer asks: erasures happen where it happens, so that the answer holds until the batch is written.
    pub(super) fn renewed(&self, keys: &KeyRing) -> Result<Option<Self>, AppendError> {
        if !self.keyless && self.is_of_today(keys) {
            return Ok(None);
        }
        let sealed = Some(keys.erasures());
        let (living, keyless) = existing(keys, self.secrets())?;
        Ok(Some(self.sealed_with(keys, &living, sealed, keyless)))
    }

    /// The same batch ready to be written, sealed with keys of today; `None` if it is. Makes those that are not there, which
    /// blocks.
    pub(super) fn keyed(&self, keys: &KeyRing) -> Result<Option<Self>, StoreError> {
        if !self.keyless && self.is_of_today(keys) {
            return Ok(None);
        }
        let sealed = Some(keys.erasures());
        let living = keys.living(subjects(keys, self.secrets()))?;
        Ok(Some(self.sealed_with(keys, &living, sealed, false)))
    }

    fn is_of_today(&self, keys: &KeyRing) -> bool {
        self.sealed.is_none_or(|sealed| sealed == keys.erasures())
    }

    fn secrets(&self) -> impl Iterator<Item = &NewEvent> {
        self.streams.iter().flat_map(|part| &part.events).filter_map(|event| event.secret.as_deref())
    }

    fn sealed_with(&self, keys: &KeyRing, living: &Keys, sealed: Option<u64>, keyless: bool) -> Self {
        let streams = self.streams.iter().map(|part| part.renewed(keys, living)).collect();
        let (conditions, looked) = (self.conditions.clone(), self.looked.clone());
        Self { streams, conditions, looked, bytes: self.bytes, sealed, keyless, verdict: self.verdict.clone() }
    }

    /// Refuses it if the schemas object. Schemas may be registered while a batch waits: it is held against those that are
    /// in force now.
    ///
    /// The writer asks: schemas come into force where it happens, so that the answer holds until the batch is written.
    pub(super) fn check(&self, schemas: &SchemaRegistry) -> Result<(), AppendError> {
        if self.verdict.is_current(schemas) {
            return self.verdict.enforce();
        }
        let events: Vec<(&Name, Plain<'_>)> = self.streams.iter().flat_map(ReadyStream::looked_at).collect();
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

    fn looked_at(&self) -> impl Iterator<Item = (&Name, Plain<'_>)> {
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
    fn looked_at(&self) -> Plain<'_> {
        match &self.secret {
            Some(secret) => Plain::Secret(secret),
            None => Plain::Clear(self.prepared.unplaced()),
        }
    }
}

/// An encoded event whose data can be looked at.
enum Plain<'e> {
    Secret(&'e NewEvent),
    Clear(Recorded),
}

impl Plain<'_> {
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

fn subjects<'e>(keys: &KeyRing, events: impl Iterator<Item = &'e NewEvent>) -> BTreeSet<SubjectHash> {
    let subjects = events.filter(|event| event.is_secret()).filter_map(|event| event.data_subject.as_deref());
    subjects.map(|subject| keys.hash(subject)).collect()
}

/// The living keys of the subjects of `events`, and whether some have none.
fn existing<'e>(keys: &KeyRing, events: impl Iterator<Item = &'e NewEvent>) -> Result<(Keys, bool), StoreError> {
    let mut living = Keys::new();
    let mut keyless = false;
    for subject in subjects(keys, events) {
        match keys.find(&subject)?.and_then(|known| known.live) {
            Some(key) => drop(living.insert(subject, key)),
            None => keyless = true,
        }
    }
    Ok((living, keyless))
}

/// Encodes an event. Where its subject has no key yet, what stands for the sealed data has its length, and equals nothing
/// that was ever sealed.
fn prepare(event: &NewEvent, stream: &Name, keys: &KeyRing, living: &Keys) -> Prepared {
    let Some(subject) = event.data_subject.as_deref().filter(|_| event.is_secret()) else {
        return Prepared::new(event, stream.as_str());
    };
    match living.get(&keys.hash(subject)) {
        Some(key) => Prepared::sealed(event, stream.as_str(), |header, data| key.seal(header, data)),
        None => Prepared::sealed(event, stream.as_str(), |_, data| vec![0; SubjectKey::sealed_len(data.len())]),
    }
}

#[cfg(test)]
mod tests {
    use quorate_runtime::Env;

    use super::{
        super::{Config, core::Core, open},
        AppendBatch, CheckedBatch, ExpectedVersion, NewEvent, Ready,
    };

    #[tokio::test]
    async fn a_repeat_made_ready_before_its_subject_had_a_key_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::at(folder.path().join("store.db"));
        let limits = config.limits.clone();
        let (mut core, _lock) = open::prepare(Env::real(), config).unwrap();
        let event = NewEvent::new("1", "/test", "thing.happened").json("{}").about("anna");
        let batch = AppendBatch::to("anna".parse().unwrap(), ExpectedVersion::Any, vec![event]);
        let ready =
            |core: &Core| Ready::new(CheckedBatch::unchecked(batch.clone()), &limits, &core.shared.keys).unwrap();
        let (first, again) = (ready(&core), ready(&core));
        assert!(again.is_keyless());
        let appended = core.append(&first).unwrap();
        let known = core.judge(&again).unwrap().expect("it was appended");
        assert_eq!((known.versions, known.repeated), (appended.versions, true));
    }
}
