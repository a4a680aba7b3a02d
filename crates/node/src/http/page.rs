//! Pages of events: read from the store a few hundred at a time and written into the reply as they come, so that a page
//! of any size costs the memory of one piece. What is erased or truncated meanwhile is read again before it leaves.

use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use quorate_data::{
    event::{Position, Recorded, Version},
    store::{Direction, LogPage, Query, ReadLog, ReadStream, StoreError, StreamPage},
};
use quorate_foundations::name::Name;
use tokio::sync::watch;

use super::{
    Node, Shared, accept,
    body_out::{Gone, Pieces, cut, pieces},
    cloud_events::{BATCH, Layout, Renderer},
    memory::{self, Share},
    problem::Problem,
    reply,
};
use crate::verbs::Streams;

/// Events read, and written into a reply, at a time.
pub(super) const STEP: usize = 256;

/// Bytes of a reply that are handed over at a time.
pub(super) const PIECE: usize = 64 << 10;

/// The events of a page.
pub(super) struct Events {
    /// Those that were read before it was answered.
    pub(super) first: Vec<Recorded>,
    /// Those that are read when the client takes them.
    pub(super) rest: Rest,
    /// What was taken of the memory for replies; nothing where that is still to be done.
    pub(super) shares: Vec<Share>,
}

impl Events {
    /// Events that nothing was taken for yet.
    pub(super) fn of(first: Vec<Recorded>, rest: Rest) -> Self {
        Self { first, rest, shares: Vec::new() }
    }
}

/// Where the rest of a page comes from.
#[derive(Clone)]
pub(super) enum Rest {
    /// There is none.
    Nothing,
    /// Every event of the log behind a position, up to another.
    Log { after: Position, last: Position },
    /// The versions of a stream from one to another, in a direction.
    Stream { stream: Name, from: Version, last: Version, direction: Direction },
    /// Events that were found already.
    Found { events: std::vec::IntoIter<Recorded>, stale: bool },
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
    pub(super) fn of_found(events: Vec<Recorded>) -> Self {
        if events.is_empty() { Self::Nothing } else { Self::Found { events: events.into_iter(), stale: false } }
    }

    fn is_found(&self) -> bool {
        matches!(self, Self::Found { .. })
    }

    fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// Takes note that something was forgotten since what is in memory was read.
    fn distrust(&mut self) {
        if let Self::Found { stale, .. } = self {
            *stale = true;
        }
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
            Self::Found { events, stale } => {
                let (some, stale): (Vec<Recorded>, bool) = (events.by_ref().take(STEP).collect(), *stale);
                if events.len() == 0 {
                    *self = Self::Nothing;
                }
                if stale { streams.again(&some).await } else { Ok(some) }
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
    /// A batch for whoever names it and likes it no less; else an object, which is what most can read.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        if accept::asks_for(headers, BATCH, reply::JSON) { Self::Array } else { Self::Object }
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

/// Since when a page is being read, to tell what was forgotten since.
pub(super) struct Since {
    forgotten: watch::Receiver<u64>,
    /// Whether the page shows what is left of events that were retired.
    stubs: bool,
}

impl Since {
    /// Before the first event is read.
    pub(super) fn now(streams: &Streams, stubs: bool) -> Self {
        Self { forgotten: streams.store().watch_forgotten(), stubs }
    }

    /// Whether something was forgotten since, of whatever stream.
    pub(super) fn is_stale(&self) -> bool {
        self.forgotten.has_changed().unwrap_or(true)
    }
}

/// A reply that holds `events`, then `members`.
///
/// # Errors
/// There is no memory for it.
pub(super) fn reply(
    node: &Shared,
    form: Form,
    since: Since,
    events: Events,
    members: &str,
) -> Result<Response<Body>, Problem> {
    let Events { first: events, rest, shares } = events;
    let mut page = Page { renderer: Renderer::new(Layout::AsReceived), buffer: BytesMut::new(), first: true, since };
    page.buffer.put_slice(form.opening());
    let closing = form.closing(members);
    let size: usize = events.iter().map(|event| event.data().map_or(0, <[u8]>::len)).sum();
    let body = if rest.is_nothing() && size <= 4 * PIECE && !page.since.is_stale() {
        events.iter().for_each(|event| page.write(event));
        page.buffer.put_slice(&closing);
        Body::from(page.buffer.freeze())
    } else {
        let share = if shares.is_empty() { node.share_or_refuse(memory::weight(&events))? } else { Share::default() };
        let (pieces, body) = pieces();
        let node_of_task = node.clone();
        node.env.tasks().spawn("page", async move {
            let _shares = shares;
            // Without an end the reply breaks off: half a page must not look like one.
            if page.send(&node_of_task, (events, share), rest, &pieces).await.is_ok()
                && pieces.send(closing).await.is_ok()
            {
                pieces.end().await;
            }
        });
        body
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(form.media()));
    accept::varies(response.headers_mut());
    Ok(response)
}

fn broke_off(cause: StoreError) -> Gone {
    tracing::warn!(%cause, "a page broke off");
    Gone
}

/// The next events and their share of the memory for replies.
async fn read(node: &Node, rest: &mut Rest) -> Result<(Vec<Recorded>, Share), Gone> {
    let before = if rest.is_found() { Rest::Nothing } else { rest.clone() };
    let events = rest.read(&node.streams).await.map_err(broke_off)?;
    if before.is_nothing() {
        // What was found was counted then.
        return Ok((events, Share::default()));
    }
    let weight = memory::weight(&events);
    if let Some(share) = node.share(weight) {
        return Ok((events, share));
    }
    drop(events);
    let share = node.share_in_time(weight).await.ok_or(Gone)?;
    *rest = before;
    Ok((rest.read(&node.streams).await.map_err(broke_off)?, share))
}

struct Page {
    renderer: Renderer,
    buffer: BytesMut,
    first: bool,
    since: Since,
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
        (mut events, mut share): (Vec<Recorded>, Share),
        mut rest: Rest,
        pieces: &Pieces,
    ) -> Result<(), Gone> {
        loop {
            let mut sent = 0;
            while let Some(left) = events.get(sent..).filter(|left| !left.is_empty()) {
                let (written, first) = (self.buffer.len(), self.first);
                let count = self.fill(left);
                let asked = pieces.asked().await?;
                if self.since.is_stale() {
                    self.buffer.truncate(written);
                    self.first = first;
                    rest.distrust();
                    events = self.again(node, left).await?;
                    sent = 0;
                    continue;
                }
                asked.send(share.with(cut(&mut self.buffer)))?;
                sent += count;
            }
            // Let go before more is asked for: who holds some and waits for more may wait for itself.
            drop((events, share));
            if rest.is_nothing() {
                return if self.buffer.is_empty() { Ok(()) } else { pieces.send(cut(&mut self.buffer)).await };
            }
            (events, share) = read(node, &mut rest).await?;
        }
    }

    /// Writes a piece of `events`, and says how many went into it.
    fn fill(&mut self, events: &[Recorded]) -> usize {
        let full = events.iter().position(|event| {
            self.write(event);
            self.buffer.len() >= PIECE
        });
        full.map_or(events.len(), |last| last + 1)
    }

    /// `events` as they are now.
    async fn again(&mut self, node: &Node, events: &[Recorded]) -> Result<Vec<Recorded>, Gone> {
        self.since.forgotten.mark_unchanged();
        let mut again = node.streams.again(events).await.map_err(broke_off)?;
        again.retain(|event| self.since.stubs || event.stub().is_none());
        Ok(again)
    }
}
