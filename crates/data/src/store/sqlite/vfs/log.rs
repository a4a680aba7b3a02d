//! The write-ahead log: what is read from it is what was written.

use std::{
    cell::{Cell, RefCell},
    ffi::c_int,
    rc::Rc,
};

use rusqlite::ffi;

use super::{
    damage,
    database::Database,
    frames::{self, FRAME_HEADER, LOG_HEADER, Stretch},
    page::PAGE_SIZE,
    real::Real,
};

/// So much of a log is looked at at a time.
const CHUNK: u64 = 64 << 10;

/// A connection's view of the write-ahead log.
pub(super) struct Log {
    real: Real,
    database: Rc<Database>,
    /// The bytes of a page in it; zero until somebody has looked.
    page: Cell<usize>,
    /// A page that is written in parts: where the next part begins, and the checksum so far.
    parts: RefCell<Option<(i64, crc32fast::Hasher)>>,
}

impl Log {
    pub(super) fn new(real: Real, database: Rc<Database>) -> Self {
        Self { real, database, page: Cell::new(0), parts: RefCell::new(None) }
    }

    /// The file that a sync of the log goes to by mistake, if that bug is planted.
    #[cfg(feature = "museum")]
    pub(super) fn astray(&self) -> Option<Real> {
        self.database.astray()
    }

    /// Reads, and checks what it read if that is a frame.
    pub(super) fn read(&self, buffer: &mut [u8], offset: i64) -> c_int {
        let code = self.real.read(buffer, offset);
        if code != ffi::SQLITE_OK {
            return code;
        }
        match self.stretch(offset, buffer.len()) {
            Stretch::Page(frame) => self.check(frame, buffer),
            // Reading the header too is SQLite's way of recovering: it checks the frame itself, and stops where the log
            // ends.
            Stretch::Frame(frame) => self.check_or_learn(frame, &buffer[FRAME_HEADER as usize..]),
            Stretch::PartOfPage(_) | Stretch::Other => code,
        }
    }

    fn check_or_learn(&self, frame: u64, page: &[u8]) -> c_int {
        let (sums, found) = (self.database.sums(), frames::checksum(page));
        match sums.get(frame) {
            Some(known) if known != found => damaged(frame),
            Some(_) => ffi::SQLITE_OK,
            None => {
                sums.set(frame, found);
                ffi::SQLITE_OK
            }
        }
    }

    fn check(&self, frame: u64, page: &[u8]) -> c_int {
        let unknown = self.database.sums().get(frame).is_none();
        if unknown && !self.follows(frame, page) {
            return damaged(frame);
        }
        self.check_or_learn(frame, page)
    }

    /// Whether a frame that this process knows nothing of is what its own checksum says.
    fn follows(&self, frame: u64, page: &[u8]) -> bool {
        // The checksum of the frame before ends its header, and that of the log's header ends that.
        let behind = if frame == 0 { LOG_HEADER } else { frames::begin(frame - 1, page.len()) + FRAME_HEADER };
        let parts = (self.bytes(0), self.bytes(behind - 8), self.bytes(frames::begin(frame, page.len())));
        matches!(parts, (Some(log), Some(before), Some(header)) if frames::follows(&log, &before, &header, page))
    }

    /// The place where recovering the log stopped although it goes on, if it did: SQLite takes damage for the log's end.
    ///
    /// A power cut tears at most the newest transaction, since each is synced before the next is written. A transaction
    /// that ends behind that place, and another behind it, were whole once, and acknowledged. They are looked for up to the
    /// end of the file, however much was lost before them: what the log had before it began anew has other salts, and a
    /// torn transaction has none behind it whose checksums go on from its own.
    pub(super) fn broken_at(&self) -> Option<String> {
        let log = self.bytes::<{ LOG_HEADER as usize }>(0)?;
        if !frames::is_header(&log) {
            // It fits a sector, and is synced before the first frame is written: without it there are no frames.
            return self.is_written().then(|| "the header of the write-ahead log".to_owned());
        }
        let (page, last) = (self.page(), (self.database.sums().len() as u64).checked_sub(1)?);
        let mut buffer = vec![0; page];
        let mut is_next = |before: &[u8; 8], frame, header: &[u8; FRAME_HEADER as usize]| {
            let at = frames::begin(frame, page) + FRAME_HEADER;
            self.real.read(&mut buffer, at.cast_signed()) == ffi::SQLITE_OK
                && frames::follows(&log, before, header, &buffer)
        };
        let header = |frame| self.bytes::<{ FRAME_HEADER as usize }>(frames::begin(frame, page));
        let mut this = header(last);
        let behind =
            if last == 0 { log.last_chunk().copied() } else { header(last - 1).and_then(|h| h.last_chunk().copied()) };
        if let (Some(behind), Some(this)) = (behind, this)
            && is_next(&behind, last, &this)
        {
            return None;
        }
        let frames = self.real.size().ok()?.saturating_sub(LOG_HEADER) / (FRAME_HEADER + page as u64);
        for frame in last + 1..frames {
            let next = header(frame);
            if let (Some(this), Some(next)) = (this, next)
                && let Some(before) = this.last_chunk::<8>()
                && this[4..8] != [0; 4]
                && next[8..16] == log[16..24]
                && is_next(before, frame, &next)
            {
                return Some(place(last));
            }
            this = next;
        }
        None
    }

