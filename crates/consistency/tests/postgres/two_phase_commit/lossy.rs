//! A network that loses one thing: what is asked, or what is answered.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use quorate_runtime::{
    BoxFuture, Env,
    net::{Io, Listener, Net},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is lost, the next time that a word is on its way. The connection ends with it, unless something stands in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// It does not reach the server.
    Request(&'static str),
    /// It is done, and its own answer does not come back; those before it do.
    Answer(&'static str),
    /// It is done, and no answer comes back, to what was sent with it neither.
    AllAnswers(&'static str),
    /// The server is asked for something else of the same length instead, and the connection goes on.
    Instead(&'static str, &'static str),
}

#[derive(Clone, Default)]
pub(super) struct Lossy(Arc<Mutex<Option<Loss>>>);

impl Lossy {
    pub(super) fn env(&self) -> Env {
        let mut parts = Env::real().into_parts();
        parts.net = Arc::new(Way { lossy: self.clone(), net: parts.net });
        Env::from_parts(parts)
    }

    pub(super) fn lose(&self, loss: Option<Loss>) {
        *self.0.lock().unwrap() = loss;
    }

    /// Whether it came about.
    pub(super) fn is_done(&self) -> bool {
        self.0.lock().unwrap().is_none()
    }

    /// Where the word of the loss begins in `bytes`, if it is one of these.
    fn strikes(&self, bytes: &[u8], of: impl Fn(Loss) -> Option<&'static str>) -> Option<usize> {
        let mut planned = self.0.lock().unwrap();
        let word = (*planned).and_then(of)?.as_bytes();
        let at = bytes.windows(word.len()).position(|window| window == word)?;
        *planned = None;
        Some(at)
    }
}

struct Way {
    lossy: Lossy,
    net: Arc<dyn Net>,
}

impl Net for Way {
    fn listen(&self, at: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        self.net.listen(at)
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        let (lossy, dialled) = (self.lossy.clone(), self.net.connect(to));
        Box::pin(async move { Ok(Box::new(Wire { lossy, io: dialled.await?, is_ended: false }) as Box<dyn Io>) })
    }

    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        self.net.resolve(host, port)
    }
}

struct Wire {
    lossy: Lossy,
    io: Box<dyn Io>,
    is_ended: bool,
}

fn reset<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_ended {
            return reset();
        }
        let before = buffer.filled().len();
        std::task::ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        let answer = |loss| if let Loss::Answer(word) = loss { Some(word) } else { None };
        if let Some(at) = self.lossy.strikes(&buffer.filled()[before..], answer) {
            self.is_ended = true;
            // A letter and a length stand before what was done.
            buffer.set_filled(before + at.saturating_sub(5));
            if at <= 5 {
                return reset();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_ended {
            return reset();
        }
        let request = |loss| if let Loss::Request(word) = loss { Some(word) } else { None };
        if self.lossy.strikes(bytes, request).is_some() {
            self.is_ended = true;
            return reset();
        }
        let other = Mutex::new("");
        let instead = |loss| {
            let Loss::Instead(word, instead) = loss else { return None };
            assert_eq!(word.len(), instead.len());
            *other.lock().unwrap() = instead;
            Some(word)
        };
        if let Some(at) = self.lossy.strikes(bytes, instead) {
            let (mut changed, other) = (bytes.to_vec(), other.into_inner().unwrap());
            changed[at..at + other.len()].copy_from_slice(other.as_bytes());
            let sent = std::task::ready!(Pin::new(&mut self.io).poll_write(context, &changed))?;
            assert!(sent >= at + other.len(), "it was sent by half");
            return Poll::Ready(Ok(sent));
        }
        let all = |loss| if let Loss::AllAnswers(word) = loss { Some(word) } else { None };
        if self.lossy.strikes(bytes, all).is_some() {
            self.is_ended = true;
            let _sent = Pin::new(&mut self.io).poll_write(context, bytes);
            let _sent = Pin::new(&mut self.io).poll_flush(context);
            return reset();
        }
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
