//! CloudEvents 1.0.2 in binary mode, and what Debezium's outbox router writes, as named texts: the part that all brokers share.
//!
//! A broker's headers hold the attributes under a prefix of its binding, and beside them the router's `id`, `type`, `aggregatetype` and
//! `aggregateid` without one. The data is the body, byte for byte. What others publish is read leniently: attributes win, then the router's
//! headers, then the broker's own.
//! Attributes keep their types. Where a broker's headers are texts alone, the header [`TYPES`] names those that are none.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use quorate_data::event::{NewEvent, Scalar, Tags, Timestamp};

use super::{
    Incoming, Outgoing,
    message::{MAX_DATA_BYTES, fitting, identity},
};
use crate::attributes::text;

/// The extension that carries the key (CloudEvents, "Partitioning").
const KEY: &str = "partitionkey";
/// What the router's headers are called, and the attributes that they repeat.
const ROUTER: [(&str, &str); 4] =
    [("id", "id"), ("type", "type"), ("aggregatetype", "aggregatetype"), ("aggregateid", "aggregateid")];

/// The header in which a broker whose headers are texts is told what was none: `retries:integer urgent:boolean`.
pub(super) const TYPES: &str = "quorate-types";

/// What is named of a message, as it is written.
pub(super) struct Written {
    /// CloudEvents attributes, without a prefix and without `datacontenttype`.
    pub(super) attributes: Vec<(String, Scalar)>,
    /// The router's headers.
    pub(super) plain: Vec<(&'static str, String)>,
}

/// A message as a broker hands it over.
#[derive(Default)]
pub(super) struct Raw {
    /// CloudEvents attributes, without their prefix.
    pub(super) attributes: BTreeMap<String, Scalar>,
    /// Other headers.
    pub(super) plain: BTreeMap<String, String>,
    pub(super) content_type: Option<String>,
    /// The broker's own id of the message, as its producer gave it.
    pub(super) message_id: Option<String>,
    pub(super) data: Bytes,
    /// Where it came from, for messages that do not say.
    pub(super) topic: String,
}

pub(super) fn write(message: &Outgoing) -> Written {
    let NewEvent { id, source, kind, subject, time, schema, correlation_id, causation_id, data_subject, tags, .. } =
        &message.event;
    let mut attributes: Vec<(String, Scalar)> = Vec::with_capacity(12);
    let mut put = |name: &str, value: &str| attributes.push((name.to_owned(), Scalar::Text(value.to_owned())));
    put("specversion", "1.0");
    put("id", id);
    put("source", source);
    put("type", kind);
    let optional = [
        ("subject", subject),
        ("dataschema", schema),
        ("correlationid", correlation_id),
        ("causationid", causation_id),
        ("datasubject", data_subject),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            put(name, value);
        }
    }
    if let Some(time) = time {
        put("time", time.as_str());
    }
    if !tags.is_empty() {
        put("tags", tags.as_str());
    }
    put(KEY, &message.key);
    let extensions = message.event.extensions.iter().filter(|(name, _)| *name != KEY);
    attributes.extend(extensions.map(|(name, value)| (name.clone(), value.clone())));
    let find = |wanted: &str| attributes.iter().find(|(name, _)| name == wanted).map(|(_, value)| text(value).into());
    let plain = ROUTER.iter().filter_map(|(header, name)| Some((*header, find(name)?))).collect();
    Written { attributes, plain }
}

/// What [`TYPES`] says of these attributes, if there is something to say.
#[cfg(feature = "nats")]
pub(super) fn types(attributes: &[(String, Scalar)]) -> Option<String> {
    let typed = attributes.iter().filter_map(|(name, value)| match value {
        Scalar::Boolean(_) => Some(format!("{name}:boolean")),
        Scalar::Integer(_) => Some(format!("{name}:integer")),
        Scalar::Text(_) => None,
    });
    let typed: Vec<String> = typed.collect();
    (!typed.is_empty()).then(|| typed.join(" "))
}

/// Gives texts the types that [`TYPES`] says. What is none of its type stays a text.
#[cfg(feature = "nats")]
pub(super) fn typed(attributes: &mut BTreeMap<String, Scalar>, types: &str) {
    for (name, kind) in types.split(' ').filter_map(|one| one.split_once(':')) {
        let Some(value) = attributes.get_mut(name) else { continue };
        let read = match kind {
            "boolean" => text(value).parse().map(Scalar::Boolean).ok(),
            "integer" => text(value).parse().map(Scalar::Integer).ok(),
            _ => None,
        };
        if let Some(read) = read.filter(|read| text(read) == text(value)) {
            *value = read;
        }
    }
}

