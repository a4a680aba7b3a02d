//! Reply bodies that are put together while they are sent.
//!
//! A task makes pieces, the connection takes them; none waits between the two: the task hands a piece over when the
//! connection asks for one, and can think better of it until then. A client that takes none for the write timeout loses
//! its task, and with it everything that was held for it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use quorate_runtime::Env;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, mpsc};

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
    /// One permit for each piece that the connection asks for.
    asked: Arc<Semaphore>,
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
    /// Hands over a piece as soon as the connection asks for one.
    pub(crate) async fn send(&self, piece: Bytes) -> Result<(), Gone> {
        self.asked().await?.send(piece)
    }

    /// Waits until the connection asks for a piece.
    pub(crate) async fn asked(&self) -> Result<Asked<'_>, Gone> {
        let asked = async {
            tokio::select! {
                biased;
                () = self.to.closed() => Err(Gone),
                permit = self.asked.acquire() => permit.map_err(|_| Gone),
            }
        };
        let permit = self.env.timeout(self.patience, asked).await.unwrap_or(Err(Gone))?;
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

/// A body and where its pieces are written. `parting` is what a client that was too slow finds at its end, if it comes
/// back to read; without it the body breaks off.
pub(crate) fn pieces(env: &Env, patience: Duration, parting: Option<Bytes>) -> (Pieces, Body) {
    let (to, from) = mpsc::channel(1);
    let asked = Arc::new(Semaphore::new(0));
    let body = Piecewise { from, asked: asked.clone(), waiting: false, parting, ended: false };
    (Pieces { to, asked, env: env.clone(), patience }, Body::new(body))
}

struct Piecewise {
    from: mpsc::Receiver<Piece>,
    asked: Arc<Semaphore>,
    /// Whether a piece was asked for that has not come.
    waiting: bool,
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
        if !std::mem::replace(&mut self.waiting, true) {
            self.asked.add_permits(1);
        }
        let piece = std::task::ready!(self.from.poll_recv(cx));
        self.waiting = false;
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
