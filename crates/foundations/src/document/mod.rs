//! A document's text as a tree that knows where everything stands.
//!
//! All forms, YAML, TOML and JSON, become the same [`Node`]s, so that everything behind is written once and every fault is
//! told with its line and column. [`Reader`] and [`Table`] read fields strictly and go on after a fault, so that one reading
//! tells everything.
//!
//! *When not to use it*: for what programs send each other, where nobody needs to be told a line.
//!
//! # Example
//! ```
//! use quorate_foundations::document::{Format, Reader, Table, parse};
//! let text = "name: orders\nretires: 3\n";
//! let root = parse(text, Format::Yaml).unwrap();
//! let reader = Reader::new(text);
//! let mut table = Table::of(&reader, "", &root).unwrap();
//! assert_eq!(table.required_text("name").map(|(name, _)| name), Some("orders"));
//! assert_eq!(table.number_if_there("retries"), None);
//! table.end();
//! let faults = reader.finish().unwrap().to_string();
//! assert_eq!(faults, "line 2, column 1: `retires`: there is no `retires` here; did you mean `retries`?");
//! ```

mod fault;
mod json;
mod reader;
mod toml;
mod yaml;

use std::ops::Range;

use serde_json::value::RawValue;

pub use fault::{Fault, Faults};
pub use reader::{Reader, Table, texts};

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// TOML 1.0.
    Toml,
    /// JSON.
    Json,
    /// YAML 1.2 without anchors.
    Yaml,
}

/// How deep a document may be nested.
const MAX_DEPTH: usize = 32;

impl Format {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Toml => "toml",
            Self::Json => "json",
            Self::Yaml => "yaml",
        }
    }

    /// The form that the name of a file says it has.
    pub fn of_file(name: &str) -> Option<Self> {
        match name.rsplit_once('.')?.1 {
            "toml" => Some(Self::Toml),
            "json" => Some(Self::Json),
            "yaml" | "yml" => Some(Self::Yaml),
            _ => None,
        }
    }

    /// The form whose name is `name`.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Toml, Self::Json, Self::Yaml].into_iter().find(|format| format.as_str() == name)
    }
}

/// A value of the document.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it stands, in bytes.
    pub span: Range<usize>,
    /// What stands there.
    pub value: Value,
}

/// What stands somewhere in a document.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// Yes or no.
    Boolean(bool),
    /// As it is written.
    Number(String),
    /// Without its quotes and escapes.
    Text(String),
    /// In order.
    List(Vec<Node>),
    /// In the order of the document.
    Table(Vec<Entry>),
}

/// A member of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its name.
    pub key: String,
    /// Where the name stands, in bytes.
    pub key_span: Range<usize>,
    /// What it is.
    pub node: Node,
}

impl Value {
    /// What it is, for an error.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }

    /// As JSON, with numbers as they are written.
    pub fn to_json(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Boolean(yes) => yes.to_string(),
            Self::Number(number) if serde_json::from_str::<&RawValue>(number).is_ok() => number.clone(),
            Self::Text(text) | Self::Number(text) => serde_json::Value::from(text.as_str()).to_string(),
            Self::List(list) => {
                let items: Vec<String> = list.iter().map(|node| node.value.to_json()).collect();
                format!("[{}]", items.join(","))
            }
            Self::Table(table) => {
                let key = |entry: &Entry| serde_json::Value::from(entry.key.as_str()).to_string();
                let members: Vec<String> =
                    table.iter().map(|entry| format!("{}:{}", key(entry), entry.node.value.to_json())).collect();
                format!("{{{}}}", members.join(","))
            }
        }
    }
}

/// Reads the tree of `text`.
///
/// # Errors
/// The first thing that keeps it from being a document of its form, or that there is another document behind it.
pub fn parse(text: &str, format: Format) -> Result<Node, Fault> {
    let mut all = parse_all(text, format)?.into_iter();
    let first = all.next().ok_or_else(|| Fault::at(text, 0, "", "there is nothing in it"))?;
    match all.next() {
        None => Ok(first),
        Some(second) => Err(Fault::at(text, second.span.start, "", "a second document begins here, and one is read")),
    }
}

/// Reads the trees of all documents in `text`: YAML may hold several, with `---` between them.
///
/// # Errors
/// The first thing that keeps it from being documents of its form.
pub fn parse_all(text: &str, format: Format) -> Result<Vec<Node>, Fault> {
    match format {
        Format::Toml => toml::parse(text).map(|node| vec![node]),
        Format::Json => json::parse(text).map(|node| vec![node]),
        Format::Yaml => yaml::parse(text),
    }
}

#[cfg(test)]
mod tests;
