//! Sagas over a real store: what they do, and what the next process finds.

mod barrier;
mod crashes;
mod deciding;
mod running;
mod world;
