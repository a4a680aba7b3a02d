//! Clients append and read while something is broken that never heals, or that nothing can be done about.

use std::collections::BTreeMap;

use quorate_sim::{HostId, Sim};

use super::{appends, followers};
use crate::cast::Cast;

/// Everything that a node keeps of its log.
const FILES: [&str; 2] = ["quorate-data/quorate.db", "quorate-data/quorate.db-wal"];

/// Where every append is refused in the end, many of them tell no more than some.
const ROUNDS_IN_VAIN: usize = 15;

/// Rounds of each client that meets a node which is told to stop.
const ROUNDS_BETWEEN: usize = 25;

/// Half of the clients are cut off for good. The others are served as ever, and whoever reads in the end reads everything.
pub(crate) fn cut_off() -> Cast {
    // Nothing is wrong with the node, so that it can be asked to check its store in the end.
    appends::cast().in_a_world(|sim, _, clients| {
        let lost = ["client-0", "client-1"].iter().filter_map(|name| clients.get(*name).copied());
        sim.cut_off_for_good(&lost.collect::<Vec<_>>());
    })
}

/// The node is told to stop and started again while clients append, read and follow, as new versions do it. Whatever it had begun it
/// ends, or says that nobody knows.
pub(crate) fn restarts() -> Cast {
    followers::beside(appends::cast_for(ROUNDS_BETWEEN)).in_a_world(|sim, node, _| sim.restart(node))
}

/// The disk is full for good. What was acknowledged can still be read.
pub(crate) fn full_disk() -> Cast {
    appends::cast_for(ROUNDS_IN_VAIN).in_a_world(|sim, node, _| sim.fill_disk_for_good(node)).never_healed()
}

/// Syncs fail. Nobody knows then what is durable: the node ends itself, starts again, and has everything that it acknowledged.
pub(crate) fn failed_sync() -> Cast {
    appends::cast().in_a_world(|sim, node, _| sim.fail_syncs_of(node))
}

/// Bits of the log's files flip. Whatever is served is what was sent.
pub(crate) fn bit_rot() -> Cast {
    appends::cast().in_a_world(rot).never_healed()
}

fn rot(sim: &mut Sim, _: HostId, _: &BTreeMap<String, HostId>) {
    sim.rot_files(&FILES);
}
