//! An outcome as the event that tells of it.

use bytes::BytesMut;
use quorate_data::event::{NewEvent, Scalar};

use crate::{
    cloud_events::{STRUCTURED, write_event},
    message_queue::{NewMessage, callbacks::Due},
    request::{DurableError, Fault, Payload, Status},
};

/// The type of an event that brings an answer.
pub const DONE: &str = "quorate.request.done";
/// The type of an event that brings a fault.
pub const FAILED: &str = "quorate.request.failed";
/// The type of an event that says that there is no answer; the request may have been done.
pub const UNANSWERED: &str = "quorate.request.unanswered";

/// The source of the messages that carry outcomes.
pub(super) const SOURCE: &str = "/requests/callbacks";

/// What became of the request `due`; `None` while nothing did.
pub(super) fn event(
    due: &Due,
    status: Result<Status<Payload>, DurableError>,
) -> Result<Option<NewEvent>, DurableError> {
    let source = format!("/v1/requests/{}/{}", segment(&due.kind), segment(&due.id));
    let of = |kind| NewEvent { subject: Some(due.id.as_str().into()), ..NewEvent::new("", source.as_str(), kind) };
    let event = match status {
        Ok(Status::Waiting { .. } | Status::Running { .. }) => return Ok(None),
        Ok(Status::Done(Payload { content_type, bytes })) => NewEvent {
            content_type: Some(content_type.map_or_else(|| "application/octet-stream".into(), Into::into)),
            data: Some(bytes),
            ..of(DONE)
        },
        Ok(Status::Failed { fault: Fault { code, detail, .. }, .. }) => {
            let told = serde_json::json!({ "code": code, "detail": detail });
            NewEvent {
                data: Some(told.to_string().into()),
                content_type: Some("application/json".into()),
                ..of(FAILED)
            }
        }
        // Who remembers nothing of it cannot say that it was not done.
        Ok(Status::Unanswered) | Err(DurableError::Forgotten { .. }) => of(UNANSWERED),
        Err(other) => return Err(other),
    };
    let id = id_of(due, &event);
    Ok(Some(NewEvent { id: id.into(), ..event }))
}

/// The message that carries `event` to whoever is told, in at most about `max` bytes.
pub(super) fn message(event: &NewEvent, max: usize) -> NewMessage {
    let carrying = |event: &NewEvent| {
        let mut body = BytesMut::new();
        write_event(&mut body, event);
        let mut message = NewEvent::new(event.id.as_ref(), SOURCE, event.kind.as_ref());
        message.content_type = Some(STRUCTURED.into());
        message.subject.clone_from(&event.subject);
        message.data = Some(body.freeze());
        message
    };
    let mut carried = carrying(event);
    if carried.size() > max {
        let mut bare = NewEvent { data: None, ..event.clone() };
        bare.extensions.insert("dataomitted".to_owned(), Scalar::Boolean(true));
        carried = carrying(&bare);
    }
    NewMessage::of(carried)
}

/// `text` as one segment of a path (RFC 3986).
fn segment(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// What the delivery of an outcome is called: one that says something else is another one.
fn id_of(due: &Due, event: &NewEvent) -> String {
    let mut hash = blake3::Hasher::new_derive_key("quorate request callback id");
    for part in [&event.source, &event.kind, event.content_type.as_ref().unwrap_or(&"".into())] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.update(&due.seq.to_le_bytes());
    hash.update(event.data.as_deref().unwrap_or_default());
    hash.finalize().as_bytes()[..16].iter().fold("msg_".to_owned(), |id, byte| id + &format!("{byte:02x}"))
}
