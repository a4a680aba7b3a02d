//! What goes wrong, drawn from a seed, in the words of the simulator.

use std::time::Duration;

use quorate_runtime::{
    fault::{DiskFault, DiskFaults, Fault, FaultPlan, NetworkFault, Planned, ProcessFault},
    random::Rng,
};

/// The name of the node in plans, where there is one.
pub(crate) const NODE: &str = "node";

/// The names of so many nodes.
pub(crate) fn nodes(count: usize) -> Vec<String> {
    if count == 1 { vec![NODE.to_owned()] } else { (0..count).map(|n| format!("{NODE}-{n}")).collect() }
}

/// How long things go wrong.
pub(crate) const SPAN: Duration = Duration::from_secs(3);

/// A way in which things go wrong with real processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Kill,
    Pause,
    Cut,
    Partition,
    Slow,
    Reset,
    LoseConnects,
    FullDisk,
}

/// What happens to processes and the network between them: a machine needs nothing for it.
const ORDINARY: [&[Kind]; 3] =
    [&[Kind::Kill], &[Kind::Pause], &[Kind::Cut, Kind::Partition, Kind::Slow, Kind::Reset, Kind::LoseConnects]];

/// Draws a plan for `nodes` and `clients`. A third of the families is left out, so that none hides another in every run; a full
/// disk is only drawn where the disk `is_small`.
pub(crate) fn draw(rng: &mut Rng, nodes: &[String], clients: &[String], is_small: bool) -> FaultPlan {
    let mut draw = Draw { rng, nodes, clients };
    let left_out = draw.index(ORDINARY.len());
    let families = ORDINARY.iter().enumerate().filter(|(n, _)| *n != left_out).map(|(_, kinds)| *kinds);
    let families: Vec<&[Kind]> = families.chain(is_small.then_some(&[Kind::FullDisk][..])).collect();
    let every_millis = [150, 300, 600][draw.index(3)];
    let (mut at, mut faults) = (Duration::ZERO, Vec::new());
    loop {
        at += Duration::from_millis(1 + draw.rng.below(2 * every_millis));
        if at >= SPAN {
            return FaultPlan::new(faults);
        }
        let family = families[draw.index(families.len())];
        let kind = family[draw.index(family.len())];
        let at_nanos = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        faults.push(Planned { at_nanos, fault: draw.fault(kind) });
    }
}

struct Draw<'d> {
    rng: &'d mut Rng,
    nodes: &'d [String],
    clients: &'d [String],
}

impl Draw<'_> {
    fn index(&mut self, count: usize) -> usize {
        usize::try_from(self.rng.below(count as u64)).unwrap()
    }

    fn node(&mut self) -> String {
        // One is not drawn, so that seeds keep their plans.
        let nth = if self.nodes.len() == 1 { 0 } else { self.index(self.nodes.len()) };
        self.nodes[nth].clone()
    }

    fn client(&mut self) -> String {
        let nth = self.index(self.clients.len());
        self.clients[nth].clone()
    }

    /// Short spans are as likely as long ones are: up to a second and a half, beyond every client's patience.
    fn span(&mut self) -> Duration {
        let most = [10, 100, 1_500][self.index(3)];
        Duration::from_millis(1 + self.rng.below(most))
    }

    fn fault(&mut self, kind: Kind) -> Fault {
        let (host, span) = (self.node(), self.span());
        match kind {
            Kind::Kill => Fault::Process(ProcessFault::Kill { host, down: span }),
            Kind::Pause => Fault::Process(ProcessFault::Pause { host, span }),
            Kind::FullDisk => {
                let room_bytes = Some(self.rng.below(64 << 10));
                Fault::Disk(DiskFault { host, span, room_bytes, faults: DiskFaults::default() })
            }
            _ => Fault::Network(self.network(kind, span)),
        }
    }

    fn network(&mut self, kind: Kind, span: Duration) -> NetworkFault {
        let (host, client) = (self.node(), self.client());
        match kind {
            Kind::Cut if self.rng.below(2) == 0 => NetworkFault::Cut { from: host, to: client, span },
            Kind::Cut => NetworkFault::Cut { from: client, to: host, span },
            Kind::Partition => {
                let group = self.clients.iter().filter(|_| self.rng.below(2) == 0).cloned().collect();
                NetworkFault::Partition { group, span }
            }
            Kind::Slow => {
                let extra = Duration::from_millis(1 + self.rng.below(200));
                NetworkFault::Slow { a: client, b: host, extra, span }
            }
            Kind::Reset if self.rng.below(2) == 0 => NetworkFault::Reset { host: client },
            Kind::Reset => NetworkFault::Reset { host },
            _ => NetworkFault::LoseConnects { host, span },
        }
    }
}
