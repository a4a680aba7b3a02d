//! Bodies that can be told again, as far as that is affordable.
//!
//! Nothing is read ahead: a body is kept as it is sent, so that a long upload begins at once, and a body that turns out to be
//! longer than what is kept goes on as it is and is told no second time.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

/// A body that is sent, and kept while it is if it shall be sent again.
#[derive(Debug)]
pub struct Replay<B>(Form<B>);

#[derive(Debug)]
enum Form<B> {
    /// Told once.
    Once(B),
    /// Told from its beginning by reader `reader`, who has heard `told` of the pieces, and of the trailers.
    Kept { tape: Arc<Mutex<Tape<B>>>, reader: u32, told: usize, trailers_told: bool },
}

/// Another attempt has the body: the one that was told so has nothing to send, which is nobody's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("another attempt has the body")]
pub struct Elsewhere;

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TooLong<E> {
    /// Two attempts read a body at once that was too long to be kept, and the other one was first.
    #[error("the body was too long to be kept")]
    Lost(#[source] Elsewhere),
    /// It broke off, which another attempt was told.
    #[error("the body broke off while another attempt read it")]
    Broken,
    /// The body's own error.
    #[error(transparent)]
    Body(E),
}

/// What is kept of a body.
#[derive(Debug)]
pub(super) struct Kept<B>(Arc<Mutex<Tape<B>>>);

/// A body as far as it has been read.
#[derive(Debug)]
struct Tape<B> {
    body: B,
    readers: u32,
    keeping: Keeping,
    pieces: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    ended: bool,
    /// It broke off: what is kept is not all of it.
    broken: bool,
    waiting: Vec<Waker>,
}

#[derive(Clone, Copy, Debug)]
enum Keeping {
    /// So many bytes may still be kept.
    Room(usize),
    /// It was too long: what is still to come is this reader's alone.
    Given(u32),
}

impl<B: Body + Unpin> Replay<B> {
    /// A body that is told once.
    pub(super) fn once(body: B) -> Self {
        Self(Form::Once(body))
    }

    /// A body of which up to `most` bytes are kept.
    pub(super) fn kept(body: B, most: usize) -> (Self, Kept<B>) {
        // What is known to be too long needn't be kept in part: the first reader has it.
        let keeping = if body.size_hint().lower() > most as u64 { Keeping::Given(1) } else { Keeping::Room(most) };
        let (pieces, waiting) = (Vec::new(), Vec::new());
        let tape = Tape { body, readers: 0, keeping, pieces, trailers: None, ended: false, broken: false, waiting };
        let kept = Kept(Arc::new(Mutex::new(tape)));
        (kept.reader(), kept)
    }
}

impl<B> Kept<B> {
    /// The body from its beginning; `None` if it was too long, or broke off.
    pub(super) fn again(&self) -> Option<Replay<B>> {
        let whole = {
            let tape = lock(&self.0);
            matches!(tape.keeping, Keeping::Room(_)) && !tape.broken
        };
        whole.then(|| self.reader())
    }

    fn reader(&self) -> Replay<B> {
        let mut tape = lock(&self.0);
        tape.readers += 1;
        let reader = tape.readers;
        Replay(Form::Kept { tape: self.0.clone(), reader, told: 0, trailers_told: false })
    }
}

impl<B: Body + Unpin> Tape<B> {
    /// Reads on, as far as nobody has read, for `reader`.
    fn read(&mut self, reader: u32, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, B::Error>>> {
        if !self.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.waiting.push(cx.waker().clone());
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        // Another attempt may wait for the same piece.
        self.waiting.drain(..).for_each(Waker::wake);
        let Some(frame) = frame else {
            self.ended = true;
            return Poll::Ready(None);
        };
        // Many a body ends behind its error, as if it were whole.
        self.broken = frame.is_err();
        match frame?.into_data() {
            Ok(mut data) => {
                let piece = data.copy_to_bytes(data.remaining());
                self.keep(&piece, reader);
                Poll::Ready(Some(Ok(piece)))
            }
            Err(other) => {
                self.trailers = other.into_trailers().ok();
                self.ended = true;
                Poll::Ready(None)
            }
        }
    }

    fn keep(&mut self, piece: &Bytes, reader: u32) {
        let Keeping::Room(room) = self.keeping else { return };
        match room.checked_sub(piece.len()) {
            Some(left) => {
                self.keeping = Keeping::Room(left);
                self.pieces.push(piece.clone());
            }
            None => {
                self.keeping = Keeping::Given(reader);
                self.pieces.clear();
            }
        }
    }
}

impl<B: Body + Unpin> Body for Replay<B> {
    type Data = Bytes;
    type Error = TooLong<B::Error>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let (tape, reader, told, trailers_told) = match &mut self.0 {
            Form::Once(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                let whole = |frame: Frame<B::Data>| frame.map_data(|mut data| data.copy_to_bytes(data.remaining()));
                return Poll::Ready(frame.map(|frame| frame.map(whole).map_err(TooLong::Body)));
            }
            Form::Kept { tape, reader, told, trailers_told } => (tape, *reader, told, trailers_told),
        };
        let mut tape = lock(tape);
        match tape.keeping {
            Keeping::Given(other) if other != reader => return Poll::Ready(Some(Err(TooLong::Lost(Elsewhere)))),
            Keeping::Given(_) => {}
            Keeping::Room(_) => {
                if let Some(piece) = tape.pieces.get(*told) {
                    *told += 1;
                    return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
                }
            }
        }
        if tape.broken {
            return Poll::Ready(Some(Err(TooLong::Broken)));
        }
        if !tape.ended
            && let Some(piece) = ready!(tape.read(reader, cx))
        {
            *told += 1;
            return Poll::Ready(Some(piece.map(Frame::data).map_err(TooLong::Body)));
        }
        let trailers = tape.trailers.clone().filter(|_| !std::mem::replace(trailers_told, true));
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Form::Once(body) => body.is_end_stream(),
            Form::Kept { tape, told, .. } => {
                let tape = lock(tape);
                let has_ended = tape.ended || tape.body.is_end_stream();
                *told >= tape.pieces.len() && tape.trailers.is_none() && has_ended && !tape.broken
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Form::Once(body) => body.size_hint(),
            Form::Kept { tape, told, .. } => {
                let tape = lock(tape);
                let kept: usize = tape.pieces.iter().skip(*told).map(Bytes::len).sum();
                let rest = tape.body.size_hint();
                let mut hint = SizeHint::new();
                hint.set_lower(rest.lower() + kept as u64);
                if let Some(upper) = rest.upper() {
                    hint.set_upper(upper + kept as u64);
                }
                hint
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
