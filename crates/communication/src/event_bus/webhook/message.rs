//! An event as the delivery that an endpoint is sent.

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue,
    header::{CONTENT_TYPE, USER_AGENT},
};
use quorate_data::event::Recorded;
use quorate_foundations::time::Wall;

use super::{Content, Secret, signature};
use crate::cloud_events::{Layout, Renderer, STRUCTURED, to_headers};

/// What is sent: the same bytes for every attempt, unless the event's data goes between two of them.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// What the delivery is called.
    pub(super) id: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// What the media types of events begin with.
const EVENTS: &str = "application/cloudevents";
pub(crate) const AGENT: HeaderValue = HeaderValue::from_static(concat!("quorate/", env!("CARGO_PKG_VERSION")));

impl Message {
    /// `event`, as the endpoint wants it.
    pub(super) fn of(event: &Recorded, content: Content) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, AGENT);
        // The content type decides the mode: data that calls itself an event would be taken for the event.
        let poses = event.content_type().is_some_and(|media| {
            media.trim_start().get(..EVENTS.len()).is_some_and(|head| head.eq_ignore_ascii_case(EVENTS))
        });
        let body = match if poses { Content::Structured } else { content } {
            Content::Structured => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(STRUCTURED));
                let mut buffer = BytesMut::new();
                Renderer::new(Layout::AsReceived).event(&mut buffer, event);
                buffer.freeze()
            }
            Content::Binary => {
                to_headers(event, &mut headers);
                event.data_bytes().unwrap_or_default()
            }
        };
        Self { id: id_of(event), headers, body }
    }

    /// An event that is in no log, to see whether anybody takes it.
    pub(super) fn test(webhook: &str, (id, now): (&str, Wall)) -> Self {
        let time = quorate_data::event::Timestamp::from(now);
        let event = serde_json::json!({
            "specversion": "1.0",
            "id": id,
            "source": "/v1/webhooks",
            "type": TEST,
            "time": time.as_str(),
            "datacontenttype": "application/json",
            "data": { "webhook": webhook },
        });
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, AGENT);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(STRUCTURED));
        Self { id: id.to_owned(), headers, body: event.to_string().into() }
    }

    /// Its headers for an attempt that begins at `now`, signed with each of `secrets`.
    pub(super) fn signed<'s>(&self, now: Wall, secrets: impl Iterator<Item = &'s Secret>) -> HeaderMap {
        let mut headers = self.headers.clone();
        signature::sign(&mut headers, &self.id, now, &self.body, secrets);
        headers
    }
}

/// The type of an event that only tests an endpoint.
pub const TEST: &str = "quorate.webhook.test";

/// What the delivery of `event` is called, to whomever and however often it is sent, also from a store that was restored or moved:
/// a hash of the stream's name and of the event's link in its chain, which data that goes does not change.
fn id_of(event: &Recorded) -> String {
    let mut hash = blake3::Hasher::new_derive_key("quorate webhook id");
    hash.update(event.hash().as_bytes());
    hash.update(event.stream().as_bytes());
    let hash = hash.finalize();
    hash.as_bytes()[..16].iter().fold("msg_".to_owned(), |id, byte| id + &format!("{byte:02x}"))
}
