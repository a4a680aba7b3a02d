//! How services talk to each other: one room per pattern.

mod attributes;
pub mod cloud_events;
pub mod event_bus;
pub mod inbox;
pub mod message_queue;
pub mod outbox;
pub mod request;
pub mod transports;
