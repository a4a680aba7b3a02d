//! Decoders as plain functions of bytes, for the fuzzer in `fuzz/` and the tests that replay its corpus.
//!
//! Each says whether it took the bytes for what they claim to be, and panics where that would break a promise.

use bytes::Bytes;
use quorate_foundations::{
    jq::{Limits, Program, Value},
    name::Name,
    trace::{TraceContext, TraceParent},
};

use crate::{
    event::{Position, Recorded},
    materialized_view::declared::{Document, Format},
    schema,
    store::{Token, archive::ArchiveReader, erasure::Ledger, sqlite},
    subscription::Lease,
};

/// An event as it lies in the log.
pub fn event(bytes: &[u8]) -> bool {
    let Ok(event) = Recorded::decode(Position::new(1), Bytes::copy_from_slice(bytes)) else { return false };
    look_at(&event);
    true
}

/// A block of the log, and every event in it. Its checksum is made right, or nothing behind it would be reached.
pub fn block(bytes: &[u8]) -> bool {
    let Ok(events) = sqlite::events_of_block(1, bytes) else { return false };
    events.iter().for_each(look_at);
    true
}

fn look_at(event: &Recorded) {
    let _ = (event.happened_at(), event.category(), event.data_bytes(), event.data_hash(), event.stub());
    let _ = (event.tags().count(), event.extensions(), event.data_subject(), event.to_new());
}

/// A token.
pub fn token(bytes: &[u8]) -> bool {
    let Some(token) = text(bytes).and_then(|text| text.parse::<Token>().ok()) else { return false };
    assert_eq!(token.to_string().parse(), Ok(token), "a token is read back as it was written");
    true
}

/// A lease.
pub fn lease(bytes: &[u8]) -> bool {
    let Some(lease) = text(bytes).and_then(|text| text.parse::<Lease>().ok()) else { return false };
    assert_eq!(lease.to_string().parse(), Ok(lease), "a lease is read back as it was written");
    true
}

/// A run of the index. Its checksum is made right, or nothing behind it would be reached.
pub fn run(bytes: &[u8]) -> bool {
    let Ok(positions) = sqlite::positions_of_run(bytes) else { return false };
    assert!(positions.is_sorted(), "positions ascend");
    true
}

/// An archive, and every event in it.
pub fn archive(bytes: &[u8]) -> bool {
    let file = std::io::Cursor::new(bytes.to_vec());
    let Ok(mut archive) = ArchiveReader::open(Box::new(file)) else { return false };
    while let Ok(event) = archive.next_event() {
        let Some(event) = event else { return true };
        look_at(&event);
    }
    false
}

/// A ledger of erasures, as it is kept beside the backups.
pub fn ledger(bytes: &[u8]) -> bool {
    let Some(ledger) = text(bytes).and_then(|text| Ledger::from_json(text).ok()) else { return false };
    assert_eq!(Ledger::from_json(&ledger.to_json()).ok(), Some(ledger), "a ledger is read back as it was written");
    true
}

/// The header fields `traceparent` and `tracestate`, one a line.
pub fn traceparent(bytes: &[u8]) -> bool {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let Ok(Some(found)) = TraceContext::from_headers(lines.next(), lines) else { return false };
    let parent = found.context.parent;
    assert_eq!(parent.to_string().parse::<TraceParent>(), Ok(parent), "a parent is read back as it was written");
    true
}

/// The name of a stream.
pub fn name(bytes: &[u8]) -> bool {
    let Some(name) = text(bytes).and_then(|text| Name::new(text).ok()) else { return false };
    assert!((1..=512).contains(&name.as_str().len()), "a name keeps its limits");
    true
}

/// A JSON Schema.
pub fn schema(bytes: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice(bytes) else { return false };
    let Ok(schema) = schema::Schema::parse(&value, &schema::Limits::default()) else { return false };
    assert_eq!(schema.as_json(), &value, "a schema is kept as it was given");
    true
}

/// A jq program, which ends on a small input within small limits, twice alike.
pub fn program(bytes: &[u8]) -> bool {
    let Some(text) = text(bytes) else { return false };
    let program = match Program::compile(text) {
        Ok(program) => program,
        Err(fault) => {
            assert!(text.is_char_boundary(fault.at), "a fault has its place");
            return false;
        }
    };
    let limits = Limits { steps: 20_000, bytes: 1 << 20, depth: 1_000, outputs: 100 };
    let input = Value::read(r#"{"a": [1, 2.50, "\u00e9 x", null, true], "b": {"a": {"c": []}}}"#).unwrap_or_default();
    let first = program.run(input.clone(), limits);
    assert_eq!(program.run(input, limits), first, "a program always gives the same");
    true
}

/// The document of a view.
pub fn view(bytes: &[u8]) -> bool {
    let Some(text) = text(bytes) else { return false };
    match Document::read(text, Format::Toml) {
        Ok(_) => true,
        Err(faults) => {
            assert!(!faults.list.is_empty(), "what is refused is explained");
            false
        }
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}
