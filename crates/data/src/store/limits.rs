//! What a store accepts at most. Everything has a limit, each has a name, and going beyond is an error that names it.

use std::time::Duration;

use super::Scope;

/// What a store accepts at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one event's data. Default 1 MiB.
    pub event_bytes: usize,
    /// Events in one append, over all its streams. Default 10,000.
    pub batch_events: usize,
    /// Bytes of one append. Default 16 MiB.
    pub batch_bytes: usize,
    /// Events in one page of a read. Default 10,000.
    pub page_events: usize,
    /// Bytes of events in one page, which ends early when it is reached, and of the rows of one query of the application's.
    /// What quorate's own rooms read of their tables is bound by `unit_bytes` where that is more. Default 16 MiB.
    pub page_bytes: usize,
    /// Rows of one query. Default 10,000.
    pub query_rows: usize,
    /// Writes that wait; beyond it they are refused. Default 8,192.
    pub waiting_writes: usize,
    /// Bytes of appends that wait. What transactions will write is not known before they run: they are bounded by
    /// `waiting_writes`, and by `unit_bytes` each. Default 64 MiB.
    pub waiting_bytes: usize,
    /// Bytes that one transaction's closure may ask to write, over all its appends and the texts and blobs among the
    /// parameters of its statements, refused ones included. One append of `batch_bytes` always fits; what quorate's own rooms
    /// write beside it, such as the reply under an idempotency key, counts by itself. Default 16 MiB.
    pub unit_bytes: usize,
    /// Stretches of streams that are forgotten while their data is still in the store's files; while there are so many,
    /// nothing more is forgotten. Those that damage keeps there count by themselves, against the same limit. Default 16,384.
    pub forgetting: usize,
    /// How long one transaction's closure may take. Default 1 s.
    pub unit_time: Duration,
    /// Bytes of immutable blocks kept in memory for readers. Default 64 MiB.
    pub cache_bytes: usize,
}

impl Limits {
    /// The most events that a read looks at for one page; beyond it the page ends early. Fixed.
    pub const CANDIDATES_PER_PAGE: usize = 20_000;
    /// How many read the database of an embedded store at a time; others wait. More would not be faster, and cost a thread and a
    /// connection each. Fixed.
    pub const READERS: usize = 16;
    /// Memory that the engine may take for one statement of a view, for sorting, grouping, values and the pages that it would
    /// take to undo it, beside what it holds already. Fixed: 64 MiB.
    pub const VIEW_STATEMENT_BYTES: usize = 64 << 20;
    /// While a damaged page keeps an embedded store from writing its index, so many events are held in memory for it; then
    /// nothing more is appended. Fixed.
    pub const UNINDEXED_EVENTS: usize = 65_536;
    /// The same in bytes: 64 MiB. Fixed.
    pub const UNINDEXED_BYTES: usize = 64 << 20;

    /// The size limit of a transaction as it is applied: one append of `batch_bytes` always fits.
    pub(crate) fn unit_bytes(&self) -> usize {
        self.unit_bytes.max(self.batch_bytes)
    }

    /// The most bytes of one query's rows. What a room reads of its own tables is not bound by the application's page, but by what
    /// a transaction may write.
    pub(super) fn answer_bytes(&self, scope: Scope) -> usize {
        if scope == Scope::Room { self.page_bytes.max(self.unit_bytes()) } else { self.page_bytes }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            event_bytes: 1 << 20,
            batch_events: 10_000,
            batch_bytes: 16 << 20,
            page_events: 10_000,
            page_bytes: 16 << 20,
            query_rows: 10_000,
            waiting_writes: 8_192,
            waiting_bytes: 64 << 20,
            unit_bytes: 16 << 20,
            forgetting: 16_384,
            unit_time: Duration::from_secs(1),
            cache_bytes: 64 << 20,
        }
    }
}
