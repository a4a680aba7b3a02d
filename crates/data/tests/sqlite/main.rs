//! The embedded store, looked at from outside: one program, whose modules each try one promise.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test looks at the store from outside: its files, its processes"
)]

mod archive;
mod backlog;
mod backup;
mod bit_rot;
mod child;
mod clock;
mod cold_open;
mod conditions;
mod conformance;
mod erasure;
mod faults;
mod faulty;
mod full_disk;
mod groups;
mod log_rot;
mod opening;
mod pages;
mod partly;
mod process;
mod remote;
mod retention;
mod schemas;
mod shared;
mod sql;
mod statistics;
