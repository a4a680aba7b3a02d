//! What is said to a node and what it says, as JSON.

use std::{collections::BTreeMap, str::FromStr, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{BufMut as _, Bytes, BytesMut};
use quorate_data::event::{NewEvent, Scalar};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{
    cloud_events::{json::write_string, write_event_exactly},
    transports::{Confirmed, Incoming, Outgoing, fitting, message::identity, under_its_own_id},
};

/// A message that was handed out, and the lease it is held under.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) message: Incoming,
    pub(super) lease: String,
}

/// A span as nodes read it, to the millisecond, and upwards.
pub(super) fn span(span: Duration) -> String {
    format!("{}ms", span.as_nanos().div_ceil(1_000_000))
}

/// The body that sends these messages.
pub(super) fn sending(messages: &[Outgoing]) -> Bytes {
    let mut buffer = BytesMut::new();
    buffer.put_slice(b"{\"messages\":[");
    for (n, message) in messages.iter().enumerate() {
        buffer.put_slice(if n == 0 { b"{\"event\":" } else { b",{\"event\":" });
        write_event_exactly(&mut buffer, &message.event);
        buffer.put_slice(b",\"group\":");
        write_string(&mut buffer, &message.key);
        buffer.put_u8(b'}');
    }
    buffer.put_slice(b"]}");
    buffer.freeze()
}

fn parsed<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|wrong| format!("the node's answer cannot be read: {wrong}"))
}

#[derive(Deserialize)]
struct Sent {
    messages: Vec<One>,
}

#[derive(Deserialize)]
struct One {
    repeated: bool,
}

/// What became of messages that were sent.
pub(super) fn sent(body: &[u8]) -> Result<Vec<Confirmed>, String> {
    let Sent { messages } = parsed(body)?;
    Ok(messages.into_iter().map(|One { repeated }| Confirmed { repeated }).collect())
}

#[derive(Deserialize)]
struct Page {
    queues: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    queue: String,
}

/// The names of a page of queues.
pub(super) fn names(body: &[u8]) -> Result<Vec<String>, String> {
    let Page { queues } = parsed(body)?;
    Ok(queues.into_iter().map(|Named { queue }| queue).collect())
}

#[derive(Deserialize)]
struct Deliveries<'b> {
    #[serde(borrow)]
    deliveries: Vec<Delivered<'b>>,
}

#[derive(Deserialize)]
struct Delivered<'b> {
    #[serde(borrow)]
    event: BTreeMap<String, &'b RawValue>,
    group: Option<String>,
    lease: String,
    attempt: u32,
}

/// What was handed out.
pub(super) fn deliveries(body: &[u8]) -> Result<Vec<Handed>, String> {
    let Deliveries { deliveries } = parsed(body)?;
    Ok(deliveries.into_iter().map(handed).collect())
}

/// A message. One that cannot be read says why, and holds no data: it might be about somebody who is not known.
fn handed(Delivered { mut event, group, lease, attempt }: Delivered<'_>) -> Handed {
    let (event, unreadable) = match read(&mut event) {
        Ok(event) => (under_its_own_id(event), None),
        Err(why) => (nameless(&mut event), Some(why)),
    };
    let key = group.map_or_else(|| fitting(&event.id), Arc::from);
    let identity = identity(&event);
    Handed { message: Incoming { identity, key, event, unreadable, redelivered: attempt > 1, attempt }, lease }
}

