//! The projection that a document is.

use std::{fmt::Write as _, sync::Arc};

use quorate_runtime::BoxFuture;

use super::{
    document::{Document, Rule, Statement},
    sql::POSITION,
};
use crate::{
    event::Recorded,
    materialized_view::{ApplyError, Kind, Projection, Schema, ViewName, ViewTx},
    store::{Query, SqlError, Value},
};

/// The projection that a document is.
#[derive(Clone)]
pub(super) struct Declared(pub(super) Arc<Document>);

/// A statement to run because of an event, with its parameters.
pub(super) struct Change<'d> {
    pub(super) statement: &'d Statement,
    pub(super) parameters: Vec<Value>,
}

impl Document {
    /// What `event` does to the tables, statement by statement.
    ///
    /// # Errors
    /// Why it cannot be applied.
    pub(super) fn changes(&self, event: &Recorded) -> Result<Vec<Change<'_>>, String> {
        let mut changes = Vec::new();
        if !self.is_about(event) {
            return Ok(changes);
        }
        for (n, rule) in self.rules.iter().enumerate().filter(|(_, rule)| rule.matches(event)) {
            rule.changes(event, &mut changes).map_err(|why| format!("on[{n}]: {why}"))?;
        }
        Ok(changes)
    }
}

impl Rule {
    fn changes<'d>(&'d self, event: &Recorded, changes: &mut Vec<Change<'d>>) -> Result<(), String> {
        let position = || Value::Integer(event.position().get().cast_signed());
        for values in self.bindings.values(event)? {
            changes.extend(self.statements.iter().map(|statement| {
                let own = statement.parameters.iter().map(|n| values[*n].clone());
                let parameters = own.chain(statement.positioned.then(position)).collect();
                Change { statement, parameters }
            }));
        }
        Ok(())
    }
}

impl Statement {
    /// Why a statement failed, with its place in the document.
    pub(super) fn failed(&self, cause: &SqlError) -> String {
        format!("{}: {}", self.place.field, engine_says(cause))
    }
}

/// What the engine says, without the statement as it was run.
pub(super) fn engine_says(cause: &SqlError) -> String {
    match cause {
        SqlError::Failed { what } => what.split(" in /*").next().unwrap_or_default().to_owned(),
        SqlError::Exceeded(bound) => format!("{bound}, the limit of one statement"),
        other => other.to_string(),
    }
}

impl Declared {
    async fn run(&self, tx: &mut ViewTx<'_>, events: &[Recorded]) -> Result<(), ApplyError> {
        for event in events {
            let changes = self.0.changes(event).map_err(|why| ApplyError::certain(event, why))?;
            for Change { statement, parameters } in changes {
                match tx.execute(&statement.sql, &parameters).await {
                    Ok(_) => {}
                    Err(SqlError::Store(cause)) => return Err(SqlError::Store(cause).into()),
                    // The store works, and the rows and the event are what they are.
                    Err(cause) => return Err(ApplyError::certain(event, statement.failed(&cause))),
                }
            }
        }
        Ok(())
    }
}

impl Projection for Declared {
    fn name(&self) -> &ViewName {
        self.0.view()
    }

    fn version(&self) -> u32 {
        self.0.version()
    }

    fn query(&self) -> Query {
        self.0.query().clone()
    }

    fn schema(&self) -> Schema {
        self.0.schema()
    }

    fn apply<'t, 'x: 't>(
        &'t self,
        tx: &'t mut ViewTx<'x>,
        events: &'t [Recorded],
    ) -> BoxFuture<'t, Result<(), ApplyError>> {
        Box::pin(self.run(tx, events))
    }

    fn column_kind(&self, table: &str, column: &str) -> Option<Kind> {
        let table = self.0.tables().iter().find(|known| known.name == table)?;
        if column == POSITION {
            return Some(Kind::Position);
        }
        table.column(column).map(|column| column.kind)
    }

    fn fold(&self) -> String {
        let mut said = self.0.meaning().to_owned();
        // Builds of before such types were told keep their fingerprint where there are none.
        for (n, rule) in self.0.rules.iter().enumerate() {
            for (name, kind) in rule.bindings.by_use() {
                let _ = write!(said, "on[{n}].{name}={kind},");
            }
        }
        said
    }
}
