//! CloudEvents 1.0.2 in binary mode, and what Debezium's outbox router writes, as named texts: the part that all brokers share.
//!
//! A broker's headers hold the attributes under a prefix of its binding, and beside them the router's `id`, `type`, `aggregatetype` and
//! `aggregateid` without one. The data is the body, byte for byte. What others publish is read leniently: attributes win, then the router's
//! headers, then the broker's own.
#![cfg_attr(not(any(feature = "nats", feature = "rabbitmq")), allow(dead_code, reason = "brokers use it"))]

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_data::event::{NewEvent, Scalar, Tags, Timestamp};

use super::{
    Incoming, Outgoing,
    message::{MAX_DATA_BYTES, fitting, identity},
};

/// The extension that carries the key (CloudEvents, "Partitioning").
const KEY: &str = "partitionkey";
/// What the router's headers are called, and the attributes that they repeat.
const ROUTER: [(&str, &str); 4] =
    [("id", "id"), ("type", "type"), ("aggregatetype", "aggregatetype"), ("aggregateid", "aggregateid")];

/// Named texts of a message, as it is written.
pub(super) struct Written {
    /// CloudEvents attributes, without a prefix and without `datacontenttype`.
    pub(super) attributes: Vec<(String, String)>,
    /// The router's headers.
    pub(super) plain: Vec<(&'static str, String)>,
}

/// A message as a broker hands it over.
#[derive(Default)]
pub(super) struct Raw {
    /// CloudEvents attributes, without their prefix.
    pub(super) attributes: BTreeMap<String, String>,
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
    let mut attributes: Vec<(String, String)> = Vec::with_capacity(12);
    let mut put = |name: &str, value: &str| attributes.push((name.to_owned(), value.to_owned()));
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
    for (name, value) in message.event.extensions.iter().filter(|(name, _)| *name != KEY) {
        put(name, &text(value));
    }
    put(KEY, &message.key);
    let find = |wanted: &str| attributes.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
    let plain = ROUTER.iter().filter_map(|(header, name)| Some((*header, find(name)?))).collect();
    Written { attributes, plain }
}

fn text(value: &Scalar) -> String {
    match value {
        Scalar::Boolean(value) => value.to_string(),
        Scalar::Integer(value) => value.to_string(),
        Scalar::Text(value) => value.clone(),
    }
}

/// `raw` as a message. One that cannot be read says why, and holds what could be.
pub(super) fn read(mut raw: Raw, redelivered: bool, attempt: u32) -> Incoming {
    let mut wrong = None;
    if raw.content_type.as_deref().is_some_and(|kind| kind.starts_with("application/cloudevents")) {
        wrong =
            Some("CloudEvents in structured or batched mode are not read here: publish them in binary mode".to_owned());
    }
    let mut take = |name: &str| raw.attributes.remove(name);
    let (id, source, kind) = (take("id"), take("source"), take("type"));
    let plain = |name: &str| raw.plain.get(name).cloned();
    let id = id.or_else(|| plain("id")).or_else(|| raw.message_id.clone()).unwrap_or_else(|| {
        wrong.get_or_insert_with(|| "it has no id, so that copies of it could not be told".to_owned());
        blake3::hash(&raw.data).to_hex().to_string()
    });
    let source = source.unwrap_or_else(|| format!("/{}", raw.topic));
    let kind = kind.or_else(|| plain("eventType")).or_else(|| plain("type")).unwrap_or_else(|| "message".to_owned());
    let key = raw.attributes.remove(KEY).or_else(|| plain("aggregateid")).unwrap_or_else(|| id.clone());
    let mut event = NewEvent::new(id, source, kind);
    event.content_type = raw.content_type.map(Into::into);
    if raw.data.len() > MAX_DATA_BYTES {
        let (bytes, hash) = (raw.data.len(), blake3::hash(&raw.data).to_hex());
        wrong =
            Some(format!("its data has {bytes} bytes, more than {MAX_DATA_BYTES}, and was not kept (BLAKE3 {hash})"));
        raw.data = Bytes::new();
    }
    event.data = (!raw.data.is_empty()).then_some(raw.data);
    fill(&mut event, raw.attributes, &mut wrong);
    for name in ["aggregatetype", "aggregateid"] {
        if let Some(value) = raw.plain.remove(name) {
            event.extensions.entry(name.to_owned()).or_insert(Scalar::Text(value));
        }
    }
    if let Err(cause) = event.check() {
        // It stands in a column of its own where the message is parked.
        event.data_subject = None;
        wrong.get_or_insert_with(|| cause.to_string());
    }
    let (identity, key, unreadable) = (identity(&event), fitting(&key), wrong);
    Incoming { identity, key, event, unreadable, redelivered, attempt }
}

/// Fills in what is optional, and notes what is wrong with it.
fn fill(event: &mut NewEvent, attributes: BTreeMap<String, String>, wrong: &mut Option<String>) {
    for (name, value) in attributes {
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
            _ if NewEvent::RESERVED.contains(&&*name) => {}
            _ => drop(event.extensions.insert(name, Scalar::Text(value))),
        }
    }
}

/// `text` as a header takes it: what is not printable ASCII, blanks, quotes and `%` as percent and two digits (CloudEvents, HTTP binding, 3.1.3.2).
pub(super) fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'!' | b'#'..=b'$' | b'&'..=b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The reverse. What is no percent and two digits stays as it is; bytes that are no UTF-8 are replaced.
pub(super) fn unpercent(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let byte = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        out.push(byte.unwrap_or(bytes[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    String::from_utf8(out).unwrap_or_else(|wrong| String::from_utf8_lossy(wrong.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use quorate_data::event::{NewEvent, Scalar, Tags};

    use super::{Raw, percent, read, unpercent, write};
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
        timeless.attributes.insert("time".to_owned(), "noon".to_owned());
        assert!(read(timeless, false, 1).unreadable.unwrap().contains("`time`"));
        let mut huge = raw(&full());
        huge.data = vec![b'x'; super::MAX_DATA_BYTES + 1].into();
        let huge = read(huge, false, 1);
        assert!(huge.unreadable.unwrap().contains("8388609 bytes") && huge.event.data.is_none());
        let mut odd = raw(&full());
        odd.attributes.insert("partitionkey".to_owned(), "a\0b".to_owned());
        assert!(read(odd, false, 1).key.starts_with("blake3 "));
    }

    proptest! {
        #[test]
        fn any_text_survives_a_header(text in any::<String>()) {
            let header = percent(&text);
            prop_assert!(header.bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert_eq!(unpercent(&header), text);
        }

        #[test]
        fn any_header_can_be_read(text in any::<String>(), names in proptest::collection::btree_map("[a-zé%]{0,12}", any::<String>(), 0..8)) {
            let _ = unpercent(&text);
            let _ = read(Raw { attributes: names.clone(), plain: names, message_id: Some(text), ..Raw::default() }, false, 1);
        }
    }
}
