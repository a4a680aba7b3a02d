//! A program as it is run: a table of terms whose names are resolved.

use std::sync::Arc;

pub(super) use jaq_core::ops::{Cmp, Math};

use super::{
    native::{Native, Special},
    value::Value,
};

/// The place of a term in its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id(pub(super) u32);

/// A definition: how many closures it takes, and what it does with them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Definition {
    pub(super) body: Id,
}

/// One thing that a program does. Variables, closures and labels are named by how many were bound after them.
#[derive(Debug)]
pub(super) enum Term {
    Identity,
    Constant(Value),
    /// Texts and terms by turns; terms give texts.
    Text(Vec<Piece>),
    List(Option<Id>),
    Object(Vec<(Id, Id)>),
    Negate(Id),
    Pipe(Id, Id),
    /// `source as pattern | body`
    Bind(Id, Pattern, Id),
    Comma(Id, Id),
    Alternative(Id, Id),
    And(Id, Id),
    Or(Id, Id),
    Math(Id, Math, Id),
    Compare(Id, Cmp, Id),
    Assign(Id, Id),
    Update(Id, Id),
    UpdateMath(Id, Math, Id),
    UpdateAlternative(Id, Id),
    If(Id, Id, Id),
    Try(Id, Option<Id>),
    Reduce {
        source: Id,
        pattern: Pattern,
        init: Id,
        update: Id,
    },
    Foreach {
        source: Id,
        pattern: Pattern,
        init: Id,
        update: Id,
        extract: Option<Id>,
    },
    Label(Id),
    Break(u32),
    Variable(u32),
    /// A filter that the definition around it was given.
    Closure(u32),
    /// `skip`: how many bindings there are here that the definition does not see.
    Call {
        definition: u32,
        arguments: Vec<Id>,
        skip: u32,
    },
    Native(Native, Vec<Id>),
    Special(Special, Vec<Id>),
    Field {
        of: Id,
        key: Value,
        optional: bool,
    },
    Index {
        of: Id,
        key: Id,
        optional: bool,
    },
    Slice {
        of: Id,
        from: Option<Id>,
        to: Option<Id>,
        optional: bool,
    },
    Iterate {
        of: Id,
        optional: bool,
    },
}

#[derive(Debug)]
pub(super) enum Piece {
    Said(Arc<str>),
    Term(Id),
}

#[derive(Debug)]
pub(super) enum Pattern {
    Variable,
    List(Vec<Pattern>),
    Object(Vec<(Id, Pattern)>),
}
