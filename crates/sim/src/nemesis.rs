//! Draws a plan of faults from the seed.

use std::time::Duration;

use quorate_runtime::{
    fault::{
        ClockFault, DiskFault, DiskFaults, Fault, FaultPlan, NetworkFault, Planned, ProcessFault, RotFault,
        disk::{BitRot, SlowSyncs},
    },
    random::Rng,
};

use crate::swarm::Swarm;

/// Who things go wrong with.
#[derive(Clone, Copy)]
pub(crate) struct Hosts<'d> {
    pub(crate) servers: &'d [String],
    pub(crate) clients: &'d [String],
    /// Files of servers whose bits may flip.
    pub(crate) rotting: &'d [String],
    /// Whose clocks go wrong as often as those of all others together, in a world in which clocks are set often.
    pub(crate) clocked: &'d [String],
    /// Servers whose syncs fail, whatever else does.
    pub(crate) unsynced: &'d [String],
    /// Servers that are told to stop and started again, whatever else happens to them.
    pub(crate) restarted: &'d [String],
}

/// Draws what goes wrong in the first `span` of a world of `hosts`, of the families that `swarm` knows.
pub(crate) fn plan(rng: &mut Rng, swarm: &Swarm, hosts: Hosts<'_>, span: Duration) -> FaultPlan {
    let Hosts { servers, clients, rotting, clocked, unsynced, restarted } = hosts;
    let mut draw = Draw { rng, servers, clients, rotting, clocked, unsynced, restarted };
    let known: [(bool, &[Kind]); 10] = [
        (swarm.network, &[Kind::Cut, Kind::Partition, Kind::Slow, Kind::Reset, Kind::LoseConnects]),
        (swarm.kill, &[Kind::Kill, Kind::KillAtWork]),
        (swarm.power, &[Kind::PowerLoss, Kind::PowerLossAtDisk]),
        (swarm.pause, &[Kind::Pause, Kind::Suspend]),
        (swarm.clock, &[Kind::Step, Kind::Drift]),
        (swarm.clock && !clocked.is_empty(), &[Kind::Step, Kind::Step]),
        (swarm.disk, &[Kind::SlowDisk, Kind::BrokenDisk, Kind::FullDisk]),
        (swarm.rot && !rotting.is_empty(), &[Kind::Rot]),
        (!unsynced.is_empty(), &[Kind::FailedSyncs]),
        (!restarted.is_empty(), &[Kind::Stop, Kind::Stop]),
    ];
    let kinds: Vec<Kind> = known.iter().filter(|(on, _)| *on).flat_map(|(_, kinds)| *kinds).copied().collect();
    if kinds.is_empty() || servers.is_empty() {
        return FaultPlan::default();
    }
    let mut faults = Vec::new();
    let mut at = Duration::ZERO;
    loop {
        at += Duration::from_millis(1 + draw.rng.below(2 * swarm.fault_every_millis));
        if at >= span {
            return FaultPlan::new(faults);
        }
        let kind = kinds[draw.index(kinds.len())];
        let at_nanos = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        faults.push(Planned { at_nanos, fault: draw.fault(kind) });
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Cut,
    Partition,
    Slow,
    Reset,
    LoseConnects,
    Kill,
    KillAtWork,
    PowerLoss,
    PowerLossAtDisk,
    Pause,
    Suspend,
    Step,
    Drift,
    SlowDisk,
    BrokenDisk,
    FullDisk,
    FailedSyncs,
    Stop,
    Rot,
}

struct Draw<'d> {
    rng: &'d mut Rng,
    servers: &'d [String],
    clients: &'d [String],
    rotting: &'d [String],
    clocked: &'d [String],
    unsynced: &'d [String],
    restarted: &'d [String],
}

