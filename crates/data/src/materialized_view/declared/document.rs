//! A view as a document declares it.

mod events;
mod feeds;
mod read;
mod rules;
mod tables;

use std::{ops::Range, sync::Arc};

use super::{
    bind::Bindings,
    kind::Kind,
    source::{Faults, Format, Node, Reader, Value as Written},
    sql::POSITION,
};
use crate::{
    event::{NewEvent, Recorded},
    materialized_view::{Config, Schema, ViewName},
    store::{Query, Value},
};
use quorate_foundations::name::Name;

/// A view without Rust: a document in TOML, YAML or JSON that says which events, which tables, and how one changes the other.
///
/// [`read`](Self::read) checks everything that can be told from the text: names, types, the grammar of statements, which
/// parameter is bound to what. [`Views::check`](crate::materialized_view::Views::check) prepares each statement in the
/// engine as well, and tries the view on the samples that the document brings.
///
/// # Example
/// ```
/// use quorate_data::materialized_view::declared::{Document, Format};
/// let document = Document::read(r#"
///     view = "visits"
///     version = 1
///
///     [tables.visit]
///     key = "stream"
///     columns = { stream = "text", n = "integer" }
///
///     [[on]]
///     type = "entered"
///     bind = { stream = "$.stream" }
///     sql = "INSERT INTO visit (stream, n) VALUES (:stream, 1) ON CONFLICT (stream) DO UPDATE SET n = visit.n + 1"
/// "#, Format::Toml)?;
/// assert_eq!(document.view().as_str(), "visits");
/// let wrong = Document::read("view = 'visits'\nversion = 0", Format::Toml).unwrap_err();
/// assert_eq!((wrong.list[0].line, wrong.list[0].field.as_str()), (1, "tables"));
/// # Ok::<_, quorate_data::materialized_view::declared::Faults>(())
/// ```
#[derive(Debug)]
pub struct Document {
    text: Arc<str>,
    format: Format,
    view: ViewName,
    version: u32,
    description: String,
    config: Config,
    query: Query,
    /// Types of events that only say that a source speaks.
    heartbeats: Vec<String>,
    pub(super) tables: Vec<TableShape>,
    pub(super) rules: Vec<Rule>,
    pub(super) samples: Vec<Sample>,
    /// Everything in it that makes a difference, in one spelling.
    meaning: String,
}

/// A table of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableShape {
    /// Its name in statements.
    pub name: String,
    /// Its columns in order, without the position that every row has besides.
    pub columns: Vec<ColumnShape>,
    /// The columns of its key, in order.
    pub key: Vec<String>,
    /// Its indexes: names and columns.
    pub indexes: Vec<(String, Vec<String>)>,
}

/// A column of a view's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnShape {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// Whether it may be without a value.
    pub null: bool,
}

/// What happens to the tables because of an event.
#[derive(Debug)]
pub(super) struct Rule {
    /// Which types of events; every one where there are none.
    pub(super) types: Vec<TypePattern>,
    /// Whether it runs for events whose data is gone, with nothing in its place.
    pub(super) takes_gone: bool,
    pub(super) bindings: Bindings,
    pub(super) statements: Vec<Statement>,
}

/// One type, or all that begin so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TypePattern {
    Is(String),
    BeginsWith(String),
}

/// A statement as it is run: tables stand in braces.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) sql: String,
    /// Which of the rule's parameters `$1`, `$2`, … are.
    pub(super) parameters: Vec<usize>,
    /// Whether the event's position follows them.
    pub(super) positioned: bool,
    pub(super) place: Place,
}

/// Where something stands in the document.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) field: String,
    pub(super) span: Range<usize>,
}

/// Events to try the view on, and the rows they should lead to.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) events: Vec<(Name, NewEvent, Place)>,
    pub(super) rows: Vec<ExpectedTable>,
}

/// All rows that a table should have.
#[derive(Debug)]
pub(super) struct ExpectedTable {
    /// The number of the table.
    pub(super) table: usize,
    pub(super) place: Place,
    pub(super) rows: Vec<ExpectedRow>,
}

/// Values of some columns, by their numbers.
#[derive(Debug)]
pub(super) struct ExpectedRow {
    pub(super) values: Vec<(usize, Value)>,
    pub(super) place: Place,
}

impl Document {
    /// The most bytes of a document.
    pub const MAX_BYTES: usize = 256 << 10;
    /// The most tables.
    pub const MAX_TABLES: usize = 32;
    /// The most columns of a table.
    pub const MAX_COLUMNS: usize = 64;
    /// The most rules.
    pub const MAX_RULES: usize = 100;
    /// The most statements of a rule, and the most parameters.
    pub const MAX_STATEMENTS: usize = 32;
    /// The most samples, and the most events of one.
    pub const MAX_SAMPLES: usize = 100;

