//! Which kinds of trouble a seed knows. Every seed switches whole families off: a fault that hides another one is absent
//! from half of the worlds.
//!
//! Source: Groce et al., "Swarm Testing" (2012).

use std::time::Duration;

use quorate_runtime::random::Rng;
use serde::{Deserialize, Serialize};

/// What a seed's world is like, and which families of faults it knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Swarm {
    /// The network is cut, slowed and reset.
    pub network: bool,
    /// Processes are killed.
    pub kill: bool,
    /// Machines lose power.
    pub power: bool,
    /// Processes and machines stand still.
    pub pause: bool,
    /// Wall clocks are skewed and jump; all clocks drift.
    pub clock: bool,
    /// Disks are slow, fail and fill up.
    pub disk: bool,
    /// Bits flip in files of servers. No seed knows this by itself; a scenario asks for it.
    pub rot: bool,
    /// Rare paths are taken on purpose.
    pub buggify: bool,
    /// Reads and writes of the network come in arbitrary pieces.
    pub chunked: bool,
    /// The least and the most that a segment is on its way, in microseconds.
    pub latency_micros: (u64, u64),
    /// The mean span between two faults, in milliseconds.
    pub fault_every_millis: u64,
}

impl Swarm {
    /// Draws what a seed knows.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let mut coin = || rng.below(2) == 0;
        let (network, kill, power, pause, clock) = (coin(), coin(), coin(), coin(), coin());
        let (disk, buggify, chunked) = (coin(), coin(), coin());
        let least = [50, 200, 1_000, 5_000][usize::try_from(rng.below(4)).unwrap_or(0)];
        let most = least * [1, 2, 5, 20][usize::try_from(rng.below(4)).unwrap_or(0)];
        let fault_every_millis = [300, 1_000, 3_000, 8_000][usize::try_from(rng.below(4)).unwrap_or(0)];
        let latency_micros = (least, most);
        Self {
            network,
            kill,
            power,
            pause,
            clock,
            disk,
            rot: false,
            buggify,
            chunked,
            latency_micros,
            fault_every_millis,
        }
    }

    /// A world in which nothing goes wrong.
    pub fn calm() -> Self {
        Self {
            network: false,
            kill: false,
            power: false,
            pause: false,
            clock: false,
            disk: false,
            rot: false,
            buggify: false,
            chunked: false,
            latency_micros: (200, 400),
            fault_every_millis: 1_000,
        }
    }

    pub(crate) fn latency(&self) -> (Duration, Duration) {
        (Duration::from_micros(self.latency_micros.0), Duration::from_micros(self.latency_micros.1))
    }
}
