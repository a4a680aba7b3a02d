//! The main file of a database: pages leave with a footer, and come in only if it holds.

use std::{
    cell::{Cell, RefCell},
    ffi::c_int,
    ptr,
    rc::Rc,
    sync::Arc,
};

use rusqlite::ffi;

use super::{
    damage,
    frames::{self, Sums},
    page::{self, FOOTER, PAGE_SIZE},
    real::Real,
};
use crate::store::sqlite::{connection, keys};

const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// SQLite never uses the page that holds this byte, on which it may lock.
const LOCK_BYTE: u64 = 0x4000_0000;
/// A page that changes while the scan looks at it is looked at again so often.
const LOOKS: usize = 4;

/// Whether the pages of a file have footers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Footers {
    /// Nobody has looked, or the file is empty: it gets them.
    Unknown,
    Yes,
    /// It is somebody else's database. We read enough of it to refuse it.
    No,
}

/// The main file of a database.
pub(super) struct Database {
    real: Real,
    footers: Cell<Footers>,
    /// Pages on their way out: SQLite's own copy is not ours to change.
    out: RefCell<Vec<u8>>,
    /// Of the log beside it. Not shared while the index of the log is in this connection's own memory.
    sums: RefCell<Arc<Sums>>,
    /// Where the log's index is mapped; null while it is not.
    index: Cell<*const u32>,
    /// A bug of the museum: syncs of the log beside it go to this file.
    #[cfg(feature = "museum")]
    syncs_astray: Cell<bool>,
}

impl Database {
    pub(super) fn new(real: Real) -> Rc<Self> {
        let (footers, out) = (Cell::new(Footers::Unknown), RefCell::new(Vec::new()));
        Rc::new(Self {
            real,
            footers,
            out,
            sums: RefCell::default(),
            index: Cell::new(ptr::null()),
            #[cfg(feature = "museum")]
            syncs_astray: Cell::new(false),
        })
    }

    /// Plants a bug of the museum: from now on syncs of the log beside it go to this file.
    #[cfg(feature = "museum")]
    pub(super) fn send_syncs_astray(&self) {
        self.syncs_astray.set(true);
    }

    /// The file that syncs of the log beside it go to, if that is the wrong one.
    #[cfg(feature = "museum")]
    pub(super) fn astray(&self) -> Option<Real> {
        self.syncs_astray.get().then_some(self.real)
    }

    /// What is known of the frames of the log beside it.
    pub(super) fn sums(&self) -> Arc<Sums> {
        self.sums.borrow().clone()
    }

    /// SQLite mapped the first part of the log's index at `index`.
    pub(super) fn mapped(&self, index: *const u32) {
        self.index.set(index);
        let sums = frames::shared(index.addr());
        if !Arc::ptr_eq(&sums, &self.sums.borrow()) {
            *self.sums.borrow_mut() = sums;
        }
    }

    /// SQLite gave the log's index back.
    pub(super) fn unmapped(&self) {
        self.index.set(ptr::null());
        *self.sums.borrow_mut() = Arc::default();
    }

    /// Where the log's index is mapped, while it is.
    pub(super) fn index(&self) -> Option<*const u32> {
        Some(self.index.get()).filter(|index| !index.is_null())
    }

    /// Reads, and checks what it read if that is a page.
    pub(super) fn read(&self, buffer: &mut [u8], offset: i64) -> c_int {
        let code = self.real.read(buffer, offset);
        let Some(number) = page_number(buffer.len(), offset) else { return code };
        // Behind the end of the file there are zeros, and pages that nobody wrote yet. A part of a page is a file that
        // was cut off.
        let behind_the_end = code == ffi::SQLITE_IOERR_SHORT_READ && buffer.iter().all(|byte| *byte == 0);
        if !matches!(code, ffi::SQLITE_OK | ffi::SQLITE_IOERR_SHORT_READ) || behind_the_end {
            return code;
        }
        // SQLite itself refuses a file that does not begin like a database, with an error of its own.
        let no_database = number == 1 && !buffer.starts_with(MAGIC);
        if no_database || !self.has_footers() {
            return code;
        }
        match page::check(buffer, number) {
            Ok(()) => code,
            Err(what) => damage::note(place(number), what),
        }
    }

