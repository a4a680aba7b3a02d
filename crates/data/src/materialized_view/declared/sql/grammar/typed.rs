//! Types: what is put into a column as it is, or compared with one, has to be of its type.
//!
//! Only a parameter or a literal that stands alone is looked at. Behind an expression the engine, and the checks of the table,
//! have the last word.

use std::ops::Range;

use super::{Outcome, Parser, ShapeColumn, SqlFault, TokenKind};
use crate::{
    materialized_view::declared::{kind::Kind, sql::statement::Use},
    store::Value,
};

/// A value that stands alone.
enum Bare {
    Parameter(String),
    Null,
    Boolean,
    Number(String),
    Text(String),
}

impl Parser<'_> {
    /// `value` becomes the value of a column.
    pub(super) fn stored(&mut self, value: Range<usize>, table: &str, column: &ShapeColumn) -> Outcome {
        let name = format!("{table}.{}", column.name);
        if !column.null && matches!(self.bare(value.clone()), Some(Bare::Null)) {
            let at = self.tokens[value.start].span.start;
            return Err(SqlFault::new(at, format!("`{name}` may not be null")));
        }
        self.takes(value, &name, column.kind, true)
    }

    /// Looks at everything that is compared, once it is known which names the statement gives.
    pub(super) fn all_compared(&mut self) -> Outcome {
        for (left, right, alike) in std::mem::take(&mut self.compared) {
            self.compares(left, right, alike)?;
        }
        self.parsed.uses.sort_by_key(|used| used.at);
        Ok(())
    }

    /// Two sides are compared; `alike`: whether they are the same.
    fn compares(&mut self, left: Range<usize>, right: Range<usize>, alike: bool) -> Outcome {
        match (self.column_of(left.clone()), self.column_of(right.clone())) {
            (Some((name, kind)), None) => self.takes(right, &name, kind, alike),
            (None, Some((name, kind))) => self.takes(left, &name, kind, alike),
            _ => Ok(()),
        }
    }

    fn takes(&mut self, value: Range<usize>, column: &str, kind: Kind, literals: bool) -> Outcome {
        let at = self.tokens.get(value.start).map_or(0, |token| token.span.start);
        let wrong = |said: &str| SqlFault::new(at, format!("`{column}` is {kind}, and {said} is none"));
        match self.bare(value) {
            Some(Bare::Parameter(parameter)) => {
                self.parsed.uses.push(Use { parameter, column: column.to_owned(), kind, at });
                Ok(())
            }
            Some(Bare::Boolean) if literals && kind != Kind::Boolean => Err(wrong("a truth value")),
            Some(Bare::Number(number)) if literals && !fits_number(kind, &number) => Err(wrong(&number)),
            Some(Bare::Text(text)) if literals && !fits_text(kind, &text) => Err(wrong(&format!("'{text}'"))),
            _ => Ok(()),
        }
    }

    fn bare(&self, value: Range<usize>) -> Option<Bare> {
        let said = |at: usize| self.sql[self.tokens[at].span.clone()].to_owned();
        let first = value.start;
        match (value.len(), &self.tokens.get(first)?.kind) {
            (1, TokenKind::Parameter(name)) => Some(Bare::Parameter(name.clone())),
            (1, TokenKind::Number) => Some(Bare::Number(said(first))),
            (1, TokenKind::Text) => {
                let quoted = said(first);
                let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
                Some(Bare::Text(inner.replace("''", "'")))
            }
            (1, TokenKind::Word(word)) => match word.as_str() {
                "null" => Some(Bare::Null),
                "true" | "false" => Some(Bare::Boolean),
                _ => None,
            },
            (2, TokenKind::Sign(sign @ ("-" | "+"))) if self.tokens.get(first + 1)?.kind == TokenKind::Number => {
                Some(Bare::Number(format!("{}{}", if *sign == "-" { "-" } else { "" }, said(first + 1))))
            }
            _ => None,
        }
    }

    /// The column that stands alone there, where it is known which one it is.
    fn column_of(&self, value: Range<usize>) -> Option<(String, Kind)> {
        let name = |at: usize| match &self.tokens.get(at)?.kind {
            TokenKind::Word(name) | TokenKind::Quoted(name) => Some(name.as_str()),
            _ => None,
        };
        match value.len() {
            1 => {
                let column = name(value.start)?;
                // A query's column may be called as a table's.
                if self.given.iter().any(|given| given == column) {
                    return None;
                }
                let mut found = self.shapes.iter().filter_map(|(table, shape)| Some((table, shape.column(column)?)));
                let (table, first) = found.next()?;
                // Of several tables that have one of that name, whichever it is.
                found.all(|(_, other)| other.kind == first.kind).then(|| (format!("{table}.{column}"), first.kind))
            }
            3 if self.tokens.get(value.start + 1)?.kind == TokenKind::Sign(".") => {
                let (qualifier, column) = (name(value.start)?, name(value.start + 2)?);
                let table = if qualifier == "excluded" { self.parsed.target.as_str() } else { qualifier };
                let found = self.shapes.get(table)?.column(column)?;
                Some((format!("{table}.{column}"), found.kind))
            }
            _ => None,
        }
    }
}

fn fits_number(kind: Kind, number: &str) -> bool {
    match kind {
        Kind::Integer | Kind::Decimal(_) | Kind::Timestamp | Kind::Position => number.parse::<i64>().is_ok(),
        Kind::Boolean => ["0", "1"].contains(&number),
        Kind::Real | Kind::Json => true,
        Kind::Text | Kind::Date => false,
    }
}

fn fits_text(kind: Kind, text: &str) -> bool {
    match kind {
        Kind::Text => true,
        Kind::Date => kind.of_text(text).is_ok_and(|day| day == Value::from(text)),
        Kind::Json => serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok(),
        _ => false,
    }
}
