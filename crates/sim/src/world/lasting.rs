//! What never heals, and what no product can be held to.
//!
//! Most worlds are healed before anything is asked of them. In some a part stays broken: who can still reach the core must be
//! served all the same. And in some a promise that everything rests on is broken: there, less can be asked for.

use std::time::Duration;

use quorate_runtime::fault::DiskFaults;
use serde::{Deserialize, Serialize};

use super::{Sim, agenda::Entry};
use crate::host::HostId;

/// SQLite keeps the index of its write-ahead log in a file of 32 KiB beside it while a database is open. A program that does
/// not find that much cannot start, and says so; one that runs has it already.
const LOG_INDEX: u64 = 32 << 10;

/// The least that a disk still takes that is to be full.
const ROOM_TO_START: u64 = 2 * LOG_INDEX;

/// How soon it is looked again whether a server answers whose disk is to be full, in nanoseconds.
const LATER: u64 = 100_000_000;

/// How often a disk lies that does.
const LIES: f64 = 0.5;

/// A promise that everything rests on and that is broken in a world: what is then still held is for the scenario to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutOfContract {
    /// Syncs of servers' disks say that they made something durable, and did not.
    LyingSync,
}

/// Something that stays broken from some moment on.
#[derive(Clone, Debug)]
pub(super) enum Lasting {
    /// Nobody but each other hears these any more.
    CutOff(Vec<HostId>),
    /// The disk takes so many more bytes, and no more.
    FullDisk(HostId, u64),
}

impl Sim {
    /// From a moment in the first half of the faults on, `clients` are cut off for good. Their ends are not waited for.
    pub fn cut_off_for_good(&mut self, clients: &[HostId]) {
        self.last(Lasting::CutOff(clients.to_vec()));
    }

    /// From a moment in the first half of the faults on, the disk of `server` has almost no room, for good. A server that
    /// has answered nobody by that moment, having never come so far perhaps, is waited for.
    pub fn fill_disk_for_good(&mut self, server: HostId) {
        let room = ROOM_TO_START + self.random("room").below(64 << 10);
        self.last(Lasting::FullDisk(server, room));
    }

    /// Bits of these files of servers flip now and then, while they lie on their disks.
    ///
    /// What is damaged may not come back: nobody's end is waited for, and a server may refuse to start.
    pub fn rot_files(&mut self, files: &[&str]) {
        self.swarm.rot = true;
        self.rotting = files.iter().map(|file| (*file).to_owned()).collect();
    }

    /// The promise that is broken in this world, if one is.
    pub fn out_of_contract(&self) -> Option<OutOfContract> {
        self.settings.out_of_contract
    }

    /// Whether everybody must come to an end, and every server start that has a sound disk.
    pub fn demands_liveness(&self) -> bool {
        self.settings.out_of_contract.is_none() && !self.swarm.rot
    }

    fn last(&mut self, what: Lasting) {
        let half = self.settings.faults_for.unwrap_or(super::run::FAULTS_FOR) / 2;
        let at = self.random("lasting").below(u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1));
        self.agenda.add(at, Entry::Last(self.lasting.len()));
        self.lasting.push((what, false));
    }

    /// One of what lasts begins.
    pub(super) fn begin_lasting(&mut self, nth: usize) {
        let Some((what, begun)) = self.lasting.get_mut(nth) else { return };
        if let Lasting::FullDisk(server, _) = what
            && !self.network.answers(*server)
        {
            return self.agenda.add(self.executor.now() + LATER, Entry::Last(nth));
        }
        *begun = true;
        match what.clone() {
            Lasting::CutOff(clients) => {
                self.injected.add("network: cut off for good");
                clients.iter().for_each(|client| self.host(*client).cut_off = true);
                self.cut_off(clients);
            }
            Lasting::FullDisk(server, room) => {
                self.injected.add("disk: full for good");
                let host = self.host(server);
                host.lasting.capacity_bytes = Some(host.disk.used_bytes() + room);
                host.heal_disk();
            }
        }
    }

    /// What a power failure brought back of files that had been made shorter finds its room, and so does the log's index, which is
    /// a file like any other: no file system gives room to somebody else before it is certain that it was given back.
    pub(super) fn find_room_again(&mut self, server: HostId) {
        let host = self.host(server);
        let Some(capacity) = host.lasting.capacity_bytes else { return };
        let capacity = capacity.max(host.disk.used_bytes() + LOG_INDEX);
        host.lasting.capacity_bytes = Some(capacity);
        let faults = host.disk.faults();
        let capacity_bytes = faults.capacity_bytes.map(|now| now.max(capacity));
        // Its chances are as valid as they were.
        let _ = host.disk.set_faults(DiskFaults { capacity_bytes, ..faults });
    }

    /// Whether a client is cut off for good, from whenever on.
    pub fn is_cut_off_for_good(&self, client: HostId) -> bool {
        self.lasting.iter().any(|(what, _)| matches!(what, Lasting::CutOff(clients) if clients.contains(&client)))
    }

    /// After everything was healed: what lasts is broken again.
    pub(super) fn keep_broken(&mut self) {
        let begun: Vec<_> = self.lasting.iter().filter(|(_, begun)| *begun).map(|(what, _)| what.clone()).collect();
        for what in begun {
            if let Lasting::CutOff(clients) = what {
                self.cut_off(clients);
            }
        }
    }

    fn cut_off(&self, clients: Vec<HostId>) {
        let others: Vec<_> = self.hosts.iter().map(|host| host.id).filter(|id| !clients.contains(id)).collect();
        self.network.cut(clients.clone(), others.clone(), Duration::MAX);
        self.network.cut(others, clients, Duration::MAX);
    }

    /// What a host's disk is like from the beginning and for good.
    pub(super) fn disk_for_good(&self, is_client: bool) -> DiskFaults {
        match self.settings.out_of_contract {
            Some(OutOfContract::LyingSync) if !is_client => DiskFaults { lying_syncs: LIES, ..DiskFaults::default() },
            _ => DiskFaults::default(),
        }
    }
}
