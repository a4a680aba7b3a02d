//! CloudEvents 1.0 over HTTP: one event or a batch as JSON, and one event in binary mode, in and out.
//!
//! Events come in as bytes of somebody else's and go out at hundreds of thousands a second, so nothing here builds a
//! tree: reading borrows from the request's body, writing goes from the log's bytes into the reply's buffer.
//!
//! Sources: CloudEvents 1.0.2, "JSON Event Format" and "HTTP Protocol Binding".

mod binary;
mod parse;
mod render;

pub(crate) use binary::{from_headers, is_binary, to_headers};
pub(crate) use parse::{Fault, batch, event};
pub(crate) use render::{Layout, Renderer, rendered_bytes};

/// The media type of one event as JSON.
pub(crate) const STRUCTURED: &str = "application/cloudevents+json";
/// The media type of a batch as JSON.
pub(crate) const BATCH: &str = "application/cloudevents-batch+json";

/// Attributes that the store sets on what it serves, and refuses on what it is given.
const SET_BY_THE_STORE: [&str; 6] = ["stream", "streamversion", "logposition", "recordedtime", "stub", "archiveid"];

/// How data of a media type is written in a JSON event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As a JSON value.
    Json,
    /// As a JSON string.
    Text,
    /// In base64.
    Binary,
}

impl Form {
    /// The form for a `datacontenttype`. Without one, a JSON event's data is JSON.
    pub(crate) fn of(content_type: Option<&str>) -> Self {
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
pub(crate) fn essence(content_type: &str) -> &str {
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
    use bytes::{Bytes, BytesMut};
    use http::HeaderMap;
    use quorate_data::store::{AppendBatch, ExpectedVersion, ReadStream, Store, sqlite};
    use quorate_runtime::Env;

    use super::{Form, Layout, Renderer, event, to_headers};

    /// The event at the beginning of the stream, as JSON and as headers.
    async fn served(store: &Store) -> (String, HeaderMap) {
        let page = store.read_stream(ReadStream::forward("s".parse().unwrap(), 1)).await.unwrap();
        let (mut json, mut headers) = (BytesMut::new(), HeaderMap::new());
        Renderer::new(Layout::AsReceived).event(&mut json, &page.events[0]);
        to_headers(&page.events[0], &mut headers);
        (String::from_utf8(json.to_vec()).unwrap(), headers)
    }

    #[tokio::test]
    async fn data_of_a_data_subject_is_served_in_the_clear_until_it_is_erased() {
        let folder = tempfile::tempdir().unwrap();
        let store = sqlite::open(&Env::real(), sqlite::Config::at(folder.path().join("s.db"))).await.unwrap();
        let json =
            r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","datasubject":"c-17","data":{"to":"Elm"}}"#;
        let body = Bytes::from(json);
        let events = vec![event(&body, &body).unwrap()];
        store.append(AppendBatch::to("s".parse().unwrap(), ExpectedVersion::Any, events)).await.unwrap();
        let (json, headers) = served(&store).await;
        assert!(json.ends_with(r#","datasubject":"c-17","data":{"to":"Elm"}}"#), "{json}");
        assert_eq!(headers["ce-datasubject"], "c-17");
        assert!(!headers.contains_key("ce-stub"));
        store.erase("c-17").await.unwrap();
        let (json, headers) = served(&store).await;
        assert!(json.ends_with(r#","datasubject":"c-17","stub":"erased"}"#), "{json}");
        assert_eq!(headers["ce-stub"], "erased");
    }

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
