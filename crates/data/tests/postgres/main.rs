//! The PostgreSQL store, looked at from outside: one program, whose modules each try one promise.
#![expect(clippy::unwrap_used, reason = "tests may; clippy does not see that integration tests are tests")]

mod appends;
mod bouncer;
mod cable;
mod certificates;
mod conformance;
mod doctor;
mod log;
mod pooled;
#[allow(dead_code, reason = "other test programs use other parts of it")]
mod server;
mod shared;
mod sql;
mod stranger;
mod tls;
