//! A page of a table.

use super::{
    super::{BuildRow, Namespace, View, ViewError},
    Answer, Freshness,
    condition::Condition,
    cursor::{Cursor, digest},
    order::{OrderBy, TotalOrder},
    reading::{AnswerColumn, Ask},
    table::{TableDescription, Tables},
};
use crate::store::{Bound, Row, SqlError, Statement, Value};

/// Which rows of a table, in which order, and how many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowsQuery {
    /// The table.
    pub table: String,
    /// The columns to show, in order; all of them where none is named.
    pub columns: Vec<String>,
    /// What rows must be like: all of it. At most 32.
    pub conditions: Vec<Condition>,
    /// The order; behind it the key. At most 8 columns.
    pub order: Vec<OrderBy>,
    /// How many rows at most: 1 to [`QueryLimits::rows`](super::QueryLimits). A page may have fewer where its bytes are many.
    pub limit: usize,
    /// Where the page before ended: [`Answer::next`].
    pub after: Option<String>,
}

impl RowsQuery {
    /// The most conditions.
    pub const MAX_CONDITIONS: usize = 32;
    /// The most columns of an order.
    pub const MAX_ORDER: usize = 8;

    /// Every row of `table`, in order of its key, `limit` at a time.
    pub fn all(table: impl Into<String>, limit: usize) -> Self {
        Self { table: table.into(), limit, ..Self::default() }
    }

    fn check(&self, most: usize) -> Result<(), ViewError> {
        let counts = [
            ("conditions", self.conditions.len(), Self::MAX_CONDITIONS),
            ("columns in its order", self.order.len(), Self::MAX_ORDER),
            ("rows in a page", self.limit, most),
        ];
        for (what, count, max) in counts {
            if count > max {
                return Err(ViewError::InvalidQuery {
                    what: format!("a query has at most {max} {what}, this one {count}"),
                });
            }
        }
        if self.limit == 0 {
            return Err(ViewError::InvalidQuery { what: "a page has at least one row".to_owned() });
        }
        Ok(())
    }

    /// What tells it from other queries, but for where its pages begin and how long they are.
    fn digest(&self, view: &str) -> u64 {
        digest(&format!("{view}\0{}\0{:?}\0{:?}", self.table, self.conditions, self.order))
    }

    fn shown(&self, table: &TableDescription) -> Result<Vec<AnswerColumn>, ViewError> {
        if self.columns.is_empty() {
            return Ok(table.columns.iter().map(AnswerColumn::of).collect());
        }
        self.columns.iter().map(|name| table.column(name).map(AnswerColumn::of)).collect()
    }
}

/// A page in the making.
pub(in super::super) struct Page {
    pub(in super::super) shown: Vec<AnswerColumn>,
    order: TotalOrder,
    rows: u64,
    query: u64,
}

impl View {
    /// A page of one of the view's tables, as of one moment.
    ///
    /// # Errors
    /// [`ViewError::InvalidQuery`] where the table, a column or a value is none; [`ViewError::OutdatedCursor`] where the view
    /// became another one since the page before; and as [`sql`](View::sql).
    pub async fn rows(&self, query: &RowsQuery, fresh: Freshness) -> Result<Answer, ViewError> {
        query.check(self.query_limits().rows)?;
        let limit = query.limit;
        let make = |build: &BuildRow, tables: &Tables| {
            let table = named(build, tables, &query.table)?;
            let (page, statement) = page_of(query, build, table)?;
            Ok((page, Ask { statement, rows: limit }))
        };
        let read = self.read(fresh, make).await?;
        let page = read.made;
        let next = match (read.found.cut, read.found.rows.last()) {
            (None, _) => None,
            (Some(_), Some(last)) => Some(page.end(last).write()?),
            (Some(cut), None) => return Err(SqlError::Exceeded(cut).into()),
        };
        Ok(Answer::new(page.shown, read.found.rows, read.as_of).with_next(next))
    }

