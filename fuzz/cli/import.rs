//! As much of `crates/cli/src/import` as the targets need.

#[path = "../../crates/cli/src/import/line.rs"]
pub mod line;
