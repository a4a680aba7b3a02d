//! What is written of processes: how far each has followed the log, its courses, and their events.

use std::sync::Arc;

use quorate_data::{
    event::Position,
    store::{DynTx, RoomTables, Row, SqlError, Store, StoreError, Value as Sql},
};
use quorate_foundations::{name::Name, time::Wall};

use super::{
    Processes,
    machine::{Course, Seen, Standing},
};

pub(crate) const TABLES: RoomTables = RoomTables {
    room: "process",
    versions: &["CREATE TABLE quorate_process (
        name TEXT PRIMARY KEY, born BIGINT NOT NULL, revision BIGINT NOT NULL, checkpoint BIGINT NOT NULL, clock BIGINT NOT NULL,
        format TEXT, document TEXT
    );
    CREATE TABLE quorate_process_course (
        process TEXT NOT NULL, course TEXT NOT NULL, standing TEXT NOT NULL, first_at BIGINT NOT NULL, updated_at BIGINT NOT NULL,
        due BIGINT, state TEXT NOT NULL, PRIMARY KEY (process, course)
    );
    CREATE INDEX quorate_process_course_due ON quorate_process_course (process, due) WHERE due IS NOT NULL;
    CREATE INDEX quorate_process_course_standing ON quorate_process_course (process, standing, course);
    CREATE TABLE quorate_process_event (
        process TEXT NOT NULL, course TEXT NOT NULL, position BIGINT NOT NULL, source TEXT NOT NULL, id TEXT NOT NULL, type TEXT NOT NULL,
        stream TEXT NOT NULL, causation TEXT, depth BIGINT NOT NULL, at BIGINT NOT NULL, PRIMARY KEY (process, course, position)
    )"],
};

/// How far a process has followed the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Which declaration it is of: one that was taken back and declared anew is another.
    pub(super) born: i64,
    /// The fence: whoever writes names the one that it knows.
    pub(super) revision: i64,
    /// All up to here was taken in.
    pub(super) checkpoint: Position,
}

/// A course as it was read.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    pub(super) course: Course,
    pub(super) trail: Vec<Seen>,
    /// How many of the trail are written.
    pub(super) written: usize,
    pub(super) first_at: Wall,
}

/// A process as it was declared by a document: its format and text; none for one of a program.
pub(super) type Declared = (Name, Option<(Arc<str>, Arc<str>)>);

fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt { place: "quorate_process".to_owned(), what: what.to_owned() }
}

fn integer(row: &Row, n: usize) -> Result<i64, SqlError> {
    Ok(row.at(n).as_i64().ok_or_else(|| corrupt("a number is missing"))?)
}

fn text(row: &Row, n: usize) -> Result<Arc<str>, SqlError> {
    Ok(row.at(n).as_str().map(Into::into).ok_or_else(|| corrupt("a text is missing"))?)
}

fn position(row: &Row, n: usize) -> Result<Position, SqlError> {
    Ok(Position::new(integer(row, n)?.cast_unsigned()))
}

fn number(n: u64) -> Sql {
    Sql::Integer(n.cast_signed())
}

const PLACE: &str = "SELECT born, revision, checkpoint FROM quorate_process WHERE name = $1";

fn read_place(row: &Row) -> Result<Place, SqlError> {
    Ok(Place { born: integer(row, 0)?, revision: integer(row, 1)?, checkpoint: position(row, 2)? })
}

pub(super) async fn place(store: &Store, name: &Name) -> Result<Option<Place>, SqlError> {
    let rows = store.room_query(PLACE, vec![name.into()]).await?;
    rows.first().map(read_place).transpose()
}

/// The same, as of this transaction.
pub(super) async fn place_now(tx: &mut DynTx, name: &Name) -> Result<Option<Place>, SqlError> {
    let rows = tx.room_query(PLACE, &[name.into()]).await?;
    rows.first().map(read_place).transpose()
}

