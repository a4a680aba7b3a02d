//! The participant's rows: what is promised, what has ended, and below what everything has.

use std::sync::Arc;

use quorate_data::store::{DynTx, RoomTables, Row, SqlError, StoreError, Value};
use quorate_foundations::{name::Name, time::Wall};

use crate::two_phase_commit::{CoordinatorId, Gid, TxnId, Work, branch::Known};

/// The tables, by version.
pub(crate) const TABLES: RoomTables = RoomTables {
    room: "txn",
    versions: &[
        "
        CREATE TABLE quorate_txn_branch (
            participant TEXT NOT NULL,
            coordinator TEXT NOT NULL,
            takeover BIGINT NOT NULL,
            number BIGINT NOT NULL,
            state BIGINT NOT NULL,
            since_ns BIGINT NOT NULL,
            claims TEXT,
            work BLOB,
            sum BIGINT NOT NULL,
            PRIMARY KEY (participant, coordinator, takeover, number)) WITHOUT ROWID;
        CREATE TABLE quorate_txn_below (
            participant TEXT NOT NULL,
            coordinator TEXT NOT NULL,
            takeover BIGINT NOT NULL,
            number BIGINT NOT NULL,
            PRIMARY KEY (participant, coordinator)) WITHOUT ROWID
    ",
        // What is promised is found without looking at everything that has ended.
        "CREATE INDEX quorate_txn_promised ON quorate_txn_branch (participant, coordinator, takeover, number) WHERE state = 1",
    ],
};

const PREPARED: i64 = 1;
const COMMITTED: i64 = 2;
const ABORTED: i64 = 3;
/// Promises that are read at a time: a query's answer is bounded.
const PAGE: usize = 128;
const PROMISED: &str = "SELECT coordinator, takeover, number, since_ns, claims
    FROM quorate_txn_branch INDEXED BY quorate_txn_promised
    WHERE participant = $1 AND (coordinator, takeover, number) > ($2, $3, $4) AND state = 1
    ORDER BY coordinator, takeover, number LIMIT 128";
/// Endings that are forgotten in one transaction.
pub(super) const FORGOTTEN_AT_ONCE: u64 = 2_000;

/// A promise.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) gid: Gid,
    pub(super) claims: Vec<Arc<str>>,
    /// Where it is not too large to be kept in memory.
    pub(super) work: Option<Work>,
    pub(super) since: Wall,
}

/// What a participant keeps in memory of its rows.
pub(super) struct Loaded {
    /// What is promised.
    pub(super) entries: Vec<Entry>,
    /// Below what everything of a coordinator has ended.
    pub(super) below: Vec<Gid>,
    /// The highest of each coordinator that has a row.
    pub(super) highest: Vec<Gid>,
}

/// The rows of one participant.
pub(super) struct Rows {
    participant: Arc<str>,
}

impl Rows {
    pub(super) fn of(participant: &Name) -> Self {
        Self { participant: participant.as_str().into() }
    }

    pub(super) fn participant(&self) -> &str {
        &self.participant
    }

    fn key(&self, gid: &Gid) -> [Value; 4] {
        let TxnId { takeover, number } = gid.txn;
        let coordinator = gid.coordinator.to_string();
        [
            self.participant.clone().into(),
            coordinator.into(),
            takeover.cast_signed().into(),
            number.cast_signed().into(),
        ]
    }

    pub(super) async fn insert(&self, tx: &mut DynTx, entry: &Entry) -> Result<(), SqlError> {
        let sql = "INSERT INTO quorate_txn_branch (participant, coordinator, takeover, number, state, since_ns, claims, work, sum)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let claims = serde_json::to_string(&entry.claims).unwrap_or_else(|_| unreachable!("texts are written as JSON"));
        let since = entry.since.unix_nanos();
        let work = entry.work.as_ref().map(|work| work.as_bytes().clone()).unwrap_or_default();
        let sum = sum(&entry.gid, PREPARED, since, claims.as_bytes(), &work);
        let [participant, coordinator, takeover, number] = self.key(&entry.gid);
        let row = [
            participant,
            coordinator,
            takeover,
            number,
            PREPARED.into(),
            since.into(),
            claims.into(),
            work.into(),
            sum.into(),
        ];
        tx.room_execute(sql, &row).await.map(|_| ())
    }

