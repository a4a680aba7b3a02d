//! Does it hold on a real store?

mod erasing;
mod folds;
mod inline;
mod keeping_up;
mod poison;
mod rebuilding;
mod world;
