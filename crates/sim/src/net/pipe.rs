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
            deaf: false,
            reader: None,
            writer: None,
            alarm: None,
        }
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
    /// Whose machine lost power: nothing it still does to its end is seen by anybody.
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

    /// Whether what `host` does to its end has no effect any more.
    pub(super) fn is_gone(&self, host: HostId) -> bool {
        self.gone.contains(&host)
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
