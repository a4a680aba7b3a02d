//! A connection: two pipes, one each way.

use std::{collections::VecDeque, task::Waker};

use bytes::Bytes;

use crate::{executor::Alarm, host::HostId};

/// So many bytes lie in a pipe at most; whoever writes more waits.
pub(super) const CAPACITY: usize = 64 << 10;

/// One way of a connection.
pub(super) struct Pipe {
    pub(super) from: HostId,
    pub(super) to: HostId,
    pub(super) segments: VecDeque<Segment>,
    /// Bytes that were sent and not read yet.
    pub(super) waiting: usize,
    /// When the last segment arrives: later ones do not overtake it.
    pub(super) last_arrival: u64,
    /// When the end arrives, once the sender has said that nothing more comes.
    pub(super) end: Option<u64>,
    /// Whether the end is told as a reset: somebody died with bytes before them that they had not read.
    pub(super) torn: bool,
    /// Nobody will read any more.
    pub(super) deaf: bool,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    /// Wakes the reader when the first segment arrives.
    pub(super) alarm: Option<Alarm>,
}

/// Bytes on their way.
pub(super) struct Segment {
    pub(super) arrival: u64,
    pub(super) bytes: Bytes,
}

impl Pipe {
    fn new(from: HostId, to: HostId) -> Self {
        Self {
            from,
            to,
            segments: VecDeque::new(),
            waiting: 0,
            last_arrival: 0,
            end: None,
            torn: false,
            deaf: false,
            reader: None,
            writer: None,
            alarm: None,
        }
    }

    /// Nobody reads this any more, nor what is on its way.
    fn turn_deaf(&mut self) {
        self.deaf = true;
        self.segments.clear();
        self.waiting = 0;
        self.alarm = None;
        self.wake();
    }

    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }
}

/// A connection between two hosts. `pipes[0]` leads from who dialled to who accepted.
pub(super) struct Connection {
    pub(super) pipes: [Pipe; 2],
    /// Both ends have been told that it broke.
    pub(super) broken: bool,
    /// Whose program or machine is no more: nothing it still does to its end is seen by anybody.
    gone: Vec<HostId>,
}

impl Connection {
    pub(super) fn new(dialler: HostId, acceptor: HostId) -> Self {
        let pipes = [Pipe::new(dialler, acceptor), Pipe::new(acceptor, dialler)];
        Self { pipes, broken: false, gone: Vec::new() }
    }

    /// Whether `host` is one of its ends.
    pub(super) fn joins(&self, host: HostId) -> bool {
        self.pipes[0].from == host || self.pipes[0].to == host
    }

    /// Who is at the other end of `host`'s.
    pub(super) fn peer_of(&self, host: HostId) -> HostId {
        if self.pipes[0].from == host { self.pipes[0].to } else { self.pipes[0].from }
    }

    /// Whether what `host` does to its end has no effect any more.
    pub(super) fn is_gone(&self, host: HostId) -> bool {
        self.gone.contains(&host)
    }

    /// The program of `host` is gone, and its kernel closes its end: what it sent arrives, and behind that, `latency` from `now`,
    /// the end. Nobody is told sooner, and nobody who cannot be reached.
    pub(super) fn close(&mut self, host: HostId, now: u64, latency: u64) {
        if self.broken || self.is_gone(host) {
            return;
        }
        self.gone.push(host);
        let unread = self.pipes.iter().any(|pipe| pipe.to == host && pipe.segments.iter().any(|it| it.arrival <= now));
        for pipe in &mut self.pipes {
            if pipe.from == host && pipe.end.is_none() {
                pipe.end = Some(pipe.last_arrival.max(now + latency));
                pipe.torn = unread;
            }
            if pipe.to == host {
                pipe.turn_deaf();
            }
        }
        self.wake_all();
    }

    /// The machine of `host`, which lost power, is on again and knows nothing of this connection. Whoever has sent something
    /// meanwhile is told so; whoever only waits goes on waiting.
    pub(super) fn forgotten(&mut self, host: HostId) {
        if !self.is_gone(host) || self.broken {
            return;
        }
        if self.pipes.iter().any(|pipe| pipe.to == host && pipe.waiting > 0) {
            return self.reset();
        }
        self.pipes.iter_mut().filter(|pipe| pipe.to == host).for_each(Pipe::turn_deaf);
    }

    /// Breaks: what is on its way is lost, both ends are told.
    pub(super) fn reset(&mut self) {
        self.broken = true;
        for pipe in &mut self.pipes {
            pipe.segments.clear();
            pipe.waiting = 0;
            pipe.alarm = None;
        }
        self.wake_all();
    }

    /// The machine of `host` is off: the other end hears nothing, neither bytes nor an end.
    pub(super) fn abandon(&mut self, host: HostId) {
        self.gone.push(host);
    }

    pub(super) fn wake_all(&mut self) {
        self.pipes.iter_mut().for_each(Pipe::wake);
    }
}
