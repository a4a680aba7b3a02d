//! SQL over a view's tables by their own names.

use super::{
    super::{BuildRow, Namespace, View, ViewError},
    Answer, Freshness,
    reading::{AnswerColumn, Ask},
    table::Tables,
};
use crate::store::{SqlError, Statement, Value};

/// The longest statement in bytes.
pub(super) const MAX_BYTES: usize = 256 << 10;

impl View {
    /// The rows of a query in SQL over the view's tables, by their names, with `$1`, `$2`, … for `params`. It is one
    /// statement, reads only, and reaches no other table.
    ///
    /// Values are the engine's: a decimal is the whole number it is kept as, an instant its microseconds.
    ///
    /// # Errors
    /// [`ViewError::Sql`]: the statement is wrong, or was stopped because of what it took
    /// ([`SqlError::Exceeded`]). [`ViewError::Behind`], [`ViewError::Stale`]: it was not asked, since the view is not as fresh as
    /// wanted. [`ViewError::Busy`]: too many queries run.
    ///
    /// # Cancel safety
    /// Dropping the future stops the query soon.
    pub async fn sql(&self, sql: &str, params: Vec<Value>, fresh: Freshness) -> Result<Answer, ViewError> {
        if sql.len() > MAX_BYTES {
            let what = format!("a statement has at most {MAX_BYTES} bytes, this one {}", sql.len());
            return Err(ViewError::InvalidQuery { what });
        }
        let rows = self.query_limits().rows;
        let make = |build: &BuildRow, tables: &Tables| {
            let statement = Statement::new(over_tables(sql, build, tables), params.clone());
            Ok(((), Ask { statement, rows }))
        };
        let read = self.read(fresh, make).await?;
        if let Some(cut) = read.found.cut {
            return Err(SqlError::Exceeded(cut).into());
        }
        let columns: Vec<AnswerColumn> =
            read.found.columns.iter().map(|name| AnswerColumn { name: name.to_string(), kind: None }).collect();
        for (n, column) in columns.iter().enumerate() {
            if columns[..n].iter().any(|earlier| earlier.name == column.name) {
                let what = format!("two columns of the answer are called `{}`: name one of them with AS", column.name);
                return Err(ViewError::InvalidQuery { what });
            }
        }
        Ok(Answer::new(columns, read.found.rows, read.as_of))
    }
}

/// `sql` with the view's tables under their own names: as named queries in front of it, which the engine takes apart again.
fn over_tables(sql: &str, build: &BuildRow, tables: &Tables) -> String {
    let namespace = Namespace::new(build.view.clone(), build.build);
    let named = |name: &str| format!("\"{name}\" AS NOT MATERIALIZED (SELECT * FROM {})", namespace.table(name));
    let named: Vec<String> = tables.iter().map(|table| named(&table.name)).collect();
    let named = named.join(", ");
    let rest = begin(sql);
    match word(rest, "with") {
        None => format!("WITH {named} {sql}"),
        Some(behind) => match word(begin(behind), "recursive") {
            None => format!("WITH {named}, {behind}"),
            Some(behind) => format!("WITH RECURSIVE {named}, {behind}"),
        },
    }
}

/// What comes behind the keyword that `text` begins with.
fn word<'t>(text: &'t str, keyword: &str) -> Option<&'t str> {
    let (first, rest) = text.split_at_checked(keyword.len())?;
    let ends = !rest.starts_with(|next: char| next.is_alphanumeric() || matches!(next, '_' | '$'));
    (first.eq_ignore_ascii_case(keyword) && ends).then_some(rest)
}

/// `sql` from its first word on: without blanks and comments.
fn begin(sql: &str) -> &str {
    let mut rest = sql;
    loop {
        rest = rest.trim_start();
        let comment = match rest.get(..2) {
            Some("--") => rest.split_once('\n').map_or("", |(_, behind)| behind),
            Some("/*") => rest[2..].split_once("*/").map_or("", |(_, behind)| behind),
            _ => return rest,
        };
        rest = comment;
    }
}

#[cfg(test)]
mod tests {
    use super::{begin, word};

    #[test]
    fn a_statement_begins_behind_blanks_and_comments() {
        assert_eq!(begin(" -- WITH\n /* x */\tSELECT 1"), "SELECT 1");
        assert_eq!((begin("-- all"), begin("/* all"), begin("é")), ("", "", "é"));
        assert_eq!(word("WITH x AS", "with"), Some(" x AS"));
        assert_eq!((word("within", "with"), word("wit", "with"), word("é", "with")), (None, None, None));
    }
}
