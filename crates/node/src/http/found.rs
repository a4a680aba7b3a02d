//! Pages whose events have to be looked for: by a filter, or by a moment of the past.
//!
//! Looking goes on until the page is full, there is no more, or it has taken long enough; the reply then says where to go
//! on, also where nothing was found. What was found is in memory until it is sent, and counted against the memory for
//! pages.

use std::time::Duration;

use quorate_data::event::Recorded;
use quorate_foundations::time::Mono;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Node, RETRY, page,
    problem::{Code, Problem},
};
use crate::verbs::Moment;

/// How long one request looks before it answers with what it has.
const PATIENCE: Duration = Duration::from_millis(500);
/// Bytes of found events in one page.
const PAGE_BYTES: usize = 16 << 20;

/// What was found so far.
pub(super) struct Found {
    moment: Moment,
    limit: usize,
    events: Vec<Recorded>,
    bytes: usize,
    shares: Vec<OwnedSemaphorePermit>,
    began: Mono,
}

impl Found {
    /// Nothing yet, of at most `limit` events that were there at `moment`.
    pub(super) fn new(node: &Node, limit: usize, moment: Moment) -> Self {
        Self { moment, limit, events: Vec::new(), bytes: 0, shares: Vec::new(), began: node.env.mono() }
    }

    /// How many events to read next: where some will be left out, more than are wanted.
    pub(super) fn step(&self) -> usize {
        if self.moment.is_any() { (self.limit - self.events.len()).min(page::STEP) } else { page::STEP }
    }

    /// Takes in what belongs to the page of `events`, and returns those that there was no more room for.
    pub(super) fn take(&mut self, node: &Node, events: Vec<Recorded>) -> Result<Vec<Recorded>, Problem> {
        let mut left = events.into_iter();
        let mut bytes = 0;
        while self.events.len() < self.limit {
            let Some(event) = left.next() else { break };
            if self.moment.admits(&event) {
                bytes += 256 + event.data().map_or(0, <[u8]>::len);
                self.events.push(event);
            }
        }
        let share = u32::try_from(bytes >> 10).unwrap_or(u32::MAX);
        let share = node.memory.clone().try_acquire_many_owned(share);
        let share =
            share.map_err(|_| Problem::new(Code::Overloaded, "too many large pages are being read").after(RETRY))?;
        self.shares.push(share);
        self.bytes += bytes;
        Ok(left.collect())
    }

    /// Whether to answer with what there is.
    pub(super) fn is_enough(&self, node: &Node) -> bool {
        self.events.len() >= self.limit
            || self.bytes >= PAGE_BYTES
            || node.env.mono().saturating_since(self.began) >= PATIENCE
    }

    /// What is sent at once, and what is sent as the client takes it.
    pub(super) fn split(mut self) -> (Vec<Recorded>, page::Rest) {
        let rest = self.events.split_off(self.events.len().min(page::STEP));
        (self.events, page::Rest::of_found(rest, self.shares))
    }
}
