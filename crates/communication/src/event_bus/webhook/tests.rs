//! Webhooks over a real store and real sockets of this machine.

mod declaring;
mod delivering;
mod failing;
mod world;
