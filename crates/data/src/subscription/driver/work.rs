//! What callers want of a subscription, and what they get.

use std::{sync::Arc, time::Duration};

use quorate_foundations::time::Boot;

use crate::{
    event::{Position, Recorded},
    subscription::{
        Claim,
        machine::{Counts, Effect, Input, Key, Stall},
    },
};

/// What somebody wants done.
#[derive(Clone, Debug)]
pub(in crate::subscription) enum Work {
    /// Hand out events.
    Take { max: usize, owner: Arc<str> },
    /// Feed these to the machine and say which claims are lost, or how many events were selected.
    Steps(Vec<Input>),
    /// Say how things stand.
    Describe,
}

/// What became of it.
#[derive(Debug)]
pub(in crate::subscription) enum Answer {
    Taken(Taken),
    Done { lost: Vec<Claim>, selected: usize },
    Described(Box<Standing>),
}

/// What was handed out and, if that is nothing, why and for how long.
#[derive(Debug)]
pub(in crate::subscription) struct Taken {
    pub(in crate::subscription) hands: Vec<Hand>,
    /// How often the store had forgotten something before these events were read.
    pub(in crate::subscription) forgotten: u64,
    pub(in crate::subscription) stall: Option<Stall>,
    pub(in crate::subscription) wake_at: Option<Boot>,
    /// The log has not been looked at to its end, and there is room.
    pub(in crate::subscription) unread: bool,
}

/// An event handed out.
#[derive(Debug)]
pub(in crate::subscription) struct Hand {
    pub(in crate::subscription) event: Recorded,
    pub(in crate::subscription) claim: Claim,
    pub(in crate::subscription) key: Key,
    pub(in crate::subscription) attempt: u32,
    pub(in crate::subscription) ttl: Duration,
}

/// How a subscription stands.
#[derive(Debug)]
pub(in crate::subscription) struct Standing {
    pub(in crate::subscription) checkpoint: Position,
    pub(in crate::subscription) scanned: Position,
    pub(in crate::subscription) oldest: Option<Recorded>,
    pub(in crate::subscription) counts: Counts,
    pub(in crate::subscription) stall: Option<Stall>,
    pub(in crate::subscription) passed_over: u64,
}

impl Work {
    /// Whether what other processes did since may change the answer for the better.
    pub(super) fn needs_news(&self, nothing_ready: bool) -> bool {
        match self {
            Self::Take { .. } => nothing_ready,
            Self::Steps(_) => false,
            Self::Describe => true,
        }
    }

    pub(super) fn wants(&self) -> usize {
        match self {
            Self::Take { max, .. } => *max,
            Self::Steps(_) => 0,
            Self::Describe => 1,
        }
    }
}

/// What the machine did, for whoever wanted steps.
pub(super) fn done(effects: &[Effect]) -> Answer {
    let mut lost = Vec::new();
    let mut selected = 0;
    for effect in effects {
        match effect {
            Effect::Lost(claim) => lost.push(*claim),
            Effect::Selected(count) => selected += count,
            Effect::Hand { .. } => {}
        }
    }
    Answer::Done { lost, selected }
}
