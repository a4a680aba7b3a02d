//! A projection with one table and one row per key, in a few lines.

use std::collections::{BTreeMap, btree_map::Entry};

use quorate_runtime::BoxFuture;

use super::{ApplyError, Column, Projection, Schema, ViewName, ViewRow, ViewTx};
use crate::{
    event::{NewEvent, Recorded},
    store::{Query, Row, SqlError, Value},
};

/// The fold of events into one row per key.
///
/// # Example
/// ```
/// use quorate_data::{event::{NewEvent, Recorded}, materialized_view::{Fold, Folded, given}, store::{Query, QueryItem}, view_row};
///
/// view_row! {
///     /// Where a loan stands.
///     pub struct Loan in "loan" {
///         /// Which loan.
///         pub id: String,
///         /// Its last event.
///         pub state: String,
///         /// How many events it had.
///         pub steps: u32,
///     }
/// }
///
/// struct Loans;
///
/// impl Fold for Loans {
///     const NAME: &'static str = "loans";
///     const VERSION: u32 = 1;
///     type Row = Loan;
///
///     fn query(&self) -> Query {
///         Query::of([QueryItem::categories(["loan"])])
///     }
///
///     fn key(&self, event: &Recorded) -> Option<String> {
///         Some(event.stream().to_owned())
///     }
///
///     fn fold(&self, loan: Option<Loan>, event: &Recorded) -> Result<Option<Loan>, String> {
///         let steps = loan.map_or(0, |loan| loan.steps) + 1;
///         Ok(Some(Loan { id: event.stream().to_owned(), state: event.kind().to_owned(), steps }))
///     }
/// }
///
/// # use quorate_data::store::sqlite;
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// # let folder = tempfile::tempdir()?;
/// # let store = sqlite::open(&quorate_runtime::Env::real(), sqlite::Config::at(folder.path().join("test.db"))).await?;
/// let submitted = NewEvent::new("e-1", "/bank", "submitted");
/// let approved = NewEvent::new("e-2", "/bank", "approved");
/// let rows = given(&store, [("loan-7", submitted), ("loan-7", approved)]).applied_to(Folded::new(Loans)).await?;
/// assert_eq!(rows.all::<Loan>(), [Loan { id: "loan-7".into(), state: "approved".into(), steps: 2 }]);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub trait Fold: Send + Sync + 'static {
    /// The view's name.
    const NAME: &'static str;
    /// Its version, counted from 1.
    const VERSION: u32;
    /// A row of its table.
    type Row: ViewRow;

    /// The events it is made of.
    fn query(&self) -> Query;

    /// The key of the row that an event changes; `None` where it changes none.
    fn key(&self, event: &Recorded) -> Option<<Self::Row as ViewRow>::Key>;

    /// The row after an event. `None`: there is none.
    ///
    /// # Errors
    /// Why the event cannot be applied.
    fn fold(&self, row: Option<Self::Row>, event: &Recorded) -> Result<Option<Self::Row>, String>;

    /// What else tells this fold from another one: a number to raise, for instance. See [`Projection::fold`].
    fn revision(&self) -> String {
        String::new()
    }

    /// Events that exercise the fold. See [`Projection::probe`].
    fn probe(&self) -> Vec<NewEvent> {
        Vec::new()
    }
}

/// The projection that a [`Fold`] is.
///
/// Of each batch it reads the rows it needs, folds in memory, and writes the rows that changed: a row that many events of a
/// batch change is written once.
pub struct Folded<F: Fold> {
    fold: F,
    name: ViewName,
    select: String,
    insert: String,
    update: String,
    delete: String,
}

