//! Reply bodies that are put together while they are sent.
//!
//! A task makes pieces, the connection takes them; none waits between the two: the task hands a piece over when the
//! connection asks for one, and can think better of it until then. A client that takes none for the write timeout loses
//! its stream or connection, and with it the task and everything that was held for it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

use super::{
    connection::Busy,
    memory::Share,
    peers::Place,
    sending::{Held, Outgoing, Sending},
};

/// A reply's body that is watched until its last byte has left.
pub(crate) struct Tracked {
    body: Body,
    held: Arc<Held>,
}

impl Tracked {
    /// `place` is the request's among those in progress, `share` what the body takes of the memory for replies.
    pub(crate) fn new(body: Body, busy: Busy, place: Option<Place>, share: Share) -> Self {
        let sending = Sending::new();
        if !body.is_end_stream() {
            busy.sends(&sending);
        }
        Self { body, held: Arc::new(Held { busy, _place: place, _share: share, sending }) }
    }
}

impl http_body::Body for Tracked {
    type Data = Outgoing;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Outgoing>, axum::Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            self.held.asked_in_vain();
            return Poll::Pending;
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(|bytes| self.held.hand(bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Where a task writes a body's pieces.
pub(crate) struct Pieces {
    to: mpsc::Sender<Piece>,
    /// One permit for each piece that the connection asks for.
    asked: Arc<Semaphore>,
}

enum Piece {
    Data(Bytes),
    End,
}

/// Nobody takes the pieces: stop making them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

impl Pieces {
    /// Hands over a piece as soon as the connection asks for one.
    pub(crate) async fn send(&self, piece: Bytes) -> Result<(), Gone> {
        self.asked().await?.send(piece)
    }

    /// Waits until the connection asks for a piece.
    pub(crate) async fn asked(&self) -> Result<Asked<'_>, Gone> {
        let permit = tokio::select! {
            biased;
            () = self.to.closed() => return Err(Gone),
            permit = self.asked.acquire() => permit.map_err(|_| Gone)?,
        };
        Ok(Asked { to: &self.to, permit })
    }

    /// Says that the body is complete. Without it, the connection breaks off, so that half a body never passes for one.
    pub(crate) async fn end(self) {
        if let Ok(asked) = self.asked().await {
            let _ = asked.hand(Piece::End);
        }
    }

    /// Completes when the client has gone.
    pub(crate) async fn gone(&self) {
        self.to.closed().await;
    }
}

/// The connection asks for a piece. If it is given none now, it still asks.
pub(crate) struct Asked<'p> {
    to: &'p mpsc::Sender<Piece>,
    permit: SemaphorePermit<'p>,
}

impl Asked<'_> {
    /// Hands it over.
    pub(crate) fn send(self, piece: Bytes) -> Result<(), Gone> {
        self.hand(Piece::Data(piece))
    }

    fn hand(self, piece: Piece) -> Result<(), Gone> {
        self.permit.forget();
        // Whoever asks has taken the piece before: there is room.
        self.to.try_send(piece).map_err(|_| Gone)
    }
}

/// What was written so far, as a piece. The buffer begins anew: one that went on behind the piece would keep the piece's memory
/// for as long as its writer waits for the client.
pub(crate) fn cut(buffer: &mut BytesMut) -> Bytes {
    std::mem::take(buffer).freeze()
}

/// A body and where its pieces are written.
pub(crate) fn pieces() -> (Pieces, Body) {
    let (to, from) = mpsc::channel(1);
    let asked = Arc::new(Semaphore::new(0));
    let body = Piecewise { from, asked: asked.clone(), waiting: false, ended: false };
    (Pieces { to, asked }, Body::new(body))
}

struct Piecewise {
    from: mpsc::Receiver<Piece>,
    asked: Arc<Semaphore>,
    /// Whether a piece was asked for that has not come.
    waiting: bool,
    ended: bool,
}

/// The body could not be completed.
#[derive(Debug, thiserror::Error)]
#[error("the reply could not be completed")]
struct BrokenOff;

impl http_body::Body for Piecewise {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if !std::mem::replace(&mut self.waiting, true) {
            self.asked.add_permits(1);
        }
        let piece = std::task::ready!(self.from.poll_recv(cx));
        self.waiting = false;
        self.ended = !matches!(piece, Some(Piece::Data(_)));
        Poll::Ready(match piece {
            Some(Piece::Data(bytes)) => Some(Ok(Frame::data(bytes))),
            Some(Piece::End) => None,
            None => Some(Err(BrokenOff)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}
