//! The embedded store as one that is left: see [`moving`](crate::store::moving).
//!
//! Its lock is held from the first look to the end, so that nobody writes meanwhile. What it says in the end is one table and
//! the version of the file, in one transaction.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use quorate_runtime::{BoxFuture, Env, disk::Lock};
use rusqlite::{Connection, types::ValueRef};

use super::{
    Config,
    connection::{corrupt, failed},
    core::Core,
    open::{begin, canonical, clear_restore, has_bytes, take_lock},
    shared,
    sql::{self, CORE},
    tables, verify,
};
use crate::{
    event::Recorded,
    materialized_view::TABLE_PREFIX,
    store::{
        Progress, StoreError, Value, Verified,
        moving::{self, Answer, Column, Gone, Leaving, MoveError, Place, Shape, Standing, TableSum},
        rooms::room_sum,
    },
};

const READING: &str = "reading the store that moves";
const LEAVING: &str = "leaving the store";

/// The store that is left.
pub(in crate::store) struct SqliteLeaving {
    env: Env,
    standing: Standing,
    left: Arc<Mutex<Left>>,
}

struct Left {
    core: Core,
    gone: Option<Gone>,
    /// The table that is being read.
    reading: Option<Reading>,
    /// Held until the connection is closed.
    _lock: Box<dyn Lock>,
}

struct Reading {
    shape: Shape,
    /// What rows are told apart by, in their order: the primary key, or the number that SQLite gives them.
    keys: Vec<String>,
    last: Option<Vec<Value>>,
}

/// Opens the store at `path` to leave it, or to go on with that.
pub(in crate::store) async fn leave(env: &Env, path: PathBuf) -> Result<SqliteLeaving, MoveError> {
    let of_work = env.clone();
    let opened = env.run_blocking(move || open(&of_work, path)).await?;
    let standing = {
        let timeline = opened.core.shared.timeline;
        Standing { timeline, gone: tables::gone(&opened.core.connection)? }
    };
    Ok(SqliteLeaving { env: env.clone(), standing, left: Arc::new(Mutex::new(opened)) })
}

fn open(env: &Env, path: PathBuf) -> Result<Left, MoveError> {
    let path = canonical(env, &path)?;
    if !has_bytes(env, &path)? {
        return Err(moving::absent(&Place::Embedded(path)));
    }
    let lock = take_lock(env, &path)?;
    clear_restore(&**env.disk(), &path)?;
    let mut core = begin(env.clone(), Config::at(path), None, tables::prepare_though_moved)?;
    // What the index says of streams is what they are.
    core.flush()?;
    Ok(Left { core, gone: None, reading: None, _lock: lock })
}

impl SqliteLeaving {
    fn on<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Left) -> Result<T, MoveError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, MoveError>> {
        let (env, left) = (self.env.clone(), self.left.clone());
        let work = move || work(&mut left.lock().unwrap_or_else(PoisonError::into_inner));
        Box::pin(async move { env.run_blocking(work).await })
    }
}

impl Leaving for SqliteLeaving {
    fn standing(&self) -> Standing {
        self.standing.clone()
    }

    fn obstacles(&mut self) -> Answer<'_, Vec<String>> {
        self.on(|left| Ok(obstacles(&left.core.connection).map_err(failed(READING))?))
    }

    fn head(&mut self) -> Answer<'_, u64> {
        self.on(|left| Ok(left.core.shared.tail().published()))
    }

    fn events(&mut self, after: u64) -> Answer<'_, Vec<Recorded>> {
        self.on(move |left| Ok(events(&left.core.connection, after)?))
    }

    fn rooms(&mut self) -> Answer<'_, Vec<(String, u64)>> {
        self.on(|left| Ok(rooms(&left.core.connection)?))
    }

    fn tables(&mut self) -> Answer<'_, Vec<Shape>> {
        self.on(|left| Ok(shapes(&left.core.connection).map_err(failed(READING))?))
    }

    fn is_empty<'a>(&'a mut self, table: &'a Shape) -> Answer<'a, bool> {
        let sql = format!("SELECT NOT EXISTS (SELECT 1 FROM \"{}\")", table.name);
        self.on(move |left| Ok(left.core.connection.query_row(&sql, [], |row| row.get(0)).map_err(failed(READING))?))
    }

    fn hold(&mut self, gone: Gone, _: Vec<&'static str>) -> Answer<'_, ()> {
        let was_left = self.standing.gone.is_some();
        self.on(move |left| {
            if !was_left {
                left.gone = Some(gone);
            }
            Ok(())
        })
    }

    fn streams(&mut self) -> Answer<'_, TableSum> {
        self.on(|left| Ok(streams(&left.core.connection).map_err(failed(READING))?))
    }

    fn read<'a>(&'a mut self, table: &'a Shape) -> Answer<'a, ()> {
        let shape = table.clone();
        self.on(move |left| {
            let keys = keys(&left.core.connection, &shape).map_err(failed(READING))?;
            left.reading = Some(Reading { shape, keys, last: None });
            Ok(())
        })
    }

    fn rows(&mut self) -> Answer<'_, Vec<Vec<Value>>> {
        self.on(|left| {
            let Some(reading) = &mut left.reading else { return Ok(Vec::new()) };
            Ok(rows(&left.core.connection, reading)?)
        })
    }

    fn leave(&mut self) -> Answer<'_, ()> {
        self.on(|left| {
            let Some(gone) = left.gone.take() else { return Ok(()) };
            left.core.begin()?;
            tables::go(&left.core.connection, &gone).map_err(failed(LEAVING))?;
            Ok(left.core.make_durable(LEAVING)?)
        })
    }

    fn verify(&mut self, progress: Progress) -> Answer<'_, Verified> {
        self.on(move |left| Ok(verify::run_without_keys(&left.core.connection, &progress)?.0))
    }
}

