//! A network that can be cut, at once or at a moment of its own choosing.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use quorate_runtime::{
    BoxFuture, Env,
    net::{Io, Listener, Net},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The cable of one process.
#[derive(Clone, Default)]
pub(crate) struct Cable(Arc<State>);

#[derive(Default)]
struct State {
    is_cut: AtomicBool,
    /// Nothing that the server says arrives.
    is_silent: AtomicBool,
    /// Ends the connection that sends a commit so many commits from now, before its answer comes back. Zero: none.
    lose_commit: AtomicUsize,
    /// Whether that commit reaches the server.
    commit_arrives: AtomicBool,
    /// Whether somebody asked to be told of what is notified.
    listens: AtomicBool,
    sleepers: Mutex<Vec<Waker>>,
}

impl Cable {
    /// The environment of a process with this cable.
    pub(crate) fn env(&self) -> Env {
        let mut parts = Env::real().into_parts();
        parts.net = Arc::new(Cut { cable: self.clone(), net: parts.net });
        Env::from_parts(parts)
    }

    /// Ends every connection, and lets no new one come about.
    pub(crate) fn cut(&self) {
        self.0.is_cut.store(true, Ordering::SeqCst);
        self.0.sleepers.lock().unwrap().drain(..).for_each(Waker::wake);
    }

    /// Lets nothing arrive that the server says, and ends nothing: as if its machine were gone.
    pub(crate) fn silence(&self) {
        self.0.is_silent.store(true, Ordering::SeqCst);
    }

    /// New connections are possible again, and those that there are go on.
    pub(crate) fn mend(&self) {
        self.0.is_cut.store(false, Ordering::SeqCst);
        self.0.is_silent.store(false, Ordering::SeqCst);
        self.0.sleepers.lock().unwrap().drain(..).for_each(Waker::wake);
    }

    /// Loses the answer to the `n`-th append's commit from now, counted from 1, or the commit itself.
    pub(crate) fn lose_commit(&self, n: usize, arrives: bool) {
        self.0.commit_arrives.store(arrives, Ordering::SeqCst);
        self.0.lose_commit.store(n, Ordering::SeqCst);
    }

    /// Whether any connection listened to what is notified.
    pub(crate) fn listens(&self) -> bool {
        self.0.listens.load(Ordering::SeqCst)
    }

    /// Whether these bytes of somebody who appends hold the commit to be lost.
    fn is_lost(&self, bytes: &[u8]) -> bool {
        let count = |n: usize| n.checked_sub(1);
        contains(bytes, b"COMMIT")
            && self
                .0
                .lose_commit
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, count)
                .is_ok_and(|before| before == 1)
    }
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

struct Cut {
    cable: Cable,
    net: Arc<dyn Net>,
}

impl Net for Cut {
    fn listen(&self, at: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        self.net.listen(at)
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        let (cable, dialled) = (self.cable.clone(), self.net.connect(to));
        Box::pin(async move {
            if cable.0.is_cut.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            Ok(Box::new(Wire { cable, io: dialled.await?, is_ended: false, appends: false }) as Box<dyn Io>)
        })
    }

    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        self.net.resolve(host, port)
    }
}

struct Wire {
    cable: Cable,
    io: Box<dyn Io>,
    is_ended: bool,
    appends: bool,
}

impl Wire {
    fn check(&mut self, context: &Context<'_>) -> io::Result<()> {
        let mut sleepers = self.cable.0.sleepers.lock().unwrap();
        if !sleepers.iter().any(|known| known.will_wake(context.waker())) {
            sleepers.push(context.waker().clone());
        }
        drop(sleepers);
        self.is_ended |= self.cable.0.is_cut.load(Ordering::SeqCst);
        if self.is_ended { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        if self.cable.0.is_silent.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
        if contains(bytes, b"LISTEN ") {
            self.cable.0.listens.store(true, Ordering::SeqCst);
        }
        // What has rows for the log in it; the sequencer never has.
        self.appends |= contains(bytes, b"write_events(") || contains(bytes, b"write_held_events(");
        if self.appends && self.cable.is_lost(bytes) {
            self.is_ended = true;
            if self.cable.0.commit_arrives.load(Ordering::SeqCst) {
                let _sent = Pin::new(&mut self.io).poll_write(context, bytes);
                let _sent = Pin::new(&mut self.io).poll_flush(context);
            }
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
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
