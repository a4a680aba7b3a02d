//! Queues on a real store, with a clock that moves when told to.

mod consuming;
mod crashes;
mod dead_letters;
mod sending;
mod world;
