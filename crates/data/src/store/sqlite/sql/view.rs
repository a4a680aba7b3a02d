//! What statements of a view may do: reach the tables of one build, and nothing else.

use rusqlite::hooks::{AuthAction, AuthContext};

use crate::materialized_view::Build;

/// Functions whose answer depends on more than their arguments and the view's rows.
const FICKLE: [&str; 9] = [
    "random",
    "randomblob",
    "changes",
    "total_changes",
    "last_insert_rowid",
    "current_time",
    "current_date",
    "current_timestamp",
    "load_extension",
];

/// Whether a statement on the rows of `build` may do this.
pub(super) fn allows_rows(build: Build, context: &AuthContext<'_>) -> bool {
    match context.action {
        AuthAction::Select | AuthAction::Recursive => true,
        AuthAction::Function { function_name } => !FICKLE.contains(&&*function_name.to_ascii_lowercase()),
        AuthAction::Read { table_name, .. }
        | AuthAction::Insert { table_name }
        | AuthAction::Update { table_name, .. }
        | AuthAction::Delete { table_name } => owns(build, table_name),
        _ => false,
    }
}

/// Whether a statement that makes or drops tables of `build` may do this.
pub(super) fn allows_schema(build: Build, context: &AuthContext<'_>) -> bool {
    // The engine keeps its catalogue itself, and asks about it; nobody else may write there anyway.
    let catalogue = |table: &str| matches!(table, "sqlite_master" | "sqlite_schema");
    match context.action {
        AuthAction::Select => true,
        AuthAction::Function { function_name } => !FICKLE.contains(&&*function_name.to_ascii_lowercase()),
        AuthAction::Read { table_name, .. }
        | AuthAction::Insert { table_name }
        | AuthAction::Update { table_name, .. }
        | AuthAction::Delete { table_name } => owns(build, table_name) || catalogue(table_name),
        AuthAction::CreateTable { table_name } | AuthAction::DropTable { table_name } => owns(build, table_name),
        AuthAction::CreateIndex { index_name, table_name } | AuthAction::DropIndex { index_name, table_name } => {
            owns(build, index_name) && owns(build, table_name)
        }
        AuthAction::Reindex { index_name } => owns(build, index_name),
        _ => false,
    }
}

/// Whether a table or index is one of `build`, the indexes behind its keys included.
fn owns(build: Build, name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    build.owns(name.strip_prefix("sqlite_autoindex_").unwrap_or(&name))
}
