//! What a batch must be like, whatever engine takes it.

use quorate_foundations::name::Name;

use super::{AppendBatch, AppendCondition, AppendError, Limits, StreamAppend};
use crate::event::blake3_of;

/// Refuses a batch that is malformed, or that a limit forbids before it is encoded.
pub(super) fn check(batch: &AppendBatch, limits: &Limits) -> Result<(), AppendError> {
    let total: usize = batch.streams.iter().map(|part| part.events.len()).sum();
    if total > limits.batch_events {
        return Err(malformed(format!("an append has at most {} events, this one has {total}", limits.batch_events)));
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
    check_conditions(&batch.conditions)
}

fn check_conditions(conditions: &[AppendCondition]) -> Result<(), AppendError> {
    const MAX: usize = AppendBatch::MAX_CONDITIONS;
    const MAX_WORDS: usize = AppendBatch::MAX_CONDITION_WORDS;
    if conditions.len() > MAX {
        return Err(malformed(format!("an append has at most {MAX} conditions, this one has {}", conditions.len())));
    }
    for condition in conditions {
        condition.fail_if_match.check().map_err(|cause| malformed(cause.to_string()))?;
    }
    let items = conditions.iter().flat_map(|condition| &condition.fail_if_match.items);
    let words: usize = items.map(|item| item.types.len() + item.tags.len() + item.categories.len()).sum();
    if words > MAX_WORDS {
        let what = "types, tags and categories in all its conditions together";
        return Err(malformed(format!("an append names at most {MAX_WORDS} {what}, this one names {words}")));
    }
    Ok(())
}

/// The refusal of a batch whose conditions would look at too much.
pub(super) fn too_broad(limit: &str) -> AppendError {
    let todo = "have each condition name a tag, or look behind a later position";
    malformed(format!("the conditions of one append may not {limit}, all together: {todo}"))
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

/// The refusal of a batch of so many encoded bytes.
pub(super) fn too_large(limits: &Limits, bytes: usize) -> AppendError {
    malformed(format!("an append has at most {} bytes, this one has {bytes}", limits.batch_bytes))
}

/// An event twice in one batch would be refused as known by its own batch; it is said more clearly here.
pub(super) fn check_repeats(stream: &Name, identities: impl Iterator<Item = u128>) -> Result<(), AppendError> {
    let mut identities: Vec<(u128, usize)> = identities.zip(0..).collect();
    identities.sort_unstable();
    let Some(pair) = identities.windows(2).find(|pair| pair[0].0 == pair[1].0) else { return Ok(()) };
    let (first, second) = (pair[0].1, pair[1].1);
    Err(malformed(format!("events {first} and {second} of stream `{stream}` have the same source and id")))
}

fn malformed(what: String) -> AppendError {
    AppendError::Malformed { what }
}

/// What makes an event the same event: its stream, `source` and `id`, as a 128-bit hash.
pub(super) fn identity(stream: &str, source: &str, id: &str) -> u128 {
    let lengths = [stream, source, id].map(|text| (text.len() as u64).to_le_bytes());
    let [a, b, c] = &lengths;
    let hash = blake3_of(&[a, stream.as_bytes(), b, source.as_bytes(), c, id.as_bytes()]);
    let mut short = [0; 16];
    short.copy_from_slice(&hash[..16]);
    u128::from_be_bytes(short)
}
