//! Inquiries: statements of readers, on connections of their own, watched while they run.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, Ordering},
};

use quorate_runtime::Env;
use rusqlite::{Connection, Statement as Prepared, config::DbConfig, limits::Limit};

use super::{
    connection::failed,
    heap,
    shared::{Reader, Shared},
    sql,
};
use crate::store::{Bound, Bounds, Findings, Found, Inquiry, Row, Scope, SqlError, Statement, StoreError, TableColumn};

/// What a reader's statement may be like, beside its bounds.
const SHAPE: [(Limit, i32); 7] = [
    (Limit::SQLITE_LIMIT_SQL_LENGTH, 1 << 20),
    (Limit::SQLITE_LIMIT_EXPR_DEPTH, 200),
    (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 100),
    (Limit::SQLITE_LIMIT_VDBE_OP, 100_000),
    (Limit::SQLITE_LIMIT_ATTACHED, 0),
    (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 256),
    (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
];

/// Bounds the shape of statements on a connection for inquiries.
pub(super) fn restrict(connection: &Connection) -> rusqlite::Result<()> {
    for (limit, most) in SHAPE {
        connection.set_limit(limit, most)?;
    }
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    // A misspelt column in double quotes is an error, and no text.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    Ok(())
}

/// Says that whoever asked has gone.
#[derive(Clone, Default)]
pub(super) struct Gone(Arc<AtomicBool>);

impl Gone {
    fn is_so(&self) -> bool {
        // Ordering: nothing is read because of it.
        self.0.load(Ordering::Relaxed)
    }
}

/// Lives as long as somebody waits for the answer.
pub(super) struct Waiting(pub(super) Gone);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// Answers an inquiry as of the moment that `reader` sees.
pub(super) fn run(
    env: &Env,
    shared: &Shared,
    reader: &mut Reader,
    inquiry: &Inquiry,
    gone: &Gone,
) -> Result<Findings, SqlError> {
    let mut room = Vec::with_capacity(inquiry.room.len());
    for Statement { sql, params } in &inquiry.room {
        room.push(sql::query(&reader.connection, &reader.guard, sql, params, Scope::Room, &shared.limits)?);
    }
    let own = inquiry.own.as_ref().map(|statement| watched(env, reader, statement, inquiry, gone));
    Ok(Findings { room, own: own.transpose()? })
}

/// Why a statement was interrupted.
const TIME: u8 = 1;
const MEMORY: u8 = 2;

fn watched(
    env: &Env,
    reader: &mut Reader,
    statement: &Statement,
    inquiry: &Inquiry,
    gone: &Gone,
) -> Result<Found, SqlError> {
    let Inquiry { bounds, scope, .. } = inquiry;
    reader.guard.learn(&reader.connection)?;
    let reason = Arc::new(AtomicU8::new(0));
    let (deadline, most) = (env.mono() + bounds.time, i64::try_from(bounds.memory).unwrap_or(i64::MAX));
    let (before, clock, told, asker) = (heap::held(), env.clone(), reason.clone(), gone.clone());
    let enough = move || {
        let why = if heap::held().saturating_sub(before) > most {
            MEMORY
        } else if clock.mono() > deadline || asker.is_so() {
            TIME
        } else {
            return false;
        };
        // Ordering: read by this very thread, once the statement has ended.
        told.store(why, Ordering::Relaxed);
        true
    };
    reader.interrupt_when(Some(enough));
    // What one step takes, nobody is asked about before it has it: the allocator itself says no.
    let capped = heap::Capped::at(before.saturating_add(most));
    let found = reader.guard.run_once(&reader.connection, &statement.sql, *scope, |prepared| {
        sql::bind(prepared, &statement.params)?;
        let places = (1..=prepared.parameter_count())
            .filter_map(|n| prepared.parameter_name(n)?.strip_prefix('$')?.parse().ok());
        let (places, given) = (places.max().unwrap_or(0_usize), statement.params.len());
        if given > places {
            return Err(SqlError::Failed {
                what: format!("{given} values were given, and the statement has places for {places}"),
            });
        }
        collect(prepared, bounds)
    });
    reader.interrupt_when(None::<fn() -> bool>);
    if capped.refused() {
        reason.store(MEMORY, Ordering::Relaxed);
    }
    match (found, reason.load(Ordering::Relaxed)) {
        (Err(_), TIME) => Err(SqlError::Exceeded(Bound::Time(bounds.time))),
        (Err(_), MEMORY) => Err(SqlError::Exceeded(Bound::Memory(bounds.memory))),
        (found, _) => found,
    }
}

/// Takes rows until there is no more, or no room for more.
fn collect(statement: &mut Prepared<'_>, bounds: &Bounds) -> Result<Found, SqlError> {
    let columns: Arc<[Arc<str>]> = statement.column_names().map(Arc::from).collect();
    let mut rows = statement.raw_query();
    let mut found = Found { columns: columns.clone(), rows: Vec::new(), cut: None };
    let mut bytes = 0;
    while let Some(row) = rows.next().map_err(sql::sql_error)? {
        if found.rows.len() >= bounds.rows {
            found.cut = Some(Bound::Rows(bounds.rows));
            break;
        }
        let read = || (0..columns.len()).map(|n| row.get_ref(n));
        bytes += read().map(|value| value.map(sql::size)).sum::<Result<usize, _>>().map_err(sql::sql_error)?;
        if bytes > bounds.bytes {
            found.cut = Some(Bound::Bytes(bounds.bytes));
            break;
        }
        let values = read().map(|read| read.map(sql::value)).collect::<Result<_, _>>().map_err(sql::sql_error)?;
        found.rows.push(Row { columns: columns.clone(), values });
    }
    Ok(found)
}

/// The columns of a table.
pub(super) fn columns(connection: &Connection, table: &str) -> Result<Vec<TableColumn>, StoreError> {
    const READING: &str = "reading a table's columns";
    let mut select = connection
        .prepare_cached("SELECT name, type, pk FROM pragma_table_info(?1) ORDER BY cid")
        .map_err(failed(READING))?;
    let columns = select.query_map([table], |row| {
        let key: u32 = row.get(2)?;
        Ok(TableColumn { name: row.get(0)?, declared: row.get(1)?, key: (key > 0).then_some(key) })
    });
    columns.map_err(failed(READING))?.collect::<Result<_, _>>().map_err(failed(READING))
}
