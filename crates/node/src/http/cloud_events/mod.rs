//! CloudEvents 1.0 over HTTP: one event or a batch as JSON, and one event in binary mode, in and out.
//!
//! Events come in as bytes of somebody else's and go out at hundreds of thousands a second, so nothing here builds a
//! tree: reading borrows from the request's body, writing ([`cloud_events`](quorate_communication::cloud_events)) goes from the
//! log's bytes into the reply's buffer.
//!
//! Sources: CloudEvents 1.0.2, "JSON Event Format" and "HTTP Protocol Binding".

mod binary;
mod parse;

pub(crate) use binary::{from_headers, is_binary};
pub(crate) use parse::{Fault, batch, event};
pub(crate) use quorate_communication::cloud_events::{
    BATCH, Form, Layout, Renderer, STRUCTURED, essence, rendered_bytes, to_headers,
};

/// Attributes that the store sets on what it serves, and refuses on what it is given.
const SET_BY_THE_STORE: [&str; 6] = ["stream", "streamversion", "logposition", "recordedtime", "stub", "archiveid"];

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use http::HeaderMap;
    use quorate_data::store::{AppendBatch, ExpectedVersion, ReadStream, Store, sqlite};
    use quorate_runtime::Env;

    use super::{Layout, Renderer, event, to_headers};

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
}