impl<F: Fold> Folded<F> {
    /// The projection of `fold`.
    ///
    /// # Panics
    /// If `NAME` cannot name a view: a mistake in the code, found by its first test.
    pub fn new(fold: F) -> Self {
        let name = ViewName::new(F::NAME).unwrap_or_else(|cause| panic!("{cause}"));
        let (table, columns) = (F::Row::TABLE, F::Row::COLUMNS);
        let key = columns[0];
        let places: Vec<String> = (1..=columns.len()).map(|n| format!("${n}")).collect();
        let set: Vec<String> = (2..).zip(&columns[1..]).map(|(n, column)| format!("{column} = ${n}")).collect();
        // A row without other columns stays as it is.
        let set = if set.is_empty() { format!("{key} = $1") } else { set.join(", ") };
        let all = columns.join(", ");
        Self {
            fold,
            name,
            select: format!("SELECT {all} FROM {{{table}}} WHERE {key} = $1"),
            insert: format!("INSERT INTO {{{table}}} ({all}) VALUES ({})", places.join(", ")),
            update: format!("UPDATE {{{table}}} SET {set} WHERE {key} = $1"),
            delete: format!("DELETE FROM {{{table}}} WHERE {key} = $1"),
        }
    }

    async fn run(&self, tx: &mut ViewTx<'_>, events: &[Recorded]) -> Result<(), ApplyError> {
        // Which row each event changes, by number in the order of the first events.
        let mut numbers: BTreeMap<<F::Row as ViewRow>::Key, usize> = BTreeMap::new();
        let (mut keys, mut changes) = (Vec::new(), Vec::with_capacity(events.len()));
        for event in events {
            let Some(key) = self.fold.key(event) else { continue };
            let number = match numbers.entry(key) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => {
                    keys.push(vec![Column::to_value(new.key())]);
                    *new.insert(keys.len() - 1)
                }
            };
            changes.push((event, number));
        }
        let found = tx.query_all(&self.select, &keys).await?;
        let before = found.iter().map(|rows| rows.first().map(read::<F::Row>).transpose());
        let before = before.collect::<Result<Vec<Option<F::Row>>, SqlError>>()?;
        let mut now = before.clone();
        for (event, number) in changes {
            let failed = |reason: String| ApplyError::event(event, reason);
            now[number] = self.fold.fold(now[number].take(), event).map_err(failed)?;
        }
        let mut writes = Vec::new();
        for number in numbers.into_values() {
            let key = std::mem::take(&mut keys[number]);
            writes.extend(self.write(key, before[number].as_ref(), now[number].take())?);
        }
        let steps: Vec<(&str, &[Value])> = writes.iter().map(|(sql, params)| (*sql, &**params)).collect();
        Ok(tx.execute_all(&steps).await.map_err(|(_, failed)| failed)?)
    }

    /// The statement that makes the row with this key what it is now; `None` where it is that already.
    fn write(
        &self,
        key: Vec<Value>,
        before: Option<&F::Row>,
        now: Option<F::Row>,
    ) -> Result<Option<(&str, Vec<Value>)>, SqlError> {
        Ok(match now {
            now if now.as_ref() == before => None,
            None => Some((&*self.delete, key)),
            Some(row) if Column::to_value(row.key()) != key[0] => {
                let what = format!("the fold gave a row of `{}` another key than the event's", F::Row::TABLE);
                return Err(SqlError::Failed { what });
            }
            Some(row) => Some((if before.is_some() { &*self.update } else { &*self.insert }, row.values())),
        })
    }
}

fn read<R: ViewRow>(row: &Row) -> Result<R, SqlError> {
    let what = || SqlError::Failed { what: format!("a row of `{}` does not fit its struct", R::TABLE) };
    R::from_row(row).ok_or_else(what)
}

impl<F: Fold> Projection for Folded<F> {
    fn name(&self) -> &ViewName {
        &self.name
    }

    fn version(&self) -> u32 {
        F::VERSION
    }

    fn query(&self) -> Query {
        self.fold.query()
    }

    fn schema(&self) -> Schema {
        let table = F::Row::TABLE;
        Schema::new().table(table, format!("CREATE TABLE {{{table}}} ({})", F::Row::definition()))
    }

    fn apply<'t, 'x: 't>(
        &'t self,
        tx: &'t mut ViewTx<'x>,
        events: &'t [Recorded],
    ) -> BoxFuture<'t, Result<(), ApplyError>> {
        Box::pin(self.run(tx, events))
    }

    fn fold(&self) -> String {
        self.fold.revision()
    }

    fn probe(&self) -> Vec<NewEvent> {
        self.fold.probe()
    }
}
