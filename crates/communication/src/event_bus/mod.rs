//! The event bus: services hear of what happened, and nobody who tells has to know who listens.
//!
//! The log *is* the bus: whoever appends an event has published it, in the transaction of its work, and whoever wants to hear of
//! it keeps a place of its own in the log. What differs is how an event travels to the one who listens:
//!
//! | listener | how it hears | where |
//! |---|---|---|
//! | somebody else's service, over HTTP | the node calls it | `webhook`, with the feature `webhooks` |
//! | a consumer of the node's HTTP surface | it pulls, or follows by server-sent events | [`subscription`](quorate_data::subscription) |
//! | a handler in this process | it is called, in a group that shares events | [`bus`] |
//!
//! Which types there are, who sends them and which schemas they follow, the [`catalogue`] tells.
//!
//! *When not to use it*: for work that one service leaves for another (use a [message queue](crate::message_queue)), or for a
//! question that wants an answer.
//!
//! # What holds when things go wrong
//! Nothing is published that was not committed, and nothing committed is missed: a listener that is away finds its place again.
//! Each event reaches each listener at least once, and those of one key in their order; see the rooms for the rest.
//!
//! Sources: Hohpe and Woolf, *Enterprise Integration Patterns* (2003), "Publish-Subscribe Channel", "Durable Subscriber"; ADR 28.

pub mod bus;
pub mod catalogue;
#[cfg(feature = "webhooks")]
pub mod webhook;

pub use bus::{Bus, BusError, Context, Event, Group, GroupCounts, Handlers, Heard, PublishError};
pub use quorate_data::subscription::OrderKey;

/// What the names of the subscriptions that feed webhooks begin with: nobody else uses such names.
const WEBHOOK_PREFIX: &str = "webhook:";
