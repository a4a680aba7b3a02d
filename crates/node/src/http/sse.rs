//! Following by server-sent events.
//!
//! `id:` is the event's position and, behind an `@`, the store's timeline, so a browser that comes back with
//! `Last-Event-ID` misses nothing and sees nothing twice; after a restore from a backup, where the same positions may hold
//! other events, it is told so instead. `event: caught-up` says that what follows is live; a comment with an `id:` now and
//! then says that the node is there, and lets a sparse filter advance; `event: closing` ends what the node itself ends. A
//! client that takes too little within the write timeout is let go, and so is one for which there is no memory: they can
//! come back to where they were. What was erased or truncated while a slow client took its time is read again before it
//! leaves.
//!
//! Source: HTML Living Standard, section 9.2, "Server-sent events".

use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Response,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use quorate_data::{
    event::{Position, Recorded},
    store::StoreError,
    subscription::{Batch, CatchUp},
};

use super::{
    Node, Shared,
    body_out::{Gone, Pieces, cut, pieces},
    cloud_events::{Layout, Renderer},
    json,
    memory::{self, Share, Shares},
    page::PIECE,
    problem::{Code, Problem},
    request::{self, Params},
};
use crate::verbs::Source;

pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// How soon a client that lost its connection may come back.
pub(super) const OPENING: &[u8] = b"retry: 1000\n\n";

/// Behind which position a reader goes on: `Last-Event-ID` when it comes back, `after` when it begins.
///
/// An id that is a position alone is taken for one of this timeline, as `after` is.
pub(super) fn resume(node: &Node, params: &Params<'_>, headers: &HeaderMap) -> Result<Option<Position>, Problem> {
    let Some(text) = request::header(headers, &LAST_EVENT_ID)?.filter(|text| !text.is_empty()) else {
        return Ok(params.number("after")?.map(Position::new));
    };
    let (position, timeline) = text.split_once('@').map_or((text, None), |(position, of)| (position, Some(of)));
    let last = request::whole(position).ok_or_else(|| {
        let detail = format!("`Last-Event-ID: {}` is no position", request::short(text));
        Problem::new(Code::InvalidParameter, detail).with("header", LAST_EVENT_ID.as_str())
    })?;
    if timeline.is_some_and(|timeline| timeline != self::timeline(node)) {
        let detail = format!(
            "`Last-Event-ID: {}` was given out by another store, or by this one before it was restored or moved: what \
             follows position {last} may be something else here",
            request::short(text)
        );
        return Err(Problem::new(Code::OtherTimeline, detail)
            .with("header", LAST_EVENT_ID.as_str())
            .with("logposition", node.streams.store().head().to_string()));
    }
    if last > 0 {
        node.env.reached("sse: a follower came back");
    }
    Ok(Some(Position::new(last)))
}

/// What ids say of the store's timeline.
pub(super) fn timeline(node: &Node) -> String {
    let of = node.streams.store().timeline();
    format!("{:016x}.{}", of.store, of.epoch)
}

/// Answers with a stream of events that does not end by itself.
pub(super) async fn follow(node: &Shared, source: Source) -> Result<Response<Body>, Problem> {
    let reader = node.streams.subscribe(source).await?;
    Ok(answer(node, "subscription", |node, pieces| async move { run(&node, reader, pieces).await }))
}

