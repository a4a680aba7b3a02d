//! A document's text as a tree that knows where everything stands.
//!
//! Both forms, TOML and JSON, become the same [`Node`]s, so that everything behind is written once and every fault is told
//! with its line and column.

mod fault;
mod json;
mod reader;
mod toml;

use std::ops::Range;

pub(crate) use fault::{Fault, Faults};
pub(super) use reader::{Reader, Table};

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// TOML 1.0.
    Toml,
    /// JSON.
    Json,
}

impl Format {
    /// Its name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Toml => "toml",
            Self::Json => "json",
        }
    }

    /// The form whose name is `name`.
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Toml, Self::Json].into_iter().find(|format| format.as_str() == name)
    }
}

/// A value of the document.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    /// Where it stands, in bytes.
    pub(super) span: Range<usize>,
    pub(super) value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Boolean(bool),
    /// As it is written.
    Number(String),
    Text(String),
    List(Vec<Node>),
    /// In the order of the document.
    Table(Vec<Entry>),
}

/// A member of a table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Range<usize>,
    pub(super) node: Node,
}

impl Value {
    /// What it is, for an error.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }

    /// As JSON.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Boolean(yes) => (*yes).into(),
            Self::Number(number) => serde_json::from_str(number).unwrap_or_else(|_| number.as_str().into()),
            Self::Text(text) => text.as_str().into(),
            Self::List(list) => list.iter().map(|node| node.value.to_json()).collect(),
            Self::Table(table) => table.iter().map(|entry| (entry.key.clone(), entry.node.value.to_json())).collect(),
        }
    }
}

/// Reads the tree of `text`.
pub(super) fn parse(text: &str, format: Format) -> Result<Node, Fault> {
    match format {
        Format::Toml => toml::parse(text),
        Format::Json => json::parse(text),
    }
}

#[cfg(test)]
mod tests;
