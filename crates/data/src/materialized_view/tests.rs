//! Does it hold on a real store?

mod accounts;
mod erasing;
mod feeds;
mod folds;
mod following;
mod inline;
mod keeping_up;
mod many;
mod memory;
mod poison;
mod querying;
mod rebuilding;
pub(super) mod world;
