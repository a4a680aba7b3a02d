//! As much of `crates/cli/src/client` as the targets need.

pub mod sse;
