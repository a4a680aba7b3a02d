//! A view's tables in memory, where nobody waits for them: to try a document, and to explain a row.

use std::time::Duration;

use quorate_foundations::time::Mono;
use quorate_runtime::Env;

use super::{
    document::{Document, TableShape, quoted},
    projection::engine_says,
};
use crate::{
    event::Recorded,
    materialized_view::{Build, Namespace},
    store::{Limits, Row, SqlError, StoreError, Value, sqlite::Memory},
};

/// The build that no store has.
const NOWHERE: Build = Build::new(0);

/// A view's tables in memory.
pub(super) struct Replica {
    memory: Memory,
    namespace: Namespace,
    env: Env,
    deadline: Mono,
}

/// Why a replica could not go on.
#[derive(Debug)]
pub(super) enum ReplicaError {
    /// The event cannot be applied, or a statement is wrong.
    Refused(String),
    /// The time is up.
    TooLong,
    /// The store failed.
    Store(StoreError),
}

impl Replica {
    /// The tables of `document`, empty. They take at most `bytes`, and everything done to them ends within `time`.
    pub(super) fn new(
        env: &Env,
        document: &Document,
        limits: &Limits,
        bytes: usize,
        time: Duration,
    ) -> Result<Self, ReplicaError> {
        let deadline = env.mono() + time;
        let memory = Memory::open(env, NOWHERE, limits, bytes, deadline).map_err(ReplicaError::Store)?;
        let namespace = Namespace::new(document.view().clone(), NOWHERE);
        let replica = Self { memory, namespace, env: env.clone(), deadline };
        for statement in document.schema().statements() {
            let made = replica.memory.schema(&replica.namespace.expand(statement));
            made.map_err(|cause| replica.why(&cause, engine_says))?;
        }
        Ok(replica)
    }

    /// Whether the engine understands a statement of the document.
    pub(super) fn prepare(&self, sql: &str) -> Result<(), ReplicaError> {
        self.memory.prepare(&self.namespace.expand(sql)).map_err(|cause| self.why(&cause, engine_says))
    }

    /// Applies an event.
    pub(super) fn apply(&self, document: &Document, event: &Recorded) -> Result<(), ReplicaError> {
        if self.env.mono() > self.deadline {
            return Err(ReplicaError::TooLong);
        }
        for change in document.changes(event).map_err(ReplicaError::Refused)? {
            let statement = document.statement(&change);
            let done = self.memory.execute(&self.namespace.expand(&statement.sql), &change.parameters);
            done.map_err(|cause| self.why(&cause, |cause| statement.failed(cause)))?;
        }
        Ok(())
    }

    /// All rows of a table, in order of its key.
    pub(super) fn rows(&self, table: &TableShape) -> Result<Vec<Row>, ReplicaError> {
        let columns: Vec<String> = table.columns.iter().map(|column| column.name.clone()).collect();
        let sql = format!("SELECT {} FROM {{{}}} ORDER BY {}", quoted(&columns), table.name, quoted(&table.key));
        self.memory.query(&self.namespace.expand(&sql), &[]).map_err(|cause| self.why(&cause, engine_says))
    }

    /// The row with that key, with the position that wrote it behind its columns.
    pub(super) fn row(&self, table: &TableShape, key: &[Value]) -> Result<Option<Row>, ReplicaError> {
        let sql = self.namespace.expand(&table.lookup());
        let found = self.memory.query(&sql, key).map_err(|cause| self.why(&cause, engine_says))?;
        Ok(found.into_iter().next())
    }

    fn why(&self, cause: &SqlError, say: impl Fn(&SqlError) -> String) -> ReplicaError {
        match cause {
            // What ran too long was interrupted.
            _ if self.env.mono() > self.deadline => ReplicaError::TooLong,
            SqlError::Store(StoreError::DiskFull) => {
                ReplicaError::Refused("its rows take more memory than there is for this".to_owned())
            }
            SqlError::Store(cause) => ReplicaError::Store(cause.clone()),
            other => ReplicaError::Refused(say(other)),
        }
    }
}