/// An answer of server-sent events, which the task `name` writes until it ends or its client is gone.
pub(super) fn answer<W>(node: &Shared, name: &'static str, write: impl FnOnce(Shared, Pieces) -> W) -> Response<Body>
where
    W: Future<Output = Result<Pieces, Gone>> + Send + 'static,
{
    let (pieces, body) = pieces();
    let counted = node.metrics.subscriber();
    let writing = write(node.clone(), pieces);
    node.env.tasks().spawn(name, async move {
        let _counted = counted;
        if let Ok(pieces) = writing.await {
            pieces.end().await;
        }
    });
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// What one turn of following brought.
enum Turn {
    Events(Batch),
    Silence,
    Over(&'static str),
    Gone,
}

async fn run(node: &Node, mut reader: CatchUp, pieces: Pieces) -> Result<Pieces, Gone> {
    let timeline = timeline(node);
    let mut stream = Frames { renderer: Renderer::new(Layout::OneLine), buffer: BytesMut::new(), timeline };
    stream.buffer.put_slice(OPENING);
    // The headers leave with the first piece: a client learns at once that it is connected.
    pieces.send(stream.take()).await?;
    let (mut position, mut told, mut live) = (Position::ZERO, Position::ZERO, false);
    let (mut let_go, mut shares) = (false, Shares::of(node));
    let mut heartbeat_due = node.env.mono() + node.config.http.heartbeat;
    loop {
        let turn = tokio::select! {
            biased;
            () = node.env.tasks().stop().cancelled() => Turn::Over("shutting-down"),
            () = pieces.gone() => Turn::Gone,
            next = reader.next_batch() => match next {
                Ok(batch) => Turn::Events(batch),
                Err(cause) => {
                    tracing::warn!(%cause, "a subscription ended");
                    let is_gone = matches!(cause, StoreError::Unreachable { .. });
                    Turn::Over(if is_gone { "store-unreachable" } else { "store-failed" })
                }
            },
            () = node.env.sleep_until(heartbeat_due) => Turn::Silence,
        };
        let over = match turn {
            Turn::Gone => return Err(Gone),
            Turn::Over(reason) => {
                pieces.send(closing(reason)).await?;
                return Ok(pieces);
            }
            Turn::Silence => {
                // Who waits behind a sparse filter, or at the log's end, need not look at all of it again.
                stream.heartbeat((position > told).then_some(position));
                false
            }
            Turn::Events(batch) => {
                let weight = memory::weight(&batch.events);
                let Some(share) = shares.now(weight) else {
                    // Let go of what was read, and read it again once there is memory for it.
                    if let Some(first) = batch.events.first() {
                        reader.go_back(first);
                    }
                    drop(batch);
                    if shares.wait(weight, &pieces).await? {
                        continue;
                    }
                    return Ok(pieces);
                };
                let caught_up = batch.live && !live;
                if !stream.tell(&mut reader, &batch, &share, caught_up, &pieces).await? {
                    continue;
                }
                (position, live) = (batch.position, batch.live);
                if caught_up || !batch.events.is_empty() {
                    told = position;
                    heartbeat_due = node.env.mono() + node.config.http.heartbeat;
                }
                let_go = node.env.buggify("sse: a follower is let go");
                batch.over
            }
        };
        if !stream.buffer.is_empty() {
            pieces.send(stream.take()).await?;
            told = position;
            heartbeat_due = node.env.mono() + node.config.http.heartbeat;
        }
        if over || let_go {
            pieces.send(closing(if over { "tombstoned" } else { "too-slow" })).await?;
            return Ok(pieces);
        }
    }
}

struct Frames {
    renderer: Renderer,
    buffer: BytesMut,
    timeline: String,
}

impl Frames {
    /// Tells `batch` and, behind it, that the reader has caught up, a piece at a time; `false` if something was forgotten
    /// meanwhile, and the rest is to be read again.
    async fn tell(
        &mut self,
        reader: &mut CatchUp,
        batch: &Batch,
        share: &Share,
        caught_up: bool,
        pieces: &Pieces,
    ) -> Result<bool, Gone> {
        let mut rest = batch.events.as_slice();
        while let Some(first) = rest.first() {
            while let Some((event, behind)) = rest.split_first()
                && self.buffer.len() < PIECE
            {
                self.event(event);
                rest = behind;
            }
            let asked = pieces.asked().await?;
            if reader.is_stale() {
                self.buffer.clear();
                reader.go_back(first);
                return Ok(false);
            }
            asked.send(share.with(self.take()))?;
        }
        if caught_up {
            self.caught_up(batch.position);
            pieces.send(self.take()).await?;
        }
        Ok(true)
    }

    fn event(&mut self, event: &Recorded) {
        self.id(event.position());
        self.buffer.put_slice(b"data: ");
        self.renderer.event(&mut self.buffer, event);
        self.buffer.put_slice(b"\n\n");
    }

    fn caught_up(&mut self, position: Position) {
        self.buffer.put_slice(b"event: caught-up\n");
        self.id(position);
        self.buffer.put_slice(b"data: {\"logposition\":\"");
        json::write_number(&mut self.buffer, position.get());
        self.buffer.put_slice(b"\"}\n\n");
    }

    fn heartbeat(&mut self, position: Option<Position>) {
        self.buffer.put_slice(b": heartbeat\n");
        if let Some(position) = position {
            self.id(position);
        }
        self.buffer.put_slice(b"\n");
    }

    fn id(&mut self, position: Position) {
        self.buffer.put_slice(b"id: ");
        json::write_number(&mut self.buffer, position.get());
        self.buffer.put_u8(b'@');
        self.buffer.put_slice(self.timeline.as_bytes());
        self.buffer.put_slice(b"\n");
    }

    fn take(&mut self) -> Bytes {
        cut(&mut self.buffer)
    }
}

/// What says why it ends.
pub(super) fn closing(reason: &str) -> Bytes {
    Bytes::from(format!("event: closing\ndata: {{\"reason\":\"{reason}\"}}\n\n"))
}
