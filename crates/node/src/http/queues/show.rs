//! Queues, deliveries and dead letters in JSON.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use humantime_serde::re::humantime::format_duration;
pub(in crate::http) use quorate_communication::cloud_events::write_event as event;
pub(super) use quorate_communication::cloud_events::write_event_exactly as event_exactly;
use quorate_communication::message_queue::{Cause, DeadLetter, Delivery, Description, Failure, Message, Sent, Summary};
use quorate_data::event::{NewEvent, Timestamp};
use quorate_foundations::time::Wall;
use serde_json::{Value, json};

use super::config;
use crate::http::{
    cloud_events::Form,
    json::{base64_bytes, string_bytes, string_or_base64_bytes, write_number, write_string},
};

pub(super) fn summary(one: &Summary) -> Value {
    match &one.config {
        Ok(config) => json!({ "queue": one.name.as_str(), "config": config::shown(config) }),
        Err(damaged) => json!({ "queue": one.name.as_str(), "config": null, "damaged": damaged.to_string() }),
    }
}

pub(super) fn description(one: &Description) -> Value {
    json!({
        "queue": one.name.as_str(),
        "config": config::shown(&one.config),
        "messages": one.counts.messages,
        "ready": one.counts.ready,
        "waiting": one.counts.waiting,
        "in-flight": one.counts.in_flight,
        "parked": one.counts.parked,
        "age-seconds": one.age.map(|age| age.as_secs_f64()),
        "consumers": one.consumers,
    })
}

pub(super) fn sent(all: &[Sent]) -> Value {
    let one = |one: &Sent| match &one.held_by {
        Some(holder) => json!({ "id": &*one.id, "repeated": false, "held-by": &**holder }),
        None => json!({ "id": &*one.id, "repeated": one.repeated }),
    };
    json!({ "messages": all.iter().map(one).collect::<Vec<_>>() })
}

/// Bytes that messages take together with their JSON, whose buffer is up to twice as large: it doubles when it is full.
pub(super) fn weight<'m>(messages: impl IntoIterator<Item = &'m Arc<Message>>) -> usize {
    let one = |message: &Arc<Message>| {
        let event = &message.event;
        let data = event.data.as_deref().unwrap_or_default();
        let shown = match Form::of(event.content_type.as_deref()) {
            Form::Text => string_or_base64_bytes(data),
            Form::Json | Form::Binary => base64_bytes(data),
        };
        let rest = event.size().saturating_sub(data.len())
            + [&message.group, &message.unique].into_iter().flatten().map(|text| text.len()).sum::<usize>();
        data.len() + 2 * (512 + 2 * rest + shown)
    };
    messages.into_iter().map(one).sum()
}

/// The same of dead letters, with what happened to them.
pub(super) fn weight_of_dead(all: &[DeadLetter]) -> usize {
    let failures = all.iter().flat_map(|one| &one.failures);
    let told = |one: &Failure| 2 * (128 + string_bytes(one.reason.as_bytes()));
    weight(all.iter().map(|one| &one.message)) + failures.map(told).sum::<usize>()
}

/// Writes an event as JSON.
pub(super) type Write = fn(&mut BytesMut, &NewEvent);

/// `{"deliveries":[…]}`
pub(super) fn deliveries(all: &[Delivery], write: Write) -> Bytes {
    let mut buffer = BytesMut::new();
    buffer.put_slice(b"{\"deliveries\":[");
    for (n, one) in all.iter().enumerate() {
        if n > 0 {
            buffer.put_u8(b',');
        }
        delivery(&mut buffer, one, write);
    }
    buffer.put_slice(b"]}");
    buffer.freeze()
}

/// One of them.
pub(super) fn delivery(buffer: &mut BytesMut, one: &Delivery, write: Write) {
    buffer.put_u8(b'{');
    message(buffer, &one.message, write);
    text(buffer, b",\"lease\":", Some(&one.lease.to_string()));
    buffer.put_slice(b",\"attempt\":");
    write_number(buffer, u64::from(one.attempt));
    text(buffer, b",\"ttl\":", Some(&format_duration(one.ttl).to_string()));
    buffer.put_u8(b'}');
}

/// `{"parked":[…]}`
pub(super) fn dead_letters(all: &[DeadLetter]) -> Bytes {
    let mut buffer = BytesMut::new();
    buffer.put_slice(b"{\"parked\":[");
    for (n, one) in all.iter().enumerate() {
        buffer.put_slice(if n == 0 { b"{" } else { b",{" });
        message(&mut buffer, &one.message, event);
        buffer.put_slice(b",\"attempts\":");
        write_number(&mut buffer, u64::from(one.attempts));
        let failures: Vec<Value> = one.failures.iter().map(failure).collect();
        buffer.put_slice(b",\"failures\":");
        buffer.put_slice(Value::from(failures).to_string().as_bytes());
        buffer.put_u8(b'}');
    }
    buffer.put_slice(b"]}");
    buffer.freeze()
}

pub(in crate::http) fn failure(one: &Failure) -> Value {
    let cause = match one.cause {
        Cause::Nacked => "nacked",
        Cause::Expired => "expired",
        Cause::Parked => "parked",
        Cause::Replayed => "replayed",
    };
    let at = Timestamp::from(Wall::from_unix_nanos(one.at));
    json!({ "attempt": one.attempt, "time": at.as_str(), "cause": cause, "reason": one.reason })
}

/// The members that say what the message is.
fn message(buffer: &mut BytesMut, message: &Message, write: Write) {
    buffer.put_slice(b"\"event\":");
    write(buffer, &message.event);
    text(buffer, b",\"group\":", message.group.as_deref());
    text(buffer, b",\"unique\":", message.unique.as_deref());
    buffer.put_slice(b",\"priority\":");
    write_number(buffer, u64::from(message.priority));
    text(buffer, b",\"sent\":", Some(Timestamp::from(message.sent_at).as_str()));
}

fn text(buffer: &mut BytesMut, key: &[u8], text: Option<&str>) {
    if let Some(text) = text {
        buffer.put_slice(key);
        write_string(buffer, text);
    }
}
