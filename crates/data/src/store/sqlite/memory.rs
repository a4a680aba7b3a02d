//! A database in memory, with the tables of one build of a view: to try statements out where nobody waits for them.

use quorate_foundations::time::Mono;
use quorate_runtime::Env;
use rusqlite::Connection;

use super::{
    connection::failed,
    sql::{self, Guard},
    vfs,
};
use crate::{
    materialized_view::Build,
    store::{Limits, Row, Scope, SqlError, StoreError, Value},
};

/// A database in memory, under the same authorizer as the store. Everything it does takes the thread that asks for it.
pub(crate) struct Memory {
    connection: Connection,
    guard: Guard,
    build: Build,
    limits: Limits,
}

impl Memory {
    /// A database for the tables of `build`, with at most `bytes` of them. What runs beyond `deadline` is interrupted.
    pub(crate) fn open(
        env: &Env,
        build: Build,
        limits: &Limits,
        bytes: usize,
        deadline: Mono,
    ) -> Result<Self, StoreError> {
        const PAGE: usize = 4096;
        let wrong = || failed("opening a database in memory");
        // SQLite must not open anything before our file system is there.
        vfs::name().map_err(wrong())?;
        let mut connection = Connection::open_in_memory().map_err(wrong())?;
        let set = format!(
            "PRAGMA page_size = {PAGE}; PRAGMA max_page_count = {}; PRAGMA temp_store = MEMORY;
             PRAGMA trusted_schema = OFF; PRAGMA foreign_keys = ON;",
            (bytes / PAGE).max(1)
        );
        connection.execute_batch(&set).map_err(wrong())?;
        super::connection::bound_values(&connection, limits).map_err(wrong())?;
        let env = env.clone();
        let guard = Guard::watch(&mut connection).map_err(wrong())?;
        guard.interrupt_when(Some(move || env.mono() > deadline));
        Ok(Self { connection, guard, build, limits: limits.clone() })
    }

    /// Makes a table or an index.
    pub(crate) fn schema(&self, sql: &str) -> Result<(), SqlError> {
        sql::execute(&self.connection, &self.guard, sql, &[], Scope::ViewSchema(self.build)).map(|_| ())
    }

    /// Whether the engine understands a statement, and would run it.
    pub(crate) fn prepare(&self, sql: &str) -> Result<(), SqlError> {
        sql::prepare(&self.connection, &self.guard, sql, Scope::View(self.build))
    }

    /// Runs a statement and returns the number of rows it changed.
    pub(crate) fn execute(&self, sql: &str, params: &[Value]) -> Result<u64, SqlError> {
        sql::execute(&self.connection, &self.guard, sql, params, Scope::View(self.build))
    }

    /// The rows of a query.
    pub(crate) fn query(&self, sql: &str, params: &[Value]) -> Result<Vec<Row>, SqlError> {
        sql::query(&self.connection, &self.guard, sql, params, Scope::View(self.build), &self.limits)
    }
}
