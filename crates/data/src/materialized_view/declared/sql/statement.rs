//! What a parse finds out about a statement, and the statement as it is run.

use std::{collections::BTreeMap, fmt, ops::Range};

use super::super::kind::Kind;

/// Why a statement is refused, and at which of its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct SqlFault {
    pub(in super::super) at: usize,
    pub(in super::super) what: String,
}

impl SqlFault {
    pub(super) fn new(at: usize, what: impl Into<String>) -> Self {
        Self { at, what: what.into() }
    }
}

impl fmt::Display for SqlFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// What has to be known of a table to check and change statements on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Shape {
    pub(in super::super) columns: Vec<ShapeColumn>,
    pub(in super::super) key: Vec<String>,
}

/// What has to be known of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct ShapeColumn {
    pub(in super::super) name: String,
    pub(in super::super) kind: Kind,
    pub(in super::super) null: bool,
}

impl Shape {
    pub(super) fn column(&self, column: &str) -> Option<&ShapeColumn> {
        self.columns.iter().find(|known| known.name == column)
    }
}

/// A parameter that is put into a column, or compared with one, as it is: then it is of that column's type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Use {
    pub(in super::super) parameter: String,
    /// `table.column`.
    pub(in super::super) column: String,
    pub(in super::super) kind: Kind,
    pub(in super::super) at: usize,
}

/// The tables that a statement may name.
pub(in super::super) type Shapes = BTreeMap<String, Shape>;

/// A statement that is understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Parsed {
    /// The table it changes.
    pub(in super::super) target: String,
    /// Every parameter in order of its first use, and where that is.
    pub(in super::super) parameters: Vec<(String, usize)>,
    /// Parameters that stand for a column's value.
    pub(in super::super) uses: Vec<Use>,
    pub(super) edits: Vec<Edit>,
    /// Where its last word ends.
    pub(super) end: usize,
}

/// A change of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edit {
    pub(super) span: Range<usize>,
    pub(super) to: To,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum To {
    /// The table of this name, in the build at hand.
    Table(String),
    /// The n-th parameter.
    Parameter(usize),
    /// The parameter that holds the event's position, with this before it and that behind it.
    Position(&'static str, &'static str),
    /// This text.
    Words(String),
}

/// A statement as it is run: tables stand in braces, parameters are `$1`, `$2`, …
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Rendered {
    pub(in super::super) sql: String,
    /// Whether one more parameter follows those of the statement: the position of the event.
    pub(in super::super) positioned: bool,
}

impl Parsed {
    /// The statement as it is run.
    pub(in super::super) fn render(&self, sql: &str) -> Rendered {
        let mut edits: Vec<&Edit> = self.edits.iter().collect();
        edits.sort_by_key(|edit| (edit.span.start, edit.span.end));
        let position = self.parameters.len() + 1;
        let (mut rendered, mut at, mut positioned) = (String::with_capacity(sql.len() + 64), 0, false);
        for Edit { span, to } in edits {
            rendered.push_str(&sql[at..span.start]);
            match to {
                To::Table(table) => rendered.push_str(&format!("{{{table}}}")),
                To::Parameter(n) => rendered.push_str(&format!("${n}")),
                To::Position(before, behind) => {
                    positioned = true;
                    rendered.push_str(&format!("{before}${position}{behind}"));
                }
                To::Words(words) => rendered.push_str(words),
            }
            at = span.end;
        }
        rendered.push_str(&sql[at..self.end]);
        Rendered { sql: rendered.trim().to_owned(), positioned }
    }
}
