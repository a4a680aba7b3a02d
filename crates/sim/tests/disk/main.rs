//! SQLite on simulated disks: does it work, does it survive, does it notice what it should?

#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

mod connections;
mod crash_sweep;
mod faults;
mod port;
mod world;
