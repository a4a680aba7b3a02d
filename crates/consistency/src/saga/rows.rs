//! What is written of a saga: its stream, and the row that it is found by.

pub(super) mod children;

use std::sync::Arc;

pub use self::children::Above;
use quorate_data::{
    event::{NewEvent, Recorded, Version},
    store::{AppendError, DynTx, ExpectedVersion, ReadStream, RoomTables, Row, Store, StoreError, Value as Sql},
};
use quorate_foundations::{name::Name, time::Wall};

use super::{
    SagaError,
    event::Happened,
    journal::{Journal, Phase, Status},
    owners,
};

pub(crate) const TABLES: RoomTables = RoomTables {
    room: "saga",
    versions: &[
        "CREATE TABLE quorate_saga (
        name TEXT NOT NULL, id TEXT NOT NULL, version BIGINT NOT NULL, status BIGINT NOT NULL, owner BIGINT NOT NULL,
        at BIGINT NOT NULL, business_key TEXT, started_at BIGINT NOT NULL, updated_at BIGINT NOT NULL,
        PRIMARY KEY (name, id)
    );
    CREATE INDEX quorate_saga_by_key ON quorate_saga (business_key, name, id) WHERE business_key IS NOT NULL;
    CREATE INDEX quorate_saga_open ON quorate_saga (name, version, id) WHERE status < 10;
    CREATE TABLE quorate_saga_owner (owner BIGINT PRIMARY KEY, since BIGINT NOT NULL)",
        // Which step started it; whether that waits for its end; and whether it can be undone, being completed; NULL:
        // nobody said, as a node of an earlier release does not.
        "ALTER TABLE quorate_saga ADD COLUMN parent_name TEXT;
    ALTER TABLE quorate_saga ADD COLUMN parent_id TEXT;
    ALTER TABLE quorate_saga ADD COLUMN parent_step TEXT;
    ALTER TABLE quorate_saga ADD COLUMN unheard BIGINT NOT NULL DEFAULT 0;
    ALTER TABLE quorate_saga ADD COLUMN undoable BIGINT;
    CREATE INDEX quorate_saga_by_parent ON quorate_saga (parent_name, parent_id, name, id) WHERE parent_name IS NOT NULL;
    CREATE INDEX quorate_saga_unheard ON quorate_saga (parent_name, parent_id) WHERE unheard = 1 AND status >= 10",
    ],
};

/// Who runs a saga: each opening of a store is another owner, with a higher number. It is the fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owner(pub(super) i64);

/// Which saga.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SagaKey {
    pub(super) name: Name,
    pub(super) id: Arc<str>,
}

impl SagaKey {
    pub(super) fn stream(&self) -> Result<Name, SagaError> {
        let name = Name::new(format!("saga-{}:{}", self.name.as_str(), self.id));
        name.map_err(|cause| SagaError::invalid(format!("a saga's id is part of its stream's name: {cause}")))
    }

    pub(super) fn not_found(&self) -> SagaError {
        SagaError::NotFound { name: self.name.clone(), id: self.id.clone() }
    }

    pub(super) fn overtaken(&self) -> SagaError {
        SagaError::Overtaken { name: self.name.clone(), id: self.id.clone() }
    }

    fn unreadable(&self, what: impl ToString) -> SagaError {
        SagaError::Unreadable { name: self.name.clone(), id: self.id.clone(), what: what.to_string() }
    }
}

/// A saga as it was read.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) journal: Arc<Journal>,
    pub(super) at: Version,
    pub(super) mark: Version,
    pub(super) owner: Owner,
}

/// A row, without what stands in the stream.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) id: Arc<str>,
    pub(super) version: u32,
    pub(super) status: Status,
    pub(super) key: Option<Arc<str>>,
    pub(super) parent: Option<Above>,
    pub(super) started_at: Wall,
    pub(super) updated_at: Wall,
}

