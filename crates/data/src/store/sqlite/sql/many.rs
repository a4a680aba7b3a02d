//! Many statements at once, of which a few are run again and again: each is found and made ready once.

use rusqlite::{CachedStatement, Connection};

use super::{Bound, Guard, columns, count, drain, mark, sql_error};
use crate::store::{Limits, Row, Scope, SqlError, Step, Value, sqlite::heap};

/// Statements that are held ready at once. Where there are more, those that are used less often than others are looked up again.
const MOST: usize = 64;

/// A statement that is ready.
struct Ready<'c> {
    statement: CachedStatement<'c>,
    /// Which value stands in each of its places.
    places: Vec<usize>,
}

impl<'c> Ready<'c> {
    fn new(connection: &'c Connection, sql: &str, scope: Scope) -> Result<Self, SqlError> {
        let statement = connection.prepare_cached(&mark(scope, sql)).map_err(sql_error)?;
        let place = |index| {
            let name = statement.parameter_name(index).unwrap_or("?");
            let number = name.strip_prefix('$').and_then(|name| name.parse::<usize>().ok()?.checked_sub(1));
            number.ok_or_else(|| no_value(name))
        };
        let places = (1..=statement.parameter_count()).map(place).collect::<Result<_, _>>()?;
        Ok(Self { statement, places })
    }

    fn bind(&mut self, params: &[Value]) -> Result<(), SqlError> {
        for (index, place) in self.places.iter().enumerate() {
            let value = params.get(*place).ok_or_else(|| no_value(&format!("${}", place + 1)))?;
            self.statement.raw_bind_parameter(index + 1, Bound(value)).map_err(sql_error)?;
        }
        Ok(())
    }

    fn execute(&mut self, params: &[Value]) -> Result<u64, SqlError> {
        self.bind(params)?;
        if self.statement.column_count() > 0 {
            return count(&mut self.statement);
        }
        self.statement.raw_execute().map(|rows| rows as u64).map_err(sql_error)
    }
}

fn no_value(name: &str) -> SqlError {
    SqlError::Failed { what: format!("no value was given for parameter {name}") }
}

/// Runs `steps` in order, up to the first that fails; `at` is the number of the one that was run last.
pub(in super::super) fn execute_all(
    connection: &Connection,
    guard: &Guard,
    steps: &[Step<'_>],
    scope: Scope,
    at: &mut usize,
) -> Result<(), SqlError> {
    let _held = guard.hold(scope);
    let mut known: Vec<(&str, Ready<'_>)> = Vec::new();
    for (n, Step { sql, params }) in steps.iter().enumerate() {
        *at = n;
        heap::capped(Limits::VIEW_STATEMENT_BYTES, || {
            let found = known.iter().position(|(text, _)| std::ptr::eq(*text, *sql) || text == sql);
            let place = match found {
                Some(place) => place,
                None => {
                    if known.len() == MOST {
                        known.clear();
                    }
                    known.push((*sql, Ready::new(connection, sql, scope)?));
                    known.len() - 1
                }
            };
            known[place].1.execute(params)
        })?;
    }
    Ok(())
}

/// The rows of one query for each list of parameters, in order; each within the limits of a query.
pub(in super::super) fn query_all(
    connection: &Connection,
    guard: &Guard,
    (sql, params): (&str, &[Vec<Value>]),
    scope: Scope,
    limits: &Limits,
) -> Result<Vec<Vec<Row>>, SqlError> {
    let _held = guard.hold(scope);
    heap::capped(Limits::VIEW_STATEMENT_BYTES, || {
        let mut ready = Ready::new(connection, sql, scope)?;
        // Once for all: nothing changes the tables in between.
        let columns = columns(&ready.statement);
        let one = |params: &Vec<Value>| {
            ready.bind(params)?;
            drain(&mut ready.statement, &columns, limits.query_rows, limits.answer_bytes(scope))
        };
        params.iter().map(one).collect()
    })
}
