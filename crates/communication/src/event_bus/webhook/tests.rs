//! Webhooks over a real store and real sockets of this machine.

mod changing;
mod declaring;
mod delivering;
mod failing;
mod places;
pub(crate) mod world;
