//! The write-ahead log: which bytes of it are a frame, and what its frames held when they were written.
//!
//! SQLite checks the checksums of frames only when it recovers a log that nobody has open. What is read from the log of a
//! live store is checked here, against four bytes per frame in memory. A frame that nobody of this process has written or
//! read yet is checked by SQLite's own checksum of it.

use std::sync::{
    Arc, Mutex, PoisonError, RwLock, Weak,
    atomic::{AtomicUsize, Ordering},
};

/// The log begins with so many bytes: see "WAL-mode File Format".
pub(super) const LOG_HEADER: u64 = 32;
/// Each frame begins with so many bytes, and a page follows.
pub(super) const FRAME_HEADER: u64 = 24;

/// Where a stretch of the log lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stretch {
    /// The page of a frame, counted from 0.
    Page(u64),
    /// A frame with its header.
    Frame(u64),
    /// A part of the page of a frame.
    PartOfPage(u64),
    /// Something else.
    Other,
}

impl Stretch {
    /// What `bytes` bytes from `offset` on are in a log of pages of `page` bytes.
    pub(super) fn of(offset: u64, bytes: usize, page: usize) -> Self {
        let (page, bytes) = (page as u64, bytes as u64);
        let Some(behind) = offset.checked_sub(LOG_HEADER) else { return Self::Other };
        let (frame, within) = (behind / (FRAME_HEADER + page), behind % (FRAME_HEADER + page));
        match within {
            0 if bytes == FRAME_HEADER + page => Self::Frame(frame),
            FRAME_HEADER if bytes == page => Self::Page(frame),
            FRAME_HEADER.. if within + bytes <= FRAME_HEADER + page => Self::PartOfPage(frame),
            _ => Self::Other,
        }
    }
}

/// Where the last transaction of a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store::sqlite) struct LogEnd {
    /// Which log it is: it has others whenever it begins anew.
    pub(in crate::store::sqlite) salts: [u32; 2],
    /// How many frames that is.
    pub(in crate::store::sqlite) frames: u32,
}

/// Where frame `frame` begins.
pub(super) fn begin(frame: u64, page: usize) -> u64 {
    LOG_HEADER + frame * (FRAME_HEADER + page as u64)
}

/// The checksums of a log's frames, shared by all connections of this process.
#[derive(Default)]
pub(super) struct Sums {
    /// By frame; zero is unknown.
    frames: RwLock<Vec<u32>>,
    len: AtomicUsize,
}

impl Sums {
    /// The log begins anew: what is known of its frames is of the past.
    pub(super) fn reset(&self) {
        let mut frames = self.frames.write().unwrap_or_else(PoisonError::into_inner);
        frames.clear();
        self.len.store(0, Ordering::Relaxed);
    }

    /// Remembers what a frame holds.
    pub(super) fn set(&self, frame: u64, sum: u32) {
        let mut frames = self.frames.write().unwrap_or_else(PoisonError::into_inner);
        let Ok(frame) = usize::try_from(frame) else { return };
        if frames.len() <= frame {
            frames.resize(frame + 1, 0);
            // Ordering: a size for whoever decides when to write pages back; nothing else follows from it.
            self.len.store(frame + 1, Ordering::Relaxed);
        }
        frames[frame] = sum;
    }

    /// Forgets what a frame held, before it is written over.
    pub(super) fn forget(&self, frame: u64) {
        let known = |frames: &[u32]| usize::try_from(frame).is_ok_and(|frame| frame < frames.len());
        if known(&self.frames.read().unwrap_or_else(PoisonError::into_inner)) {
            self.set(frame, 0);
        }
    }

    /// What is known of a frame.
    pub(super) fn get(&self, frame: u64) -> Option<u32> {
        let frames = self.frames.read().unwrap_or_else(PoisonError::into_inner);
        frames.get(usize::try_from(frame).ok()?).copied().filter(|sum| *sum != 0)
    }

    /// How many frames the log has, as far as this process knows.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }
}

/// The checksum of a frame's page. Never zero, which stands for the unknown.
pub(super) fn checksum(page: &[u8]) -> u32 {
    crc32fast::hash(page).max(1)
}

