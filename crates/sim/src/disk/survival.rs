//! What a power failure leaves of a page that was written and not synced.

use std::sync::Arc;

use quorate_runtime::{fault::disk::Survival, random::Rng};

use super::content::{PAGE, Page, SECTOR};

/// A page as it was after one of the writes to it.
pub(super) struct Version {
    /// When, as a number that grows with every change to the disk.
    pub(super) at: u64,
    pub(super) page: Arc<Page>,
    /// The length of the file then.
    pub(super) len: u64,
}

/// A page that survived.
pub(super) struct Survivor {
    pub(super) page: Arc<Page>,
    /// The file reaches at least so far.
    pub(super) len: u64,
}

/// Decides over every page of a failing disk.
pub(super) struct Fate<'a> {
    pub(super) survival: Survival,
    /// Changes to names and lengths survive up to here.
    pub(super) metadata: u64,
    /// Under [`Survival::Prefix`], everything survives up to here.
    pub(super) data: u64,
    /// Whether a sector that was being written may come out as garbage, with its neighbours in the page.
    pub(super) shreds: bool,
    pub(super) rng: &'a mut Rng,
}

impl Fate<'_> {
    /// What is left of page `number`, of which `base` is durable (`None`: a hole) and `versions` are not.
    pub(super) fn page(&mut self, number: u64, base: Option<&Arc<Page>>, versions: &[Version]) -> Option<Survivor> {
        let whole = |version: &Version| Survivor { page: version.page.clone(), len: end(number, PAGE, version.len) };
        match self.survival {
            Survival::Nothing => None,
            Survival::Prefix => versions.iter().rfind(|version| version.at <= self.data).map(whole),
            Survival::Subset => versions.last().filter(|_| self.rng.below(2) == 0).map(whole),
            Survival::Reordered => self.moment(versions).map(whole),
            Survival::Torn if self.rng.below(3) > 0 => self.moment(versions).map(whole),
            Survival::Torn => self.torn(number, base, versions),
            Survival::Everything => versions.last().map(whole),
        }
    }

    /// Whether a file's length survives although the bytes that lengthened it may not: they read as zeros then.
    pub(super) fn keeps_len(&mut self) -> bool {
        matches!(self.survival, Survival::Reordered | Survival::Torn) && self.rng.below(4) == 0
    }

    /// One of the versions, or none, all equally likely.
    fn moment<'v>(&mut self, versions: &'v [Version]) -> Option<&'v Version> {
        versions.get(self.rng.below(versions.len() as u64 + 1) as usize)
    }

    fn torn(&mut self, number: u64, base: Option<&Arc<Page>>, versions: &[Version]) -> Option<Survivor> {
        let mut page = base.map_or([0; PAGE], |base| **base);
        let mut len = 0;
        for from in (0..PAGE).step_by(SECTOR) {
            let sector = from..from + SECTOR;
            let Some(version) = self.moment(versions) else { continue };
            if self.shreds && self.rng.below(4) == 0 {
                let inside = version.len.saturating_sub(number * PAGE as u64 + from as u64).min(SECTOR as u64) as usize;
                self.rng.fill(&mut page[from..from + inside]);
            } else {
                page[sector.clone()].copy_from_slice(&version.page[sector.clone()]);
            }
            if version.len > number * PAGE as u64 + from as u64 {
                len = end(number, sector.end, version.len);
            }
        }
        (len > 0).then(|| Survivor { page: Arc::new(page), len })
    }
}

/// How far a file of length `len` reaches in the first `within` bytes of page `number`.
fn end(number: u64, within: usize, len: u64) -> u64 {
    len.min(number * PAGE as u64 + within as u64)
}
