//! Pages whose events have to be looked for: by a filter, or by a moment of the past.
//!
//! Looking goes on until the page is full, there is no more, or it has taken long enough; the reply then says where to go
//! on, also where nothing was found. What was found is in memory until it is sent, and counted against the memory for
//! replies.

use std::time::Duration;

use quorate_data::event::Recorded;
use quorate_foundations::time::Mono;

use super::{Node, cloud_events, memory::Share, page, problem::Problem};
use crate::verbs::Moment;

/// How long one request looks before it answers with what it has.
const PATIENCE: Duration = Duration::from_millis(500);
/// Bytes of found events in one page.
const PAGE_BYTES: usize = 8 << 20;

/// What was found so far.
pub(super) struct Found {
    moment: Moment,
    limit: usize,
    events: Vec<Recorded>,
    bytes: usize,
    shares: Vec<Share>,
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
        let (mut bytes, before) = (0, self.events.len());
        while self.events.len() < self.limit {
            let Some(event) = left.next() else { break };
            if self.moment.admits(&event) {
                bytes += 256 + event.data().map_or(0, <[u8]>::len);
                self.events.push(event);
            }
        }
        // Their JSON is written a piece at a time, at most an event in each.
        let piece = self.events[before..].iter().map(cloud_events::rendered_bytes).max().unwrap_or_default();
        self.shares.push(node.share_or_refuse(bytes + piece)?);
        self.bytes += bytes;
        Ok(left.collect())
    }

    /// Whether to answer with what there is.
    pub(super) fn is_enough(&self, node: &Node) -> bool {
        self.events.len() >= self.limit
            || self.bytes >= PAGE_BYTES
            || node.env.mono().saturating_since(self.began) >= PATIENCE
    }

    /// What is sent first, and what is sent as the client takes it.
    pub(super) fn split(mut self) -> page::Events {
        let rest = self.events.split_off(self.events.len().min(page::STEP));
        page::Events { first: self.events, rest: page::Rest::of_found(rest), shares: self.shares }
    }
}