/// The sums of each log, by where its index is mapped: SQLite maps it once per process, and as long as a connection uses it.
/// A path would not do: simulated hosts share paths and no files.
static LOGS: Mutex<Vec<(usize, Weak<Sums>)>> = Mutex::new(Vec::new());

/// The sums of the log whose index is mapped at `index`.
pub(super) fn shared(index: usize) -> Arc<Sums> {
    let mut logs = LOGS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = logs.iter().find(|log| log.0 == index).and_then(|log| log.1.upgrade()) {
        return known;
    }
    logs.retain(|log| log.0 != index && log.1.strong_count() > 0);
    let sums = Arc::new(Sums::default());
    logs.push((index, Arc::downgrade(&sums)));
    sums
}

/// Whether `header` and `page` are a frame that follows `before`: the checksum of the frame before, or of the log's header.
///
/// `log` is the log's header. Source: SQLite, "WAL-mode File Format", section 4.2.
pub(super) fn follows(log: &[u8; 32], before: &[u8; 8], header: &[u8; 24], page: &[u8]) -> bool {
    header[8..16] == log[16..24] && sums(log, before, &[&header[..8], page]) == header[16..24]
}

/// Whether `log` is a header that SQLite wrote: it takes anything else for a log without frames. Source: as above.
pub(super) fn is_header(log: &[u8; 32]) -> bool {
    log[..3] == [0x37, 0x7f, 0x06] && log[3] & 0xfe == 0x82 && sums(log, &[0; 8], &[&log[..24]]) == log[24..32]
}

/// Goes on with the checksum `before`, in the byte order that the log's header asks for.
fn sums(log: &[u8; 32], before: &[u8; 8], parts: &[&[u8]]) -> [u8; 8] {
    let word = |bytes: &[u8]| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let big_endian = log[3] & 1 == 1;
    let (mut first, mut second) = (word(&before[..4]), word(&before[4..]));
    for pair in parts.iter().flat_map(|part| part.chunks_exact(8)) {
        let [a, b] = [&pair[..4], &pair[4..]].map(|half| {
            let word = word(half);
            if big_endian { word } else { word.swap_bytes() }
        });
        first = first.wrapping_add(a).wrapping_add(second);
        second = second.wrapping_add(b).wrapping_add(first);
    }
    (u64::from(first) << 32 | u64::from(second)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::{FRAME_HEADER, Stretch, Sums, begin, shared};

    #[test]
    fn every_stretch_of_a_log_is_told_apart() {
        let at = |offset, bytes| Stretch::of(offset, bytes, 4096);
        assert_eq!(at(0, 32), Stretch::Other);
        assert_eq!(at(32, 24), Stretch::Other);
        assert_eq!(at(32, 4120), Stretch::Frame(0));
        assert_eq!(at(56, 4096), Stretch::Page(0));
        assert_eq!(at(56, 1000), Stretch::PartOfPage(0));
        assert_eq!(at(1056, 3096), Stretch::PartOfPage(0));
        assert_eq!(at(begin(5, 4096) + FRAME_HEADER, 4096), Stretch::Page(5));
        assert_eq!(at(begin(5, 4096), 4120), Stretch::Frame(5));
        assert_eq!(at(1056, 4096), Stretch::Other);
    }

    #[test]
    fn a_log_that_begins_anew_forgets_its_frames() {
        let sums = Sums::default();
        sums.set(3, 7);
        assert_eq!((sums.get(3), sums.get(2), sums.get(4), sums.len()), (Some(7), None, None, 4));
        sums.forget(3);
        assert_eq!((sums.get(3), sums.len()), (None, 4));
        sums.set(3, 8);
        sums.reset();
        assert_eq!((sums.get(3), sums.len()), (None, 0));
    }

    #[test]
    fn connections_to_one_log_share_what_is_known_and_the_last_takes_it_along() {
        let one = shared(1 << 40);
        one.set(0, 9);
        assert_eq!(shared(1 << 40).get(0), Some(9));
        assert_eq!(shared(2 << 40).get(0), None);
        drop(one);
        assert_eq!(shared(1 << 40).get(0), None);
    }
}
