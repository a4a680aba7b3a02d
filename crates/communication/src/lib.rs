//! How services talk to each other: one room per pattern.

pub mod message_queue;