/// Becomes a new owner. Nobody has its number, and nobody ever had. Where there are others, who are promised signs of life, it gives its first
/// one with that.
pub(super) async fn new_owner(store: &Store, promise: Option<owners::Promise>) -> Result<Owner, SagaError> {
    let now = store.env().wall().unix_nanos();
    let taken = store.transact(move |tx| {
        Box::pin(async move {
            let newest = tx.room_query("SELECT coalesce(max(owner), 0) FROM quorate_saga_owner", &[]).await?;
            let owner = newest.first().and_then(|row| row.at(0).as_i64()).unwrap_or(0) + 1;
            let sql = "INSERT INTO quorate_saga_owner (owner, since) VALUES ($1, $2) ON CONFLICT (owner) DO NOTHING";
            if tx.room_execute(sql, &[owner.into(), now.into()]).await? == 0 {
                return Err(StoreError::Busy.into());
            }
            if let Some(promise) = promise {
                owners::give_sign(tx, Owner(owner), promise).await?;
            }
            // The newest one stays, so that numbers grow; the others stand for nothing any more.
            tx.room_execute("DELETE FROM quorate_saga_owner WHERE owner < $1", &[owner.into()]).await?;
            Ok::<_, SagaError>(Owner(owner))
        })
    });
    taken.await.map_err(SagaError::of_transaction)
}

/// What is appended at once, and the row behind it.
pub(super) struct Transition<'a> {
    pub(super) saga: &'a SagaKey,
    pub(super) stream: &'a Name,
    pub(super) journal: &'a Journal,
    pub(super) events: Vec<NewEvent>,
    /// The version that it was decided on; zero: the saga begins.
    pub(super) at: Version,
    /// Where its row says that it is. Events of others may stand in the stream behind that.
    pub(super) mark: Version,
    /// Whose it was.
    pub(super) before: Owner,
    /// Whose it is.
    pub(super) owner: Owner,
    /// Whether whoever had it may be in another process, and has to be told.
    pub(super) others: bool,
    /// Whether it can be undone; said of what completed.
    pub(super) undoable: Option<bool>,
}

/// Why a transition was not written.
pub(super) enum Unwritten {
    /// There is a saga of that id already.
    Exists,
    /// Somebody else moved it on.
    Overtaken,
    Failed(SagaError),
}

impl<E: Into<SagaError>> From<E> for Unwritten {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Writes a transition, if the saga still is where it was decided.
pub(super) async fn write(tx: &mut DynTx, transition: Transition<'_>) -> Result<Version, Unwritten> {
    let Transition { saga, stream, journal, events, at, mark, before, owner, others, undoable } = transition;
    let to = at.get() + events.len() as u64;
    let number = |n: u64| Sql::Integer(n.cast_signed());
    let (status, updated) = (journal.status().code(), journal.updated_at.unix_nanos());
    let parent = journal.parent.as_ref();
    if at == Version::ZERO {
        let sql =
            "INSERT INTO quorate_saga (name, id, version, status, owner, at, business_key, started_at, updated_at,
                undoable, parent_name, parent_id, parent_step, unheard)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) ON CONFLICT (name, id) DO NOTHING";
        let row = [
            (&saga.name).into(),
            saga.id.clone().into(),
            journal.version.into(),
            status.into(),
            owner.0.into(),
            number(to),
            journal.key.clone().into(),
            journal.started_at.unix_nanos().into(),
            updated.into(),
            undoable.map(i64::from).into(),
            parent.map(|parent| parent.saga.as_str()).into(),
            parent.map(|parent| parent.id.clone()).into(),
            parent.map(|parent| parent.step.clone()).into(),
            i64::from(parent.is_some()).into(),
        ];
        if tx.room_execute(sql, &row).await? == 0 {
            return Err(Unwritten::Exists);
        }
    } else {
        let sql = "UPDATE quorate_saga SET status = $3, owner = $4, at = $5, updated_at = $6, undoable = $9
            WHERE name = $1 AND id = $2 AND owner = $7 AND at = $8";
        let row = [
            (&saga.name).into(),
            saga.id.clone().into(),
            status.into(),
            owner.0.into(),
            number(to),
            updated.into(),
            before.0.into(),
            number(mark.get()),
            undoable.map(i64::from).into(),
        ];
        if tx.room_execute(sql, &row).await? == 0 {
            return Err(Unwritten::Overtaken);
        }
        if others && before != owner {
            owners::tell_taken(tx, before, saga).await?;
        }
    }
    if events.is_empty() {
        return Ok(at);
    }
    let expected = if at == Version::ZERO { ExpectedVersion::NoStream } else { ExpectedVersion::Exact(at) };
    match tx.room_append(stream, expected, events).await {
        Ok(appended) => Ok(appended.version()),
        Err(AppendError::VersionConflict { .. }) if at == Version::ZERO => {
            Err(SagaError::invalid(format!("stream `{stream}` was there before the saga: take another id")).into())
        }
        Err(AppendError::VersionConflict { .. }) => Err(Unwritten::Overtaken),
        Err(other) => Err(other.into()),
    }
}

