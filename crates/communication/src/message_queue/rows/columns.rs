//! Columns that hold JSON: the attributes that few messages have, and what happened to a message.

use quorate_data::{event::NewEvent, store::Value};
use quorate_foundations::time::Wall;

use super::text;
use crate::{
    attributes::Attributes,
    message_queue::{Cause, Failure, QueueError},
};

/// The attributes of `event` that have no column of their own, if it has any.
pub(in crate::message_queue) fn attributes(event: &NewEvent) -> Option<String> {
    let attributes = Attributes::of(event);
    if attributes.is_empty() {
        return None;
    }
    Some(serde_json::to_string(&attributes).unwrap_or_else(|_| unreachable!("plain data has a JSON form")))
}

/// Gives `event` the attributes that are written as `json`.
pub(super) fn give(json: &str, event: &mut NewEvent) -> Result<(), QueueError> {
    let wrong = |what: String| QueueError::corrupt("quorate_queue_message", what);
    let attributes: Attributes<'_> = serde_json::from_str(json).map_err(|cause| wrong(cause.to_string()))?;
    attributes.give(event).map_err(wrong)
}

fn failures(text: &str) -> Result<Vec<Failure>, QueueError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str(text).map_err(|wrong| QueueError::corrupt("quorate_queue_state", wrong))
}

/// The failures that a state's row tells; where they cannot be read, that.
pub(in crate::message_queue) fn failures_in(value: &Value, now: Wall) -> Vec<Failure> {
    text(value, "failures").and_then(failures).unwrap_or_else(|cause| {
        let reason = format!("what happened to it before cannot be read: {cause}");
        vec![Failure::new(0, now, Cause::Parked, &reason)]
    })
}