/// `raw` as a message. One that cannot be read says why, and holds what could be.
pub(super) fn read(mut raw: Raw, redelivered: bool, attempt: u32) -> Incoming {
    let mut wrong = None;
    if raw.content_type.as_deref().is_some_and(|kind| kind.starts_with("application/cloudevents")) {
        wrong =
            Some("CloudEvents in structured or batched mode are not read here: publish them in binary mode".to_owned());
        subjects(&mut raw, &mut wrong);
    }
    let mut take = |name: &str| raw.attributes.remove(name).map(|value| text(&value).into_owned());
    let (id, source, kind) = (take("id"), take("source"), take("type"));
    let plain = |name: &str| raw.plain.get(name).cloned();
    let id = id.or_else(|| plain("id")).or_else(|| raw.message_id.clone()).unwrap_or_else(|| {
        wrong.get_or_insert_with(|| "it has no id, so that copies of it could not be told".to_owned());
        blake3::hash(&raw.data).to_hex().to_string()
    });
    let source = source.unwrap_or_else(|| format!("/{}", raw.topic));
    let kind = kind.or_else(|| plain("eventType")).or_else(|| plain("type")).unwrap_or_else(|| "message".to_owned());
    let key = take(KEY).or_else(|| plain("aggregateid")).unwrap_or_else(|| id.clone());
    let mut event = NewEvent::new(id, source, kind);
    event.content_type = raw.content_type.take().map(Into::into);
    if raw.data.len() > MAX_DATA_BYTES {
        drop_data(&mut raw, &mut wrong, &format!("more than {MAX_DATA_BYTES}"));
    }
    event.data = Some(std::mem::take(&mut raw.data)).filter(|data| !data.is_empty());
    fill(&mut event, std::mem::take(&mut raw.attributes), &mut wrong);
    for name in ["aggregatetype", "aggregateid"] {
        if let Some(value) = raw.plain.remove(name) {
            event.extensions.entry(name.to_owned()).or_insert(Scalar::Text(value));
        }
    }
    if let Err(cause) = event.check() {
        wrong.get_or_insert_with(|| cause.to_string());
    }
    // Where it is parked, an erasure finds it by its data subject: what nobody can name is not kept.
    let named = |subject: &Arc<str>| NewEvent::new("1", "/1", "1").about(subject.clone()).check().is_ok();
    if event.data_subject.as_ref().is_some_and(|subject| !named(subject)) {
        event.data_subject = None;
        if let Some(data) = event.data.take() {
            raw.data = data;
            drop_data(&mut raw, &mut wrong, "about a data subject that cannot be named");
        }
    }
    let (identity, key, unreadable) = (identity(&event), fitting(&key), wrong);
    Incoming { identity, key, event, unreadable, redelivered, attempt }
}

/// Takes the data off a message, and says which it was.
fn drop_data(raw: &mut Raw, wrong: &mut Option<String>, why: &str) {
    let data = std::mem::take(&mut raw.data);
    let (bytes, hash) = (data.len(), blake3::hash(&data).to_hex());
    *wrong = Some(format!("its data has {bytes} bytes, {why}, and was not kept (BLAKE3 {hash})"));
}

/// Finds whom events are about that are not read: all of what is kept of them has to go when one of these is erased.
fn subjects(raw: &mut Raw, wrong: &mut Option<String>) {
    let events = serde_json::from_slice(&raw.data).map_or_else(
        |_| Vec::new(),
        |body| match body {
            serde_json::Value::Array(events) => events,
            one => vec![one],
        },
    );
    let subjects = events.iter().filter_map(|event| event.get("datasubject"));
    let subjects: BTreeSet<&str> = subjects.map(|subject| subject.as_str().unwrap_or_default()).collect();
    match subjects.len() {
        0 => {}
        1 => {
            let subject = subjects.first().copied().unwrap_or_default();
            raw.attributes.insert("datasubject".to_owned(), Scalar::Text(subject.to_owned()));
        }
        _ => drop_data(raw, wrong, "about several data subjects"),
    }
}

