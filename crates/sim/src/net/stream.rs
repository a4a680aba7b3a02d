//! One end of a connection, as bytes in and bytes out.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    Network,
    pipe::{CAPACITY, Connection, Segment},
};
use crate::{executor::lock, host::HostId};

/// One end of a connection.
pub(super) struct SimStream {
    net: Network,
    host: HostId,
    connection: Arc<Mutex<Connection>>,
    /// Which pipe this end writes to; it reads from the other.
    out: usize,
}

impl SimStream {
    pub(super) fn new(net: &Network, host: HostId, connection: Arc<Mutex<Connection>>, out: usize) -> Self {
        Self { net: net.clone(), host, connection, out }
    }
}

fn broken() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl AsyncRead for SimStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let now = self.net.executor.now();
        let mut connection = lock(&self.connection);
        if connection.broken {
            return Poll::Ready(Err(broken()));
        }
        let pipe = &mut connection.pipes[1 - self.out];
        let arrival = pipe.segments.front().map(|segment| segment.arrival).or(pipe.end);
        let open = {
            let mut state = self.net.state();
            let open = !state.is_cut(pipe.from, pipe.to, now);
            state.struck.reads_held_back += u64::from(arrival.is_some() && !open);
            open
        };
        let Some(arrival) = arrival.filter(|_| open) else {
            pipe.reader = Some(context.waker().clone());
            return Poll::Pending;
        };
        if arrival > now {
            pipe.alarm = Some(self.net.executor.wake_at(arrival, context.waker().clone()));
            pipe.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        pipe.alarm = None;
        let Some(segment) = pipe.segments.front_mut() else {
            return Poll::Ready(if pipe.torn { Err(broken()) } else { Ok(()) });
        };
        let taken = self.net.state().piece(segment.bytes.len().min(to.remaining()));
        to.put_slice(&segment.bytes[..taken]);
        segment.bytes.advance(taken);
        if segment.bytes.is_empty() {
            pipe.segments.pop_front();
        }
        pipe.waiting -= taken;
        self.net.trace.bytes(now, self.host, "read", &to.filled()[to.filled().len() - taken..]);
        if let Some(writer) = pipe.writer.take() {
            writer.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let now = self.net.executor.now();
        let mut connection = lock(&self.connection);
        if connection.broken || connection.is_gone(self.host) {
            return Poll::Ready(Err(broken()));
        }
        let dead = connection.is_gone(connection.peer_of(self.host));
        let pipe = &mut connection.pipes[self.out];
        if pipe.end.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if pipe.deaf {
            let unreachable = {
                let state = self.net.state();
                state.is_cut(pipe.from, pipe.to, now) || state.is_cut(pipe.to, pipe.from, now)
            };
            if !unreachable {
                // Whoever writes to the dead is told so, and so is whoever waits for a word of them.
                if dead {
                    connection.reset();
                }
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
        }
        let room = CAPACITY - pipe.waiting;
        if room == 0 {
            pipe.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let (taken, latency) = {
            let mut state = self.net.state();
            if self.out == 1 {
                state.answering.insert(self.host);
            }
            (state.piece(bytes.len().min(room)), state.latency(pipe.from, pipe.to, now))
        };
        let arrival = pipe.last_arrival.max(now + latency);
        pipe.last_arrival = arrival;
        pipe.waiting += taken;
        pipe.segments.push_back(Segment { arrival, bytes: Bytes::copy_from_slice(&bytes[..taken]) });
        if let Some(reader) = pipe.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

impl SimStream {
    /// Says that nothing more comes.
    fn finish(&self) {
        let now = self.net.executor.now();
        let mut connection = lock(&self.connection);
        if connection.broken || connection.is_gone(self.host) {
            return;
        }
        let pipe = &mut connection.pipes[self.out];
        if pipe.end.is_none() {
            let latency = self.net.state().latency(pipe.from, pipe.to, now);
            pipe.end = Some(pipe.last_arrival.max(now + latency));
            if let Some(reader) = pipe.reader.take() {
                reader.wake();
            }
        }
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.finish();
        let mut connection = lock(&self.connection);
        if connection.broken || connection.is_gone(self.host) {
            return;
        }
        // Whoever still writes to this end is told that nobody reads.
        let pipe = &mut connection.pipes[1 - self.out];
        pipe.deaf = true;
        if let Some(writer) = pipe.writer.take() {
            writer.wake();
        }
    }
}
