//! The ground every pattern stands on: time as types, checked names, the machine contract, logical clocks, the
//! context that ties a request's steps into one trace, and documents that people write.
//!
//! Nothing here performs I/O, reads a clock, rolls dice or needs an async runtime; `cargo xtask check` enforces it.

pub mod document;
pub mod jq;
pub mod machine;
pub mod name;
pub mod ordering;
pub mod time;
pub mod trace;