/// Fills in what is optional, and notes what is wrong with it.
fn fill(event: &mut NewEvent, attributes: BTreeMap<String, Scalar>, wrong: &mut Option<String>) {
    for (name, value) in attributes {
        let known = NewEvent::RESERVED.contains(&&*name);
        let value = match value {
            Scalar::Text(value) => value,
            typed if known => text(&typed).into_owned(),
            typed => {
                event.extensions.insert(name, typed);
                continue;
            }
        };
        match &*name {
            "specversion" if value == "1.0" => {}
            "specversion" => *wrong = Some(format!("CloudEvents `{value}` are not read here, only `1.0`")),
            "subject" => event.subject = Some(value.into()),
            "dataschema" => event.schema = Some(value.into()),
            "correlationid" => event.correlation_id = Some(value.into()),
            "causationid" => event.causation_id = Some(value.into()),
            "datasubject" => event.data_subject = Some(value.into()),
            "datacontenttype" => event.content_type = Some(value.into()),
            "time" => match value.parse::<Timestamp>() {
                Ok(time) => event.time = Some(time),
                Err(cause) => *wrong = Some(format!("`time`: {cause}")),
            },
            "tags" => match value.parse::<Tags>() {
                Ok(tags) => event.tags = tags,
                Err(cause) => *wrong = Some(format!("`tags`: {cause}")),
            },
            // Others set what only a store sets: it is theirs, and means nothing here.
            _ if known => {}
            _ => drop(event.extensions.insert(name, Scalar::Text(value))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use quorate_data::event::{NewEvent, Scalar, Tags};

    use super::{Raw, read, typed, types, write};
    use crate::transports::Outgoing;

    fn full() -> Outgoing {
        let mut event = NewEvent::new("e-1", "/shop", "order.placed").json(&br#"{"total": 17}"#[..]);
        event.subject = Some("order 17 ☂".into());
        event.time = Some("2026-11-29T10:00:00+01:00".parse().unwrap());
        event.schema = Some("urn:order:1".into());
        event.correlation_id = Some("c".into());
        event.causation_id = Some("d".into());
        event.tags = Tags::new(["customer:4", "vip"]).unwrap();
        for (name, value) in [("aggregatetype", "order"), ("aggregateid", "17"), ("traceparent", "00-a-b-01")] {
            event.extensions.insert(name.to_owned(), Scalar::Text(value.to_owned()));
        }
        event.extensions.insert("retries".to_owned(), Scalar::Integer(17));
        event.extensions.insert("urgent".to_owned(), Scalar::Boolean(false));
        event.extensions.insert("digits".to_owned(), Scalar::Text("17".to_owned()));
        Outgoing::new("order-17", event)
    }

    fn raw(message: &Outgoing) -> Raw {
        let written = write(message);
        Raw {
            attributes: written.attributes.into_iter().collect(),
            plain: written.plain.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            content_type: message.event.content_type.as_deref().map(str::to_owned),
            data: message.event.data.clone().unwrap_or_default(),
            topic: "orders".to_owned(),
            ..Raw::default()
        }
    }

    #[test]
    fn a_message_comes_out_as_it_went_in() {
        let message = full();
        let read = read(raw(&message), true, 3);
        assert_eq!((&read.event, &read.key, read.unreadable.as_deref()), (&message.event, &message.key, None));
        assert_eq!((read.identity, read.redelivered, read.attempt), (message.identity(), true, 3));
    }

    #[test]
    fn types_outlive_headers_that_are_texts() {
        let (message, mut texts) = (full(), raw(&full()));
        let said = types(&write(&message).attributes).unwrap();
        assert_eq!(said, "retries:integer urgent:boolean");
        texts.attributes.values_mut().for_each(|value| *value = Scalar::Text(crate::attributes::text(value).into()));
        typed(&mut texts.attributes, &said);
        assert_eq!(read(texts, false, 1).event, message.event);
        let mut foreign = raw(&message);
        foreign.attributes.insert("retries".to_owned(), Scalar::Text("017".to_owned()));
        typed(&mut foreign.attributes, "retries:integer nothing:integer digits:number : x");
        assert_eq!(foreign.attributes["retries"], Scalar::Text("017".to_owned()), "what it was is not guessed");
    }

    #[test]
    fn what_cannot_be_read_keeps_whom_it_is_about_or_not_its_data() {
        let about = |subject: &str| {
            let mut personal = raw(&full());
            personal.attributes.insert("datasubject".to_owned(), Scalar::Text(subject.to_owned()));
            personal.attributes.insert("Bad Name".to_owned(), Scalar::Text("x".to_owned()));
            read(personal, false, 1)
        };
        let found = about("customer-4");
        assert!(found.unreadable.is_some() && found.event.data.is_some());
        assert_eq!(found.event.data_subject.as_deref(), Some("customer-4"));
        let nameless = about("a\u{7}b");
        assert!(nameless.unreadable.unwrap().contains("cannot be named"));
        assert_eq!((nameless.event.data_subject, nameless.event.data), (None, None));

        let structured = |body: &str| {
            let content_type = Some("application/cloudevents+json".to_owned());
            read(Raw { data: body.to_owned().into(), content_type, ..raw(&full()) }, false, 1).event
        };
        let one = structured(r#"{"id": "1", "datasubject": "customer-4", "data": {}}"#);
        assert_eq!((one.data_subject.as_deref(), one.data.is_some()), (Some("customer-4"), true));
        let several = structured(r#"[{"datasubject": "customer-4"}, {"datasubject": "customer-5"}]"#);
        assert_eq!((several.data_subject, several.data), (None, None));
        let nobody = structured(r#"{"id": "1"}"#);
        assert_eq!((nobody.data_subject, nobody.data.is_some()), (None, true));
    }

    #[test]
    fn the_headers_of_debeziums_router_are_there_and_are_enough() {
        let written = write(&full());
        let header =
            |name: &str| written.plain.iter().find(|(header, _)| *header == name).map(|(_, value)| value.as_str());
        assert_eq!(header("id"), Some("e-1"));
        assert_eq!(header("type"), Some("order.placed"));
        assert_eq!((header("aggregatetype"), header("aggregateid")), (Some("order"), Some("17")));
        let foreign = Raw {
            plain: [("id", "e-9"), ("eventType", "order.paid"), ("aggregateid", "17")]
                .map(|(a, b)| (a.to_owned(), b.to_owned()))
                .into(),
            data: "{}".into(),
            topic: "orders".to_owned(),
            ..Raw::default()
        };
        let read = read(foreign, false, 1);
        assert_eq!(read.unreadable, None);
        assert_eq!((&*read.identity, &*read.key, &*read.event.kind), ("/orders e-9", "17", "order.paid"));
    }

    #[test]
    fn what_cannot_be_read_says_why_and_keeps_its_data() {
        let nameless = read(Raw { data: "x".into(), topic: "t".to_owned(), ..Raw::default() }, false, 1);
        assert!(nameless.unreadable.unwrap().contains("no id"));
        assert_eq!(nameless.event.data.as_deref(), Some(&b"x"[..]));
        let mut structured = raw(&full());
        structured.content_type = Some("application/cloudevents+json".to_owned());
        assert!(read(structured, false, 1).unreadable.unwrap().contains("binary mode"));
        let mut timeless = raw(&full());
        timeless.attributes.insert("time".to_owned(), Scalar::Text("noon".to_owned()));
        assert!(read(timeless, false, 1).unreadable.unwrap().contains("`time`"));
        let mut huge = raw(&full());
        huge.data = vec![b'x'; super::MAX_DATA_BYTES + 1].into();
        let huge = read(huge, false, 1);
        assert!(huge.unreadable.unwrap().contains("8388609 bytes") && huge.event.data.is_none());
        let mut odd = raw(&full());
        odd.attributes.insert("partitionkey".to_owned(), Scalar::Text("a\0b".to_owned()));
        assert!(read(odd, false, 1).key.starts_with("blake3 "));
    }

    proptest! {
        #[test]
        fn any_header_can_be_read(text in any::<String>(), names in proptest::collection::btree_map("[a-zé%]{0,12}", any::<String>(), 0..8)) {
            let mut attributes = names.iter().map(|(name, value)| (name.clone(), Scalar::Text(value.clone()))).collect();
            typed(&mut attributes, &text);
            let data = text.clone().into();
            let _ = read(Raw { attributes, plain: names, message_id: Some(text), data, ..Raw::default() }, false, 1);
        }
    }
}
