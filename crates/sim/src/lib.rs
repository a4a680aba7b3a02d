//! One seed, one world: hosts whose clocks, disks, network and scheduling are all drawn from one number.
//!
//! A simulated host is any `Fn(Env) -> Future`. It receives the same [`Env`](quorate_runtime::Env) as in production, so
//! what runs in the simulated world is the product itself, and whatever goes wrong there goes wrong again when the seed is
//! given again.

pub mod check;
pub mod disk;
