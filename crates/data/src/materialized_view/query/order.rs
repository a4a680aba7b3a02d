//! In which order rows come, and which of them lie behind one.

use std::str::FromStr;

use super::{super::ViewError, table::TableDescription};
use crate::store::Value;

/// A column of an order, written `column`, `column.asc` or `column.desc`. Rows without a value come first when the order
/// goes up, and last when it goes down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderBy {
    /// The column.
    pub column: String,
    /// In which direction.
    pub direction: Direction,
}

/// The direction of an order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Smaller values first.
    #[default]
    Ascending,
    /// Greater values first.
    Descending,
}

impl FromStr for OrderBy {
    type Err = ViewError;

    fn from_str(text: &str) -> Result<Self, ViewError> {
        let (column, direction) = match text.split_once('.') {
            None | Some((_, "asc")) => (text.strip_suffix(".asc").unwrap_or(text), Direction::Ascending),
            Some((column, "desc")) => (column, Direction::Descending),
            Some(_) => {
                let short: String = text.chars().take(64).collect();
                let what = format!("`{short}` is no order: it is a column, or `column.desc`");
                return Err(ViewError::InvalidQuery { what });
            }
        };
        Ok(Self { column: column.to_owned(), direction })
    }
}

/// What stands for the place of a row in a table without a key.
const ROWID: &str = "_rowid_";

/// An order in which no two rows are alike.
pub(super) struct TotalOrder(Vec<OrderBy>);

impl TotalOrder {
    /// `wanted`, and behind it the key.
    pub(super) fn of(table: &TableDescription, wanted: &[OrderBy]) -> Result<Self, ViewError> {
        let mut all = Vec::with_capacity(wanted.len() + table.key.len());
        for by in wanted {
            table.column(&by.column)?;
            if all.iter().any(|known: &OrderBy| known.column == by.column) {
                return Err(ViewError::InvalidQuery { what: format!("the order has column `{}` twice", by.column) });
            }
            all.push(by.clone());
        }
        let rowid = [ROWID.to_owned()];
        let last = if table.key.is_empty() { &rowid[..] } else { &table.key };
        for column in last {
            if !all.iter().any(|known| known.column == *column) {
                all.push(OrderBy { column: column.clone(), direction: Direction::Ascending });
            }
        }
        Ok(Self(all))
    }

    /// Whether it needs the places of rows, which another build has others of.
    pub(super) fn is_by_place(&self) -> bool {
        self.0.iter().any(|by| by.column == ROWID)
    }

    /// The columns, as they stand in a list of columns.
    pub(super) fn columns(&self) -> impl ExactSizeIterator<Item = String> + '_ {
        self.0.iter().map(|by| format!("\"{}\"", by.column))
    }

    /// As it stands behind `ORDER BY`. The engine's place for missing values is said, since engines differ.
    pub(super) fn sql(&self) -> String {
        let one = |by: &OrderBy| match by.direction {
            Direction::Ascending => format!("\"{}\" ASC NULLS FIRST", by.column),
            Direction::Descending => format!("\"{}\" DESC NULLS LAST", by.column),
        };
        self.0.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// What the rows behind the one with `values` are like. Values go behind those in `params`.
    ///
    /// For columns a, b: a ≥ 1 and (a > 1 or (a = 1 and (b > 2))). The first part says what the second implies, so that an
    /// index finds where to begin.
    pub(super) fn behind(&self, values: &[Value], params: &mut Vec<Value>) -> String {
        let mut sql = String::from("0");
        for (by, value) in self.0.iter().zip(values).rev() {
            let column = format!("\"{}\"", by.column);
            if *value == Value::Null {
                let later = match by.direction {
                    Direction::Ascending => format!("{column} IS NOT NULL"),
                    Direction::Descending => "0".to_owned(),
                };
                sql = format!("({later} OR ({column} IS NULL AND {sql}))");
                continue;
            }
            params.push(value.clone());
            let place = params.len();
            sql = match by.direction {
                Direction::Ascending => {
                    format!("({column} >= ${place} AND ({column} > ${place} OR ({column} = ${place} AND {sql})))")
                }
                Direction::Descending => {
                    format!("({column} < ${place} OR {column} IS NULL OR ({column} = ${place} AND {sql}))")
                }
            };
        }
        sql
    }
}

#[cfg(test)]
mod tests {
    use super::{Direction, OrderBy};

    #[test]
    fn an_order_is_read_from_text() {
        let by = |text: &str| text.parse::<OrderBy>().map(|by| (by.column, by.direction)).ok();
        assert_eq!(by("a"), Some(("a".to_owned(), Direction::Ascending)));
        assert_eq!(by("a.asc"), Some(("a".to_owned(), Direction::Ascending)));
        assert_eq!(by("a.desc"), Some(("a".to_owned(), Direction::Descending)));
        assert_eq!((by("a.down"), by("a.desc.desc")), (None, None));
    }
}