    /// What a row says of a transaction that is not in memory.
    pub(super) async fn known(&self, tx: &mut DynTx, gid: &Gid) -> Result<Known, SqlError> {
        let sql = "SELECT state, since_ns, sum FROM quorate_txn_branch
            WHERE participant = $1 AND coordinator = $2 AND takeover = $3 AND number = $4";
        let rows = tx.room_query(sql, &self.key(gid)).await?;
        let Some(row) = rows.first() else { return Ok(Known::Nothing) };
        let (state, since) = (row.at(0).as_i64(), row.at(1).as_i64().unwrap_or_default());
        match state {
            Some(PREPARED) => Ok(Known::Prepared),
            Some(state @ (COMMITTED | ABORTED)) if row.at(2).as_i64() == Some(sum(gid, state, since, &[], &[])) => {
                Ok(if state == COMMITTED { Known::Committed } else { Known::Aborted })
            }
            _ => Err(corrupt(gid, "its state, or its checksum, is not what was written").into()),
        }
    }

    /// Writes down how a transaction ended of which nothing is promised.
    pub(super) async fn remember(&self, tx: &mut DynTx, gid: &Gid, ended: Known) -> Result<(), SqlError> {
        let sql = "INSERT INTO quorate_txn_branch (participant, coordinator, takeover, number, state, since_ns, sum)
            VALUES ($1, $2, $3, $4, $5, 0, $6)";
        let [participant, coordinator, takeover, number] = self.key(gid);
        let state = state(ended);
        let row = [participant, coordinator, takeover, number, state.into(), sum(gid, state, 0, &[], &[]).into()];
        tx.room_execute(sql, &row).await.map(|_| ())
    }

    /// Writes down how a promise ended.
    pub(super) async fn end(&self, tx: &mut DynTx, gid: &Gid, ended: Known) -> Result<(), SqlError> {
        let sql = "UPDATE quorate_txn_branch SET state = $5, since_ns = 0, claims = NULL, work = NULL, sum = $6
            WHERE participant = $1 AND coordinator = $2 AND takeover = $3 AND number = $4";
        let [participant, coordinator, takeover, number] = self.key(gid);
        let state = state(ended);
        let row = [participant, coordinator, takeover, number, state.into(), sum(gid, state, 0, &[], &[]).into()];
        tx.room_execute(sql, &row).await.map(|_| ())
    }

    /// Forgets how everything of a coordinator below `gid` ended, so many rows at a time; returns how many those were. What is promised
    /// stays.
    pub(super) async fn forget(&self, tx: &mut DynTx, gid: &Gid) -> Result<u64, SqlError> {
        let mark = "INSERT INTO quorate_txn_below (participant, coordinator, takeover, number) VALUES ($1, $2, $3, $4)
            ON CONFLICT (participant, coordinator) DO UPDATE SET takeover = $3, number = $4
            WHERE (quorate_txn_below.takeover, quorate_txn_below.number) < ($3, $4)";
        tx.room_execute(mark, &self.key(gid)).await?;
        let sql =
            "DELETE FROM quorate_txn_branch WHERE participant = $1 AND coordinator = $2 AND (takeover, number) IN (
            SELECT takeover, number FROM quorate_txn_branch WHERE participant = $1 AND coordinator = $2
            AND (takeover, number) < ($3, $4) AND state <> 1 ORDER BY takeover, number LIMIT 2000)";
        tx.room_execute(sql, &self.key(gid)).await
    }

    /// The work of a promise.
    pub(super) async fn work(&self, tx: &mut DynTx, gid: &Gid) -> Result<Work, SqlError> {
        let sql = "SELECT since_ns, claims, work, sum FROM quorate_txn_branch
            WHERE participant = $1 AND coordinator = $2 AND takeover = $3 AND number = $4 AND state = 1";
        let rows = tx.room_query(sql, &self.key(gid)).await?;
        let row = rows.first().ok_or_else(|| corrupt(gid, "it is promised, and has no row"))?;
        let (since, claims) = (row.at(0).as_i64().unwrap_or_default(), row.at(1).as_str().unwrap_or_default());
        let work = row.at(2).as_bytes().cloned().unwrap_or_default();
        match row.at(3).as_i64() == Some(sum(gid, PREPARED, since, claims.as_bytes(), &work)) {
            true => Ok(Work::stored(work)),
            false => Err(corrupt(gid, "the checksum does not match").into()),
        }
    }

    /// Everything that is kept in memory.
    pub(super) async fn load(&self, tx: &mut DynTx) -> Result<Loaded, SqlError> {
        let mine: [Value; 1] = [self.participant.clone().into()];
        let sql = "SELECT coordinator, takeover, number FROM quorate_txn_below WHERE participant = $1";
        let below = gids(&tx.room_query(sql, &mine).await?)?;
        let highest = self.highest(tx).await?;
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let page = self.page(tx, entries.last().map(|last| last.gid)).await?;
            let is_last = page.len() < PAGE;
            entries.extend(page);
            if is_last {
                return Ok(Loaded { entries, below, highest });
            }
        }
    }

    /// The highest transaction of each coordinator that has a row.
    async fn highest(&self, tx: &mut DynTx) -> Result<Vec<Gid>, SqlError> {
        let sql =
            "SELECT coordinator, takeover, number FROM quorate_txn_branch WHERE participant = $1 AND coordinator = (
                SELECT min(coordinator) FROM quorate_txn_branch WHERE participant = $1 AND coordinator > $2)
            ORDER BY takeover DESC, number DESC LIMIT 1";
        let mut all: Vec<Gid> = Vec::new();
        loop {
            let after = all.last().map(|last| last.coordinator.to_string()).unwrap_or_default();
            let rows = tx.room_query(sql, &[self.participant.clone().into(), after.into()]).await?;
            match rows.first() {
                Some(row) => all.push(gid_of(row)?),
                None => return Ok(all),
            }
        }
    }

    /// What is promised behind `after`, in the order of the key, without its work: that may be more than one answer holds.
    async fn page(&self, tx: &mut DynTx, after: Option<Gid>) -> Result<Vec<Entry>, SqlError> {
        let [participant, coordinator, takeover, number] = match &after {
            Some(gid) => self.key(gid),
            None => [self.participant.clone().into(), "".into(), 0_i64.into(), 0_i64.into()],
        };
        let rows = tx.room_query(PROMISED, &[participant, coordinator, takeover, number]).await?;
        let entry = |row: &Row| {
            let gid = gid_of(row)?;
            let claims = serde_json::from_str(row.at(4).as_str().unwrap_or_default());
            let claims = claims.map_err(|cause| corrupt(&gid, &cause.to_string()))?;
            let since = Wall::from_unix_nanos(row.at(3).as_i64().unwrap_or_default());
            Ok(Entry { gid, claims, work: None, since })
        };
        rows.iter().map(entry).collect()
    }
}