    /// The row of a table with this key, whose values are written as in a [`Condition`]. `None` in the answer's rows: there is none.
    ///
    /// # Errors
    /// As [`rows`](Self::rows).
    pub async fn row(&self, table: &str, key: &[&str], fresh: Freshness) -> Result<Answer, ViewError> {
        let make = |build: &BuildRow, tables: &Tables| {
            let table = named(build, tables, table)?;
            if table.key.len() != key.len() {
                let what = match &*table.key.join(", ") {
                    "" => format!("table `{}` has no key: ask for rows that are like something", table.name),
                    columns => {
                        format!("the key of table `{}` is ({columns}), and {} values were given", table.name, key.len())
                    }
                };
                return Err(ViewError::InvalidQuery { what });
            }
            let mut params = Vec::new();
            let mut conditions = Vec::new();
            for (column, value) in table.key.iter().zip(key) {
                params.push(table.column(column)?.value(value)?);
                conditions.push(format!("\"{column}\" = ${}", params.len()));
            }
            let shown: Vec<AnswerColumn> = table.columns.iter().map(AnswerColumn::of).collect();
            let columns: Vec<String> = shown.iter().map(|column| format!("\"{}\"", column.name)).collect();
            let full = Namespace::new(build.view.clone(), build.build).table(&table.name);
            let sql = format!("SELECT {} FROM {full} WHERE {}", columns.join(", "), conditions.join(" AND "));
            Ok((shown, Ask { statement: Statement::new(sql, params), rows: 1 }))
        };
        let read = self.read(fresh, make).await?;
        if let Some(cut @ Bound::Bytes(_)) = read.found.cut {
            return Err(SqlError::Exceeded(cut).into());
        }
        Ok(Answer::new(read.made, read.found.rows, read.as_of))
    }
}

/// The table of that name.
pub(in super::super) fn named<'t>(
    build: &BuildRow,
    tables: &'t Tables,
    name: &str,
) -> Result<&'t TableDescription, ViewError> {
    tables.iter().find(|table| table.name == name).ok_or_else(|| ViewError::NoTable {
        view: build.view.clone(),
        table: name.chars().take(64).collect(),
        tables: build.tables.clone(),
    })
}

/// The statement of a page.
pub(in super::super) fn page_of(
    query: &RowsQuery,
    build: &BuildRow,
    table: &TableDescription,
) -> Result<(Page, Statement), ViewError> {
    let order = TotalOrder::of(table, &query.order)?;
    let place = if order.is_by_place() { build.build.to_string() } else { String::new() };
    let rows = digest(&format!("{}\0{place}", build.fingerprint));
    let page = Page { shown: query.shown(table)?, order, rows, query: query.digest(build.view.as_str()) };
    let mut params = Vec::new();
    let mut conditions = Vec::with_capacity(query.conditions.len() + 1);
    for condition in &query.conditions {
        conditions.push(condition.sql(table, "", &mut params)?);
    }
    if let Some(after) = &query.after {
        conditions.push(page.order.behind(&page.beginning(after)?, &mut params));
    }
    let columns = page.shown.iter().map(|column| format!("\"{}\"", column.name)).chain(page.order.columns());
    let columns: Vec<String> = columns.collect();
    let filter = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
    let full = Namespace::new(build.view.clone(), build.build).table(&table.name);
    // One row more than wanted says whether there are more.
    let (columns, order, limit) = (columns.join(", "), page.order.sql(), query.limit.saturating_add(1));
    let sql = format!("SELECT {columns} FROM {full}{filter} ORDER BY {order} LIMIT {limit}");
    Ok((page, Statement::new(sql, params)))
}

impl Page {
    /// Behind which values it begins.
    fn beginning(&self, after: &str) -> Result<Vec<Value>, ViewError> {
        let cursor = Cursor::read(after);
        let wrong = |what: &str| ViewError::InvalidQuery { what: what.to_owned() };
        let cursor = cursor.ok_or_else(|| wrong("`after` is no cursor that a page ended with"))?;
        if cursor.query != self.query {
            return Err(wrong(
                "`after` is the cursor of another query: table, conditions and order have to be the same",
            ));
        }
        if cursor.rows != self.rows || cursor.values.len() != self.order.columns().len() {
            return Err(ViewError::OutdatedCursor);
        }
        Ok(cursor.values)
    }

    /// Where it ends: `last` has the shown columns, and behind them those of the order.
    pub(in super::super) fn end(&self, last: &Row) -> Cursor {
        let values = last.values[self.shown.len()..].to_vec();
        Cursor { rows: self.rows, query: self.query, values }
    }
}