/// An event of a saga, as it is appended. It carries when it happened: whoever reads it knows the same moment as whoever was there.
pub(super) fn recorded(
    id: Arc<str>,
    saga: &SagaKey,
    happened: &Happened,
    at: Wall,
) -> Result<NewEvent, serde_json::Error> {
    let mut event = NewEvent::new(id, SOURCE, happened.kind()).json(serde_json::to_vec(happened)?);
    (event.subject, event.time) = (Some(saga.id.clone()), Some(at.into()));
    Ok(event)
}

/// The saga, read from its row and its stream.
pub(super) async fn read(store: &Store, saga: &SagaKey) -> Result<Kept, SagaError> {
    let sql = "SELECT owner, at, version, status, business_key, started_at, updated_at FROM quorate_saga
        WHERE name = $1 AND id = $2";
    let rows = store.room_query(sql, vec![(&saga.name).into(), saga.id.clone().into()]).await?;
    let row = rows.first().ok_or_else(|| saga.not_found())?;
    let number = |n: usize| row.at(n).as_i64().ok_or_else(|| saga.unreadable("its row lacks a number"));
    let (owner, mark) = (Owner(number(0)?), Version::new(number(1)?.unsigned_abs()));
    let (mut journal, mut at) = (Journal::new(), Version::ZERO);
    let mut next = Some(Version::new(1));
    while let Some(from) = next {
        let page = store.read_stream(ReadStream::forward(saga.stream()?, PAGE).from(from)).await?;
        for event in &page.events {
            at = event.version();
            // Whatever others append to the stream says nothing of the saga.
            if event.source() == SOURCE {
                take(saga, &mut journal, event)?;
            }
        }
        next = page.next;
    }
    if journal.version == 0 {
        if let Some(outcome) = Status::of_code(number(3)?).and_then(Status::outcome) {
            // Its events were forgotten, as it was right to, or the first of them: how it ended is in its row.
            journal = Journal::new();
            let wall = |n: usize| number(n).map(Wall::from_unix_nanos);
            (journal.version, journal.key) =
                (u32::try_from(number(2)?).unwrap_or_default(), row.at(4).as_str().map(Into::into));
            (journal.started_at, journal.updated_at) = (wall(5)?, wall(6)?);
            journal.phase = Phase::Ended(outcome);
            return Ok(Kept { journal: Arc::new(journal), at, mark, owner });
        }
        return Err(saga.unreadable("its stream does not begin with its start: was it truncated?"));
    }
    Ok(Kept { journal: Arc::new(journal), at, mark, owner })
}

/// How a saga stands, by its row; `None` if there is none.
pub(super) async fn status(store: &Store, saga: &SagaKey) -> Result<Option<Status>, SagaError> {
    let sql = "SELECT status FROM quorate_saga WHERE name = $1 AND id = $2";
    let rows = store.room_query(sql, vec![(&saga.name).into(), saga.id.clone().into()]).await?;
    Ok(rows.first().and_then(|row| row.at(0).as_i64()).and_then(Status::of_code))
}

/// The `source` of a saga's own events.
const SOURCE: &str = "/quorate/saga";

/// Events of a stream that are read at once.
const PAGE: usize = 1_000;

/// Reads one more event into the journal. Of one whose beginning was forgotten only its row tells anything.
fn take(saga: &SagaKey, journal: &mut Journal, event: &Recorded) -> Result<(), SagaError> {
    let wrong = |what: &str| saga.unreadable(format!("event {} {what}", event.version()));
    let data = event.data().ok_or_else(|| wrong("has no data"))?;
    let happened: Happened = serde_json::from_slice(data).map_err(|cause| wrong(&format!("says nothing: {cause}")))?;
    if event.kind() != happened.kind() {
        return Err(wrong(&format!("is a `{}`, and says what a `{}` says", event.kind(), happened.kind())));
    }
    match (&happened, journal.version) {
        (Happened::Started { version: 0, .. }, _) => Err(wrong("names no version of a definition")),
        (Happened::Started { .. }, 1..) => Err(wrong("starts it a second time")),
        (Happened::Started { .. }, 0) | (_, 1..) => {
            journal.apply(happened, event.happened_at());
            Ok(())
        }
        (_, 0) => Ok(()),
    }
}

