//! The transaction as a projection sees it: its own tables, and the effects it asks for.

use std::sync::Arc;

use super::{Namespace, Prepared, ahead};
use crate::{
    event::{Position, Recorded},
    store::{DynTx, Row, SqlError, Step, Value},
};

/// The transaction in which a batch of events is applied, confined to the tables of one build.
///
/// In statements `{loan}` stands for the table `loan` and `$1`, `$2`, … for the parameters. Any other table is out of reach,
/// and so are functions that do not give the same answer each time, among them all that can tell the time of day (`datetime`,
/// `strftime`): times come from events. Await nothing else.
pub struct ViewTx<'x> {
    tx: &'x mut DynTx,
    namespace: &'x Namespace,
    effects: Vec<Requested>,
    ahead: ahead::Store,
    /// Statements that were run, as the projection writes them and as the store has them: a batch runs few again and again.
    expanded: Vec<(Box<str>, Arc<str>)>,
}

/// An effect that a projection asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Requested {
    pub(super) kind: String,
    pub(super) position: Position,
    pub(super) payload: Arc<str>,
}

impl<'x> ViewTx<'x> {
    /// A transaction confined to `namespace`.
    pub(super) fn new(tx: &'x mut DynTx, namespace: &'x Namespace) -> Self {
        Self { tx, namespace, effects: Vec::new(), ahead: ahead::Store::default(), expanded: Vec::new() }
    }

    /// The same, with what was worked out of its events.
    pub(super) fn with(self, ahead: ahead::Store) -> Self {
        Self { ahead, ..self }
    }

    /// The effects that were asked for, in order.
    pub(super) fn into_effects(self) -> Vec<Requested> {
        self.effects
    }

    /// The build it writes to.
    pub fn namespace(&self) -> &Namespace {
        self.namespace
    }

    /// What was [worked out](super::Projection::ahead) of an event, where it was. Ask for each event once, in order.
    pub fn prepared(&mut self, event: &Recorded) -> Option<Prepared> {
        self.ahead.take(event.position())
    }

    /// Runs a statement on the view's tables and returns the number of rows it changed.
    ///
    /// # Errors
    /// [`SqlError::Refused`] where it reaches beyond them.
    pub async fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64, SqlError> {
        let sql = self.expand(sql);
        self.tx.view_execute(self.namespace.build(), &sql, params).await
    }

    /// Runs statements on the view's tables one after the other, up to the first that fails: quicker than one by one where few are
    /// run often.
    ///
    /// # Errors
    /// As [`execute`](Self::execute), with the number of the statement that failed, counted from 0. Those before it were run.
    pub async fn execute_all(&mut self, steps: &[(&str, &[Value])]) -> Result<(), (usize, SqlError)> {
        let expanded: Vec<Arc<str>> = steps.iter().map(|(sql, _)| self.expand(sql)).collect();
        let steps: Vec<Step<'_>> = expanded.iter().zip(steps).map(|(sql, (_, params))| Step { sql, params }).collect();
        self.tx.view_execute_all(self.namespace.build(), &steps).await
    }

    /// The rows of a query on the view's tables for each list of parameters, in order: quicker than one by one.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub async fn query_all(&mut self, sql: &str, params: &[Vec<Value>]) -> Result<Vec<Vec<Row>>, SqlError> {
        let sql = self.expand(sql);
        self.tx.view_query_all(self.namespace.build(), &sql, params).await
    }

    /// Runs a query on the view's tables, as they are in this transaction.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub async fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, SqlError> {
        let sql = self.expand(sql);
        self.tx.view_query(self.namespace.build(), &sql, params).await
    }

    fn expand(&mut self, sql: &str) -> Arc<str> {
        const MOST: usize = 64;
        if let Some((_, known)) = self.expanded.iter().find(|(written, _)| **written == *sql) {
            return known.clone();
        }
        let expanded: Arc<str> = self.namespace.expand(sql).into();
        if self.expanded.len() < MOST {
            self.expanded.push((sql.into(), expanded.clone()));
        }
        expanded
    }

    /// Asks for something to happen outside because of `event`, once this transaction has committed.
    ///
    /// It is carried out at least once, with a key that is the same each time: view, position of the event, and the how
    /// many-th effect of the event it is. A rebuild leaves it out, or repeats it, as its
    /// [type](super::EffectType) says. `payload` is a text, JSON for instance, that is kept in the store until then: at most 64 KiB.
    pub fn effect(&mut self, event: &Recorded, kind: &str, payload: impl Into<Arc<str>>) {
        let requested = Requested { kind: kind.to_owned(), position: event.position(), payload: payload.into() };
        self.effects.push(requested);
    }
}
