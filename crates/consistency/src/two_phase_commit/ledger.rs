//! What stands in a store of transactions, for whoever looks at it and takes no part.

use std::{sync::Arc, time::Duration};

use quorate_data::store::{Row, Store, StoreError, Value};
use quorate_foundations::{name::Name, time::Wall};

use super::{
    Gid, Record, RequestId, Requested, TxnError, TxnId, addresses,
    log::{self, TYPES},
    requests::{self, REQUESTS},
    standing::{self, TAKEOVERS},
};

/// How many rows are read at a time.
const PAGE: usize = 128;
/// How long the log may leave open whether it took what is written there.
const PATIENCE: Duration = Duration::from_secs(5);
const PROMISES: &str = "SELECT coordinator, takeover, number, participant, since_ns, claims FROM quorate_txn_branch
    WHERE state = 1 AND (coordinator, takeover, number, participant) > ($1, $2, $3, $4)
    ORDER BY coordinator, takeover, number, participant LIMIT 128";

/// Something that an embedded participant in a store has promised, and was not told the end of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// Of which transaction.
    pub gid: Gid,
    /// What the participant calls itself in its store; its coordinator may know it by another name.
    pub participant: Name,
    /// Since when, by the store's clock.
    pub since: Wall,
    /// What it keeps others from.
    pub claims: Vec<Arc<str>>,
}

/// How much is promised in a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promised {
    /// How many promises.
    pub count: u64,
    /// Since when the oldest.
    pub oldest: Option<Wall>,
}

/// What a store knows of transactions: the log of the coordinators that keep theirs in it, and what its embedded participants have
/// promised, to whichever coordinator. Cheap to clone.
///
/// It asks nobody, and changes nothing but by an [`Order`](super::Order).
#[derive(Clone)]
pub struct Ledger {
    store: Store,
}

