//! What a queue is asked to do.

use std::{sync::Arc, time::Duration};

use quorate_data::event::NewEvent;
use quorate_foundations::time::Boot;
use tokio::sync::oneshot;

use super::window::Window;
use crate::message_queue::{
    Config, Delivery, QueueError, Sent,
    machine::{Claim, Counts, Seq},
    message::Summed,
};

/// An answer's way back.
pub(in crate::message_queue) type Reply<T> = oneshot::Sender<Result<T, QueueError>>;

/// Something a queue is to do.
#[derive(Debug)]
pub(in crate::message_queue) enum Work {
    /// Take in messages, each with the sum of what it says.
    Send { messages: Vec<Summed>, bytes: usize, reply: Reply<Vec<Sent>> },
    /// Hand out messages, once there is one or time has come to `until`. It is the queue that looks at the time: whoever gave up
    /// by itself while its messages are being written would give them back, and get and give them back again. Into a window go
    /// no more than it has room for.
    Take {
        max: usize,
        ttl: Option<Duration>,
        until: Option<Boot>,
        window: Option<Arc<Window>>,
        reply: Reply<Vec<Delivery>>,
    },
    /// What holders say of their messages. Answers with the claims that did not hold.
    Settle { claims: Vec<Claim>, how: How, reply: Reply<Vec<Claim>> },
    /// What is to become of dead letters. Answers with how many there were.
    Bury { seqs: Vec<Seq>, fate: Fate, reply: Reply<usize> },
    /// Go by another configuration.
    Configure { config: Config, reply: Reply<()> },
    /// Say how the queue stands.
    Look { reply: Reply<Standing> },
    /// Name dead letters in order, behind `after`.
    Parked { after: Seq, limit: usize, reply: Reply<Vec<Seq>> },
}

/// What a holder says of its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::message_queue) enum How {
    Ack,
    /// They never reached their holder.
    Back,
    Nack {
        delay: Option<Duration>,
        reason: String,
    },
    Extend {
        ttl: Option<Duration>,
    },
    Park {
        reason: String,
    },
}

/// What becomes of dead letters.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::message_queue) enum Fate {
    /// They are handed out again, saying something else if so wanted.
    Replay(Option<Arc<NewEvent>>),
    Discard,
}

/// How a queue stands.
#[derive(Clone, Copy, Debug)]
pub(in crate::message_queue) struct Standing {
    pub(in crate::message_queue) counts: Counts,
    pub(in crate::message_queue) oldest_ns: Option<i64>,
    pub(in crate::message_queue) consumers: usize,
}

impl Work {
    /// How many messages it is about, roughly.
    pub(super) fn messages(&self) -> usize {
        match self {
            Self::Send { messages, .. } => messages.len(),
            Self::Settle { claims, .. } => claims.len(),
            Self::Bury { seqs, .. } => seqs.len(),
            Self::Take { max, .. } => *max,
            Self::Configure { .. } | Self::Look { .. } | Self::Parked { .. } => 1,
        }
    }

    /// How many statements it takes about, where it finds what it needs.
    pub(super) fn statements(&self) -> usize {
        match self {
            Self::Send { messages, .. } => 1 + messages.len() / 4,
            Self::Settle { claims, how: How::Ack, .. } => 1 + claims.len() / 8,
            Self::Settle { claims, .. } => 3 * claims.len(),
            Self::Bury { seqs, .. } => 4 * seqs.len(),
            Self::Take { .. } | Self::Configure { .. } | Self::Look { .. } | Self::Parked { .. } => 1,
        }
    }

    /// Answers that it was not done.
    pub(super) fn refuse(self, cause: &QueueError) {
        let cause = cause.clone();
        match self {
            Self::Send { reply, .. } => drop(reply.send(Err(cause))),
            Self::Take { reply, .. } => drop(reply.send(Err(cause))),
            Self::Settle { reply, .. } => drop(reply.send(Err(cause))),
            Self::Bury { reply, .. } => drop(reply.send(Err(cause))),
            Self::Configure { reply, .. } => drop(reply.send(Err(cause))),
            Self::Look { reply } => drop(reply.send(Err(cause))),
            Self::Parked { reply, .. } => drop(reply.send(Err(cause))),
        }
    }
}