/// The latest clock of processes that was ever written.
pub(super) async fn clock(store: &Store) -> Result<Option<Wall>, SqlError> {
    let rows = store.room_query("SELECT max(clock) FROM quorate_process", vec![]).await?;
    Ok(rows.first().and_then(|row| row.at(0).as_i64()).map(Wall::from_unix_nanos))
}

/// All processes, in order.
pub(super) async fn declared(store: &Store) -> Result<Vec<Declared>, SqlError> {
    let rows = store.room_query("SELECT name, format, document FROM quorate_process ORDER BY name", vec![]).await?;
    let read = |row: &Row| {
        let name = Name::new(text(row, 0)?).map_err(|_| corrupt("a name is none"))?;
        Ok((name, row.at(1).as_str().zip(row.at(2).as_str()).map(|(format, text)| (format.into(), text.into()))))
    };
    rows.iter().map(read).collect()
}

/// Writes that a process is declared. It begins at `place`, unless it was declared before: then it goes on, by what it says now.
pub(super) async fn declare(
    tx: &mut DynTx,
    name: &Name,
    place: Place,
    clock: Wall,
    document: Option<(Arc<str>, Arc<str>)>,
) -> Result<(), SqlError> {
    let (format, text) = document.map_or((Sql::Null, Sql::Null), |(format, text)| (format.into(), text.into()));
    let sql = "INSERT INTO quorate_process (name, born, revision, checkpoint, clock, format, document) VALUES ($1, $2, 0, $3, $4, $5, $6)
        ON CONFLICT (name) DO UPDATE SET revision = quorate_process.revision + 1, format = excluded.format, document = excluded.document";
    let row = [name.into(), place.born.into(), number(place.checkpoint.get()), clock.unix_nanos().into(), format, text];
    tx.room_execute(sql, &row).await.map(drop)
}

/// Forgets a process and all of its courses. Whether there was one.
pub(super) async fn remove(tx: &mut DynTx, name: &Name) -> Result<bool, SqlError> {
    for table in ["quorate_process_event", "quorate_process_course"] {
        tx.room_execute(&format!("DELETE FROM {table} WHERE process = $1"), &[name.into()]).await?;
    }
    Ok(tx.room_execute("DELETE FROM quorate_process WHERE name = $1", &[name.into()]).await? > 0)
}

/// Moves a process on, if it still is where it was.
pub(super) async fn advance(
    tx: &mut DynTx,
    name: &Name,
    from: Place,
    to: Position,
    clock: Wall,
) -> Result<bool, SqlError> {
    let sql = "UPDATE quorate_process SET revision = revision + 1, checkpoint = $4, clock = $5
        WHERE name = $1 AND born = $2 AND revision = $3";
    let row = [name.into(), from.born.into(), from.revision.into(), number(to.get()), clock.unix_nanos().into()];
    Ok(tx.room_execute(sql, &row).await? > 0)
}

const COURSE: &str = "SELECT state, first_at FROM quorate_process_course WHERE process = $1 AND course = $2";
const TRAIL: &str = "SELECT position, source, id, type, stream, causation, depth, at FROM quorate_process_event
    WHERE process = $1 AND course = $2 ORDER BY position";

/// `at`: the column from which on an event is written.
fn kept(course: &[Row], trail: &[Row], at: usize) -> Result<Option<Kept>, SqlError> {
    let Some(row) = course.first() else { return Ok(None) };
    let course = serde_json::from_str(&text(row, 0)?).map_err(|_| corrupt("the state of a course says nothing"))?;
    let first_at = Wall::from_unix_nanos(integer(row, 1)?);
    let trail: Vec<Seen> = trail.iter().map(|row| seen(row, at)).collect::<Result<_, _>>()?;
    Ok(Some(Kept { course, written: trail.len(), trail, first_at }))
}

fn seen(row: &Row, at: usize) -> Result<Seen, SqlError> {
    Ok(Seen {
        position: position(row, at)?,
        source: text(row, at + 1)?,
        id: text(row, at + 2)?,
        kind: text(row, at + 3)?,
        stream: text(row, at + 4)?,
        causation: row.at(at + 5).as_str().map(Into::into),
        depth: u32::try_from(integer(row, at + 6)?).map_err(|_| corrupt("a depth is none"))?,
        at: Wall::from_unix_nanos(integer(row, at + 7)?),
    })
}