    /// Writes, with a footer if it is a page.
    pub(super) fn write(&self, bytes: &[u8], offset: i64) -> c_int {
        let Some(number) = page_number(bytes.len(), offset) else { return self.real.write(bytes, offset) };
        if number == 1 && self.footers.get() == Footers::Unknown && is_empty(self.real) && !has_room(bytes) {
            self.footers.set(Footers::No);
        }
        if !self.has_footers() {
            return self.real.write(bytes, offset);
        }
        if number == 1 && !has_room(bytes) {
            // It would overwrite the end of what SQLite keeps there.
            return ffi::SQLITE_IOERR_WRITE;
        }
        let mut out = self.out.borrow_mut();
        out.clear();
        out.extend_from_slice(bytes);
        page::seal(&mut out, number);
        self.real.write(&out, offset)
    }

    /// Whether pages have footers. Asked of the file once: what it says later may be damage.
    pub(super) fn has_footers(&self) -> bool {
        if self.footers.get() == Footers::Unknown {
            let mut header = [0; 100];
            if self.real.read(&mut header, 0) == ffi::SQLITE_OK {
                // One changed byte must not make a file of ours look like somebody else's.
                let theirs = header.starts_with(MAGIC) && !has_room(&header) && !is_ours(&header);
                self.footers.set(if theirs { Footers::No } else { Footers::Yes });
            }
        }
        self.footers.get() != Footers::No
    }

    /// Looks at every page of the file and tells `found` about those that are not what was written, except where
    /// `in_log` says that the page is still to be written back from the log: a power cut or a full disk may have torn it.
    pub(super) fn scan(
        &self,
        in_log: impl Fn(u32) -> bool,
        mut found: impl FnMut(String, String),
    ) -> Result<(), c_int> {
        let (size, mut buffer) = (self.real.size()?, vec![0; PAGE_SIZE]);
        for offset in (0..size).step_by(PAGE_SIZE) {
            if offset == LOCK_BYTE {
                continue;
            }
            let (Ok(number), Ok(at)) = (u32::try_from(offset / PAGE_SIZE as u64 + 1), i64::try_from(offset)) else {
                return Err(ffi::SQLITE_IOERR_READ);
            };
            let mut look = || {
                buffer.fill(0);
                match self.real.read(&mut buffer, at) {
                    ffi::SQLITE_OK | ffi::SQLITE_IOERR_SHORT_READ => {}
                    code => return Some(format!("it cannot be read (code {code})")),
                }
                // A free page that was never used was never written either.
                let unused = buffer.iter().all(|byte| *byte == 0);
                if unused { None } else { page::check(&buffer, number).err() }
            };
            // Another connection may be writing it right now.
            if let Some(what) = (0..LOOKS).map_while(|_| look()).nth(LOOKS - 1)
                && !in_log(number)
            {
                found(place(number), what);
            }
        }
        Ok(())
    }
}

fn place(number: u32) -> String {
    format!("page {number} of the file")
}

/// The number of the page that `bytes` bytes at `offset` are; `None` if they are no page.
fn page_number(bytes: usize, offset: i64) -> Option<u32> {
    let (offset, size) = (u64::try_from(offset).ok()?, bytes as u64);
    let is_page = bytes >= 512 && bytes.is_power_of_two() && offset.is_multiple_of(size);
    if is_page { u32::try_from(offset / size + 1).ok() } else { None }
}

/// Whether the header says that a page has room for the footer.
fn has_room(header: &[u8]) -> bool {
    usize::from(header[20]) == FOOTER
}

/// Whether the header has the mark of one of our files.
fn is_ours(header: &[u8]) -> bool {
    let id = i32::from_be_bytes([header[68], header[69], header[70], header[71]]);
    [connection::APPLICATION_ID, keys::APPLICATION_ID].contains(&id)
}

fn is_empty(real: Real) -> bool {
    real.size().is_ok_and(|size| size == 0)
}
