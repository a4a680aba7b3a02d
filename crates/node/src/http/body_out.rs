//! Reply bodies that are put together while they are sent.
//!
//! A task writes pieces, the connection takes them; one piece waits between the two. A client that takes none for the
//! write timeout loses its task, and with it everything that was held for it.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use quorate_runtime::Env;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::connection::Busy;

/// A reply's body that says when it was sent or given up.
pub(crate) struct Tracked {
    body: Body,
    _busy: Busy,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Tracked {
    pub(crate) fn new(body: Body, busy: Busy, permit: Option<OwnedSemaphorePermit>) -> Self {
        Self { body, _busy: busy, _permit: permit }
    }
}

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
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
    env: Env,
    patience: Duration,
}

enum Piece {
    Data(Bytes),
    End,
}

/// Nobody takes the pieces: stop making them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

impl Pieces {
    /// Hands over a piece.
    pub(crate) async fn send(&self, piece: Bytes) -> Result<(), Gone> {
        self.hand(Piece::Data(piece)).await
    }

    /// Says that the body is complete. Without it, the connection breaks off, so that half a body never passes for one.
    pub(crate) async fn end(self) {
        let _ = self.hand(Piece::End).await;
    }

    async fn hand(&self, piece: Piece) -> Result<(), Gone> {
        match self.env.timeout(self.patience, self.to.send(piece)).await {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) | None => Err(Gone),
        }
    }

    /// Completes when the client has gone.
    pub(crate) async fn gone(&self) {
        self.to.closed().await;
    }
}

/// A body and where its pieces are written. `parting` is what a client that was too slow finds at its end, if it comes
/// back to read; without it the body breaks off.
pub(crate) fn pieces(env: &Env, patience: Duration, parting: Option<Bytes>) -> (Pieces, Body) {
    let (to, from) = mpsc::channel(1);
    (Pieces { to, env: env.clone(), patience }, Body::new(Piecewise { from, parting, ended: false }))
}

struct Piecewise {
    from: mpsc::Receiver<Piece>,
    parting: Option<Bytes>,
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
        let piece = std::task::ready!(self.from.poll_recv(cx));
        self.ended = !matches!(piece, Some(Piece::Data(_)));
        Poll::Ready(match piece {
            Some(Piece::Data(bytes)) => Some(Ok(Frame::data(bytes))),
            Some(Piece::End) => None,
            None => Some(self.parting.take().map(Frame::data).ok_or(BrokenOff)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}
