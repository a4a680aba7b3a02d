//! Recorded events, written as JSON straight from the log's bytes.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{BufMut, BytesMut};
use quorate_data::event::{Recorded, Stub, Timestamp};
use quorate_foundations::time::Wall;

use super::{
    Form,
    json::{is_json, string_bytes, write_number, write_string},
};

/// What may stand between the tokens of a rendered event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Line breaks inside data stay as they were received.
    AsReceived,
    /// Everything on one line: blanks stand for the line breaks between data's tokens.
    OneLine,
}

/// Writes events as CloudEvents in JSON.
pub struct Renderer {
    layout: Layout,
    // Events of one commit share their time, and writing one is the dearest part of an event.
    recorded_at: Wall,
    recorded_text: Timestamp,
}

impl Renderer {
    /// One that has written nothing yet.
    pub fn new(layout: Layout) -> Self {
        let recorded_at = Wall::default();
        Self { layout, recorded_at, recorded_text: recorded_at.into() }
    }

    /// Writes `event` as one JSON object.
    pub fn event(&mut self, buffer: &mut BytesMut, event: &Recorded) {
        // At once: a buffer that grows step by step ends up twice as large.
        buffer.reserve(rendered_bytes(event));
        buffer.put_slice(b"{\"specversion\":\"1.0\",\"id\":");
        write_string(buffer, event.id());
        text(buffer, b",\"source\":", Some(event.source()));
        text(buffer, b",\"type\":", Some(event.kind()));
        text(buffer, b",\"subject\":", event.subject());
        text(buffer, b",\"time\":", event.time_text());
        text(buffer, b",\"datacontenttype\":", event.content_type());
        text(buffer, b",\"dataschema\":", event.schema());
        text(buffer, b",\"stream\":", Some(event.stream()));
        number(buffer, b",\"streamversion\":\"", event.version().get());
        number(buffer, b",\"logposition\":\"", event.position().get());
        text(buffer, b",\"recordedtime\":", Some(self.recorded(event.recorded_at())));
        text(buffer, b",\"correlationid\":", event.correlation_id());
        text(buffer, b",\"causationid\":", event.causation_id());
        text(buffer, b",\"tags\":", event.tags_text());
        text(buffer, b",\"datasubject\":", event.data_subject());
        extensions(buffer, event.extensions_json());
        text(buffer, b",\"stub\":", stub(event));
        if let Some(Stub::Archived(archive)) = event.stub() {
            number(buffer, b",\"archiveid\":\"", archive.get());
        }
        if let Some(bytes) = event.data() {
            self.data(buffer, event, bytes);
        }
        buffer.put_u8(b'}');
    }

    fn recorded(&mut self, at: Wall) -> &str {
        if self.recorded_at != at {
            self.recorded_at = at;
            self.recorded_text = at.into();
        }
        self.recorded_text.as_str()
    }

    /// Data was checked when it came over HTTP, but a library may have written this log too: what claims to be JSON is
    /// looked at again, so that one lie cannot spoil a page.
    fn data(&self, buffer: &mut BytesMut, event: &Recorded, bytes: &[u8]) {
        match Form::of(event.content_type()) {
            Form::Json if is_json(bytes) => {
                buffer.put_slice(b",\"data\":");
                self.json(buffer, bytes);
            }
            Form::Text if std::str::from_utf8(bytes).is_ok() => {
                text(buffer, b",\"data\":", std::str::from_utf8(bytes).ok());
            }
            _ => {
                buffer.put_slice(b",\"data_base64\":\"");
                buffer.put_slice(STANDARD.encode(bytes).as_bytes());
                buffer.put_u8(b'"');
            }
        }
    }

    fn json(&self, buffer: &mut BytesMut, json: &[u8]) {
        let start = buffer.len();
        buffer.put_slice(json);
        if self.layout == Layout::OneLine {
            // A line break in valid JSON stands between tokens, never inside a string.
            let mut written = &mut buffer[start..];
            while let Some(at) = memchr::memchr2(b'\n', b'\r', written) {
                written[at] = b' ';
                written = &mut written[at + 1..];
            }
        }
    }
}

/// About how many bytes an event is as JSON.
pub fn rendered_bytes(event: &Recorded) -> usize {
    let data = event.data().unwrap_or_default();
    let data = match Form::of(event.content_type()) {
        _ if data.len() < 512 => data.len(),
        Form::Json => data.len(),
        Form::Text => string_bytes(data),
        Form::Binary => data.len().div_ceil(3) * 4,
    };
    512 + event.extensions_json().map_or(0, str::len) + data
}

/// The word for why its data is gone.
pub fn stub(event: &Recorded) -> Option<&'static str> {
    match event.stub() {
        Some(Stub::Truncated) => Some("truncated"),
        Some(Stub::Tombstoned) => Some("tombstoned"),
        Some(Stub::Archived(_)) => Some("archived"),
        None => event.erased().then_some("erased"),
    }
}

fn text(buffer: &mut BytesMut, key: &[u8], text: Option<&str>) {
    if let Some(text) = text {
        buffer.put_slice(key);
        write_string(buffer, text);
    }
}

fn number(buffer: &mut BytesMut, key: &[u8], number: u64) {
    buffer.put_slice(key);
    write_number(buffer, number);
    buffer.put_u8(b'"');
}

/// The members of a JSON object, as members of the one being written.
fn extensions(buffer: &mut BytesMut, object: Option<&str>) {
    let members = object.and_then(|object| object.strip_prefix('{')?.strip_suffix('}'));
    if let Some(members) = members.filter(|members| !members.is_empty()) {
        buffer.put_u8(b',');
        buffer.put_slice(members.as_bytes());
    }
}