fn names(connection: &Connection, sql: &str) -> rusqlite::Result<Vec<String>> {
    connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
}

/// What no room says anything of.
fn obstacles(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    const KEPT: &str = "SELECT name FROM quorate_stream WHERE tombstoned <> 0 OR first > 1 OR max_count > 0 OR max_age > 0
        OR metadata > 0 UNION SELECT stream FROM quorate_retiring UNION SELECT stream FROM quorate_archive ORDER BY 1 LIMIT 4";
    const OTHERS: &str = "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view', 'trigger') AND sql IS NOT NULL
        AND name NOT LIKE 'quorate@_%' ESCAPE '@' AND name NOT LIKE 'sqlite@_%' ESCAPE '@' ORDER BY 1";
    const SEALED: &str = "SELECT EXISTS (SELECT 1 FROM quorate_erasure)
        OR EXISTS (SELECT 1 FROM quorate_meta WHERE key = 'sealed' AND value <> 0)";
    let mut found = Vec::new();
    let kept = names(connection, KEPT)?;
    if !kept.is_empty() {
        found.push(format!(
            "streams with metadata, or that were truncated, archived or closed, which are not carried over yet: {}",
            some(kept)
        ));
    }
    if connection.query_row(SEALED, [], |row| row.get(0))? {
        found.push("data of data subjects, sealed with keys of theirs, which PostgreSQL does not hold yet".to_owned());
    }
    let mut others = names(connection, OTHERS)?;
    // What a view keeps is built again, and its room says whether it can be.
    others.retain(|name| !name.starts_with(TABLE_PREFIX));
    if !others.is_empty() {
        found.push(format!("tables of the application, which has to carry them over by itself: {}", some(others)));
    }
    Ok(found)
}

/// The first of them, for people.
fn some(mut names: Vec<String>) -> String {
    let more = names.len() > 3;
    names.truncate(3);
    let named = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if more { format!("{named} and more") } else { named }
}

fn events(connection: &Connection, after: u64) -> Result<Vec<Recorded>, StoreError> {
    const BLOCKS: &str = "SELECT first, body FROM quorate_block WHERE first >= coalesce(
        (SELECT max(first) FROM quorate_block WHERE first <= ?1), 0) ORDER BY first";
    let mut select = connection.prepare_cached(BLOCKS).map_err(failed(READING))?;
    let mut rows = select.query([(after + 1).cast_signed()]).map_err(failed(READING))?;
    let (mut events, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next().map_err(failed(READING))? {
        let (first, body): (i64, Vec<u8>) =
            (row.get(0).map_err(failed(READING))?, row.get(1).map_err(failed(READING))?);
        for event in shared::check(first, body.into())?.events() {
            let event = event.map_err(|what| corrupt(format!("quorate_block, row {first}"), what))?;
            if event.position().get() > after {
                bytes += event.bytes().len();
                events.push(event);
            }
        }
        if events.len() >= moving::PAGE || bytes >= moving::PAGE_BYTES {
            break;
        }
    }
    Ok(events)
}

fn rooms(connection: &Connection) -> Result<Vec<(String, u64)>, StoreError> {
    const ROOMS: &str = "SELECT room, version, sum FROM quorate_room ORDER BY room";
    let mut select = connection.prepare_cached(ROOMS).map_err(failed(READING))?;
    let mut rows = select.query([]).map_err(failed(READING))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(failed(READING))? {
        let read = || Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
        let (room, version, sum) = read().map_err(failed(READING))?;
        if sum != room_sum(&room, version) {
            return Err(corrupt(format!("quorate_room, row `{room}`"), "the checksum does not match"));
        }
        found.push((room, version.cast_unsigned()));
    }
    Ok(found)
}

