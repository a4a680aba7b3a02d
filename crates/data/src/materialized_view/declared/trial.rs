//! Trying a document: every statement in the engine, every sample against the rows it should lead to.

use std::time::Duration;

use quorate_runtime::Env;

use super::{
    document::{Document, ExpectedRow, ExpectedTable, Place, Sample, TableShape},
    replica::{Replica, ReplicaError},
    source::{Fault, Faults},
};
use crate::{
    materialized_view::{ViewError, scratch::recorded},
    store::{Limits, Row},
};

/// How long all of it may take.
const TIME: Duration = Duration::from_secs(5);
/// The memory that the tables of one sample may take, in bytes.
const BYTES: usize = 64 << 20;

/// Tries `document`. Takes the thread for up to a few seconds.
///
/// # Errors
/// [`ViewError::Document`] with everything that is wrong.
pub(super) fn run(env: &Env, limits: &Limits, document: &Document) -> Result<(), ViewError> {
    let trial = Trial { env, limits, document, until: env.mono() + TIME };
    let faults = trial.statements()?;
    if !faults.is_empty() {
        return trial.end(faults);
    }
    let mut faults = Vec::new();
    for sample in &document.samples {
        trial.sample(sample, &mut faults)?;
    }
    trial.end(faults)
}

struct Trial<'d> {
    env: &'d Env,
    limits: &'d Limits,
    document: &'d Document,
    until: quorate_foundations::time::Mono,
}

impl Trial<'_> {
    fn end(&self, faults: Vec<Fault>) -> Result<(), ViewError> {
        Faults::of(faults).map_or(Ok(()), |faults| Err(ViewError::Document(faults)))
    }

    fn fault(&self, place: &Place, what: impl Into<String>) -> Fault {
        Fault::at(self.document.text(), place.span.start, &place.field, what)
    }

    fn replica(&self) -> Result<Replica, ViewError> {
        let left = self.until.saturating_since(self.env.mono());
        Replica::new(self.env, self.document, self.limits, BYTES, left).map_err(|failed| match failed {
            // The names were checked, so the tables are too large or the time is up.
            ReplicaError::Refused(why) => ViewError::Document(Fault::at(self.document.text(), 0, "tables", why).into()),
            ReplicaError::TooLong => self.too_long(),
            ReplicaError::Store(cause) => cause.into(),
        })
    }

    fn too_long(&self) -> ViewError {
        let what = format!("trying the document took longer than {TIME:?}");
        ViewError::Document(Fault::at(self.document.text(), 0, "samples", what).into())
    }

    /// What the engine has against the statements.
    fn statements(&self) -> Result<Vec<Fault>, ViewError> {
        let replica = self.replica()?;
        let mut faults = Vec::new();
        for statement in self.document.rules.iter().flat_map(|rule| &rule.statements) {
            match replica.prepare(&statement.sql) {
                Ok(()) => {}
                Err(ReplicaError::Refused(why)) => faults.push(self.fault(&statement.place, why)),
                Err(ReplicaError::TooLong) => return Err(self.too_long()),
                Err(ReplicaError::Store(cause)) => return Err(cause.into()),
            }
        }
        Ok(faults)
    }

    fn sample(&self, sample: &Sample, faults: &mut Vec<Fault>) -> Result<(), ViewError> {
        let replica = self.replica()?;
        let events = recorded(sample.events.iter().map(|(stream, event, _)| (stream.clone(), event.clone())))?;
        for (event, (.., place)) in events.iter().zip(&sample.events) {
            if !self.document.query().matches(event) {
                continue;
            }
            match replica.apply(self.document, event) {
                Ok(()) => {}
                Err(ReplicaError::Refused(why)) => {
                    faults.push(self.fault(place, format!("this event cannot be applied: {why}")));
                    return Ok(());
                }
                Err(ReplicaError::TooLong) => return Err(self.too_long()),
                Err(ReplicaError::Store(cause)) => return Err(cause.into()),
            }
        }
        for expected in &sample.rows {
            let table = &self.document.tables[expected.table];
            let rows = replica.rows(table).map_err(|failed| match failed {
                ReplicaError::Store(cause) => cause.into(),
                ReplicaError::TooLong => self.too_long(),
                ReplicaError::Refused(why) => ViewError::Document(self.fault(&expected.place, why).into()),
            })?;
            self.compare(table, expected, rows, faults);
        }
        Ok(())
    }

    /// Each expected row has one of its own among those that are there, and none is left over.
    fn compare(&self, table: &TableShape, expected: &ExpectedTable, mut rows: Vec<Row>, faults: &mut Vec<Fault>) {
        let fits = |wanted: &ExpectedRow, row: &Row| wanted.values.iter().all(|(n, value)| row.at(*n) == value);
        // The most particular ones first, so that a vague one does not take another's row.
        let mut wanted: Vec<&ExpectedRow> = expected.rows.iter().collect();
        wanted.sort_by_key(|row| std::cmp::Reverse(row.values.len()));
        for wanted in wanted {
            match rows.iter().position(|row| fits(wanted, row)) {
                Some(found) => drop(rows.remove(found)),
                None => {
                    let what = format!("there is no such row; there is {}", shown(table, &rows));
                    faults.push(self.fault(&wanted.place, what));
                }
            }
        }
        if !rows.is_empty() && faults.is_empty() {
            let what = format!("there are {} rows more: {}", rows.len(), shown(table, &rows));
            faults.push(self.fault(&expected.place, what));
        }
    }
}

/// Some rows, for a person to read.
fn shown(table: &TableShape, rows: &[Row]) -> String {
    const MAX: usize = 5;
    let row = |row: &Row| {
        let columns = table.columns.iter().zip(&row.values);
        let values: Vec<String> =
            columns.map(|(column, value)| format!("{}: {}", column.name, column.kind.show(value))).collect();
        format!("{{ {} }}", values.join(", "))
    };
    let mut all: Vec<String> = rows.iter().take(MAX).map(row).collect();
    if rows.len() > MAX {
        all.push("…".to_owned());
    }
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}
