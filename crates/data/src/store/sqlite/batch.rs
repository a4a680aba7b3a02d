//! A batch made ready where its caller runs: checked, encoded, hashed, so that the one writer has less to do.

use quorate_foundations::name::Name;

use super::tail::identity;
use crate::{
    event::Prepared,
    store::{AppendBatch, AppendCondition, AppendError, ExpectedVersion, Limits, StreamAppend},
};

/// A batch that keeps the limits.
pub(super) struct Ready {
    pub(super) streams: Vec<ReadyStream>,
    pub(super) conditions: Vec<AppendCondition>,
    pub(super) bytes: usize,
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
    pub(super) identity: u128,
    pub(super) source: std::sync::Arc<str>,
    pub(super) id: std::sync::Arc<str>,
}

impl Ready {
    /// Checks and encodes `batch`.
    pub(super) fn new(batch: AppendBatch, limits: &Limits) -> Result<Self, AppendError> {
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
        for condition in &batch.conditions {
            condition.fail_if_match.check().map_err(|cause| malformed(cause.to_string()))?;
        }
        let streams: Vec<ReadyStream> = batch.streams.into_iter().map(ReadyStream::new).collect();
        let bytes = streams.iter().flat_map(|part| &part.events).map(|event| event.prepared.len()).sum();
        if bytes > limits.batch_bytes {
            return Err(malformed(format!("an append has at most {} bytes, this one has {bytes}", limits.batch_bytes)));
        }
        check_repeats(&streams)?;
        Ok(Self { streams, conditions: batch.conditions, bytes })
    }

    /// How many events it has.
    pub(super) fn len(&self) -> usize {
        self.streams.iter().map(|part| part.events.len()).sum()
    }
}

impl ReadyStream {
    fn new(StreamAppend { stream, expected, events }: StreamAppend) -> Self {
        let ready = |event: crate::event::NewEvent| ReadyEvent {
            prepared: Prepared::new(&event, stream.as_str()),
            identity: identity(stream.as_str(), &event.source, &event.id),
            source: event.source,
            id: event.id,
        };
        let events = events.into_iter().map(ready).collect();
        Self { stream, expected, events }
    }
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
