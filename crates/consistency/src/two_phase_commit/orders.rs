//! What people order: how a branch ends at one participant, whatever was decided.

use quorate_data::store::Store;
use quorate_foundations::name::Name;

use super::{
    Gid, TxnError,
    log::{self, Ending, Heuristic},
};

/// How a branch is to be ended at one participant, by whose order and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    participant: Name,
    ending: Ending,
    by: String,
    why: String,
}

impl Order {
    /// The longest name of who orders something, and the longest reason, in bytes.
    pub const MAX_REASON_BYTES: usize = 1_024;
    /// The most orders for one participant of a transaction. One that says what the last one said is none more.
    pub const MAX_PER_PARTICIPANT: usize = 64;

    /// That a transaction ends so at `participant`.
    ///
    /// # Errors
    /// [`TxnError::Invalid`] where it is not told who orders it and why, or at too great a length.
    pub fn new(participant: &Name, ending: Ending, by: &str, why: &str) -> Result<Self, TxnError> {
        let max = Self::MAX_REASON_BYTES;
        if [by, why].iter().any(|text| text.trim().is_empty() || text.len() > max) {
            let what = format!("who resolves a transaction by hand, and why, is told in 1 to {max} bytes each");
            return Err(TxnError::Invalid { what });
        }
        Ok(Self { participant: participant.clone(), ending, by: by.to_owned(), why: why.to_owned() })
    }

    /// At which participant, by its coordinator's name for it.
    pub fn participant(&self) -> &Name {
        &self.participant
    }

    /// How it is to end there.
    pub fn ending(&self) -> Ending {
        self.ending
    }

    /// Who orders it.
    pub fn by(&self) -> &str {
        &self.by
    }

    /// Why.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// Writes it into the log of the transaction's coordinator, which carries it out when it next asks that participant. Nobody is told of it
    /// here. What stands there is true whichever coordinator has it in hand by then. Whether it differs from what was decided.
    ///
    /// # Errors
    /// [`TxnError::Invalid`] where this log names no such participant of the transaction: then nothing is written. A transaction is
    /// named there once it is decided; one that is not is its coordinator's alone to [resolve](super::Coordinator::resolve).
    /// [`TxnError::TooManyOrders`] behind [`MAX_PER_PARTICIPANT`](Self::MAX_PER_PARTICIPANT) others: nothing is written either.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the order. The same again changes nothing.
    pub async fn record(self, store: &Store, gid: &Gid) -> Result<bool, TxnError> {
        if !log::record(store, gid).await?.concerns(&self.participant) {
            return Err(self.of_nothing(gid));
        }
        Ok(log::add_heuristic(store, gid, self.into()).await?.contradicts)
    }

    pub(super) fn of_nothing(&self, gid: &Gid) -> TxnError {
        let participant = &self.participant;
        let what =
            format!("participant `{participant}` holds nothing of transaction {gid}, and the log does not name it");
        TxnError::Invalid { what }
    }
}

impl From<Order> for Heuristic {
    fn from(Order { participant, ending, by, why }: Order) -> Self {
        Self { participant, ending, by, why, is_found: false, contradicts: false }
    }
}
