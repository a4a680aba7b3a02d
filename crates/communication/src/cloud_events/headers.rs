//! Recorded events in binary mode: attributes as `ce-…` headers, data as the body.

use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};
use quorate_data::event::{Recorded, Stub, Timestamp};

use super::{percent, render};
use crate::attributes;

/// Writes the attributes of `event` as headers, `content-type` among them.
pub fn to_headers(event: &Recorded, headers: &mut HeaderMap) {
    let (version, position) = (event.version().to_string(), event.position().to_string());
    let recorded = Timestamp::from(event.recorded_at());
    let archive = match event.stub() {
        Some(Stub::Archived(archive)) => Some(archive.to_string()),
        _ => None,
    };
    let attributes = [
        ("ce-specversion", Some("1.0")),
        ("ce-id", Some(event.id())),
        ("ce-source", Some(event.source())),
        ("ce-type", Some(event.kind())),
        ("ce-subject", event.subject()),
        ("ce-time", event.time_text()),
        ("ce-dataschema", event.schema()),
        ("ce-stream", Some(event.stream())),
        ("ce-streamversion", Some(&version)),
        ("ce-logposition", Some(&position)),
        ("ce-recordedtime", Some(recorded.as_str())),
        ("ce-correlationid", event.correlation_id()),
        ("ce-causationid", event.causation_id()),
        ("ce-tags", event.tags_text()),
        ("ce-datasubject", event.data_subject()),
        ("ce-stub", render::stub(event)),
        ("ce-archiveid", archive.as_deref()),
    ];
    for (name, text) in attributes.into_iter().filter_map(|(name, text)| Some((name, text?))) {
        headers.insert(HeaderName::from_static(name), header_value(text));
    }
    for (name, value) in event.extensions() {
        let text = attributes::text(&value);
        if let Ok(name) = HeaderName::from_bytes(format!("ce-{name}").as_bytes()) {
            headers.insert(name, header_value(&text));
        }
    }
    if let Some(media) = event.content_type().and_then(|media| HeaderValue::from_str(media).ok()) {
        headers.insert(CONTENT_TYPE, media);
    }
}

/// `text` as the value of a header, percent-encoded where it has to be.
pub fn header_value(text: &str) -> HeaderValue {
    HeaderValue::try_from(percent::encode(text)).unwrap_or_else(|_| unreachable!("only printable ASCII was written"))
}
