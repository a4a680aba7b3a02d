//! Running a world: faults, then healing, then everything must come to an end.

use std::time::Duration;

use quorate_runtime::fault::{
    ClockFault, DiskFault, DiskFaults, Fault, FaultPlan, NetworkFault, ProcessFault, RotFault,
};

use super::{
    Phase, Signal, Sim,
    agenda::Entry,
    hosts::{End, Host},
};
use crate::{
    disk::DiskCounts,
    escape::Border,
    executor::{Stopped, lock},
    host::HostId,
    nemesis,
    outcome::{Outcome, Violation},
    swarm::Swarm,
    trace::say,
};

pub(super) const FAULTS_FOR: Duration = Duration::from_secs(10);
const LIVENESS_BOUND: Duration = Duration::from_secs(120);
/// How long a world goes on after it was healed in which nobody needs to come to an end.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long servers may take to end when they are told to.
const DRAIN_BOUND: Duration = Duration::from_secs(60);

/// What a world has reached that knows every family of faults: one in 64.
const EVERY_FAMILY: &str = "every family of faults was on";

/// How a phase ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// Its time is over.
    Time,
    /// All clients have ended.
    Clients,
    /// Something was found that makes going on useless.
    Found,
}

impl Sim {
    /// Runs the world to its end.
    ///
    /// Things go wrong; then everything is healed and whoever is down starts again; all clients must end within the bound; then
    /// servers are told to stop, and must.
    pub fn run(mut self) -> Outcome {
        // Until the runtime is gone too, and with it whatever left the world.
        let _turn = self.turn.take();
        let border = self.executor.border().clone();
        let runtime = runtime(self.seed, &border);
        border.close(runtime.metrics());
        runtime.block_on(tokio::task::unconstrained(async move { self.run_inside() }))
    }

    fn run_inside(&mut self) -> Outcome {
        let whole = self.plan();
        let plan = whole.without(&self.settings.without);
        for planned in &plan.faults {
            self.agenda.add(planned.at_nanos, Entry::Begin(planned.fault.clone()));
        }
        let mut found = Vec::new();
        let faults_for = self.settings.faults_for.unwrap_or(FAULTS_FOR).max(plan.end());
        let mut ended = self.phase_until(self.executor.now() + nanos(faults_for), &mut found);
        if ended != Ended::Found {
            self.heal();
            let usual = if self.demands_liveness() { LIVENESS_BOUND } else { PATIENCE };
            let bound = self.settings.liveness_bound.unwrap_or(usual);
            ended = self.phase_until(self.executor.now() + nanos(bound), &mut found);
            if ended == Ended::Time && self.demands_liveness() {
                found.push(self.stuck(bound));
            }
        }
        if ended == Ended::Clients {
            self.stop_servers(&mut found);
        }
        self.outcome(whole, found)
    }

    fn plan(&self) -> FaultPlan {
        let span = self.settings.faults_for.unwrap_or(FAULTS_FOR);
        let of =
            |clients| self.hosts.iter().filter(move |host| host.is_client == clients).map(|host| host.name.clone());
        let (servers, clients): (Vec<_>, Vec<_>) = (of(false).collect(), of(true).collect());
        // Drawn in any case, so that leaving faults out reshuffles nothing else.
        let (rotting, clocked) = (&*self.rotting, &*self.clocked);
        let (unsynced, restarted) = (&*self.unsynced, &*self.restarted);
        let hosts = nemesis::Hosts { servers: &servers, clients: &clients, rotting, clocked, unsynced, restarted };
        let drawn = nemesis::plan(&mut self.random.stream("nemesis"), &self.swarm, hosts, span);
        self.settings.plan.clone().unwrap_or(drawn)
    }

    /// Runs until `end`, or until all clients have ended.
    fn phase_until(&mut self, end: u64, found: &mut Vec<Violation>) -> Ended {
        loop {
            while let Some(entry) = self.agenda.take(self.executor.now()) {
                self.carry_out(entry);
            }
            if !self.hosts.iter().any(Host::is_awaited) {
                return Ended::Clients;
            }
            let until = self.agenda.next().unwrap_or(u64::MAX).min(end);
            let stopped = self.go_on(until, found);
            if !found.is_empty() {
                return Ended::Found;
            }
            if stopped == Stopped::Time && until == end {
                return Ended::Time;
            }
        }
    }

