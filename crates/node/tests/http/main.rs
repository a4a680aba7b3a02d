//! The HTTP surface of a real, listening node, seen from outside. Hostile input first.

#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::path::Path;

use quorate_node::config::Config;

mod append;
mod breakers;
mod client;
mod coordinating;
mod deadlines;
mod declared;
mod durable_requests;
mod embedded;
mod erasure;
mod event_types;
#[path = "../../../data/tests/sqlite/faulty.rs"]
mod faulty;
mod frames;
mod hostile;
mod http2;
mod inboxes;
mod keys;
mod lifecycle;
mod metadata;
mod node;
#[allow(dead_code, reason = "other tests say more")]
mod participant;
mod peers;
mod policies;
mod processes;
mod queue_consumers;
mod queue_schedules;
mod queues;
mod queues_embedded;
mod rates;
mod read;
mod relays;
mod reply_memory;
mod requests;
mod retention;
mod sagas;
mod sagas_embedded;
mod schemas;
mod served;
mod several;
mod store;
mod subscribe;
mod subscriptions;
mod transactions;
mod view_effects;
mod view_following;
mod view_queries;
mod views;
mod webhooks;

/// These tests run over the embedded store, which is in the node's own folder.
fn choose_store(_: &mut Config, _: &Path) {}