fn shapes(connection: &Connection) -> rusqlite::Result<Vec<Shape>> {
    const TABLES: &str =
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'quorate@_%' ESCAPE '@' ORDER BY name";
    let mut tables = names(connection, TABLES)?;
    tables.retain(|name| !CORE.contains(&&**name) && !["quorate_room", "quorate_moved"].contains(&&**name));
    let mut columns = connection.prepare("SELECT name FROM pragma_table_info(?1) ORDER BY cid")?;
    let mut shape = |name: String| {
        let read = |row: &rusqlite::Row<'_>| Ok(Column { name: row.get(0)? });
        let columns = columns.query_map([&name], read)?.collect::<rusqlite::Result<_>>()?;
        Ok(Shape { name, columns })
    };
    tables.into_iter().map(&mut shape).collect()
}

/// What rows of a table are told apart by: SQLite numbers them, unless the table is one without these numbers.
fn keys(connection: &Connection, shape: &Shape) -> rusqlite::Result<Vec<String>> {
    let numbered: bool = connection.query_row(
        "SELECT NOT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?1",
        [&shape.name],
        |row| row.get(0),
    )?;
    if numbered {
        return Ok(vec!["rowid".to_owned()]);
    }
    let keys = "SELECT '\"' || name || '\"' FROM pragma_table_info(?1) WHERE pk > 0 ORDER BY pk";
    connection.prepare(keys)?.query_map([&shape.name], |row| row.get(0))?.collect()
}

fn rows(connection: &Connection, reading: &mut Reading) -> Result<Vec<Vec<Value>>, StoreError> {
    let Reading { shape, keys, last } = reading;
    let listed = keys.join(", ");
    let behind = last.as_ref().map_or_else(String::new, |last| {
        let params = (1..=last.len()).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ");
        format!("WHERE ({listed}) > ({params})")
    });
    let sql = format!("SELECT {}, {listed} FROM \"{}\" {behind} ORDER BY {listed}", shape.list(), shape.name);
    let mut select = connection.prepare_cached(&sql).map_err(failed(READING))?;
    if let Some(last) = last {
        sql::bind(&mut select, last).map_err(|cause| corrupt(shape.name.as_str(), cause))?;
    }
    let (width, mut bytes, mut found) = (shape.columns.len(), 0, Vec::new());
    let mut rows = select.raw_query();
    while found.len() < moving::PAGE && bytes < moving::PAGE_BYTES {
        let Some(row) = rows.next().map_err(failed(READING))? else { break };
        let mut values = Vec::with_capacity(width + keys.len());
        for n in 0..width + keys.len() {
            let read = row.get_ref(n).map_err(failed(READING))?;
            bytes += sql::size(read);
            values.push(exactly(read).ok_or_else(|| corrupt(shape.name.as_str(), "a text of it is not UTF-8"))?);
        }
        *last = Some(values.split_off(width));
        found.push(values);
    }
    Ok(found)
}

/// A value as it is; `None` where that cannot be said.
fn exactly(value: ValueRef<'_>) -> Option<Value> {
    match value {
        ValueRef::Text(text) => std::str::from_utf8(text).ok().map(|text| Value::Text(text.into())),
        other => Some(sql::value(other)),
    }
}

/// What `table` holds.
pub(super) fn sum(connection: &Connection, table: &Shape) -> Result<TableSum, StoreError> {
    let keys = keys(connection, table).map_err(failed(READING))?;
    let mut reading = Reading { shape: table.clone(), keys, last: None };
    let mut sum = TableSum::default();
    loop {
        let rows = rows(connection, &mut reading)?;
        if rows.is_empty() {
            return Ok(sum);
        }
        rows.iter().for_each(|row| sum.add(row));
    }
}

/// The streams, of which all events are indexed.
pub(super) fn streams(connection: &Connection) -> rusqlite::Result<TableSum> {
    let mut sum = TableSum::default();
    let mut select = connection.prepare("SELECT name, version, hash FROM quorate_stream WHERE version > 0")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (name, version, hash): (String, i64, Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        sum.add(&[Value::Text(name.into()), Value::Integer(version), Value::Blob(hash.into())]);
    }
    Ok(sum)
}

impl Drop for SqliteLeaving {
    /// Leaves the file whole where that is quickly done; else the next opening does it.
    fn drop(&mut self) {
        if let Ok(mut left) = self.left.try_lock() {
            left.core.empty_log();
        }
    }
}
