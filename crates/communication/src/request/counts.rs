//! What became of requests, in numbers, and how many there may be.

use super::machine::{Outcome, Verdict};

/// How much a process keeps in memory for requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests that somebody waits for, or that are worked on in this process, of all types. Default 10,000.
    pub requests: usize,
    /// The bytes of their bodies. Default 64 MiB.
    pub bytes: usize,
    /// Responders, of all types. Default 1,000.
    pub responders: usize,
    /// Types that are declared. Default 1,000.
    pub types: usize,
    /// The longest body of a request or an answer, in bytes. Default 1 MiB.
    pub body_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { requests: 10_000, bytes: 64 << 20, responders: 1_000, types: 1_000, body_bytes: 1 << 20 }
    }
}

/// What became of the requests of a process so far, and how many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that somebody waits for, or that are worked on in this process.
    pub held: usize,
    /// The bytes of their bodies.
    pub held_bytes: usize,
    /// Responders that are there.
    pub responders: usize,
    /// Those that were answered.
    pub answered: u64,
    /// Those that were answered with a fault.
    pub faults: u64,
    /// Those for which nobody was there.
    pub no_responder: u64,
    /// Those that were never handed out for another reason.
    pub refused: u64,
    /// Those of which it is not known what became of them.
    pub unknown: u64,
    /// Those whose caller left before.
    pub cancelled: u64,
    /// Answers that came when nobody waited any more.
    pub late: u64,
    /// Messages without an answer that were done.
    pub delivered: u64,
    /// Messages without an answer that were not done, or of which that is not known.
    pub lost: u64,
}

impl Counts {
    pub(super) fn count(&mut self, outcome: &Outcome, is_awaited: bool) {
        let counted = match outcome {
            Outcome::HandedOver => return,
            Outcome::Said(Verdict::Answer(_)) if !is_awaited => &mut self.delivered,
            _ if !is_awaited => &mut self.lost,
            Outcome::Said(Verdict::Answer(_)) => &mut self.answered,
            Outcome::Said(Verdict::Fault(_)) => &mut self.faults,
            Outcome::NoResponder => &mut self.no_responder,
            Outcome::Refused(_) => &mut self.refused,
            Outcome::Unknown(_) => &mut self.unknown,
        };
        *counted += 1;
    }
}
