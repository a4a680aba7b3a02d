//! What befalls a whole disk: the end of the process, of the power, of some bits.

use quorate_runtime::{
    fault::disk::{BitRot, Survival},
    random::Rng,
};

use super::{inode::Inode, names::InodeId, state::State, survival::Fate};

impl State {
    /// The process ends and nothing else: what was written stays, handles, locks and shared memory go.
    pub(super) fn kill(&mut self) {
        self.counts.kills += 1;
        self.begin_life();
    }

    /// The power fails: of what wasn't synced, `survival` says what is left.
    pub(super) fn lose_power(&mut self, survival: Survival, rng: &mut Rng) {
        self.counts.power_losses += 1;
        self.counts.pages_at_stake += self.inodes.values().map(Inode::dirty_pages).sum::<u64>();
        let data = self.moment_of_prefix(rng);
        let metadata = self.moment_of_journal(survival, data, rng).max(self.committed);
        self.names.lose_power(metadata);
        let shreds = !self.model.powersafe_overwrite;
        let mut fate = Fate { survival, metadata, data, shreds, rng };
        for file in self.inodes.values_mut() {
            file.lose_power(&mut fate);
        }
        self.committed = self.last_change();
        self.begin_life();
    }

    /// A moment between the oldest change that isn't durable and now.
    fn moment_of_prefix(&self, rng: &mut Rng) -> u64 {
        let written = self.inodes.values().filter_map(Inode::oldest);
        let now = self.last_change();
        let before = written.chain(self.names.pending()).min().map_or(now, |oldest| oldest - 1);
        before + rng.below(now - before + 1)
    }

    /// How far the journal was written.
    fn moment_of_journal(&self, survival: Survival, prefix: u64, rng: &mut Rng) -> u64 {
        match survival {
            Survival::Nothing => 0,
            Survival::Prefix => prefix,
            Survival::Everything => u64::MAX,
            Survival::Subset | Survival::Reordered | Survival::Torn => {
                let mut moments: Vec<u64> =
                    self.inodes.values().flat_map(Inode::cuts).chain(self.names.pending()).collect();
                moments.push(0);
                moments.sort_unstable();
                moments[rng.below(moments.len() as u64) as usize]
            }
        }
    }

    fn begin_life(&mut self) {
        self.life += 1;
        self.note(&[u64::MAX, self.life]);
        self.is_dead = false;
        self.armed = None;
        self.open.clear();
        self.locks.clear();
        self.held.clear();
        self.shm.clear();
        self.forget_unreachable();
    }

    /// Flips bits of a file at rest; returns how many did.
    pub(super) fn rot(&mut self, inode: InodeId, rot: &BitRot, rng: &mut Rng) -> u32 {
        let Some(file) = self.inodes.get_mut(&inode) else { return 0 };
        let len = file.durable_len();
        if len == 0 {
            return 0;
        }
        let flipped = (0..rot.bits).filter(|_| file.rot(rng.below(len), rng.below(8) as u32)).count() as u32;
        self.counts.rotten_bits += u64::from(flipped);
        flipped
    }
}