fn gids(rows: &[Row]) -> Result<Vec<Gid>, StoreError> {
    rows.iter().map(gid_of).collect()
}

fn state(ended: Known) -> i64 {
    if ended == Known::Committed { COMMITTED } else { ABORTED }
}

/// The transaction that a row's first three columns name.
fn gid_of(row: &Row) -> Result<Gid, StoreError> {
    let coordinator: Option<CoordinatorId> = row.at(0).as_str().and_then(|text| text.parse().ok());
    let count = |n: usize| row.at(n).as_i64().and_then(|n| u64::try_from(n).ok());
    match (coordinator, count(1), count(2)) {
        (Some(coordinator), Some(takeover), Some(number)) => Ok(Gid { coordinator, txn: TxnId { takeover, number } }),
        _ => {
            let (place, what) = ("a row of quorate_txn_branch or quorate_txn_below", "it names no transaction");
            Err(StoreError::Corrupt { place: place.to_owned(), what: what.to_owned() })
        }
    }
}

fn corrupt(gid: &Gid, what: &str) -> StoreError {
    StoreError::Corrupt { place: format!("quorate_txn_branch, transaction {gid}"), what: what.to_owned() }
}

/// The checksum of a row.
fn sum(gid: &Gid, state: i64, since: i64, claims: &[u8], work: &[u8]) -> i64 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(gid.coordinator.as_bytes());
    for number in [gid.txn.takeover.cast_signed(), gid.txn.number.cast_signed(), state, since] {
        sum.update(&number.to_le_bytes());
    }
    sum.update(claims);
    sum.update(work);
    sum.finalize().into()
}

#[cfg(test)]
mod tests {
    use quorate_data::store::sqlite;
    use quorate_runtime::Env;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_promised_is_found_without_looking_at_what_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let config = sqlite::Config::at(folder.path().join("store.db"));
        let store = sqlite::open(&Env::real(), config).await.unwrap();
        store.declare(TABLES).await.unwrap();
        let plan = store.transact(|tx| {
            Box::pin(async move {
                let explained = format!("EXPLAIN QUERY PLAN {PROMISED}");
                tx.room_query(&explained, &["bank".into(), "".into(), 0_i64.into(), 0_i64.into()]).await
            })
        });
        let steps: Vec<String> =
            plan.await.unwrap().iter().map(|row| row.at(3).as_str().unwrap_or_default().to_owned()).collect();
        assert!(steps.len() == 1 && steps[0].starts_with("SEARCH"), "{steps:?}");
        assert!(steps[0].contains("quorate_txn_promised (participant=? AND "), "{steps:?}");
    }
}
