//! The application's statements: what they may do, and values in and out.

mod many;
mod view;

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use rusqlite::{
    Connection, Statement,
    hooks::{AuthAction, AuthContext, Authorization},
    types::{ToSqlOutput, ValueRef},
};

pub(super) use many::{execute_all, query_all};

use super::{
    connection::{constraint, failed},
    functions::{self, Watch},
    heap,
};
use crate::{
    materialized_view::{Build, TABLE_PREFIX},
    store::{Limits, Row, Scope, SqlError, StoreError, Value},
};

const OWN: u64 = 0;

/// A scope as the guard holds it: the kind in the low byte, the build of a view above it.
fn code(scope: Scope) -> u64 {
    match scope {
        Scope::Room => 1,
        Scope::Application => 2,
        Scope::View(build) => 3 | u64::from(build.get()) << 8,
        Scope::ViewSchema(build) => 4 | u64::from(build.get()) << 8,
        Scope::ViewRead(build) => 5 | u64::from(build.get()) << 8,
    }
}

fn scope(code: u64) -> Option<Scope> {
    let build = Build::new(u32::try_from(code >> 8).unwrap_or_default());
    match code & 0xff {
        1 => Some(Scope::Room),
        2 => Some(Scope::Application),
        3 => Some(Scope::View(build)),
        4 => Some(Scope::ViewSchema(build)),
        5 => Some(Scope::ViewRead(build)),
        _ => None,
    }
}

/// What stands before a statement in the cache of prepared ones.
fn mark(scope: Scope, sql: &str) -> String {
    match scope {
        Scope::Application => format!("/*application*/{sql}"),
        Scope::Room => format!("/*room*/{sql}"),
        Scope::View(build) => format!("/*view {build}*/{sql}"),
        Scope::ViewSchema(build) => format!("/*view schema {build}*/{sql}"),
        Scope::ViewRead(build) => format!("/*view read {build}*/{sql}"),
    }
}

/// Says whose statement is being prepared; SQLite's authorizer asks it.
#[derive(Clone, Default)]
pub(super) struct Guard {
    scope: Arc<AtomicU64>,
    /// What a name of a table that a reader asks for must not be, unless it is the view's: see [`Guard::learn`].
    tables: Arc<Mutex<view::Tables>>,
    watch: Watch,
}

impl Guard {
    /// Interrupts statements of the connection once `enough` says so, in the middle of a function as well; `None` lets them run.
    pub(super) fn interrupt_when<F: FnMut() -> bool + Send + 'static>(&self, enough: Option<F>) {
        self.watch.set(enough);
    }

    /// A guard that watches over `connection`.
    pub(super) fn watch(connection: &mut Connection) -> rusqlite::Result<Self> {
        let guard = Self { watch: functions::install(connection)?, ..Self::default() };
        let asked = guard.clone();
        connection.authorizer(Some(move |context: AuthContext<'_>| {
            // Ordering: only the thread that prepares statements reads and writes the scope.
            let allowed = match scope(asked.scope.load(Ordering::Relaxed)) {
                None => true,
                Some(Scope::View(build)) => view::allows_rows(build, &context),
                Some(Scope::ViewSchema(build)) => view::allows_schema(build, &context),
                Some(Scope::ViewRead(build)) => {
                    view::allows_reading(build, &context, &asked.tables.lock().unwrap_or_else(PoisonError::into_inner))
                }
                Some(scope) => allows(scope, &context),
            };
            if allowed { Authorization::Allow } else { Authorization::Deny }
        }))?;
        Ok(guard)
    }

    /// Prepares `sql` in `scope` and lets `run` step through it. The cache never confuses scopes: each has a mark of its
    /// own before its text.
    ///
    /// The scope holds until the statement has ended: when tables changed since it was prepared, SQLite prepares it again
    /// as it begins to run, and what was harmless then may reach further now.
    fn run<T>(
        &self,
        connection: &Connection,
        sql: &str,
        scope: Scope,
        run: impl FnOnce(&mut Statement<'_>) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        if scope == Scope::Application && renames_to_reserved(sql) {
            let what = format!("rename anything to a name that begins with quorate_ or {TABLE_PREFIX}");
            return Err(SqlError::Refused { what });
        }
        let _held = self.hold(scope);
        let stepped = || run(&mut *connection.prepare_cached(&mark(scope, sql)).map_err(sql_error)?);
        // A stranger may have written it, and appends wait for it: what it takes is refused to it, and not to whoever is next.
        if matches!(scope, Scope::View(_)) { heap::capped(Limits::VIEW_STATEMENT_BYTES, stepped) } else { stepped() }
    }

    /// As [`run`](Self::run), for a statement that is not kept, of which there is one and which changes nothing.
    pub(super) fn run_once<T>(
        &self,
        connection: &Connection,
        sql: &str,
        scope: Scope,
        run: impl FnOnce(&mut Statement<'_>) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        let _held = self.hold(scope);
        let mut statement = connection.prepare(sql).map_err(sql_error)?;
        if !statement.readonly() {
            return Err(SqlError::Refused { what: "change anything".to_owned() });
        }
        run(&mut statement)
    }

    /// Learns which tables there are, unless nothing changed since the last time: a reader's statement is prepared next.
    pub(super) fn learn(&self, connection: &Connection) -> Result<(), StoreError> {
        self.tables
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .learn(connection)
            .map_err(failed("reading the schema"))
    }

    fn hold(&self, scope: Scope) -> Held<'_> {
        self.scope.store(code(scope), Ordering::Relaxed);
        Held(self)
    }
}