/// A course, as of this transaction.
pub(super) async fn course(tx: &mut DynTx, process: &Name, key: &Arc<str>) -> Result<Option<Kept>, SqlError> {
    let key = [process.into(), key.clone().into()];
    let (course, trail) = (tx.room_query(COURSE, &key).await?, tx.room_query(TRAIL, &key).await?);
    kept(&course, &trail, 0)
}

/// The course, before all positions, and its events: one statement, so that they are of one moment.
const LOOKED: &str =
    "SELECT state, first_at, -1 AS position, '' AS source, '' AS id, '' AS type, '' AS stream, NULL AS causation, 0 AS depth, 0 AS at
        FROM quorate_process_course WHERE process = $1 AND course = $2
    UNION ALL SELECT '', 0, position, source, id, type, stream, causation, depth, at
        FROM quorate_process_event WHERE process = $1 AND course = $2 ORDER BY position";

/// A course as it stands. It waits for no writer, and no writer for it.
pub(super) async fn look(store: &Store, process: &Name, key: &Arc<str>) -> Result<Option<Kept>, SqlError> {
    let rows = store.room_query(LOOKED, vec![process.into(), key.clone().into()]).await?;
    let course = rows.iter().take_while(|row| row.at(2).as_i64() == Some(-1)).count();
    let (course, trail) = rows.split_at(course);
    kept(course, trail, 2)
}

/// Writes a course, and those of its events that are not written yet.
pub(super) async fn write(
    tx: &mut DynTx,
    process: &Name,
    key: &Arc<str>,
    kept: &Kept,
    now: Wall,
) -> Result<(), SqlError> {
    let state = serde_json::to_string(&kept.course).map_err(|cause| SqlError::Failed { what: cause.to_string() })?;
    let sql = "INSERT INTO quorate_process_course (process, course, standing, first_at, updated_at, due, state)
        VALUES ($1, $2, $3, $4, $5, $6, $7)
        ON CONFLICT (process, course) DO UPDATE SET standing = $3, updated_at = $5, due = $6, state = $7";
    let due = kept.course.due_nanos().map_or(Sql::Null, Sql::Integer);
    let standing = kept.course.standing.word();
    let (first, now) = (kept.first_at.unix_nanos(), now.unix_nanos());
    let row = [process.into(), key.clone().into(), standing.into(), first.into(), now.into(), due, state.into()];
    tx.room_execute(sql, &row).await?;
    for seen in kept.trail.iter().skip(kept.written) {
        let sql = "INSERT INTO quorate_process_event (process, course, position, source, id, type, stream, causation, depth, at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
        let row = [
            process.into(),
            key.clone().into(),
            number(seen.position.get()),
            seen.source.clone().into(),
            seen.id.clone().into(),
            seen.kind.clone().into(),
            seen.stream.clone().into(),
            seen.causation.clone().into(),
            seen.depth.into(),
            seen.at.unix_nanos().into(),
        ];
        tx.room_execute(sql, &row).await?;
    }
    Ok(())
}

/// Courses of which something is due by `now`, the earliest first.
pub(super) async fn due(tx: &mut DynTx, process: &Name, now: Wall, limit: i64) -> Result<Vec<Arc<str>>, SqlError> {
    let sql = "SELECT course FROM quorate_process_course WHERE process = $1 AND due <= $2 ORDER BY due LIMIT $3";
    let rows = tx.room_query(sql, &[process.into(), now.unix_nanos().into(), limit.into()]).await?;
    rows.iter().map(|row| text(row, 0)).collect()
}

