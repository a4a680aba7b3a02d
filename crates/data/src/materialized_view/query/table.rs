//! The tables of a build, and the types of their columns.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::super::{Build, BuildRow, Kind, Namespace, ViewError, registered::Registered, shared::Shared};
use crate::store::Value;

/// A table of a view, as its readers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableDescription {
    /// Its name.
    pub name: String,
    /// Its columns, in order.
    pub columns: Vec<ColumnDescription>,
    /// The names of its key's columns, in order; none where it has no key.
    pub key: Vec<String>,
}

/// A column of a view's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnDescription {
    /// Its name.
    pub name: String,
    /// How its values are shown and compared. `None`: as they are, and nothing is compared with them.
    pub kind: Option<Kind>,
}

impl TableDescription {
    /// The column of that name.
    ///
    /// # Errors
    /// [`ViewError::InvalidQuery`], which names those there are.
    pub(in super::super) fn column(&self, name: &str) -> Result<&ColumnDescription, ViewError> {
        self.columns.iter().find(|column| column.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.columns.iter().map(|column| &*column.name).collect();
            let short: String = name.chars().take(64).collect();
            let what = format!("table `{}` has no column `{short}`; it has {}", self.name, known.join(", "));
            ViewError::InvalidQuery { what }
        })
    }
}

impl ColumnDescription {
    /// The value that a text of a query stands for.
    ///
    /// # Errors
    /// [`ViewError::InvalidQuery`].
    pub(super) fn value(&self, text: &str) -> Result<Value, ViewError> {
        let wrong = |why: String| ViewError::InvalidQuery { what: format!("column `{}`: {why}", self.name) };
        let unlike = |kind: &str| wrong(format!("`{}` is no {kind}", text.chars().take(64).collect::<String>()));
        match self.kind {
            None => Err(wrong("values of its type are not compared".to_owned())),
            Some(Kind::Boolean) => match text {
                "true" | "1" => Ok(true.into()),
                "false" | "0" => Ok(false.into()),
                _ => Err(unlike("boolean: true or false")),
            },
            Some(Kind::Real) => {
                let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
                number.map(Value::Real).ok_or_else(|| unlike("number"))
            }
            Some(kind) => kind.of_text(text).map_err(wrong),
        }
    }
}

/// The tables of one build.
pub(in super::super) type Tables = Arc<[TableDescription]>;

/// The tables of builds that were read: those of a build never change.
#[derive(Default)]
pub(in super::super) struct TablesOfBuilds(Mutex<BTreeMap<Build, Tables>>);

impl TablesOfBuilds {
    /// A build was dropped.
    pub(in super::super) fn forget(&self, build: Build) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&build);
    }

    pub(in super::super) async fn of(&self, shared: &Shared, build: &BuildRow) -> Result<Tables, ViewError> {
        if let Some(known) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&build.build) {
            return Ok(known.clone());
        }
        let code = shared.code_of(build).filter(|code| code.fingerprint == build.fingerprint);
        let mut tables = Vec::with_capacity(build.tables.len());
        for name in &build.tables {
            tables.push(describe(shared, code.as_deref(), build, name).await?);
        }
        let tables: Tables = tables.into();
        // Without its code the types of its columns may be unknown: they are looked up again once it runs. A build that was
        // dropped meanwhile is not remembered.
        let is_whole = code.is_some() && tables.iter().all(|table| !table.columns.is_empty());
        if is_whole && shared.local(build.build).is_some() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(build.build, tables.clone());
        }
        Ok(tables)
    }
}

async fn describe(
    shared: &Shared,
    code: Option<&Registered>,
    build: &BuildRow,
    name: &str,
) -> Result<TableDescription, ViewError> {
    let table = Namespace::new(build.view.clone(), build.build).table(name);
    let columns = shared.store.table_columns(&table).await?;
    let mut key: Vec<(u32, String)> =
        columns.iter().filter_map(|column| Some((column.key?, column.name.clone()))).collect();
    key.sort();
    let column = |column: crate::store::TableColumn| ColumnDescription {
        kind: code
            .and_then(|code| code.projection.column_kind(name, &column.name))
            .or_else(|| kind_of(&column.declared)),
        name: column.name,
    };
    Ok(TableDescription {
        name: name.to_owned(),
        columns: columns.into_iter().map(column).collect(),
        key: key.into_iter().map(|(_, name)| name).collect(),
    })
}

/// What a type in a statement means. Source: SQLite, "Datatypes", section 3.1, determination of column affinity.
fn kind_of(declared: &str) -> Option<Kind> {
    let declared = declared.to_ascii_uppercase();
    let says = |words: &[&str]| words.iter().any(|word| declared.contains(word));
    if says(&["INT"]) {
        Some(Kind::Integer)
    } else if says(&["CHAR", "CLOB", "TEXT"]) {
        Some(Kind::Text)
    } else if says(&["BOOL"]) {
        Some(Kind::Boolean)
    } else if declared.is_empty() || says(&["BLOB", "BYTEA"]) {
        None
    } else {
        Some(Kind::Real)
    }
}