/// What is known of a message that cannot be read. One without an id is named by what it is, so that it has the same name when it comes again.
fn nameless(members: &mut BTreeMap<String, &RawValue>) -> NewEvent {
    let mut hasher = blake3::Hasher::new();
    for part in members.iter().flat_map(|(name, raw)| [name, raw.get()]) {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    let hash = format!("blake3 {}", hasher.finalize().to_hex());
    let mut known = |name: &str| members.remove(name).and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
    let (id, source, kind) = (known("id"), known("source"), known("type"));
    let or = |text: Option<String>, other: &str| text.unwrap_or_else(|| other.to_owned());
    NewEvent::new(or(id, &hash), or(source, "/unreadable"), or(kind, "message"))
}

/// An event by its members, which are left where they are not its own.
fn read(members: &mut BTreeMap<String, &RawValue>) -> Result<NewEvent, String> {
    let mut left = members.clone();
    let mut take = Taking(&mut left);
    let _of_the_format: Option<String> = take.one("specversion")?;
    let missing = |name: &str| format!("its `{name}` is missing");
    let id: String = take.one("id")?.ok_or_else(|| missing("id"))?;
    let source: String = take.one("source")?.ok_or_else(|| missing("source"))?;
    let kind: String = take.one("type")?.ok_or_else(|| missing("type"))?;
    let mut event = NewEvent::new(id, source, kind);
    event.subject = take.text("subject")?;
    event.time = take.parsed("time")?;
    event.content_type = take.text("datacontenttype")?;
    event.schema = take.text("dataschema")?;
    event.correlation_id = take.text("correlationid")?;
    event.causation_id = take.text("causationid")?;
    event.tags = take.parsed("tags")?.unwrap_or_default();
    event.data_subject = take.text("datasubject")?;
    let as_bytes: Option<String> = take.one("data_base64")?;
    let as_value = take.0.remove("data");
    event.data = match (as_bytes, as_value) {
        (Some(text), _) => Some(STANDARD.decode(text).map_err(|_| "its `data_base64` is no base64".to_owned())?.into()),
        (None, Some(value)) => Some(data(event.content_type.as_deref(), value)?),
        (None, None) => None,
    };
    for (name, value) in left {
        let value: Scalar = serde_json::from_str(value.get()).map_err(|wrong| format!("its `{name}`: {wrong}"))?;
        event.extensions.insert(name, value);
    }
    event.check().map_err(|wrong| wrong.to_string())?;
    Ok(event)
}

/// Data that stands there as a value: a text, or what it is.
fn data(content_type: Option<&str>, value: &RawValue) -> Result<Bytes, String> {
    use crate::cloud_events::Form;
    if Form::of(content_type) == Form::Json {
        return Ok(Bytes::copy_from_slice(value.get().as_bytes()));
    }
    serde_json::from_str::<String>(value.get()).map(Bytes::from).map_err(|wrong| format!("its `data`: {wrong}"))
}

struct Taking<'m, 'b>(&'m mut BTreeMap<String, &'b RawValue>);

impl Taking<'_, '_> {
    fn one<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, String> {
        let Some(raw) = self.0.remove(name) else { return Ok(None) };
        serde_json::from_str(raw.get()).map(Some).map_err(|wrong| format!("its `{name}`: {wrong}"))
    }

    fn text(&mut self, name: &str) -> Result<Option<Arc<str>>, String> {
        Ok(self.one::<String>(name)?.map(Into::into))
    }

    fn parsed<T: FromStr<Err: ToString>>(&mut self, name: &str) -> Result<Option<T>, String> {
        let text: Option<String> = self.one(name)?;
        text.map(|text| text.parse().map_err(|wrong: T::Err| format!("its `{name}`: {}", wrong.to_string())))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::BytesMut;
    use proptest::prelude::*;
    use quorate_data::event::{NewEvent, Scalar};

    use super::{deliveries, sending, span};
    use crate::{
        cloud_events::{write_event, write_event_exactly},
        transports::{Outgoing, message::told_apart},
    };

    fn full() -> NewEvent {
        let mut event = NewEvent::new("e 1", "/shop", "order.placed").json("{\"total\": 17}");
        event.subject = Some("order-17".into());
        event.time = Some("2026-03-01T12:00:00.5+01:00".parse().unwrap());
        event.schema = Some("/v1/schemas/order.placed/versions/2".into());
        event.correlation_id = Some("c-1".into());
        event.causation_id = Some("c-0".into());
        event.tags = "region:eu tenant:a".parse().unwrap();
        event.data_subject = Some("customer-4".into());
        event.extensions.insert("urgent".to_owned(), Scalar::Boolean(true));
        event.extensions.insert("retries".to_owned(), Scalar::Integer(-3));
        event.extensions.insert("note".to_owned(), Scalar::Text("17".to_owned()));
        event
    }

    fn answer(event: &str) -> String {
        format!(
            r#"{{"deliveries":[{{"event":{event},"group":"k","priority":4,"lease":"l-1","attempt":2,"ttl":"30s"}}]}}"#
        )
    }

    #[test]
    fn a_message_comes_out_as_it_went_in() {
        let plain = NewEvent { content_type: None, ..full() };
        let text = NewEvent { content_type: Some("text/plain".into()), data: Some("ä\0\"".into()), ..full() };
        let bytes = NewEvent { content_type: Some("image/png".into()), data: Some(vec![0, 255].into()), ..full() };
        let blank = NewEvent { data: Some("{}\n".into()), ..full() };
        let readable: &[fn(&mut BytesMut, &NewEvent)] = &[write_event, write_event_exactly];
        let events = [full(), plain, text, bytes, NewEvent::new("1", "/s", "t")].map(|event| (event, readable));
        // Blanks around JSON are kept only where all is in base64, as it is sent and asked for.
        for (event, writes) in events.into_iter().chain([(blank, &readable[1..])]) {
            for write in writes {
                let mut buffer = BytesMut::new();
                write(&mut buffer, &told_apart(event.clone()));
                let shown = answer(std::str::from_utf8(&buffer).unwrap());
                let handed = deliveries(shown.as_bytes()).unwrap().remove(0);
                assert_eq!((handed.message.event, handed.message.unreadable), (event.clone(), None), "{shown}");
                assert_eq!((&*handed.message.key, handed.message.attempt, &*handed.lease), ("k", 2, "l-1"));
                assert_eq!(handed.message.identity, Outgoing::new("k", event.clone()).identity());
                assert!(handed.message.redelivered);
            }
        }
    }

    #[test]
    fn what_cannot_be_read_says_why_and_keeps_no_data() {
        let shown = answer(r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","time":"noon","data":{"a":1}}"#);
        let handed = deliveries(shown.as_bytes()).unwrap().remove(0);
        assert!(handed.message.unreadable.unwrap().contains("`time`"));
        assert_eq!((&*handed.message.event.id, handed.message.event.data), ("1", None));
        let nameless = |lease| deliveries(answer("{}").replace("l-1", lease).as_bytes()).unwrap().remove(0).message;
        assert!(nameless("l-1").unreadable.is_some());
        assert_eq!(nameless("l-1").event.id, nameless("l-2").event.id, "it is the same when it comes again");
        assert!(deliveries(b"<html>").is_err());
    }

    #[test]
    fn a_span_is_never_said_shorter_than_it_is() {
        assert_eq!(span(Duration::from_micros(1_500)), "2ms");
        assert_eq!(span(Duration::ZERO), "0ms");
    }

    proptest! {
        #[test]
        fn any_answer_can_be_read_or_is_refused(body in any::<Vec<u8>>(), event in "[{}\\[\\]\",:a-z0-9]{0,40}") {
            let _ = deliveries(&body);
            let _ = deliveries(answer(&event).as_bytes());
        }

        #[test]
        fn any_key_is_sent_as_json(key in "[^\\p{C}]{1,40}") {
            let body = sending(&[Outgoing::new(key.as_str(), full())]);
            let read: serde_json::Value = serde_json::from_slice(&body).unwrap();
            prop_assert_eq!(&read["messages"][0]["group"], &serde_json::Value::from(key));
        }
    }
}
