//! As much of `crates/cli/src/client/sse.rs` as the targets need.

#[path = "../../crates/cli/src/client/sse/parser.rs"]
pub mod parser;