/// A scope that ends when this is dropped.
struct Held<'g>(&'g Guard);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.scope.store(OWN, Ordering::Relaxed);
    }
}

/// The authorizer is not told new names; no statement of an application has another reason for these words together.
fn renames_to_reserved(sql: &str) -> bool {
    let sql = sql.to_ascii_lowercase();
    ["alter", "rename"].iter().all(|word| sql.contains(word))
        && ["quorate_", TABLE_PREFIX].iter().any(|prefix| sql.contains(prefix))
}

fn allows(scope: Scope, context: &AuthContext<'_>) -> bool {
    const ROOM: Scope = Scope::Room;
    let hidden = |table: &str| table.to_ascii_lowercase().starts_with("quorate_");
    // An application reads what views hold, and leaves the writing to them.
    let reserved = |table: &str| hidden(table) || table.to_ascii_lowercase().starts_with(TABLE_PREFIX);
    match context.action {
        AuthAction::Attach { .. }
        | AuthAction::Detach { .. }
        | AuthAction::Transaction { .. }
        | AuthAction::Savepoint { .. }
        | AuthAction::CreateVtable { .. }
        | AuthAction::DropVtable { .. } => false,
        AuthAction::Pragma { .. } => false,
        AuthAction::Function { function_name } => !matches!(function_name, "load_extension" | "writefile" | "edit"),
        AuthAction::Read { table_name, .. } => scope == ROOM || !hidden(table_name),
        AuthAction::Insert { table_name }
        | AuthAction::Update { table_name, .. }
        | AuthAction::Delete { table_name }
        | AuthAction::CreateTable { table_name }
        | AuthAction::DropTable { table_name }
        | AuthAction::AlterTable { table_name, .. } => match scope {
            ROOM => !CORE.contains(&table_name.to_ascii_lowercase().as_str()),
            _ => !reserved(table_name),
        },
        AuthAction::CreateIndex { table_name, .. }
        | AuthAction::DropIndex { table_name, .. }
        | AuthAction::CreateTrigger { table_name, .. }
        | AuthAction::DropTrigger { table_name, .. } => match scope {
            ROOM => !CORE.contains(&table_name.to_ascii_lowercase().as_str()),
            _ => !reserved(table_name),
        },
        AuthAction::CreateView { view_name } | AuthAction::DropView { view_name } => {
            scope == ROOM || !reserved(view_name)
        }
        AuthAction::Analyze { table_name } => scope == ROOM || !reserved(table_name),
        // Filling a new index is asked about as well. The indexes behind our keys are named after their tables.
        AuthAction::Reindex { index_name } => {
            let table = index_name.strip_prefix("sqlite_autoindex_").unwrap_or(index_name);
            scope == ROOM || !reserved(table)
        }
        AuthAction::CreateTempTable { .. }
        | AuthAction::CreateTempIndex { .. }
        | AuthAction::CreateTempTrigger { .. }
        | AuthAction::CreateTempView { .. } => false,
        _ => true,
    }
}

/// Tables that only the store itself writes.
pub(super) const CORE: [&str; 11] = [
    "quorate_meta",
    "quorate_block",
    "quorate_stream",
    "quorate_stream_values",
    "quorate_retiring",
    "quorate_archive",
    "quorate_stream_run",
    "quorate_term",
    "quorate_term_run",
    "quorate_event_id",
    "quorate_erasure",
];

/// Runs a statement and returns the number of rows it changed.
pub(super) fn execute(
    connection: &Connection,
    guard: &Guard,
    sql: &str,
    params: &[Value],
    scope: Scope,
) -> Result<u64, SqlError> {
    guard.run(connection, sql, scope, |statement| {
        bind(statement, params)?;
        if statement.column_count() > 0 {
            return count(statement);
        }
        statement.raw_execute().map(|rows| rows as u64).map_err(sql_error)
    })
}

/// Whether a statement can be prepared.
pub(super) fn prepare(connection: &Connection, guard: &Guard, sql: &str, scope: Scope) -> Result<(), SqlError> {
    guard.run(connection, sql, scope, |_| Ok(()))
}

