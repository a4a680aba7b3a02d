//! Hosts: their beginnings and their ends.

use std::{sync::Arc, time::Duration};

use quorate_runtime::{
    BoxFuture, Env, EnvParts,
    fault::{DiskFaults, disk::Survival},
    random::{Random, Rng},
    tasks::{Spawn, Tasks},
};

use super::{Program, Signal, Sim, agenda::Entry};
use crate::{
    blocking::SimBlocking,
    clock::HostClocks,
    disk::{Model, SimDisk},
    executor::{Executor, lock},
    host::{HostId, Life},
    net::Presence,
};

/// How long the machine takes to start a program again that ended by itself.
const RESTART: Duration = Duration::from_millis(500);

/// After a disk is sound again, a program may still fail for so long because it was not.
const TOLD_LATER: Duration = Duration::from_secs(5);

/// A host and the life it is in.
pub(super) struct Host {
    pub(super) id: HostId,
    pub(super) name: String,
    pub(super) is_client: bool,
    pub(super) clocks: HostClocks,
    pub(super) disk: SimDisk,
    pub(super) life: Life,
    pub(super) runs: bool,
    /// A client that cannot be left out.
    pub(super) is_witness: bool,
    /// A client that has ended.
    pub(super) done: bool,
    /// A client that is cut off for good: its end is not waited for.
    pub(super) cut_off: bool,
    /// What its disk is like when nothing else is wrong with it.
    pub(super) lasting: DiskFaults,
    /// Until when it stands still, in the world's time.
    pub(super) still_until: u64,
    /// Until when something is wrong with its disk, in the world's time.
    pub(super) sick_until: u64,
    /// Until when something was wrong with its disk, in the world's time.
    pub(super) mended_at: Option<u64>,
    /// How long it is down once it has ended, if it was told to stop.
    pub(super) told_to_stop: Option<Duration>,
    /// Whether bits of its files flipped.
    pub(super) rotten: bool,
    pub(super) tasks: Option<Tasks>,
    program: Program,
    random: Random,
    /// Decides what is left of what was not synced when the power fails.
    power: Rng,
}

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The process is gone; the machine runs on.
    Killed,
    /// The machine lost power.
    PowerLost,
}

impl End {
    /// What is left of the host on the network.
    pub(super) fn presence(self) -> Presence {
        match self {
            Self::Killed => Presence::Down,
            Self::PowerLost => Presence::Off,
        }
    }
}

impl Host {
    /// Makes the disk as sound as it can be, which mostly is: never failing, with all the space it wants.
    pub(super) fn heal_disk(&self) {
        // Its chances are ours, and between 0 and 1.
        let _ = self.disk.set_faults(self.lasting.clone());
    }

    /// Whether its end is waited for.
    pub(super) fn is_awaited(&self) -> bool {
        self.is_client && !self.done && !self.cut_off
    }

    /// Whether what it does wrong at `now` is not the fault of its disk. What a disk refused is told some time later, when all
    /// that was asked of it has taken its time.
    pub(super) fn has_sound_disk(&self, now: u64) -> bool {
        let long_ago = |at: u64| now.saturating_sub(at) > u64::try_from(TOLD_LATER.as_nanos()).unwrap_or(u64::MAX);
        self.disk.faults() == DiskFaults::default() && !self.rotten && self.mended_at.is_none_or(long_ago)
    }
}

struct SimSpawn {
    executor: Executor,
    host: HostId,
    life: Life,
}

impl Spawn for SimSpawn {
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) {
        self.executor.spawn(self.host, self.life, name, task);
    }
}

impl Sim {
    pub(super) fn add(&mut self, name: &str, is_client: bool, program: Program) -> HostId {
        let id = HostId(u8::try_from(self.hosts.len()).unwrap_or(u8::MAX));
        assert!(id.0 < 250, "a world has at most 250 hosts");
        assert!(self.hosts.iter().all(|host| host.name != name), "two hosts are called `{name}`");
        let random = self.random.branch(&format!("host {name}"));
        let (skew, ppm) = self.skew(&random);
        let host = Host {
            id,
            name: name.to_owned(),
            is_client,
            clocks: HostClocks::new(&self.executor, skew, ppm),
            disk: SimDisk::new(name, Model::draw(&mut random.stream("disk model")), random.stream("disk")),
            power: random.stream("power"),
            life: Life::default(),
            runs: false,
            is_witness: false,
            done: false,
            cut_off: false,
            lasting: self.disk_for_good(is_client),
            still_until: 0,
            sick_until: 0,
            mended_at: None,
            told_to_stop: None,
            rotten: false,
            tasks: None,
            program,
            random,
        };
        host.heal_disk();
        self.executor.attach(id, &host.disk);
        self.hosts.push(host);
        // Hosts do not all start in the same instant.
        let at = self.random.stream("starts").below(50_000_000);
        self.agenda.add(at, Entry::Start(id));
        id
    }

