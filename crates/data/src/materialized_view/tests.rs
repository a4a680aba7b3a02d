//! Does it hold on a real store?

mod inline;
mod keeping_up;
mod poison;
mod rebuilding;
mod world;
