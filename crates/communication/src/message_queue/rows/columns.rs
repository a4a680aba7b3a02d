//! Columns that hold JSON: the attributes that few messages have, and what happened to a message.

use std::sync::Arc;

use quorate_data::{
    event::{Extensions, NewEvent, Tags},
    store::Value,
};
use quorate_foundations::time::Wall;
use serde::{Deserialize, Serialize};

use super::text;
use crate::message_queue::{Cause, Failure, QueueError};

/// The attributes that few messages have. Field names are part of the format.
#[derive(Serialize, Deserialize)]
pub(super) struct Attributes<'a> {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    subject: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    time: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    dataschema: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    correlationid: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    causationid: Option<Arc<str>>,
    #[serde(skip_serializing_if = "str::is_empty", default)]
    tags: std::borrow::Cow<'a, str>,
    #[serde(skip_serializing_if = "Extensions::is_empty", default)]
    extensions: Extensions,
}

impl Attributes<'_> {
    pub(super) fn into_event(self, event: &mut NewEvent) -> Result<(), QueueError> {
        let wrong = |what: String| QueueError::corrupt("quorate_queue_message", what);
        event.subject = self.subject;
        event.time = self.time.map(|time| time.parse()).transpose().map_err(|cause| wrong(format!("{cause}")))?;
        event.schema = self.dataschema;
        event.correlation_id = self.correlationid;
        event.causation_id = self.causationid;
        event.tags = self.tags.parse::<Tags>().map_err(|cause| wrong(cause.to_string()))?;
        event.extensions = self.extensions;
        Ok(())
    }
}

/// The attributes of `event` that have no column of their own, if it has any.
pub(in crate::message_queue) fn attributes(event: &NewEvent) -> Option<String> {
    let few = event.subject.is_none()
        && event.time.is_none()
        && event.schema.is_none()
        && event.correlation_id.is_none()
        && event.causation_id.is_none()
        && event.tags.as_str().is_empty()
        && event.extensions.is_empty();
    if few {
        return None;
    }
    let attributes = Attributes {
        subject: event.subject.clone(),
        time: event.time.as_ref().map(|time| time.as_str().into()),
        dataschema: event.schema.clone(),
        correlationid: event.correlation_id.clone(),
        causationid: event.causation_id.clone(),
        tags: event.tags.as_str().into(),
        extensions: event.extensions.clone(),
    };
    Some(serde_json::to_string(&attributes).unwrap_or_else(|_| unreachable!("plain data has a JSON form")))
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
