//! Data subjects: erase one, say whether one is erased, read the ledger.

use quorate_data::store::{
    EraseError, Store, StoreError,
    erasure::{DataSubject, Entry, Erased},
};

/// The verbs on data subjects. Cheap to clone.
#[derive(Clone)]
pub struct Erasures {
    store: Store,
}

impl Erasures {
    /// The most entries of one page of the ledger.
    pub const MAX_PAGE: usize = 1_000;

    /// The verbs on `store`.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Erases a data subject; see [`Store::erase`]. Repeating it is safe, and finishes what failed half-way.
    pub async fn erase(&self, subject: &str) -> Result<Erased, EraseError> {
        self.store.erase(subject).await
    }

    /// What is known of a data subject; see [`Store::data_subject`].
    pub async fn subject(&self, subject: &str) -> Result<DataSubject, EraseError> {
        self.store.data_subject(subject).await
    }

    /// At most `limit` entries of the ledger behind entry `after`, oldest first.
    pub async fn ledger(&self, after: u64, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.store.erasures_after(after, limit).await
    }

    /// The id of the store, for which alone a ledger is good.
    pub fn store_id(&self) -> u64 {
        self.store.timeline().store
    }
}