    /// Whether the log has room for a frame, and anything but zeros: nobody can say so of what cannot be read.
    fn is_written(&self) -> bool {
        let size = self.real.size().unwrap_or(u64::MAX);
        let mut chunks = (0..size).step_by(CHUNK as usize);
        let mut buffer = Vec::new();
        size >= LOG_HEADER + FRAME_HEADER
            && chunks.any(|at| {
                buffer.resize(CHUNK.min(size - at) as usize, 0);
                self.real.read(&mut buffer, at.cast_signed()) != ffi::SQLITE_OK || buffer.iter().any(|byte| *byte != 0)
            })
    }

    fn bytes<const N: usize>(&self, offset: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        (self.real.read(&mut bytes, offset.cast_signed()) == ffi::SQLITE_OK).then_some(bytes)
    }

    /// Writes, and remembers what it wrote if that is a frame.
    pub(super) fn write(&self, bytes: &[u8], offset: i64) -> c_int {
        let sums = self.database.sums();
        if offset == 0 {
            sums.reset();
            self.learn_page(bytes);
            return self.real.write(bytes, offset);
        }
        let stretch = self.stretch(offset, bytes.len());
        if let Stretch::Page(frame) | Stretch::Frame(frame) | Stretch::PartOfPage(frame) = stretch {
            sums.forget(frame);
        }
        let code = self.real.write(bytes, offset);
        if code == ffi::SQLITE_OK {
            match stretch {
                Stretch::Page(frame) => sums.set(frame, frames::checksum(bytes)),
                Stretch::Frame(frame) => sums.set(frame, frames::checksum(&bytes[FRAME_HEADER as usize..])),
                Stretch::PartOfPage(frame) => self.part(frame, bytes, offset),
                Stretch::Other => {}
            }
        }
        code
    }

    /// SQLite writes a page in two parts where the log has to be synced in the middle of it.
    fn part(&self, frame: u64, bytes: &[u8], offset: i64) {
        let page = self.page();
        let begin = (frames::begin(frame, page) + FRAME_HEADER).cast_signed();
        let mut parts = self.parts.borrow_mut();
        let so_far = parts.take().filter(|(next, _)| *next == offset).map(|(_, sum)| sum);
        let so_far = if offset == begin { Some(crc32fast::Hasher::new()) } else { so_far };
        let Some(mut sum) = so_far else { return };
        sum.update(bytes);
        let next = offset + bytes.len() as i64;
        if next == begin + page as i64 {
            self.database.sums().set(frame, sum.finalize().max(1));
        } else {
            *parts = Some((next, sum));
        }
    }

    /// The log is cut off.
    pub(super) fn truncated(&self, size: i64) {
        if size < LOG_HEADER.cast_signed() {
            self.database.sums().reset();
        }
    }

    /// Whether page `number` stands in the log behind its first `written_back` frames.
    pub(super) fn holds(&self, number: u32, written_back: u64) -> bool {
        let (frames, page) = (self.database.sums().len() as u64, self.page());
        (written_back..frames).any(|frame| self.bytes(frames::begin(frame, page)) == Some(number.to_be_bytes()))
    }

    /// Looks at every frame that this process knows and tells `found` about those that are not what was written.
    pub(super) fn scan(&self, mut found: impl FnMut(String, String)) {
        let (sums, page) = (self.database.sums(), self.page());
        let mut buffer = vec![0; page];
        for frame in 0..sums.len() as u64 {
            let Some(known) = sums.get(frame) else { continue };
            let at = frames::begin(frame, page) + FRAME_HEADER;
            let code = self.real.read(&mut buffer, at.cast_signed());
            let is_damaged = code != ffi::SQLITE_OK || frames::checksum(&buffer) != known;
            // The writer may have begun the log anew in between.
            if is_damaged && sums.get(frame) == Some(known) {
                found(place(frame), MISMATCH.to_owned());
            }
        }
    }

    fn stretch(&self, offset: i64, bytes: usize) -> Stretch {
        Stretch::of(offset.max(0).cast_unsigned(), bytes, self.page())
    }

    fn page(&self) -> usize {
        if self.page.get() == 0
            && let Some(header) = self.bytes::<{ LOG_HEADER as usize }>(0)
        {
            self.learn_page(&header);
        }
        if self.page.get() == 0 { PAGE_SIZE } else { self.page.get() }
    }

    fn learn_page(&self, header: &[u8]) {
        if let Some([a, b, c, d]) = header.get(8..12) {
            let page = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
            let is_possible = page.is_power_of_two() && (512..=65_536).contains(&page);
            self.page.set(if is_possible { page } else { 0 });
        }
    }
}

pub(super) const MISMATCH: &str = "the checksum does not match the bytes";

fn place(frame: u64) -> String {
    format!("frame {} of the write-ahead log", frame + 1)
}

fn damaged(frame: u64) -> c_int {
    damage::note(place(frame), MISMATCH.to_owned())
}