impl Ledger {
    /// That of `store`.
    pub fn of(store: &Store) -> Self {
        Self { store: store.clone() }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Whether a stream is a coordinator's own: nobody else appends to it.
    pub fn is_own_stream(stream: &str) -> bool {
        let begins = [TAKEOVERS, REQUESTS].iter().any(|prefix| stream.starts_with(prefix));
        begins || stream == addresses::STREAM || Gid::of_stream(stream).is_some()
    }

    /// Whether only coordinators append events of that type, to whichever stream: such an event would be taken for a decision, or a
    /// takeover.
    pub fn is_own_type(kind: &str) -> bool {
        kind.starts_with(TYPES)
    }

    /// What the log says of a transaction. One that it says nothing of was aborted, or is under way, or its coordinator keeps another log.
    ///
    /// # Errors
    /// [`TxnError::Store`] where that cannot be read.
    pub async fn record(&self, gid: &Gid) -> Result<Record, TxnError> {
        log::record(&self.store, gid).await
    }

    /// The most participants that are known by their addresses.
    pub const MAX_PARTICIPANTS: usize = addresses::MOST;

    /// Whether anybody has ever opened the coordinator of that name here: then something may be left of it.
    ///
    /// # Errors
    /// [`TxnError::Store`] where that cannot be read.
    pub async fn has_coordinator(&self, name: &Name) -> Result<bool, TxnError> {
        standing::was_opened(&self.store, name).await
    }

    /// What became of a transaction that was begun under that name, as far as the log says: [`Ended::Unknown`](super::Ended::Unknown) while its
    /// coordinator may be at it. One whose coordinator was replaced before it decided is aborted, which is then written down.
    ///
    /// # Errors
    /// [`TxnError::Store`] where the log does not say.
    pub async fn requested(&self, id: &RequestId) -> Result<Option<Requested>, TxnError> {
        requests::requested(&self.store, id, PATIENCE).await
    }

    /// The participants that are known by their addresses, in the order in which they came.
    ///
    /// # Errors
    /// [`TxnError::Store`] where that cannot be read.
    pub async fn participants(&self) -> Result<Vec<Name>, TxnError> {
        addresses::all(&self.store).await
    }

    /// Writes down that participants are known by their addresses, before they are asked for anything: all that are not there yet, or none.
    ///
    /// # Errors
    /// [`TxnError::TooManyParticipants`], and [`TxnError::Store`] where it may not be written.
    pub async fn add_participants(&self, addresses: &[Name]) -> Result<(), TxnError> {
        addresses::join(&self.store, addresses).await
    }

    /// Takes a participant away that will not come back, and writes down who did it and why. What it holds nobody ends any more until it is
    /// added again. Whether it was there.
    ///
    /// # Errors
    /// [`TxnError::Store`] where it may not be written.
    pub async fn remove_participant(&self, address: &Name, by: &str, why: &str) -> Result<bool, TxnError> {
        addresses::leave(&self.store, address, by, why).await
    }

    /// What is promised of the first `most` transactions behind `after`, in the order of their names.
    ///
    /// # Errors
    /// [`TxnError::Store`] and [`TxnError::Tables`] where it cannot be read.
    pub async fn promises(&self, after: Option<Gid>, most: usize) -> Result<Vec<Promise>, TxnError> {
        let mut all: Vec<Promise> = Vec::new();
        if !self.has_participants().await? {
            return Ok(all);
        }
        let mut transactions = 0;
        // Behind every participant of `after`.
        let mut behind = after.map(|gid| (gid, "\u{10ffff}".to_owned()));
        loop {
            let page = self.page(behind.as_ref()).await?;
            let is_last = page.len() < PAGE;
            for promise in page {
                transactions += usize::from(all.last().is_none_or(|last| last.gid != promise.gid));
                if transactions > most {
                    return Ok(all);
                }
                all.push(promise);
            }
            if is_last {
                return Ok(all);
            }
            behind = all.last().map(|last| (last.gid, last.participant.to_string()));
        }
    }

    /// What is promised of one transaction.
    ///
    /// # Errors
    /// As [`promises`](Self::promises).
    pub async fn promises_of(&self, gid: &Gid) -> Result<Vec<Promise>, TxnError> {
        if !self.has_participants().await? {
            return Ok(Vec::new());
        }
        let page = self.page(Some(&(*gid, String::new()))).await?;
        Ok(page.into_iter().take_while(|promise| promise.gid == *gid).collect())
    }

    /// How much is promised.
    ///
    /// # Errors
    /// As [`promises`](Self::promises).
    pub async fn promised(&self) -> Result<Promised, TxnError> {
        if !self.has_participants().await? {
            return Ok(Promised::default());
        }
        let sql = "SELECT count(*), min(since_ns) FROM quorate_txn_branch WHERE state = 1";
        let rows = self.store.room_query(sql, Vec::new()).await?;
        let count = rows.first().and_then(|row| row.at(0).as_i64()).and_then(|count| u64::try_from(count).ok());
        let oldest = rows.first().and_then(|row| row.at(1).as_i64()).map(Wall::from_unix_nanos);
        Ok(Promised { count: count.unwrap_or_default(), oldest })
    }

    /// Whether a participant was ever opened in the store: otherwise it has none of their tables.
    async fn has_participants(&self) -> Result<bool, TxnError> {
        let sql = "SELECT version FROM quorate_room WHERE room = $1";
        Ok(!self.store.room_query(sql, vec!["txn".into()]).await?.is_empty())
    }

    async fn page(&self, behind: Option<&(Gid, String)>) -> Result<Vec<Promise>, TxnError> {
        let place: [Value; 4] = match behind {
            Some((Gid { coordinator, txn: TxnId { takeover, number } }, participant)) => [
                coordinator.to_string().into(),
                takeover.cast_signed().into(),
                number.cast_signed().into(),
                participant.clone().into(),
            ],
            None => ["".into(), 0_i64.into(), 0_i64.into(), "".into()],
        };
        let rows = self.store.room_query(PROMISES, place.to_vec()).await?;
        rows.iter().map(promise).collect()
    }
}

fn promise(row: &Row) -> Result<Promise, TxnError> {
    let corrupt = |what: &str| {
        let place = "a row of quorate_txn_branch".to_owned();
        TxnError::Store(StoreError::Corrupt { place, what: what.to_owned() })
    };
    let count = |n: usize| row.at(n).as_i64().and_then(|n| u64::try_from(n).ok());
    let coordinator = row.at(0).as_str().and_then(|text| text.parse().ok());
    let (Some(coordinator), Some(takeover), Some(number)) = (coordinator, count(1), count(2)) else {
        return Err(corrupt("it names no transaction"));
    };
    let participant = row.at(3).as_str().unwrap_or_default().to_owned();
    let participant = Name::new(participant).map_err(|_| corrupt("it names no participant"))?;
    let claims = serde_json::from_str(row.at(5).as_str().unwrap_or_default());
    let claims = claims.map_err(|_| corrupt("its claims cannot be read"))?;
    let since = Wall::from_unix_nanos(row.at(4).as_i64().unwrap_or_default());
    Ok(Promise { gid: Gid { coordinator, txn: TxnId { takeover, number } }, participant, since, claims })
}
