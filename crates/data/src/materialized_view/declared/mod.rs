//! Views that are declared without Rust, in a document that anybody can send: from TOML, YAML or JSON to rows.
//!
//! A [`Document`] names tables with typed columns and, per type of event, the SQL statements that change them, with
//! parameters bound to places in the event. [`Views::declare`](super::Views::declare) checks it, keeps it in the store,
//! and runs it from then on like a [`Projection`](super::Projection) in Rust: the same transaction of rows and
//! checkpoint, rebuilds, parked events, switches. After a restart
//! [`Views::start_declared`](super::Views::start_declared) goes on with what was declared.
//!
//! # What is checked
//! 1. The text (`source`, `document`): fields, names, types, programs, each with line, column and field.
//! 2. The statements (`sql`): a grammar of what SQLite and PostgreSQL both read, and read alike, with functions that
//!    always give the same answer (ADR 17).
//! 3. The engine (`trial`): every statement is prepared against the declared tables, in memory and under the authorizer
//!    that keeps it to them; then every sample is applied and its rows are compared.
//!
//! # What holds
//! A document under a version never changes its meaning: another one with the same number is refused
//! ([`FoldChanged`](super::ViewError::FoldChanged)), and what was stored is stored together with its first build, or not
//! at all. An event that a rule has no value for, or whose statement fails, is poison as in any view.
//!
//! # Programs
//! A rule may have a [jq](quorate_foundations::jq) program that makes rows' values of an event where paths and SQL are not
//! enough. It is checked with the text, and run by the samples, rebuilds and explanations as it is by the log. What it takes
//! is counted and never timed, so that an event it cannot be run for is poison on every machine.
//!
//! *When not to use it*: where rows need more than SQL over the view's own tables and a program over one event; write a
//! [`Projection`](super::Projection) then.

mod bind;
mod document;
mod explain;
mod extract;
mod keep;
mod kind;
mod path;
mod projection;
mod replica;
mod served;
mod service;
mod sql;
mod trial;
mod watch;

use quorate_foundations::document as source;

pub use document::{ColumnShape, Document, TableShape};
pub use explain::{Asked, Change, Explanation};
pub use keep::StoredDocument;
pub(crate) use keep::TABLES;
pub(super) use keep::{Origin, forget, is_kept, kept};
pub use kind::{Kind, UnknownKind};
pub use service::{Declaration, NotStarted};
pub use source::{Fault, Faults, Format};

/// What of documents, and of what they declare, is limited and cannot be set.
pub(super) const FIXED: [(&str, usize); 14] = [
    ("columns", Document::MAX_COLUMNS),
    ("decimal-places", Kind::MAX_PLACES as usize),
    ("document-bytes", Document::MAX_BYTES),
    ("document-versions", keep::MAX_VERSIONS),
    ("explained-changes", explain::MAX_CHANGES),
    ("items-per-event", bind::MAX_ITEMS),
    ("parameters", Document::MAX_STATEMENTS),
    ("path-steps", path::MAX_STEPS),
    ("rules", Document::MAX_RULES),
    ("sample-events", Document::MAX_SAMPLES),
    ("samples", Document::MAX_SAMPLES),
    ("statement-depth", sql::grammar::MAX_DEPTH),
    ("statement-tokens", sql::grammar::MAX_TOKENS),
    ("statements", Document::MAX_STATEMENTS),
];

#[cfg(test)]
mod tests;
