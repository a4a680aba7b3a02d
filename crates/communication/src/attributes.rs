//! The attributes of an event that few events have, kept one way by everything that keeps or carries events here: the rows of queues and
//! inboxes as JSON, brokers as headers.
//!
//! An attribute keeps its type: a number stays a number, and the text of a number stays a text.

use std::{borrow::Cow, sync::Arc};

use quorate_data::event::{Extensions, NewEvent, Scalar, Tags};
use serde::{Deserialize, Serialize};

/// The attributes of an event but for `id`, `source`, `type`, `datacontenttype` and `datasubject`. Field names are part of the format.
#[derive(Serialize, Deserialize)]
pub(crate) struct Attributes<'a> {
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
    tags: Cow<'a, str>,
    #[serde(skip_serializing_if = "Extensions::is_empty", default)]
    extensions: Cow<'a, Extensions>,
}

impl<'a> Attributes<'a> {
    /// Those of `event`.
    pub(crate) fn of(event: &'a NewEvent) -> Self {
        Self {
            subject: event.subject.clone(),
            time: event.time.as_ref().map(|time| time.as_str().into()),
            dataschema: event.schema.clone(),
            correlationid: event.correlation_id.clone(),
            causationid: event.causation_id.clone(),
            tags: event.tags.as_str().into(),
            extensions: Cow::Borrowed(&event.extensions),
        }
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { subject, time, dataschema, correlationid, causationid, tags, extensions } = self;
        let texts = [subject, time, dataschema, correlationid, causationid];
        texts.iter().all(|text| text.is_none()) && tags.is_empty() && extensions.is_empty()
    }

    /// Gives them to `event`.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub(crate) fn give(self, event: &mut NewEvent) -> Result<(), String> {
        event.subject = self.subject;
        event.time = self.time.map(|time| time.parse()).transpose().map_err(|wrong| format!("`time`: {wrong}"))?;
        event.schema = self.dataschema;
        event.correlation_id = self.correlationid;
        event.causation_id = self.causationid;
        event.tags = self.tags.parse::<Tags>().map_err(|wrong| format!("`tags`: {wrong}"))?;
        event.extensions = self.extensions.into_owned();
        Ok(())
    }
}

/// The one text of a value (CloudEvents 1.0.2, "Type System").
pub(crate) fn text(value: &Scalar) -> Cow<'_, str> {
    match value {
        Scalar::Boolean(value) => if *value { "true" } else { "false" }.into(),
        Scalar::Integer(value) => value.to_string().into(),
        Scalar::Text(value) => value.into(),
    }
}

#[cfg(test)]
mod tests {
    use quorate_data::event::{NewEvent, Scalar, Tags};

    use super::Attributes;

    #[test]
    fn attributes_come_back_from_json_with_their_types() {
        let mut event = NewEvent::new("1", "/shop", "order.placed");
        assert!(Attributes::of(&event).is_empty());
        event.subject = Some("order 17 ☂\u{7f}".into());
        event.time = Some("2026-11-29T10:00:00+01:00".parse().unwrap());
        event.schema = Some("urn:order:1".into());
        event.tags = Tags::new(["customer:4"]).unwrap();
        let values = [
            Scalar::Integer(17),
            Scalar::Text("17".to_owned()),
            Scalar::Boolean(true),
            Scalar::Text("true".to_owned()),
        ];
        event.extensions.extend(["a", "b", "c", "d"].map(str::to_owned).into_iter().zip(values));
        let json = serde_json::to_string(&Attributes::of(&event)).unwrap();
        let mut read = NewEvent::new("1", "/shop", "order.placed");
        serde_json::from_str::<Attributes<'_>>(&json).unwrap().give(&mut read).unwrap();
        assert_eq!(read, event);
    }
}
