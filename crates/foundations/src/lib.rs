//! The ground every pattern stands on: time as types, checked names, the machine contract, and logical clocks.
//!
//! Nothing here performs I/O, reads a clock, rolls dice or needs an async runtime; `cargo xtask check` enforces it.

pub mod machine;
pub mod name;
pub mod ordering;
pub mod time;
