//! One file: what is durable, what a reader sees, and how the one became the other.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    content::{Content, spans},
    survival::{Fate, Survivor, Version},
};

/// So many versions of pages wait for a sync at most, 64 MiB; beyond, they are written back, as a kernel does.
const DIRTY_VERSIONS: usize = 16_384;

/// A file, whatever its name.
#[derive(Default)]
pub(super) struct Inode {
    current: Content,
    durable: Content,
    dirty: Vec<Epoch>,
    versions: usize,
}

/// The writes between two truncations.
#[derive(Default)]
struct Epoch {
    /// The truncation that this epoch began with.
    cut: Option<Cut>,
    pages: BTreeMap<u64, Vec<Version>>,
}

#[derive(Clone, Copy)]
struct Cut {
    at: u64,
    len: u64,
}

impl Inode {
    /// The file as its readers see it.
    pub(super) fn current(&self) -> &Content {
        &self.current
    }

    pub(super) fn write(&mut self, at: u64, offset: u64, bytes: &[u8]) {
        self.current.write(offset, bytes);
        if self.dirty.is_empty() {
            self.dirty.push(Epoch::default());
        }
        let Some(epoch) = self.dirty.last_mut() else { unreachable!("an epoch was just begun") };
        for (number, ..) in spans(offset, bytes.len()) {
            let Some(page) = self.current.page(number) else { unreachable!("the page was just written") };
            let version = Version { at, page: page.clone(), len: self.current.len() };
            epoch.pages.entry(number).or_default().push(version);
            self.versions += 1;
        }
        if self.versions > DIRTY_VERSIONS {
            self.sync();
        }
    }

    pub(super) fn truncate(&mut self, at: u64, len: u64) {
        if len != self.current.len() {
            self.current.set_len(len);
            self.dirty.push(Epoch { cut: Some(Cut { at, len }), pages: BTreeMap::new() });
        }
    }

    /// Makes everything durable that was changed since the last sync.
    pub(super) fn sync(&mut self) {
        if self.dirty.is_empty() {
            return;
        }
        // Only what is dirty: pages whose sync once failed are clean without being durable, and stay so.
        for epoch in self.dirty.drain(..) {
            if let Some(cut) = epoch.cut {
                self.durable.set_len(cut.len);
            }
            for number in epoch.pages.into_keys() {
                if let Some(page) = self.current.page(number) {
                    self.durable.put(number, page.clone());
                }
            }
        }
        self.durable.set_len(self.current.len());
        self.versions = 0;
    }

    /// When the changes of length happened that are not durable yet, oldest first.
    pub(super) fn cuts(&self) -> impl Iterator<Item = u64> {
        self.dirty.iter().filter_map(|epoch| epoch.cut.map(|cut| cut.at))
    }

    /// When the oldest change happened that is not durable.
    pub(super) fn oldest(&self) -> Option<u64> {
        let first = |versions: &Vec<Version>| versions.first().map(|version| version.at);
        let written = self.dirty.iter().flat_map(|epoch| epoch.pages.values().filter_map(first));
        written.chain(self.cuts()).min()
    }

    /// How many pages would be lost if nothing survived now.
    pub(super) fn dirty_pages(&self) -> u64 {
        self.dirty.iter().map(|epoch| epoch.pages.len() as u64).sum()
    }

    /// The sync fails: some of the dirty pages reached the disk, and all of them count as clean from now on.
    pub(super) fn fail_sync(&mut self, fate: &mut Fate<'_>) {
        self.settle(fate);
    }

    /// The power fails: what is durable is all there is.
    pub(super) fn lose_power(&mut self, fate: &mut Fate<'_>) {
        self.settle(fate);
        self.current = self.durable.clone();
    }

    fn settle(&mut self, fate: &mut Fate<'_>) {
        self.versions = 0;
        for epoch in std::mem::take(&mut self.dirty) {
            if let Some(cut) = epoch.cut {
                if cut.at > fate.metadata {
                    // The journal keeps its order: whoever wrote after this truncation wrote into blocks it had freed.
                    return;
                }
                self.durable.set_len(cut.len);
            }
            self.settle_epoch(&epoch.pages, fate);
        }
    }