impl Draw<'_> {
    fn index(&mut self, count: usize) -> usize {
        usize::try_from(self.rng.below(count as u64)).unwrap_or(0)
    }

    fn server(&mut self) -> String {
        let nth = self.index(self.servers.len());
        self.servers[nth].clone()
    }

    fn anybody(&mut self) -> String {
        let nth = self.index(self.servers.len() + self.clients.len());
        self.servers.iter().chain(self.clients).nth(nth).cloned().unwrap_or_default()
    }

    /// Anybody but `one`, unless there is nobody else.
    fn other_than(&mut self, one: &str) -> String {
        let others: Vec<&String> = self.servers.iter().chain(self.clients).filter(|name| *name != one).collect();
        let nth = usize::try_from(self.rng.below(others.len().max(1) as u64)).unwrap_or(0);
        others.get(nth).map_or_else(|| one.to_owned(), |name| (*name).clone())
    }

    /// Some of all, neither none nor everybody.
    fn group(&mut self) -> Vec<String> {
        let everybody: Vec<String> = self.servers.iter().chain(self.clients).cloned().collect();
        let group: Vec<String> = everybody.iter().filter(|_| self.rng.below(2) == 0).cloned().collect();
        if group.is_empty() || group.len() == everybody.len() { vec![self.server()] } else { group }
    }

    /// Short spans are as likely as long ones are: between a millisecond and ten seconds.
    fn span(&mut self) -> Duration {
        let scale = [10, 100, 1_000, 10_000][self.index(4)];
        Duration::from_millis(1 + self.rng.below(scale))
    }

    fn fault(&mut self, kind: Kind) -> Fault {
        match kind {
            Kind::Cut | Kind::Partition | Kind::Slow | Kind::Reset | Kind::LoseConnects => {
                Fault::Network(self.network(kind))
            }
            Kind::Rot => {
                let (host, nth) = (self.server(), self.index(self.rotting.len()));
                let bits = [1, 1, 3, 100][self.index(4)];
                Fault::Rot(RotFault { host, rot: BitRot { file: self.rotting[nth].clone(), bits } })
            }
            Kind::Step | Kind::Drift => Fault::Clock(self.clock(kind)),
            Kind::SlowDisk | Kind::BrokenDisk | Kind::FullDisk => Fault::Disk(self.disk(kind)),
            Kind::FailedSyncs => Fault::Disk(self.failed_syncs()),
            Kind::Stop => Fault::Process(self.stop()),
            _ => Fault::Process(self.process(kind)),
        }
    }

    fn network(&mut self, kind: Kind) -> NetworkFault {
        match kind {
            Kind::Cut => {
                let to = self.server();
                let (from, span) = (self.other_than(&to), self.span());
                let turned = self.rng.below(2) == 0;
                let (from, to) = if turned { (to, from) } else { (from, to) };
                NetworkFault::Cut { from, to, span }
            }
            Kind::Partition => NetworkFault::Partition { group: self.group(), span: self.span() },
            Kind::Slow => {
                let extra = Duration::from_millis(1 + self.rng.below(500));
                let b = self.server();
                NetworkFault::Slow { a: self.other_than(&b), b, extra, span: self.span() }
            }
            Kind::Reset => NetworkFault::Reset { host: self.anybody() },
            _ => NetworkFault::LoseConnects { host: self.server(), span: self.span() },
        }
    }

    fn process(&mut self, kind: Kind) -> ProcessFault {
        let host = if matches!(kind, Kind::Pause) { self.anybody() } else { self.server() };
        let span = self.span();
        match kind {
            Kind::Kill => ProcessFault::Kill { host, down: span },
            // Whoever waits for the clock is killed where nothing is under way, nearly always.
            Kind::KillAtWork => match self.rng.below(2) {
                0 => ProcessFault::KillAtPoll { host, polls: 1 + self.rng.below(60), down: span },
                _ => ProcessFault::KillAtDisk { host, operation: 1 + self.rng.below(60), down: span },
            },
            Kind::PowerLoss => ProcessFault::PowerLoss { host, down: span },
            Kind::PowerLossAtDisk => {
                ProcessFault::PowerLossAtDisk { host, operation: 1 + self.rng.below(60), down: span }
            }
            Kind::Pause => ProcessFault::Pause { host, span },
            _ => ProcessFault::Suspend { host, span },
        }
    }

    /// Of a server that somebody brings new versions to.
    fn stop(&mut self) -> ProcessFault {
        let nth = self.index(self.restarted.len());
        ProcessFault::Stop { host: self.restarted[nth].clone(), down: self.span() }
    }

    /// None of these lies: what a sync says is true.
    fn disk(&mut self, kind: Kind) -> DiskFault {
        let (host, span) = (self.server(), self.span());
        let chance = [0.001, 0.01, 0.1, 0.5][self.index(4)];
        let sound = DiskFaults::default();
        let (room_bytes, faults) = match kind {
            Kind::SlowDisk => {
                let most = Duration::from_millis(1 + self.rng.below(300));
                let slow = SlowSyncs { chance: 0.5, least: most / 10, most };
                (None, DiskFaults { slow_syncs: Some(slow), ..sound })
            }
            Kind::BrokenDisk => {
                let broken = match self.index(4) {
                    0 => DiskFaults { read_errors: chance, ..sound },
                    1 => DiskFaults { write_errors: chance, ..sound },
                    2 => DiskFaults { sync_errors: chance, ..sound },
                    _ => DiskFaults { short_reads: chance, ..sound },
                };
                (None, broken)
            }
            _ => (Some(self.rng.below(64 << 10)), sound),
        };
        DiskFault { host, span, room_bytes, faults }
    }

    /// Of a disk on which everything else succeeds.
    fn failed_syncs(&mut self) -> DiskFault {
        let nth = self.index(self.unsynced.len());
        let (host, span) = (self.unsynced[nth].clone(), self.span());
        let sync_errors = [0.01, 0.1, 0.5, 1.0][self.index(4)];
        DiskFault { host, span, room_bytes: None, faults: DiskFaults { sync_errors, ..DiskFaults::default() } }
    }

    fn clock(&mut self, kind: Kind) -> ClockFault {
        let is_one_of_these = !self.clocked.is_empty() && self.rng.below(2) == 0;
        let host = if is_one_of_these {
            let nth = self.index(self.clocked.len());
            self.clocked[nth].clone()
        } else {
            self.anybody()
        };
        if matches!(kind, Kind::Drift) {
            return ClockFault::Drift { host, ppm: i32::try_from(self.rng.below(2_001)).unwrap_or(0) - 1_000 };
        }
        let far = [1_000, 60_000, 3_600_000, 86_400_000][self.index(4)];
        let by = i64::try_from(1 + self.rng.below(far)).unwrap_or(1);
        ClockFault::Step { host, by_millis: if self.rng.below(2) == 0 { by } else { -by } }
    }
}