/// Runs a statement that returns rows to its end.
fn count(statement: &mut Statement<'_>) -> Result<u64, SqlError> {
    let mut rows = statement.raw_query();
    let mut found = 0;
    while rows.next().map_err(sql_error)?.is_some() {
        found += 1;
    }
    Ok(found)
}

/// Runs a query and returns its rows, within the limits.
pub(super) fn query(
    connection: &Connection,
    guard: &Guard,
    sql: &str,
    params: &[Value],
    scope: Scope,
    limits: &Limits,
) -> Result<Vec<Row>, SqlError> {
    guard.run(connection, sql, scope, |statement| {
        bind(statement, params)?;
        let columns = columns(statement);
        drain(statement, &columns, limits.query_rows, limits.answer_bytes(scope))
    })
}

/// The names of a query's columns, which all of its rows share.
fn columns(statement: &Statement<'_>) -> Arc<[Arc<str>]> {
    statement.column_names().map(Arc::from).collect()
}

fn drain(
    statement: &mut Statement<'_>,
    columns: &Arc<[Arc<str>]>,
    max: usize,
    most: usize,
) -> Result<Vec<Row>, SqlError> {
    let mut rows = statement.raw_query();
    let (mut found, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next().map_err(sql_error)? {
        if found.len() == max {
            return Err(StoreError::TooMuch { what: "a query's rows", max, asked: max + 1 }.into());
        }
        let read = || (0..columns.len()).map(|n| row.get_ref(n));
        bytes += read().map(|value| value.map(size)).sum::<Result<usize, _>>().map_err(sql_error)?;
        // One value always fits, whatever its size: that has a limit of its own.
        let one_value = found.is_empty() && columns.len() == 1;
        if bytes > most && !one_value {
            return Err(StoreError::TooMuch { what: "a query's bytes", max: most, asked: bytes }.into());
        }
        let values = read().map(|read| read.map(value)).collect::<Result<Vec<_>, _>>().map_err(sql_error)?;
        found.push(Row { columns: columns.clone(), values });
    }
    Ok(found)
}

/// Binds `$n` to the n-th value, wherever and however often it stands.
pub(super) fn bind(statement: &mut Statement<'_>, params: &[Value]) -> Result<(), SqlError> {
    for index in 1..=statement.parameter_count() {
        let number = statement.parameter_name(index).and_then(|name| name.strip_prefix('$')?.parse::<usize>().ok());
        let Some(value) = number.and_then(|n| params.get(n.checked_sub(1)?)) else {
            let name = statement.parameter_name(index).unwrap_or("?");
            return Err(SqlError::Failed { what: format!("no value was given for parameter {name}") });
        };
        statement.raw_bind_parameter(index, Bound(value)).map_err(sql_error)?;
    }
    Ok(())
}

struct Bound<'v>(&'v Value);

impl rusqlite::ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Value::Null => ValueRef::Null,
            Value::Integer(n) => ValueRef::Integer(*n),
            Value::Real(x) => ValueRef::Real(*x),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

pub(super) fn size(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => 8,
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len().max(8),
    }
}

/// The bytes of a value that can be large.
pub(super) fn large(value: &Value) -> usize {
    match value {
        Value::Null | Value::Integer(_) | Value::Real(_) => 0,
        Value::Text(text) => text.len(),
        Value::Blob(bytes) => bytes.len(),
    }
}

pub(super) fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(n) => Value::Integer(n),
        ValueRef::Real(x) => Value::Real(x),
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into()),
        ValueRef::Blob(bytes) => Value::Blob(Bytes::copy_from_slice(bytes)),
    }
}

pub(super) fn sql_error(cause: rusqlite::Error) -> SqlError {
    use rusqlite::ffi::{ErrorCode, SQLITE_AUTH};
    if super::connection::extended_code(&cause).is_some_and(|code| code & 0xff == SQLITE_AUTH) {
        let what = match &cause {
            rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
            other => other.to_string(),
        };
        return SqlError::Refused { what: format!("do this here: {what}") };
    }
    let wrong = match &cause {
        rusqlite::Error::SqliteFailure(failure, _) => matches!(
            failure.code,
            ErrorCode::Unknown | ErrorCode::TypeMismatch | ErrorCode::TooBig | ErrorCode::ReadOnly
        ),
        // It was not SQLite that failed, but what it was given.
        _ => true,
    };
    // The statement itself is known to whoever wrote it.
    let what = match &cause {
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        other => other.to_string(),
    };
    if wrong {
        return SqlError::Failed { what };
    }
    let error = failed("running a statement")(cause);
    if constraint(&error).is_some() { SqlError::Failed { what } } else { error.into() }
}
