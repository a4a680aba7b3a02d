//! Events that are not recorded yet, such as messages carry, written as JSON.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{BufMut, BytesMut};
use quorate_data::event::{NewEvent, Timestamp};
use serde_json::json;

use super::{
    Form,
    json::{is_json, write_string},
};

/// Writes `event` as one JSON object, for people and programs. Data that is JSON or text stands there as such, so that blanks around
/// JSON are nobody's; other data in base64.
pub fn write_event(buffer: &mut BytesMut, event: &NewEvent) {
    attributes(buffer, event);
    if let Some(bytes) = &event.data {
        data(buffer, event.content_type.as_deref(), bytes);
    }
    buffer.put_u8(b'}');
}

/// The same with all data in base64, byte for byte, so that whoever reads it adds no media type to an event that has none.
pub fn write_event_exactly(buffer: &mut BytesMut, event: &NewEvent) {
    attributes(buffer, event);
    text(buffer, b",\"data_base64\":", event.data.as_deref().map(|bytes| STANDARD.encode(bytes)).as_deref());
    buffer.put_u8(b'}');
}

fn attributes(buffer: &mut BytesMut, event: &NewEvent) {
    buffer.put_slice(b"{\"specversion\":\"1.0\",\"id\":");
    write_string(buffer, &event.id);
    text(buffer, b",\"source\":", Some(&event.source));
    text(buffer, b",\"type\":", Some(&event.kind));
    text(buffer, b",\"subject\":", event.subject.as_deref());
    text(buffer, b",\"time\":", event.time.as_ref().map(Timestamp::as_str));
    text(buffer, b",\"datacontenttype\":", event.content_type.as_deref());
    text(buffer, b",\"dataschema\":", event.schema.as_deref());
    text(buffer, b",\"correlationid\":", event.correlation_id.as_deref());
    text(buffer, b",\"causationid\":", event.causation_id.as_deref());
    text(buffer, b",\"tags\":", Some(event.tags.as_str()).filter(|tags| !tags.is_empty()));
    text(buffer, b",\"datasubject\":", event.data_subject.as_deref());
    for (name, value) in &event.extensions {
        buffer.put_u8(b',');
        write_string(buffer, name);
        buffer.put_u8(b':');
        buffer.put_slice(json!(value).to_string().as_bytes());
    }
}

/// Data was checked when it came over HTTP, but a library may have sent it: what claims to be JSON is looked at again.
fn data(buffer: &mut BytesMut, content_type: Option<&str>, bytes: &[u8]) {
    match (Form::of(content_type), std::str::from_utf8(bytes)) {
        (Form::Json, _) if is_json(bytes) => {
            buffer.put_slice(b",\"data\":");
            buffer.put_slice(bytes);
        }
        (Form::Text, Ok(data)) => text(buffer, b",\"data\":", Some(data)),
        _ => text(buffer, b",\"data_base64\":", Some(&STANDARD.encode(bytes))),
    }
}

fn text(buffer: &mut BytesMut, key: &[u8], text: Option<&str>) {
    if let Some(text) = text {
        buffer.put_slice(key);
        write_string(buffer, text);
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use quorate_data::event::NewEvent;

    use super::{write_event, write_event_exactly};

    #[test]
    fn json_is_shown_as_such_and_exactly_only_to_whoever_asks() {
        let shown = |data: &'static str, write: fn(&mut BytesMut, &NewEvent)| {
            let mut buffer = BytesMut::new();
            let mut event = NewEvent::new("1", "/test", "x").json(Bytes::new());
            event.data = Some(data.into());
            write(&mut buffer, &event);
            String::from_utf8(buffer.to_vec()).unwrap()
        };
        assert!(shown(r#"{ "a": 1 }"#, write_event).ends_with(r#","data":{ "a": 1 }}"#));
        assert!(shown("{}\n", write_event).ends_with(",\"data\":{}\n}"));
        assert!(shown("{}\n", write_event_exactly).ends_with(r#","data_base64":"e30K"}"#));
        assert!(shown("no json", write_event).contains("data_base64"));
    }
}
