//! An event as programs see it: as the node serves it.

use quorate_foundations::jq::Value;

use crate::event::{Recorded, Scalar, Stub, Timestamp};

/// The event as the node serves it: CloudEvents attributes, quorate's own, `data`.
///
/// # Errors
/// Its data is not JSON, or cannot be computed with.
pub(super) fn served(event: &Recorded) -> Result<Value, String> {
    let (version, position) = (event.version().get().to_string(), event.position().get().to_string());
    let recorded = Timestamp::from(event.recorded_at());
    let attributes = [
        ("specversion", Some("1.0")),
        ("id", Some(event.id())),
        ("source", Some(event.source())),
        ("type", Some(event.kind())),
        ("subject", event.subject()),
        ("time", event.time_text()),
        ("datacontenttype", event.content_type()),
        ("dataschema", event.schema()),
        ("stream", Some(event.stream())),
        ("streamversion", Some(&version)),
        ("logposition", Some(&position)),
        ("recordedtime", Some(recorded.as_str())),
        ("correlationid", event.correlation_id()),
        ("causationid", event.causation_id()),
        ("tags", event.tags_text()),
        ("datasubject", event.data_subject()),
        ("stub", stub(event)),
    ];
    let attributes = attributes.into_iter().filter_map(|(name, text)| Some((name, Value::text(text?))));
    let extensions = event.extensions();
    let extensions = extensions.iter().map(|(name, value)| (name.as_str(), scalar(value)));
    let data = data(event)?;
    let data = data.into_iter().map(|data| ("data", data));
    Value::object(attributes.chain(extensions).chain(data)).map_err(|why| format!("its data: {why}"))
}

fn scalar(value: &Scalar) -> Value {
    match value {
        Scalar::Boolean(yes) => (*yes).into(),
        Scalar::Integer(n) => i64::from(*n).into(),
        Scalar::Text(text) => Value::text(text),
    }
}

fn data(event: &Recorded) -> Result<Option<Value>, String> {
    let Some(bytes) = event.data() else { return Ok(None) };
    let text = std::str::from_utf8(bytes).map_err(|_| "its data is not UTF-8".to_owned())?;
    let is_text = event.content_type().is_some_and(|kind| kind.starts_with("text/"));
    if is_text {
        return Ok(Some(Value::text(text)));
    }
    Value::read(text).map(Some).map_err(|why| format!("its data is not JSON: {why}"))
}

/// The word for why its data is gone.
fn stub(event: &Recorded) -> Option<&'static str> {
    match event.stub() {
        Some(Stub::Truncated) => Some("truncated"),
        Some(Stub::Tombstoned) => Some("tombstoned"),
        Some(Stub::Archived(_)) => Some("archived"),
        None => event.erased().then_some("erased"),
    }
}
