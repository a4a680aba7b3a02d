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
