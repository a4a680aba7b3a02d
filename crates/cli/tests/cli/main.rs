//! The real binary against a real node: what a user types, and what a script sees.
#![expect(clippy::disallowed_methods, reason = "starts processes and looks at their files, as a user does")]
#![expect(clippy::unwrap_used, reason = "what a test needs and cannot have fails the test")]

mod benches;
#[path = "../../../data/tests/postgres/bouncer.rs"]
mod bouncer;
mod declared;
mod demo;
mod erasure;
mod event_types;
mod exits;
mod harness;
mod import;
mod import_faults;
mod inboxes;
mod inspecting;
mod listings;
mod live_patterns;
mod loans;
mod moving;
#[path = "../../../node/tests/http/participant.rs"]
#[allow(dead_code, reason = "other tests say more")]
mod participant;
mod policies;
mod postgres;
mod postgres_sagas;
mod processes;
mod progress;
mod queues;
mod relays;
mod requests;
mod retention;
mod retries;
mod sagas;
mod schemas;
mod serve;
#[path = "../../../data/tests/postgres/server.rs"]
#[allow(dead_code, reason = "other tests share one server")]
mod server;
mod settings;
mod sim;
mod subscriptions;
mod transactions;
mod transactions_begun;
mod views;
mod walkthrough;
mod webhooks;
