//! Queues on a real store, with a clock that moves when told to.

mod amounts;
mod consuming;
mod crashes;
mod damage;
mod dead_letters;
mod schedules;
mod sending;
mod unique;
mod upgrade;
mod windows;
mod workers;
pub(crate) mod world;