    /// A JSON Schema of documents, for editors and forms. It knows less than [`read`](Self::read), which also knows SQL.
    pub const SCHEMA: &str = include_str!("view.schema.json");

    /// Reads a document and checks what can be told from its text alone.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with line, column and field; at most [`Faults::MAX`].
    pub fn read(text: &str, format: Format) -> Result<Self, Faults> {
        read::document(text, format)
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How it was written.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The view's name.
    pub fn view(&self) -> &ViewName {
        &self.view
    }

    /// Its version, counted from 1.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// What it is for, in the words of whoever wrote it; may be empty.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// How it is kept up to date.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its events.
    pub fn query(&self) -> &Query {
        &self.query
    }

    /// Whether an event may change its rows: it is of one of the sources, where the document names some, and no heartbeat.
    pub(super) fn is_about(&self, event: &Recorded) -> bool {
        let is_heard = self.config.feeds.as_ref().is_none_or(|feeds| feeds.has(event));
        is_heard && !self.heartbeats.iter().any(|kind| kind == event.kind())
    }

    /// Its tables.
    pub fn tables(&self) -> &[TableShape] {
        &self.tables
    }

    /// Everything in it that makes a difference to rows, in one spelling: the same for documents that differ in comments,
    /// layout, description, samples or form only.
    pub(super) fn meaning(&self) -> &str {
        &self.meaning
    }

    /// The statements that make its tables.
    pub(super) fn schema(&self) -> Schema {
        self.tables.iter().fold(Schema::new(), |schema, table| {
            let schema = schema.table(&table.name, table.create());
            table.indexes.iter().fold(schema, |schema, (name, columns)| {
                let index = table.index(name);
                let create = format!("CREATE INDEX {{{index}}} ON {{{}}} ({})", table.name, quoted(columns));
                schema.index(index, create)
            })
        })
    }
}

impl Rule {
    /// Whether it is about this event.
    pub(super) fn matches(&self, event: &Recorded) -> bool {
        let fits = |pattern: &TypePattern| match pattern {
            TypePattern::Is(kind) => kind == event.kind(),
            TypePattern::BeginsWith(start) => event.kind().starts_with(start),
        };
        (self.types.is_empty() || self.types.iter().any(fits)) && (self.takes_gone || !event.is_gone())
    }
}

impl TableShape {
    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&ColumnShape> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// What the index `name` is called among the view's tables.
    fn index(&self, name: &str) -> String {
        format!("{}_{name}", self.name)
    }

    /// The query for one row by its key, with the position that wrote it behind its columns.
    pub(super) fn lookup(&self) -> String {
        let columns: Vec<String> = self.columns.iter().map(|column| column.name.clone()).collect();
        let is = |(n, column): (usize, &String)| format!("\"{column}\" = ${}", n + 1);
        let key: Vec<String> = self.key.iter().enumerate().map(is).collect();
        format!("SELECT {}, \"{POSITION}\" FROM {{{}}} WHERE {}", quoted(&columns), self.name, key.join(" AND "))
    }

    fn create(&self) -> String {
        let column = |column: &ColumnShape| {
            let ColumnShape { name, kind, null } = column;
            // What an expression makes is not known before it is there.
            let check = match kind {
                Kind::Boolean => format!(" CHECK (\"{name}\" IN (0, 1))"),
                Kind::Date => format!(" CHECK (date(\"{name}\") IS \"{name}\")"),
                Kind::Json => format!(" CHECK (json_valid(\"{name}\"))"),
                _ => String::new(),
            };
            format!("\"{name}\" {}{}{check}", kind.storage(), if *null { "" } else { " NOT NULL" })
        };
        let columns: Vec<String> = self.columns.iter().map(column).collect();
        format!(
            "CREATE TABLE {{{}}} ({}, \"{POSITION}\" INTEGER NOT NULL, PRIMARY KEY ({})) STRICT",
            self.name,
            columns.join(", "),
            quoted(&self.key)
        )
    }
}

/// Columns as a statement lists them.
pub(super) fn quoted(columns: &[String]) -> String {
    columns.iter().map(|column| format!("\"{column}\"")).collect::<Vec<_>>().join(", ")
}

impl Place {
    fn new(field: impl Into<String>, span: &Range<usize>) -> Self {
        Self { field: field.into(), span: span.clone() }
    }
}

#[cfg(test)]
mod tests;