    /// Runs until the clock reads `until` or a host says something, and hears what hosts said.
    fn go_on(&mut self, until: u64, found: &mut Vec<Violation>) -> Stopped {
        let signals = self.signals.clone();
        let stopped = self.executor.run_until(until, &mut || !lock(&signals).is_empty(), &mut |_, _| {});
        let said: Vec<Signal> = lock(&signals).drain(..).collect();
        said.into_iter().for_each(|signal| self.hear(signal, found));
        match stopped {
            Stopped::Spinning => {
                found.push(Violation::new("progress", "a task runs without end and never waits"));
            }
            Stopped::Panicked => {
                let panics = self.executor.panics();
                found.extend(panics.iter().map(|panic| {
                    let name = &self.hosts[usize::from(panic.host.0)].name;
                    Violation::new("no panic", format!("`{}` of {name} panicked: {}", panic.task, panic.what))
                }));
            }
            Stopped::Escaped => {
                let escapes = self.executor.escapes();
                found.extend(escapes.iter().map(|escape| {
                    let name = &self.hosts[usize::from(escape.host.0)].name;
                    Violation::new("nothing leaves the world", format!("`{}` of {name} {}", escape.task, escape.what))
                }));
            }
            Stopped::Time | Stopped::Done => {}
        }
        stopped
    }

    fn hear(&mut self, signal: Signal, found: &mut Vec<Violation>) {
        let (Signal::Ended { host, .. } | Signal::Fatal { host, .. } | Signal::Struck { host, .. }) = &signal;
        if !self.host(*host).runs {
            // It came to another end in the same step: what it made of that is nobody's business any more, and nobody can strike
            // it who comes later.
            return;
        }
        match signal {
            Signal::Ended { host, result } => {
                let known = self.host(host);
                if let (Err(why), true) = (&result, known.is_client) {
                    let failed = Violation::new("client", format!("{} failed: {why}", known.name));
                    if self.demands_liveness() {
                        found.push(failed);
                    } else {
                        self.reached.add("a client gave up");
                    }
                }
                let known = self.host(host);
                if let (Err(why), false) = (&result, known.is_client) {
                    tracing::debug!(host = known.name, why, "a program ended");
                    if self.settings.print_trace {
                        say(format_args!("{} {host} ended: {why}", self.executor.now()));
                    }
                    self.reached.add("a server failed and was started again");
                    self.judge_failure(host, why, found);
                }
                if result.is_ok() {
                    self.judge_end(host, found);
                }
                self.ended(host);
            }
            Signal::Fatal { host, why } => {
                tracing::debug!(why, "a program ended itself");
                if self.settings.print_trace {
                    say(format_args!("{} {host} ended itself: {why}", self.executor.now()));
                }
                self.reached.add("a server ended itself");
                self.ended(host);
            }
            Signal::Struck { host, how, down, injected } => {
                self.injected.add(injected);
                self.end(host, how, down);
            }
        }
    }

    /// A server may fail to start while its disk fails, not otherwise.
    fn judge_failure(&self, host: HostId, why: &str, found: &mut Vec<Violation>) {
        let host = &self.hosts[usize::from(host.0)];
        if host.has_sound_disk(self.executor.now()) {
            found.push(Violation::new("server", format!("{} failed with a sound disk: {why}", host.name)));
        }
    }

    /// A server that ends well was told to.
    fn judge_end(&self, host: HostId, found: &mut Vec<Violation>) {
        let host = &self.hosts[usize::from(host.0)];
        if host.is_client || self.stopping {
            return;
        }
        if host.told_to_stop.is_some() {
            return self.reached.add("a server ended in order and was started again");
        }
        // Whoever watches it takes that for an end that somebody wanted and leaves it down, whatever its disk did.
        found.push(Violation::new("server", format!("{} ended without having been told to", host.name)));
    }

