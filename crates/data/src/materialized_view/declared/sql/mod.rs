//! The SQL of declared views: a portable subset, parsed here.
//!
//! The engine parses every statement too, and its authorizer has the last word. Parsing comes first for three reasons. A
//! statement that another engine would read differently has to be refused when the view is declared, not when it is moved;
//! a fault has to name its place in the document; and the statement has to be changed in places only a parse finds: tables
//! become those of one build, parameters get numbers, and every row that is written gets the position of the event that
//! wrote it.
//!
//! What is accepted is the grammar in [`grammar`] with the words in [`vocabulary`], and nothing else.

pub(super) mod grammar;
mod lexer;
mod statement;
mod vocabulary;

pub(super) use grammar::parse;
pub(super) use statement::{Shape, ShapeColumn, Shapes, SqlFault, Use};
pub(super) use vocabulary::is_reserved;

/// The column that holds the position of the event that last wrote a row.
pub(super) const POSITION: &str = "logposition";

#[cfg(test)]
mod tests;
