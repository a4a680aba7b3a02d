//! The bytes of a file, in pages that two versions of it can share.

use std::{collections::BTreeMap, sync::Arc};

/// Bytes of a page: the granularity of writing back, and what space is counted in.
pub(super) const PAGE: usize = 4096;

/// Bytes of a sector: what a device writes completely or not at all.
pub(super) const SECTOR: usize = 512;

pub(super) type Page = [u8; PAGE];

/// A sparse file. Cloning shares the pages.
#[derive(Clone, Default)]
pub(super) struct Content {
    len: u64,
    pages: BTreeMap<u64, Arc<Page>>,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// How many pages take space.
    pub(super) fn pages(&self) -> u64 {
        self.pages.len() as u64
    }

    pub(super) fn page(&self, number: u64) -> Option<&Arc<Page>> {
        self.pages.get(&number)
    }

    pub(super) fn put(&mut self, number: u64, page: Arc<Page>) {
        self.pages.insert(number, page);
    }

    /// Reads what is there from `offset` on; returns how many bytes that was.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> usize {
        let there = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX).min(into.len());
        for (number, within, part) in spans(offset, there) {
            let into = &mut into[part.clone()];
            match self.page(number) {
                Some(page) => into.copy_from_slice(&page[within..within + part.len()]),
                None => into.fill(0),
            }
        }
        there
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (number, within, part) in spans(offset, bytes.len()) {
            let page = self.pages.entry(number).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[within..within + part.len()].copy_from_slice(&bytes[part]);
        }
        self.len = self.len.max(offset + bytes.len() as u64);
    }

    /// Cuts the file off, or lengthens it by a hole.
    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.pages.split_off(&len.div_ceil(PAGE as u64));
            let within = (len % PAGE as u64) as usize;
            if within > 0
                && let Some(last) = self.pages.get_mut(&(len / PAGE as u64))
            {
                // What is beyond the end must read as zeros when the file grows again.
                Arc::make_mut(last)[within..].fill(0);
            }
        }
        self.len = len;
    }

    /// How many of the pages that a write touches take no space yet.
    pub(super) fn missing(&self, offset: u64, len: usize) -> u64 {
        spans(offset, len).filter(|(number, ..)| !self.pages.contains_key(number)).count() as u64
    }

    /// Flips one bit of the byte at `offset`; in a hole there is nothing that could rot.
    pub(super) fn flip(&mut self, offset: u64, bit: u32) -> bool {
        let page = self.pages.get_mut(&(offset / PAGE as u64));
        page.map(|page| Arc::make_mut(page)[(offset % PAGE as u64) as usize] ^= 1 << bit).is_some()
    }
}

/// The pages that `len` bytes at `offset` touch: number, where in the page, and which of the bytes.
pub(super) fn spans(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let within = (at % PAGE as u64) as usize;
        let part = done..len.min(done + PAGE - within);
        done = part.end;
        Some((at / PAGE as u64, within, part))
    })
}

#[cfg(test)]
mod tests {
    use super::Content;

    #[test]
    fn what_was_written_across_pages_is_read_back_and_holes_are_zeros() {
        let mut content = Content::default();
        content.write(4090, &[7; 5000]);
        let mut back = [1; 9100];
        assert_eq!(content.read(0, &mut back), 9090);
        assert!(back[..4090].iter().all(|&byte| byte == 0));
        assert!(back[4090..9090].iter().all(|&byte| byte == 7));
    }

    #[test]
    fn bytes_cut_off_do_not_come_back_when_the_file_grows() {
        let mut content = Content::default();
        content.write(0, &[7; 6000]);
        content.set_len(5000);
        content.set_len(6000);
        let mut back = [1; 6000];
        assert_eq!(content.read(0, &mut back), 6000);
        assert!(back[..5000].iter().all(|&byte| byte == 7) && back[5000..].iter().all(|&byte| byte == 0));
    }
}