    fn carry_out(&mut self, entry: Entry) {
        match entry {
            Entry::Begin(fault) => self.begin(&fault),
            Entry::Last(nth) => self.begin_lasting(nth),
            Entry::LookAgain => self.network.look_again(),
            Entry::Start(host) => self.start(host),
            // Whatever began meanwhile has a span of its own.
            Entry::Mend(host) if self.host(host).sick_until > self.executor.now() => {}
            Entry::Mend(host) => self.mend(host),
            Entry::Resume(host, life) => {
                let (now, host_now) = (self.executor.now(), self.host(host));
                if host_now.life == life && host_now.still_until <= now {
                    self.resume(host);
                }
            }
        }
    }

    fn mend(&mut self, host: HostId) {
        let now = self.executor.now();
        let host = self.host(host);
        if host.disk.faults() != host.lasting {
            host.mended_at = Some(now);
        }
        host.heal_disk();
    }

    fn resume(&mut self, host: HostId) {
        self.host(host).clocks.suspend(false);
        self.executor.pause(host, false);
    }

    fn begin(&mut self, fault: &Fault) {
        match fault {
            Fault::Network(fault) => self.begin_network(fault),
            Fault::Process(fault) => self.begin_process(fault),
            Fault::Disk(fault) => self.begin_disk(fault),
            Fault::Clock(fault) => self.begin_clock(fault),
            Fault::Rot(fault) => self.rot(fault),
            _ => {}
        }
    }

    fn begin_network(&mut self, fault: &NetworkFault) {
        match fault {
            NetworkFault::Cut { from, to, span } => {
                if let (Some(from), Some(to)) = (self.find(from), self.find(to)) {
                    self.injected.add("network: one way cut");
                    self.network.cut(vec![from], vec![to], *span);
                }
            }
            NetworkFault::Partition { group, span } => {
                self.injected.add("network: partition");
                let group: Vec<_> = group.iter().filter_map(|name| self.find(name)).collect();
                let others: Vec<_> = self.hosts.iter().map(|host| host.id).filter(|id| !group.contains(id)).collect();
                self.network.cut(group.clone(), others.clone(), *span);
                self.network.cut(others, group, *span);
            }
            NetworkFault::Slow { a, b, extra, span } => {
                if let (Some(a), Some(b)) = (self.find(a), self.find(b)) {
                    self.injected.add("network: slow");
                    self.network.slow(a, b, *extra, *span);
                }
            }
            NetworkFault::Reset { host } => {
                if let Some(host) = self.find(host) {
                    self.injected.add("network: reset");
                    self.network.reset(host);
                }
            }
            NetworkFault::LoseConnects { host, span } => {
                if let Some(host) = self.find(host) {
                    self.injected.add("network: connects lost");
                    self.network.deafen(host, *span);
                }
            }
            _ => {}
        }
        self.agenda.add(self.executor.now() + nanos(fault.span()), Entry::LookAgain);
    }

    fn begin_process(&mut self, fault: &ProcessFault) {
        let Some(id) = self.find(fault.host()) else { return };
        if !self.host(id).runs {
            return;
        }
        match fault {
            ProcessFault::Kill { down, .. } => {
                self.injected.add("process: killed");
                self.end(id, End::Killed, *down);
            }
            ProcessFault::PowerLoss { down, .. } => {
                self.injected.add("process: power lost");
                self.end(id, End::PowerLost, *down);
            }
            ProcessFault::PowerLossAtDisk { operation, down, .. } => {
                let strike = self.strike(id, End::PowerLost, *down, "process: power lost inside a disk operation");
                self.host(id).disk.crash_at(*operation, strike);
            }
            ProcessFault::KillAtDisk { operation, down, .. } => {
                let strike = self.strike(id, End::Killed, *down, "process: killed inside a disk operation");
                self.host(id).disk.crash_at(*operation, strike);
            }
            ProcessFault::KillAtPoll { polls, down, .. } => {
                let strike = self.strike(id, End::Killed, *down, "process: killed at work");
                let disk = self.host(id).disk.clone();
                self.executor.after_polls(id, *polls, move || {
                    // What is dropped of it from here on reaches nothing, and nothing else strikes it.
                    disk.disarm();
                    disk.crash();
                    strike();
                });
            }
            ProcessFault::Stop { down, .. } => {
                let host = self.host(id);
                if let Some(tasks) = host.tasks.as_ref().filter(|_| !host.is_client && host.told_to_stop.is_none()) {
                    tasks.stop().cancel();
                    host.told_to_stop = Some(*down);
                    self.injected.add("process: told to stop");
                }
            }
            ProcessFault::Pause { span, .. } => {
                self.injected.add("process: paused");
                self.stand_still(id, *span, false);
            }
            ProcessFault::Suspend { span, .. } => {
                self.injected.add("process: suspended");
                self.stand_still(id, *span, true);
            }
            _ => {}
        }
    }

