//! CloudEvents 1.0: recorded events as JSON and as headers, for whoever carries them elsewhere.
//!
//! Events go out at hundreds of thousands a second, so nothing here builds a tree: writing goes from the log's bytes into the
//! buffer of whatever is sent. An event whose data is gone (its stream was truncated or closed, it was archived, its data subject
//! was erased) is written without data, and says why in the attribute `stub`.
//!
//! Sources: CloudEvents 1.0.2, "JSON Event Format" and "HTTP Protocol Binding".

mod headers;
pub mod json;
mod new_event;
pub mod percent;
mod render;

pub use headers::{header_value, to_headers};
pub use new_event::{write_event, write_event_exactly};
pub use render::{Layout, Renderer, rendered_bytes, stub};

/// The media type of one event as JSON.
pub const STRUCTURED: &str = "application/cloudevents+json";
/// The media type of a batch as JSON.
pub const BATCH: &str = "application/cloudevents-batch+json";

/// How data of a media type is written in a JSON event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As a JSON value.
    Json,
    /// As a JSON string.
    Text,
    /// In base64.
    Binary,
}

impl Form {
    /// The form for a `datacontenttype`. Without one, a JSON event's data is JSON.
    pub fn of(content_type: Option<&str>) -> Self {
        let Some(content_type) = content_type else { return Self::Json };
        let media = essence(content_type);
        if is(media, "application/json") || is(media, "text/json") || ends(media, "+json") {
            Self::Json
        } else if starts(media, "text/") || is(media, "application/xml") || ends(media, "+xml") {
            Self::Text
        } else {
            Self::Binary
        }
    }
}

/// A media type without its parameters.
pub fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

fn is(media: &str, name: &str) -> bool {
    media.eq_ignore_ascii_case(name)
}

fn starts(media: &str, prefix: &str) -> bool {
    media.get(..prefix.len()).is_some_and(|head| is(head, prefix))
}

fn ends(media: &str, suffix: &str) -> bool {
    media.len().checked_sub(suffix.len()).and_then(|at| media.get(at..)).is_some_and(|tail| is(tail, suffix))
}

#[cfg(test)]
mod tests {
    use super::Form;

    #[test]
    fn a_media_type_decides_the_form_of_data() {
        assert_eq!(Form::of(None), Form::Json);
        assert_eq!(Form::of(Some("Application/JSON; charset=utf-8")), Form::Json);
        assert_eq!(Form::of(Some("application/vnd.shop+json")), Form::Json);
        assert_eq!(Form::of(Some("text/plain")), Form::Text);
        assert_eq!(Form::of(Some("image/svg+xml")), Form::Text);
        assert_eq!(Form::of(Some("application/octet-stream")), Form::Binary);
        assert_eq!(Form::of(Some("")), Form::Binary);
        assert_eq!(Form::of(Some("é")), Form::Binary);
    }
}
