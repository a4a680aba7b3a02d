//! Damage to a right world, by kind, and the checker that must see it.

mod damage;
mod effects;
mod log;
mod streams;