    fn settle_epoch(&mut self, pages: &BTreeMap<u64, Vec<Version>>, fate: &mut Fate<'_>) {
        let mut len = self.durable.len();
        for (&number, versions) in pages {
            if let Some(Survivor { page, len: reached }) = fate.page(number, self.durable.page(number), versions) {
                self.durable.put(number, page);
                len = len.max(reached);
            }
        }
        let written = pages.values().flatten().map(|version| version.len).max();
        if let Some(written) = written.filter(|_| fate.keeps_len()) {
            len = len.max(written);
        }
        self.durable.set_len(len);
    }

    /// Flips one bit of what is durable, also for readers where the page is not dirty. Returns whether there was one.
    pub(super) fn rot(&mut self, offset: u64, bit: u32) -> bool {
        let number = offset / super::content::PAGE as u64;
        let clean = match (self.durable.page(number), self.current.page(number)) {
            (Some(durable), Some(current)) => Arc::ptr_eq(durable, current),
            _ => false,
        };
        let flipped = self.durable.flip(offset, bit);
        if let (true, Some(page)) = (clean, self.durable.page(number)) {
            self.current.put(number, page.clone());
        }
        flipped
    }

    /// The length of what is durable.
    pub(super) fn durable_len(&self) -> u64 {
        self.durable.len()
    }
}

#[cfg(test)]
mod tests {
    use quorate_runtime::{
        fault::disk::Survival,
        random::{Random, Rng},
    };

    use super::{super::survival::Fate, DIRTY_VERSIONS, Inode};

    fn rng() -> Rng {
        Random::from_seed([5; 32]).stream("power")
    }

    fn fate(survival: Survival, metadata: u64, rng: &mut Rng) -> Fate<'_> {
        Fate { survival, metadata, data: metadata, shreds: false, rng }
    }

    fn bytes(file: &Inode) -> Vec<u8> {
        let mut bytes = vec![0; 100_000];
        let read = file.current().read(0, &mut bytes);
        bytes.truncate(read);
        bytes
    }

    #[test]
    fn a_truncation_that_is_undone_takes_along_what_was_written_after_it() {
        let mut file = Inode::default();
        file.write(1, 0, &[1; 6000]);
        file.sync();
        file.truncate(2, 0);
        file.write(3, 0, &[2; 100]);
        file.lose_power(&mut fate(Survival::Everything, 1, &mut rng()));
        assert_eq!(bytes(&file), [1; 6000]);
    }

    #[test]
    fn a_truncation_that_survives_does_so_without_what_was_written_after_it() {
        let mut file = Inode::default();
        file.write(1, 0, &[1; 6000]);
        file.sync();
        file.truncate(2, 10);
        file.write(3, 10, &[2; 100]);
        file.lose_power(&mut fate(Survival::Prefix, 2, &mut rng()));
        assert_eq!(bytes(&file), [1; 10]);
    }

    #[test]
    fn a_sector_is_never_a_mixture_of_writes_that_did_not_exist() {
        let mut seen = [false; 3];
        let mut rng = rng();
        for _ in 0..200 {
            let mut file = Inode::default();
            file.write(1, 0, &[1; 512]);
            file.sync();
            file.write(2, 0, &[2; 100]);
            file.write(3, 100, &[3; 100]);
            file.lose_power(&mut fate(Survival::Torn, 3, &mut rng));
            let bytes = bytes(&file);
            let moment = match (bytes[0], bytes[100]) {
                (1, 1) => 0,
                (2, 1) => 1,
                (2, 3) => 2,
                mixture => panic!("the later write survived without the earlier one: {mixture:?}"),
            };
            seen[moment] = true;
        }
        assert_eq!(seen, [true; 3]);
    }

    #[test]
    fn beyond_a_limit_a_file_is_written_back_without_a_sync() {
        let mut file = Inode::default();
        for at in 0..=DIRTY_VERSIONS as u64 {
            file.write(at, at % 7, &[9]);
        }
        file.write(u64::MAX, 7, &[9]);
        file.lose_power(&mut fate(Survival::Nothing, 0, &mut rng()));
        assert_eq!(bytes(&file), [9; 7]);
    }
}
