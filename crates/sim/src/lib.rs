//! One seed, one world: hosts whose clocks, disks, network and scheduling are all drawn from one number.
//!
//! A simulated host is any `Fn(Env) -> Future`. It receives the same [`Env`](quorate_runtime::Env) as in production, so
//! what runs in the simulated world is the product itself, and whatever goes wrong there goes wrong again when the seed is
//! given again.
//!
//! ```text
//!  seed ─┬─ swarm      which kinds of trouble this world knows
//!        ├─ nemesis    a plan of faults, plain data
//!        ├─ schedule   which task runs next
//!        ├─ network    how long every segment is on its way
//!        └─ hosts      clocks, disks, and all randomness of the programs
//! ```
//!
//! A run has phases: things go wrong; everything is healed; all clients must come to an end within a bound; servers stop.
//! [`check`] then judges what the clients recorded.
//!
//! Sources: Zhou et al., "FoundationDB" (2021), section 4, for simulating the product itself; TigerBeetle's simulator for
//! the phases and for drawing everything from one seed.

mod blocking;
pub mod check;
mod clock;
pub mod disk;
mod escape;
mod executor;
mod host;
mod nemesis;
mod net;
mod outcome;
mod probe;
mod swarm;
pub mod testing;
mod trace;
mod world;

pub use host::HostId;
pub use outcome::{Outcome, Violation};
pub use quorate_sim_macros::sim_test;
pub use swarm::Swarm;
pub use world::{OutOfContract, Phase, Settings, Sim, TrueTime};