/// Whose a saga is; `None` if there is none.
pub(super) async fn owner(store: &Store, saga: &SagaKey) -> Result<Option<Owner>, SagaError> {
    let sql = "SELECT owner FROM quorate_saga WHERE name = $1 AND id = $2";
    let rows = store.room_query(sql, vec![(&saga.name).into(), saga.id.clone().into()]).await?;
    Ok(rows.first().and_then(|row| row.at(0).as_i64()).map(Owner))
}

/// Open sagas of a version of a definition, behind an id.
pub(super) async fn open_ids(
    store: &Store,
    name: &Name,
    version: u32,
    after: &str,
    limit: i64,
) -> Result<Vec<Arc<str>>, SagaError> {
    let sql = "SELECT id FROM quorate_saga WHERE name = $1 AND version = $2 AND id > $3 AND status < 10
        ORDER BY id LIMIT $4";
    let rows = store.room_query(sql, vec![name.into(), version.into(), after.into(), limit.into()]).await?;
    rows.iter().map(|row| text(row, 0)).collect()
}

/// What a listing asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) name: Option<Name>,
    pub(super) key: Option<Arc<str>>,
    pub(super) status: Option<Status>,
    pub(super) parent: Option<(Name, Arc<str>)>,
    pub(super) after: Option<(Arc<str>, Arc<str>)>,
    pub(super) limit: usize,
}

/// Sagas in order of their names and ids.
pub(super) async fn list(store: &Store, wanted: Wanted) -> Result<Vec<(Name, Found)>, SagaError> {
    let mut params: Vec<Sql> = Vec::new();
    let mut sql = String::from(
        "SELECT name, id, version, status, business_key, started_at, updated_at, parent_name, parent_id, parent_step
            FROM quorate_saga WHERE 1 = 1",
    );
    let mut only = |condition: &str, values: Vec<Sql>| {
        let mut condition = condition.to_owned();
        for value in values {
            params.push(value);
            condition = condition.replacen('?', &format!("${}", params.len()), 1);
        }
        sql.push_str(&condition);
    };
    if let Some(name) = &wanted.name {
        only(" AND name = ?", vec![name.into()]);
    }
    if let Some(key) = wanted.key {
        only(" AND business_key = ?", vec![key.into()]);
    }
    if let Some((name, id)) = wanted.parent {
        only(" AND parent_name = ? AND parent_id = ?", vec![(&name).into(), id.into()]);
    }
    if let Some(status) = wanted.status {
        only(" AND status = ?", vec![status.code().into()]);
        if !status.is_ended() {
            only(" AND status < 10", vec![]);
        }
    }
    if let Some((name, id)) = wanted.after {
        only(" AND (name > ? OR (name = ? AND id > ?))", vec![name.clone().into(), name.into(), id.into()]);
    }
    only(" ORDER BY name, id LIMIT ?", vec![i64::try_from(wanted.limit).unwrap_or(i64::MAX).into()]);
    let rows = store.room_query(&sql, params).await?;
    rows.iter().map(found).collect()
}

fn found(row: &Row) -> Result<(Name, Found), SagaError> {
    let corrupt = |what: &str| StoreError::Corrupt { place: "quorate_saga".to_owned(), what: what.to_owned() };
    let integer = |n: usize| row.at(n).as_i64().ok_or_else(|| corrupt("a number is missing"));
    let name = Name::new(text(row, 0)?).map_err(|_| corrupt("a name is none"))?;
    let status = Status::of_code(integer(3)?).ok_or_else(|| corrupt("a status is none"))?;
    let version = u32::try_from(integer(2)?).map_err(|_| corrupt("a version is none"))?;
    let key = row.at(4).as_str().map(Into::into);
    let wall = |n: usize| integer(n).map(Wall::from_unix_nanos);
    let parent = children::above(row, 7)?;
    Ok((name, Found { id: text(row, 1)?, version, status, key, parent, started_at: wall(5)?, updated_at: wall(6)? }))
}

pub(super) fn text(row: &Row, n: usize) -> Result<Arc<str>, SagaError> {
    let missing = || StoreError::Corrupt { place: "quorate_saga".to_owned(), what: "a text is missing".to_owned() };
    row.at(n).as_str().map(Into::into).ok_or_else(|| missing().into())
}