    /// How far a host's clocks are off from the beginning.
    fn skew(&self, random: &Random) -> (i64, i32) {
        if !self.swarm.clock {
            return (0, 0);
        }
        let mut rng = random.stream("clock");
        let millis = i64::try_from(rng.below(20_001)).unwrap_or(0) - 10_000;
        (millis, i32::try_from(rng.below(401)).unwrap_or(0) - 200)
    }

    pub(super) fn host(&mut self, id: HostId) -> &mut Host {
        &mut self.hosts[usize::from(id.0)]
    }

    pub(super) fn find(&self, name: &str) -> Option<HostId> {
        self.hosts.iter().find(|host| host.name == name).map(|host| host.id)
    }

    /// Starts a host, unless it runs.
    pub(super) fn start(&mut self, id: HostId) {
        let (executor, network) = (self.executor.clone(), self.network.clone());
        let host = self.host(id);
        if host.runs || host.done {
            return;
        }
        host.life = Life(host.life.0 + 1);
        host.still_until = 0;
        host.told_to_stop = None;
        host.runs = true;
        let life = host.life;
        executor.begin(id, life);
        network.up(id);
        let env = self.env(id);
        let (signals, host) = (self.signals.clone(), self.host(id));
        host.tasks = Some(env.tasks().clone());
        let program = (host.program)(env);
        let main = async move {
            let result = program.await;
            lock(&signals).push(Signal::Ended { host: id, result });
        };
        executor.spawn(id, life, "main", Box::pin(main));
    }

    /// The world as this life of a host sees it.
    fn env(&self, id: HostId) -> Env {
        let host = &self.hosts[usize::from(id.0)];
        let life = host.life;
        let spawn = SimSpawn { executor: self.executor.clone(), host: id, life };
        let blocking = SimBlocking { executor: self.executor.clone(), host: id, life, disk: host.disk.clone() };
        let (signals, executor) = (self.signals.clone(), self.executor.clone());
        let (disk, network) = (host.disk.clone(), self.network.clone());
        Env::from_parts(EnvParts {
            clocks: Arc::new(host.clocks.clone()),
            random: host.random.branch(&format!("life {}", life.0)),
            disk: host.disk.mount(),
            net: Arc::new(self.network.of(id)),
            blocking: Arc::new(blocking),
            tasks: Tasks::root(Arc::new(spawn)),
            metrics: Arc::default(),
            probe: self.probe.clone(),
            fatal: Arc::new(move |why| {
                // From here on nothing of this life reaches the disk or the network, whatever its code still does.
                disk.disarm();
                disk.crash();
                network.down(id, Presence::Down);
                executor.doom(id, life);
                lock(&signals).push(Signal::Fatal { host: id, why: why.to_owned() });
            }),
        })
    }

    /// Ends a host's life at once; it starts again after `down`.
    pub(super) fn end(&mut self, id: HostId, how: End, down: Duration) {
        let (executor, network) = (self.executor.clone(), self.network.clone());
        let host = self.host(id);
        if !host.runs || host.is_client {
            return;
        }
        host.runs = false;
        host.tasks = None;
        // First the disk and the network, so that destructors meet a dead host.
        match how {
            End::Killed => {
                host.disk.kill();
                host.clocks.restart(false);
            }
            End::PowerLost => {
                host.disk.power_loss(Survival::draw(&mut host.power), &mut host.power);
                host.clocks.restart(true);
            }
        }
        network.down(id, how.presence());
        let life = host.life;
        executor.doom(id, life);
        executor.pause(id, false);
        if how == End::PowerLost {
            self.find_room_again(id);
        }
        self.start_in(id, down);
    }

    /// Plans a start.
    pub(super) fn start_in(&mut self, id: HostId, span: Duration) {
        let at = self.executor.now() + u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        self.agenda.add(at, Entry::Start(id));
    }

    /// A program ended by itself or was ended by its own hand; a supervisor starts it again.
    pub(super) fn ended(&mut self, id: HostId) {
        let (executor, network) = (self.executor.clone(), self.network.clone());
        let host = self.host(id);
        host.runs = false;
        host.tasks = None;
        if host.is_client {
            host.done = true;
            return;
        }
        host.disk.kill();
        host.clocks.restart(false);
        let (life, down) = (host.life, host.told_to_stop.take().unwrap_or(RESTART));
        network.down(id, Presence::Down);
        executor.doom(id, life);
        self.start_in(id, down);
    }
}