/// When something is due next.
pub(super) async fn next_due(store: &Store, process: &Name) -> Result<Option<Wall>, SqlError> {
    let sql = "SELECT due FROM quorate_process_course WHERE process = $1 AND due IS NOT NULL ORDER BY due LIMIT 1";
    let rows = store.room_query(sql, vec![process.into()]).await?;
    rows.first().map(|row| Ok(Wall::from_unix_nanos(integer(row, 0)?))).transpose()
}

/// Forgets at most `limit` courses that have ended, were undone, or never began, and that nothing has happened to since `before`. How many.
/// Stopped ones wait for somebody who has them go on.
pub(super) async fn sweep(tx: &mut DynTx, process: &Name, before: Wall, limit: i64) -> Result<u64, SqlError> {
    const OLD: &str = "(SELECT course FROM quorate_process_course WHERE process = $1 AND updated_at < $2
        AND standing IN ('ended', 'undone', 'unbegun') ORDER BY course LIMIT $3)";
    let row = [process.into(), before.unix_nanos().into(), limit.into()];
    for table in ["quorate_process_event", "quorate_process_course"] {
        let sql = format!("DELETE FROM {table} WHERE process = $1 AND course IN {OLD}");
        let swept = tx.room_execute(&sql, &row).await?;
        if table == "quorate_process_course" {
            return Ok(swept);
        }
    }
    Ok(0)
}

/// A line of a listing.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// What the course is found by.
    pub key: Arc<str>,
    /// How it stands.
    pub standing: Standing,
    /// When its first event was taken in, and when the last thing happened to it.
    pub first_at: Wall,
    /// See above.
    pub updated_at: Wall,
    /// When something is due next.
    pub due: Option<Wall>,
}

pub(super) async fn list(
    store: &Store,
    process: &Name,
    standing: Option<Standing>,
    after: &str,
    limit: i64,
) -> Result<Vec<Summary>, SqlError> {
    let mut sql = String::from(
        "SELECT course, standing, first_at, updated_at, due FROM quorate_process_course WHERE process = $1 AND course > $2",
    );
    let mut row = vec![process.into(), after.into(), limit.into()];
    if let Some(standing) = standing {
        sql.push_str(" AND standing = $4");
        row.push(standing.word().into());
    }
    sql.push_str(" ORDER BY course LIMIT $3");
    let rows = store.room_query(&sql, row).await?;
    let read = |row: &Row| {
        let standing = Standing::named(&text(row, 1)?).ok_or_else(|| corrupt("a standing is none"))?;
        let wall = |n| Ok::<_, SqlError>(Wall::from_unix_nanos(integer(row, n)?));
        let due = row.at(4).as_i64().map(Wall::from_unix_nanos);
        Ok(Summary { key: text(row, 0)?, standing, first_at: wall(2)?, updated_at: wall(3)?, due })
    };
    rows.iter().map(read).collect()
}

/// How many courses stand how, of `standings`; those of which there is none are left out. Of each at most one more than [`Processes::MAX_COUNTED`] are counted: a query
/// has its time.
pub(super) async fn census(
    store: &Store,
    process: &Name,
    standings: &[Standing],
) -> Result<Vec<(Standing, u64)>, SqlError> {
    let count = |standing: &Standing| {
        let word = standing.word();
        format!(
            "(SELECT count(*) FROM (SELECT 1 FROM quorate_process_course WHERE process = $1 AND standing = '{word}' LIMIT $2) AS counted)"
        )
    };
    let counts: Vec<String> = standings.iter().map(count).collect();
    let row = vec![process.into(), number(Processes::MAX_COUNTED + 1)];
    let rows = store.room_query(&format!("SELECT {}", counts.join(", ")), row).await?;
    let Some(row) = rows.first() else { return Err(corrupt("a count is missing").into()) };
    let read = |(n, standing): (usize, &Standing)| Ok((*standing, integer(row, n)?.cast_unsigned()));
    let all: Result<Vec<(Standing, u64)>, SqlError> = standings.iter().enumerate().map(read).collect();
    Ok(all?.into_iter().filter(|(_, count)| *count > 0).collect())
}

#[cfg(test)]
mod tests;
