//! What statements of a view may do: reach the tables of one build, and nothing else.

use std::collections::BTreeSet;

use rusqlite::{
    Connection,
    hooks::{AuthAction, AuthContext},
};

use crate::materialized_view::Build;

/// Functions whose answer depends on more than their arguments and the view's rows.
const FICKLE: [&str; 10] = [
    "random",
    "randomblob",
    "changes",
    "total_changes",
    "last_insert_rowid",
    "current_time",
    "current_date",
    "current_timestamp",
    "load_extension",
    "fts3_tokenizer",
];

/// Functions that compare everything with everything, or make much out of little, in one step that nobody watches.
const BOUNDLESS: [&str; 4] = ["json_patch", "jsonb_patch", "json_pretty", "unhex"];

/// Functions that tell the time of day where they are given `now`, or nothing.
const OF_TIME: [&str; 7] = ["date", "time", "datetime", "julianday", "strftime", "timediff", "unixepoch"];

fn is_steady(function: &str) -> bool {
    let function = function.to_ascii_lowercase();
    !FICKLE.contains(&&*function) && !BOUNDLESS.contains(&&*function)
}

/// Whether a statement on the rows of `build` may do this.
pub(super) fn allows_rows(build: Build, context: &AuthContext<'_>) -> bool {
    match context.action {
        AuthAction::Select | AuthAction::Recursive => true,
        AuthAction::Function { function_name } => {
            is_steady(function_name) && !OF_TIME.contains(&&*function_name.to_ascii_lowercase())
        }
        AuthAction::Read { table_name, .. }
        | AuthAction::Insert { table_name }
        | AuthAction::Update { table_name, .. }
        | AuthAction::Delete { table_name } => owns(build, table_name),
        _ => false,
    }
}

/// The names of all tables, and of what can be read like one.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// The version of the schema they were read from.
    schema: Option<i64>,
    names: BTreeSet<String>,
}

impl Tables {
    /// Reads them again where the schema has changed.
    pub(super) fn learn(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let schema = connection.prepare_cached("PRAGMA schema_version")?.query_row([], |row| row.get(0))?;
        if self.schema == Some(schema) {
            return Ok(());
        }
        let sql = "SELECT lower(name) FROM sqlite_schema WHERE type IN ('table', 'view')
            UNION SELECT lower(name) FROM pragma_module_list";
        let mut select = connection.prepare_cached(sql)?;
        self.names = select.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        self.schema = Some(schema);
        Ok(())
    }

    /// Whether a name that stands for rows can only be one that the statement itself gave.
    fn lacks(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        !self.names.contains(&name) && !["sqlite_", "pragma_"].iter().any(|prefix| name.starts_with(prefix))
    }
}

/// Tables that are made of a value: they show nothing else.
const OF_VALUES: [&str; 2] = ["json_each", "json_tree"];

/// Whether a reader's statement on the rows of `build` may do this.
///
/// Names that end in `_` are the build's too, and are kept for what the runtime remembers of its rows.
pub(super) fn allows_reading(build: Build, context: &AuthContext<'_>, tables: &Tables) -> bool {
    match context.action {
        AuthAction::Select | AuthAction::Recursive => true,
        AuthAction::Function { function_name } => is_steady(function_name),
        AuthAction::Read { table_name, column_name } => {
            let shown = owns(build, table_name) && !table_name.ends_with('_');
            // SQLite asks for a column without a name where rows are only counted: also those of a name that the statement
            // gave to a query.
            let given = column_name.is_empty() && context.database_name.is_none() && tables.lacks(table_name);
            shown || given || OF_VALUES.contains(&&*table_name.to_ascii_lowercase())
        }
        _ => false,
    }
}

/// Whether a statement that makes or drops tables of `build` may do this.
pub(super) fn allows_schema(build: Build, context: &AuthContext<'_>) -> bool {
    // The engine keeps its catalogue itself, and asks about it; nobody else may write there anyway.
    let catalogue = |table: &str| matches!(table, "sqlite_master" | "sqlite_schema");
    match context.action {
        AuthAction::Select => true,
        AuthAction::Function { function_name } => is_steady(function_name),
        AuthAction::Read { table_name, .. }
        | AuthAction::Insert { table_name }
        | AuthAction::Update { table_name, .. }
        | AuthAction::Delete { table_name } => owns(build, table_name) || catalogue(table_name),
        AuthAction::CreateTable { table_name } | AuthAction::DropTable { table_name } => owns(build, table_name),
        AuthAction::CreateIndex { index_name, table_name } | AuthAction::DropIndex { index_name, table_name } => {
            owns(build, index_name) && owns(build, table_name)
        }
        AuthAction::CreateTrigger { trigger_name, table_name }
        | AuthAction::DropTrigger { trigger_name, table_name } => owns(build, trigger_name) && owns(build, table_name),
        AuthAction::Reindex { index_name } => owns(build, index_name),
        _ => false,
    }
}

/// Whether a table or index is one of `build`, the indexes behind its keys included.
fn owns(build: Build, name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    build.owns(name.strip_prefix("sqlite_autoindex_").unwrap_or(&name))
}