#[cfg(test)]
mod tests {
    use quorate_runtime::random::Random;

    use super::*;

    #[test]
    fn about_half_of_the_kills_come_while_the_process_works() {
        let (servers, swarm) = (["node".to_owned()], Swarm { kill: true, fault_every_millis: 10, ..Swarm::calm() });
        let hosts =
            Hosts { servers: &servers, clients: &[], rotting: &[], clocked: &[], unsynced: &[], restarted: &[] };
        let mut rng = Random::from_seed([1; 32]).stream("nemesis");
        let plan = plan(&mut rng, &swarm, hosts, Duration::from_secs(10));
        let count = |is: fn(&ProcessFault) -> bool| {
            let planned =
                plan.faults.iter().filter(|planned| matches!(&planned.fault, Fault::Process(fault) if is(fault)));
            planned.count()
        };
        let at_its_moment = count(|fault| matches!(fault, ProcessFault::Kill { .. }));
        let between = count(|fault| matches!(fault, ProcessFault::KillAtPoll { polls: 1..=60, .. }));
        let inside = count(|fault| matches!(fault, ProcessFault::KillAtDisk { operation: 1..=60, .. }));
        assert_eq!(at_its_moment + between + inside, plan.faults.len());
        assert!(
            at_its_moment.abs_diff(between + inside) < plan.faults.len() / 5,
            "{at_its_moment}, {between}, {inside}"
        );
        assert!(between.abs_diff(inside) < plan.faults.len() / 5, "{between}, {inside}");
    }

    #[test]
    fn clocks_of_those_who_live_by_the_time_go_wrong_as_often_as_all_others_and_are_set_more_often() {
        let (servers, clients) = (["node".to_owned()], ["a", "b", "c", "d"].map(str::to_owned));
        let swarm = Swarm { clock: true, fault_every_millis: 10, ..Swarm::calm() };
        let of_the_node_and_steps = |clocked: &[String]| {
            let hosts =
                Hosts { servers: &servers, clients: &clients, rotting: &[], clocked, unsynced: &[], restarted: &[] };
            let mut rng = Random::from_seed([1; 32]).stream("nemesis");
            let plan = plan(&mut rng, &swarm, hosts, Duration::from_secs(10));
            let is_of_it = |planned: &&Planned| match &planned.fault {
                Fault::Clock(ClockFault::Step { host, .. } | ClockFault::Drift { host, .. }) => host == "node",
                _ => false,
            };
            let is_a_step = |planned: &&Planned| matches!(&planned.fault, Fault::Clock(ClockFault::Step { .. }));
            let percent = |count: usize| count * 100 / plan.faults.len();
            (
                percent(plan.faults.iter().filter(is_of_it).count()),
                percent(plan.faults.iter().filter(is_a_step).count()),
            )
        };
        let (usual, clocked) = (of_the_node_and_steps(&[]), of_the_node_and_steps(&servers));
        assert!((15..25).contains(&usual.0) && (45..55).contains(&usual.1), "{usual:?} %");
        assert!((55..65).contains(&clocked.0) && (70..80).contains(&clocked.1), "{clocked:?} %");
    }
}
