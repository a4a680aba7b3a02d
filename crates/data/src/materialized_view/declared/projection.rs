//! The projection that a document is.

use std::{fmt::Write as _, sync::Arc};

use quorate_runtime::BoxFuture;
use smallvec::SmallVec;

use super::{
    bind::Values,
    document::{Document, Rule, Statement},
    sql::POSITION,
};
use crate::{
    event::Recorded,
    materialized_view::{ApplyError, Kind, Prepare, Prepared, Projection, Schema, ViewName, ViewTx},
    store::{Query, SqlError, Value},
};

/// The projection that a document is.
#[derive(Clone)]
pub(super) struct Declared(pub(super) Arc<Document>);

/// A statement to run because of an event, with its parameters.
pub(super) struct Change {
    rule: usize,
    statement: usize,
    pub(super) parameters: Values,
}

/// What an event does, statement by statement; to most it is one.
pub(super) type Changes = SmallVec<[Change; 1]>;

/// What was worked out of an event: what it does, or why it cannot be applied.
type Worked = Result<Changes, String>;

/// Statements that are handed to the store at once, some more where an event has more.
const AT_ONCE: usize = 1_000;

impl Document {
    /// What `event` does to the tables, statement by statement.
    ///
    /// # Errors
    /// Why it cannot be applied.
    pub(super) fn changes(&self, event: &Recorded) -> Result<Changes, String> {
        let mut changes = Changes::new();
        if !self.is_about(event) {
            return Ok(changes);
        }
        for (n, rule) in self.rules.iter().enumerate().filter(|(_, rule)| rule.matches(event)) {
            rule.changes(n, event, &mut changes).map_err(|why| format!("on[{n}]: {why}"))?;
        }
        Ok(changes)
    }

    /// The statement of a change.
    pub(super) fn statement(&self, change: &Change) -> &Statement {
        &self.rules[change.rule].statements[change.statement]
    }
}

impl Rule {
    fn changes(&self, rule: usize, event: &Recorded, changes: &mut Changes) -> Result<(), String> {
        let position = || Value::Integer(event.position().get().cast_signed());
        for mut values in self.bindings.values(event)? {
            for (n, statement) in self.statements.iter().enumerate() {
                let is_last = n + 1 == self.statements.len();
                let own = statement.parameters.iter().enumerate().map(|(place, at)| {
                    // Nobody needs it behind that.
                    let is_over = is_last && !statement.parameters[place + 1..].contains(at);
                    if is_over { std::mem::replace(&mut values[*at], Value::Null) } else { values[*at].clone() }
                });
                let parameters = own.chain(statement.positioned.then(position)).collect();
                changes.push(Change { rule, statement: n, parameters });
            }
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
        let mut waiting: Vec<(&Recorded, Arc<Worked>)> = Vec::new();
        let mut steps = 0;
        for event in events {
            let prepared = tx.prepared(event).and_then(Prepared::get::<Worked>);
            let worked = prepared.unwrap_or_else(|| Arc::new(self.0.changes(event)));
            steps += worked.as_ref().as_ref().map_err(|why| ApplyError::certain(event, why.clone()))?.len();
            waiting.push((event, worked));
            if steps >= AT_ONCE {
                self.carry_out(tx, &std::mem::take(&mut waiting)).await?;
                steps = 0;
            }
        }
        self.carry_out(tx, &waiting).await
    }

    /// Runs what was worked out of events, in order.
    async fn carry_out(&self, tx: &mut ViewTx<'_>, worked: &[(&Recorded, Arc<Worked>)]) -> Result<(), ApplyError> {
        let changes =
            worked.iter().flat_map(|(event, worked)| worked.iter().flatten().map(move |change| (*event, change)));
        let changes: Vec<(&Recorded, &Statement, &Change)> =
            changes.map(|(event, change)| (event, self.0.statement(change), change)).collect();
        let steps: Vec<(&str, &[Value])> =
            changes.iter().map(|(_, statement, change)| (&*statement.sql, &*change.parameters)).collect();
        match tx.execute_all(&steps).await {
            Ok(()) => Ok(()),
            Err((_, SqlError::Store(cause))) => Err(SqlError::Store(cause).into()),
            // The store works, and the rows and the event are what they are.
            Err((at, cause)) => {
                let (event, statement, _) = changes[at];
                Err(ApplyError::certain(event, statement.failed(&cause)))
            }
        }
    }
}

impl Prepare for Document {
    fn prepare(&self, event: &Recorded) -> Prepared {
        let changes = self.changes(event);
        let size = |value: &Value| match value {
            Value::Text(text) => text.len(),
            Value::Blob(bytes) => bytes.len(),
            _ => 0,
        };
        let values = changes.iter().flatten().flat_map(|change| &change.parameters);
        let bytes =
            values.map(|value| 32 + size(value)).sum::<usize>() + changes.as_ref().map_or(0, |all| 48 * all.len());
        Prepared::new(changes, bytes)
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

    fn ahead(&self) -> Option<Arc<dyn Prepare>> {
        Some(self.0.clone())
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
