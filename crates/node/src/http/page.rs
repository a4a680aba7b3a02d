//! Pages of events: read from the store a few hundred at a time and written into the reply as they come, so that a page
//! of any size costs the memory of one piece.

use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header::ACCEPT, header::CONTENT_TYPE};
use quorate_data::{
    event::{Position, Recorded, Version},
    store::{Direction, LogPage, Query, ReadLog, ReadStream, StoreError, StreamPage},
};
use quorate_foundations::name::Name;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Node, Shared,
    body_out::{Gone, Pieces, pieces},
    cloud_events::{BATCH, Layout, Renderer},
    reply,
};
use crate::verbs::Streams;

/// Events read, and written into a reply, at a time.
pub(super) const STEP: usize = 256;

/// Bytes of a reply that are handed over at a time.
pub(super) const PIECE: usize = 64 << 10;

/// Where the rest of a page comes from.
pub(super) enum Rest {
    /// There is none.
    Nothing,
    /// Every event of the log behind a position, up to another.
    Log { after: Position, last: Position },
    /// The versions of a stream from one to another, in a direction.
    Stream { stream: Name, from: Version, last: Version, direction: Direction },
    /// Events that were found already, with their share of the memory for pages.
    Found { events: std::vec::IntoIter<Recorded>, _shares: Vec<OwnedSemaphorePermit> },
}

impl Rest {
    /// The rest of a page of the whole log that shall end at `last`.
    pub(super) fn of_log(page: &LogPage, last: Position) -> Self {
        if page.scanned >= last { Self::Nothing } else { Self::Log { after: page.scanned, last } }
    }

    /// The rest of a page of a stream that shall end at version `last`.
    pub(super) fn of_stream(page: &StreamPage, stream: &Name, last: Version, direction: Direction) -> Self {
        match page.next {
            Some(from) if !beyond(from, last, direction) => {
                Self::Stream { stream: stream.clone(), from, last, direction }
            }
            _ => Self::Nothing,
        }
    }

    /// Events in memory, sent a few at a time.
    pub(super) fn of_found(events: Vec<Recorded>, shares: Vec<OwnedSemaphorePermit>) -> Self {
        if events.is_empty() { Self::Nothing } else { Self::Found { events: events.into_iter(), _shares: shares } }
    }

    fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// The next events; the rest moves on.
    async fn read(&mut self, streams: &Streams) -> Result<Vec<Recorded>, StoreError> {
        match self {
            Self::Nothing => Ok(Vec::new()),
            Self::Log { after, last } => {
                let last = *last;
                let limit = usize::try_from(last.get() - after.get()).unwrap_or(STEP).min(STEP);
                let page = streams.log(ReadLog { query: Query::EVERYTHING, after: *after, limit }).await?;
                if page.scanned == *after {
                    let what = format!("nothing follows position {after}, although the log goes on to {last}");
                    return Err(StoreError::Corrupt { place: "log".to_owned(), what });
                }
                *self = Self::of_log(&page, last);
                Ok(page.events)
            }
            Self::Stream { stream, from, last, direction } => {
                let (stream, from, last, direction) = (stream.clone(), *from, *last, *direction);
                let limit = usize::try_from(from.get().abs_diff(last.get()) + 1).unwrap_or(STEP).min(STEP);
                let read = ReadStream { stream: stream.clone(), from: Some(from), direction, limit };
                let mut page = streams.store().read_stream(read).await?;
                page.events.retain(|event| !beyond(event.version(), last, direction));
                *self = Self::of_stream(&page, &stream, last, direction);
                Ok(page.events)
            }
            Self::Found { events, .. } => {
                let some = events.by_ref().take(STEP).collect();
                if events.len() == 0 {
                    *self = Self::Nothing;
                }
                Ok(some)
            }
        }
    }
}

/// Whether `version` lies behind `last` in the direction of reading.
pub(super) fn beyond(version: Version, last: Version, direction: Direction) -> bool {
    match direction {
        Direction::Forward => version > last,
        Direction::Backward => version < last,
    }
}

/// The two forms of a page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `{"events": [...], …}`
    Object,
    /// `[...]`, the batch of CloudEvents.
    Array,
}

impl Form {
    /// The form a client accepts; an object unless it asks for a batch.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let accepts = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let batch = accepts.flat_map(|value| value.split(',')).any(|one| super::cloud_events::essence(one) == BATCH);
        if batch { Self::Array } else { Self::Object }
    }

    fn media(self) -> &'static str {
        if self == Self::Object { reply::JSON } else { BATCH }
    }

    fn opening(self) -> &'static [u8] {
        if self == Self::Object { b"{\"events\":[" } else { b"[" }
    }

    /// What follows the events: `members` of the object, each with a comma before it.
    fn closing(self, members: &str) -> Bytes {
        if self == Self::Object { Bytes::from(format!("]{members}}}")) } else { Bytes::from_static(b"]") }
    }
}

/// A reply that holds `events`, then `rest`, then `members`.
pub(super) fn reply(node: &Shared, form: Form, events: Vec<Recorded>, rest: Rest, members: &str) -> Response<Body> {
    let mut page = Page { renderer: Renderer::new(Layout::AsReceived), buffer: BytesMut::new(), first: true };
    page.buffer.put_slice(form.opening());
    let closing = form.closing(members);
    let size: usize = events.iter().map(|event| event.data().map_or(0, <[u8]>::len)).sum();
    let body = if rest.is_nothing() && size <= 4 * PIECE {
        events.iter().for_each(|event| page.write(event));
        page.buffer.put_slice(&closing);
        Body::from(page.buffer.freeze())
    } else {
        let (pieces, body) = pieces(&node.env, node.config.http.write_timeout, None);
        let node_of_task = node.clone();
        node.env.tasks().spawn("page", async move {
            // Without an end the reply breaks off: half a page must not look like one.
            let sent = page.send(&node_of_task, events, rest, &pieces).await;
            if sent.is_ok() && pieces.send(closing).await.is_ok() {
                pieces.end().await;
            }
        });
        body
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(form.media()));
    response
}

struct Page {
    renderer: Renderer,
    buffer: BytesMut,
    first: bool,
}

impl Page {
    fn write(&mut self, event: &Recorded) {
        if !std::mem::take(&mut self.first) {
            self.buffer.put_u8(b',');
        }
        self.renderer.event(&mut self.buffer, event);
    }

    async fn send(
        mut self,
        node: &Node,
        mut events: Vec<Recorded>,
        mut rest: Rest,
        pieces: &Pieces,
    ) -> Result<(), Gone> {
        loop {
            for event in std::mem::take(&mut events) {
                self.write(&event);
                if self.buffer.len() >= PIECE {
                    pieces.send(self.buffer.split().freeze()).await?;
                }
            }
            if rest.is_nothing() {
                return pieces.send(self.buffer.split().freeze()).await;
            }
            events = rest.read(&node.streams).await.map_err(|cause| {
                tracing::warn!(%cause, "a page broke off");
                Gone
            })?;
        }
    }
}
