//! Claims about event sourcing on a real store.

mod bank;
mod commands;
mod courses;
mod erasure;
mod history;
mod serial;
mod snapshots;
mod upcasting;