    /// What ends this life of a host from within its work, whenever that is called; its disk is dead by then.
    fn strike(
        &mut self,
        id: HostId,
        how: End,
        down: Duration,
        injected: &'static str,
    ) -> impl FnOnce() + Send + 'static {
        let (network, executor, signals) = (self.network.clone(), self.executor.clone(), self.signals.clone());
        let life = self.host(id).life;
        move || {
            network.down(id, how.presence());
            executor.doom(id, life);
            lock(&signals).push(Signal::Struck { host: id, how, down, injected });
        }
    }

    /// A host that stands still already does so until both spans are over, and asleep if it slept.
    fn stand_still(&mut self, id: HostId, span: Duration, suspended: bool) {
        let until = self.executor.now() + nanos(span);
        self.executor.pause(id, true);
        let host = self.host(id);
        if suspended {
            host.clocks.suspend(true);
        }
        host.still_until = host.still_until.max(until);
        let life = host.life;
        self.agenda.add(until, Entry::Resume(id, life));
    }

    fn begin_disk(&mut self, fault: &DiskFault) {
        let Some(id) = self.find(&fault.host) else { return };
        let host = self.host(id);
        let room = fault.room_bytes.map(|room| host.disk.used_bytes() + room);
        let capacity_bytes = room.into_iter().chain(host.lasting.capacity_bytes).min();
        let lying_syncs = fault.faults.lying_syncs.max(host.lasting.lying_syncs);
        let faults = DiskFaults { capacity_bytes, lying_syncs, ..fault.faults.clone() };
        if host.disk.set_faults(faults).is_ok() {
            self.injected.add("disk: failing for a while");
            let until = self.executor.now() + nanos(fault.span);
            self.host(id).sick_until = until;
            self.agenda.add(until, Entry::Mend(id));
        }
    }

    /// Bits flip, where the file is there.
    fn rot(&mut self, fault: &RotFault) {
        let Some(id) = self.find(&fault.host) else { return };
        // Of this moment, so that the same bit does not flip back.
        let mut rng = self.random.branch("rot").stream(&format!("{} {}", fault.rot.file, self.executor.now()));
        let host = self.host(id);
        let flipped = host.disk.rot(&fault.rot, &mut rng).unwrap_or(0);
        host.rotten |= flipped > 0;
        self.injected.add_many("disk: bits flipped", u64::from(flipped));
    }

    fn begin_clock(&mut self, fault: &ClockFault) {
        match fault {
            ClockFault::Step { host, by_millis } => {
                if let Some(host) = self.find(host) {
                    self.injected.add("clock: stepped");
                    self.host(host).clocks.step(*by_millis);
                }
            }
            ClockFault::Drift { host, ppm } => {
                if let Some(host) = self.find(host) {
                    self.injected.add("clock: drifting");
                    self.host(host).clocks.drift(*ppm);
                }
            }
            _ => {}
        }
    }

    /// Ends everything that is wrong: all ways are open, all disks are sound, everybody runs.
    fn heal(&mut self) {
        self.agenda.drop_faults();
        self.network.heal();
        for id in (0..self.hosts.len()).filter_map(|n| u8::try_from(n).ok()).map(HostId) {
            self.host(id).disk.disarm();
            self.executor.disarm(id);
            self.mend(id);
            self.resume(id);
            self.start(id);
        }
        self.keep_broken();
        self.phase.send_replace(Phase::Healed);
    }

    /// Who has not ended, and what of it still runs.
    fn stuck(&self, bound: Duration) -> Violation {
        let waiting = self.hosts.iter().filter(|host| host.is_awaited());
        let waiting: Vec<String> =
            waiting.map(|host| format!("{} ({})", host.name, self.executor.unfinished(host.id).join(", "))).collect();
        let what = format!("not ended {} s after everything was healed: {}", bound.as_secs(), waiting.join("; "));
        Violation::new("liveness", what)
    }

    /// Tells all servers to stop; each must end well.
    fn stop_servers(&mut self, found: &mut Vec<Violation>) {
        self.stopping = true;
        for host in &self.hosts {
            if let Some(tasks) = host.tasks.as_ref().filter(|_| !host.is_client) {
                tasks.stop().cancel();
            }
        }
        let end = self.executor.now() + nanos(DRAIN_BOUND);
        while self.hosts.iter().any(|host| host.runs && !host.is_client) {
            self.agenda = super::Agenda::default();
            if self.go_on(end, found) == Stopped::Time || !found.is_empty() {
                break;
            }
        }
        for host in self.hosts.iter().filter(|host| host.runs && !host.is_client) {
            let what = format!("{} did not end within {} s of being told to", host.name, DRAIN_BOUND.as_secs());
            found.push(Violation::new("drain", what));
        }
    }

    fn optional_clients(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(|host| host.is_client && !host.is_witness)
    }

    fn outcome(&self, plan: FaultPlan, violations: Vec<Violation>) -> Outcome {
        self.trace_disks();
        self.hosts.iter().for_each(|host| self.count_disk(&host.disk.counts()));
        self.network.struck().iter().for_each(|(what, count)| self.injected.add_many(what, *count));
        let Swarm { network, kill, power, pause, clock, disk, .. } = self.swarm;
        if [network, kill, power, pause, clock, disk].into_iter().all(|known| known) {
            self.reached.add(EVERY_FAMILY);
        }
        Outcome {
            seed: self.seed,
            swarm: self.swarm.clone(),
            clients: self.optional_clients().map(|host| host.name.clone()).collect(),
            plan,
            without: self.settings.without.clone(),
            violations,
            trace: self.trace.hash(),
            steps: self.trace.steps(),
            simulated_millis: self.executor.now() / 1_000_000,
            injected: self.injected.all(),
            reached: self.reached.all(),
        }
    }

    /// What disks did is part of what happened.
    fn trace_disks(&self) {
        for host in &self.hosts {
            let hash = host.disk.trace();
            let short = hash.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
            self.trace.note(self.executor.now(), host.id, "disk", short);
        }
    }

    fn count_disk(&self, counts: &DiskCounts) {
        let faults = [
            ("disk: read failed", counts.read_errors),
            ("disk: write failed", counts.write_errors),
            ("disk: sync failed", counts.sync_errors),
            ("disk: no space", counts.no_space),
            ("disk: read short", counts.short_reads),
            ("disk: sync slow", counts.slow_syncs),
            ("disk: sync lied", counts.lying_syncs),
            ("disk: pages at stake when power failed", counts.pages_at_stake),
        ];
        faults.iter().for_each(|(what, count)| self.injected.add_many(what, *count));
    }
}

impl Drop for Sim {
    /// Nothing of a world outlives it, whoever still waits for something in it.
    fn drop(&mut self) {
        self.hosts.iter().for_each(|host| host.disk.crash());
        self.executor.end();
    }
}

/// A runtime without drivers, in which a world runs. What tokio's own types draw (the branches of a `select!`) comes from the
/// seed as well, as long as it is drawn inside.
#[cfg(tokio_unstable)]
fn runtime(seed: u64, border: &Border) -> tokio::runtime::Runtime {
    let (seed, border) = (tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()), border.clone());
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.rng_seed(seed).on_task_spawn(move |task| border.spawned(task.spawned_at().to_string()));
    let runtime = runtime.build();
    runtime.unwrap_or_else(|cause| panic!("a runtime without drivers needs nothing: {cause}"))
}

#[cfg(not(tokio_unstable))]
fn runtime(_: u64, _: &Border) -> tokio::runtime::Runtime {
    panic!(
        "tokio was built without its seedable scheduler, so that a seed would not be the same world twice.\n\
         Add to .cargo/config.toml:\n\n[build]\nrustflags = [\"--cfg\", \"tokio_unstable\"]"
    )
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
