//! What can go wrong, as plain data: one vocabulary for the simulator and for experiments on live processes.
//!
//! A [`FaultPlan`] says what goes wrong when. It is drawn from a seed, printed, edited and replayed; whoever carries it out (the
//! simulated world, a supervisor of real processes) adds nothing of its own.

pub mod disk;
mod network;
mod process;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use disk::BitRot;
pub use disk::DiskFaults;
pub use network::NetworkFault;
pub use process::{ClockFault, ProcessFault};

/// What goes wrong, in order of time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FaultPlan {
    /// The faults, earliest first.
    pub faults: Vec<Planned>,
}

/// One fault and when it begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// Since the beginning of the run, in nanoseconds.
    pub at_nanos: u64,
    /// What goes wrong.
    #[serde(flatten)]
    pub fault: Fault,
}

/// One thing that goes wrong. Hosts are named as the run names them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Fault {
    /// The network misbehaves.
    Network(NetworkFault),
    /// A host's disk misbehaves.
    Disk(DiskFault),
    /// A host's process, or the machine under it, ends or stands still.
    Process(ProcessFault),
    /// A host's clock misbehaves.
    Clock(ClockFault),
    /// Bits of a host's file flip.
    Rot(RotFault),
}

/// Bits that flip in a file, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotFault {
    /// Whose file.
    pub host: String,
    /// Which file, and how many bits.
    #[serde(flatten)]
    pub rot: BitRot,
}

/// A disk that misbehaves for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiskFault {
    /// Whose.
    pub host: String,
    /// How long.
    #[serde(with = "millis", rename = "span_ms")]
    pub span: Duration,
    /// Bytes that still fit when it begins, instead of the capacity in `faults`; `None` for no limit.
    pub room_bytes: Option<u64>,
    /// How.
    pub faults: DiskFaults,
}

impl FaultPlan {
    /// A plan of `faults`, put in order of time.
    pub fn new(mut faults: Vec<Planned>) -> Self {
        faults.sort_by_key(|planned| planned.at_nanos);
        Self { faults }
    }

    /// The plan without the faults whose places, counted from 0, are `left_out`.
    pub fn without(&self, left_out: &[usize]) -> Self {
        let kept = self.faults.iter().enumerate().filter(|(n, _)| !left_out.contains(n));
        Self { faults: kept.map(|(_, planned)| planned.clone()).collect() }
    }

    /// How long after the beginning the last fault is over.
    pub fn end(&self) -> Duration {
        self.faults.iter().map(Planned::end).max().unwrap_or_default()
    }
}

impl Planned {
    /// When it begins.
    pub fn at(&self) -> Duration {
        Duration::from_nanos(self.at_nanos)
    }

    /// When it is over.
    pub fn end(&self) -> Duration {
        let span = match &self.fault {
            Fault::Network(fault) => fault.span(),
            Fault::Disk(fault) => fault.span,
            Fault::Process(fault) => fault.span(),
            Fault::Clock(_) | Fault::Rot(_) => Duration::ZERO,
        };
        self.at() + span
    }
}

/// A span as it is written in plans: whole milliseconds.
pub(crate) mod millis {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(span: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::{Fault, FaultPlan, NetworkFault, Planned, ProcessFault};
    use std::time::Duration;

    fn plan() -> FaultPlan {
        let kill = ProcessFault::Kill { host: "node-1".into(), down: Duration::from_millis(700) };
        let cut = NetworkFault::Cut { from: "a".into(), to: "b".into(), span: Duration::from_millis(20) };
        FaultPlan::new(vec![
            Planned { at_nanos: 2_000_000_000, fault: Fault::Process(kill) },
            Planned { at_nanos: 1_000_000_000, fault: Fault::Network(cut) },
        ])
    }

    #[test]
    fn a_plan_is_in_order_and_says_when_it_is_over() {
        let plan = plan();
        assert!(plan.faults[0].at() < plan.faults[1].at());
        assert_eq!(plan.end(), Duration::from_millis(2_700));
        assert_eq!(plan.without(&[1]).end(), Duration::from_millis(1_020));
    }

    #[test]
    fn a_plan_reads_back_as_it_was_written() {
        let text = serde_json::to_string(&plan()).unwrap();
        assert_eq!(serde_json::from_str::<FaultPlan>(&text).unwrap(), plan());
    }
}
