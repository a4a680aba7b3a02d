//! Queries.

use super::{Outcome, Parser, ShapeColumn, SqlFault, To, TokenKind};

impl Parser<'_> {
    /// A query. `positioned`: each of its rows gets the event's position as one more column.
    pub(super) fn query(&mut self, positioned: bool) -> Outcome {
        self.deeper(|parser| {
            let outer = parser.named.len();
            if parser.accept("with") {
                parser.with()?;
            }
            parser.core(positioned)?;
            while parser.accept("union") || parser.accept("except") || parser.accept("intersect") {
                parser.accept("all");
                parser.core(positioned)?;
            }
            parser.order()?;
            if parser.accept("limit") {
                parser.expr()?;
                if parser.accept("offset") {
                    parser.expr()?;
                }
            }
            parser.named.truncate(outer);
            Ok(())
        })
    }

    fn with(&mut self) -> Outcome {
        if self.sees("recursive") {
            return Err(self.fault("a statement that changes rows has no recursion, which need not end"));
        }
        loop {
            let name = self.given_name()?;
            if self.accept_sign("(") {
                let columns = self.names()?;
                self.given.extend(columns);
            }
            self.expect("as")?;
            self.expect_sign("(")?;
            self.query(false)?;
            self.expect_sign(")")?;
            self.named.push(name);
            if !self.accept_sign(",") {
                return Ok(());
            }
        }
    }

    /// `name, …)`
    fn names(&mut self) -> Outcome<Vec<String>> {
        let mut names = Vec::new();
        loop {
            names.push(self.name("a column")?);
            if !self.accept_sign(",") {
                return self.expect_sign(")").map(|()| names);
            }
        }
    }

    fn core(&mut self, positioned: bool) -> Outcome {
        if self.accept("values") {
            return self.rows(None, positioned);
        }
        self.expect("select")?;
        if !self.accept("distinct") {
            self.accept("all");
        }
        self.items()?;
        if positioned {
            let behind = self.behind();
            self.edit(behind..behind, To::Position(", ", ""));
        }
        if self.accept("from") {
            self.tables()?;
        }
        if self.accept("where") {
            self.expr()?;
        }
        if self.accept("group") {
            self.expect("by")?;
            self.exprs()?;
        }
        if self.accept("having") {
            self.expr()?;
        }
        if self.accept("window") {
            self.windows()?;
        }
        Ok(())
    }

    /// `(expr, …), …`
    pub(super) fn rows(&mut self, into: Option<(&str, &[&ShapeColumn])>, positioned: bool) -> Outcome {
        loop {
            let at = self.here();
            self.expect_sign("(")?;
            let found = self.each_expr()?;
            if let Some((table, columns)) = into {
                let (width, found_values) = (columns.len(), found.len());
                if width != found_values {
                    return Err(SqlFault::new(at, format!("there are {width} columns and {found_values} values")));
                }
                for (value, column) in found.into_iter().zip(columns) {
                    self.stored(value, table, column)?;
                }
            }
            if positioned {
                let behind = self.behind();
                self.edit(behind..behind, To::Position(", ", ""));
            }
            self.expect_sign(")")?;
            if !self.accept_sign(",") {
                return Ok(());
            }
        }
    }

    fn items(&mut self) -> Outcome {
        loop {
            self.item()?;
            if !self.accept_sign(",") {
                return Ok(());
            }
        }
    }

    fn item(&mut self) -> Outcome {
        if self.sees_sign("*") || self.sees_all_of() {
            return Err(self.fault("columns are named one by one here, so that another column changes nothing"));
        }
        self.expr()?;
        self.alias().map(|_| ())
    }

    /// `name.*`
    fn sees_all_of(&self) -> bool {
        let kind = |ahead: usize| self.tokens.get(self.at + ahead).map(|token| &token.kind);
        matches!(kind(0), Some(TokenKind::Word(_) | TokenKind::Quoted(_)))
            && kind(1) == Some(&TokenKind::Sign("."))
            && kind(2) == Some(&TokenKind::Sign("*"))
    }

    /// `name.`, where the name may be a table's.
    pub(super) fn qualifier(&mut self) {
        let span = self.tokens[self.at].span.clone();
        if let TokenKind::Word(name) | TokenKind::Quoted(name) = self.kind().clone()
            && self.shapes.contains_key(&name)
        {
            self.edit(span, To::Table(name));
        }
        self.at += 2;
    }

    /// `table {join}, …`
    pub(super) fn tables(&mut self) -> Outcome {
        loop {
            self.joined()?;
            if !self.accept_sign(",") {
                return Ok(());
            }
        }
    }

    fn joined(&mut self) -> Outcome {
        self.table()?;
        loop {
            let cross = self.accept("cross");
            let outer = !cross && (self.accept("left") || self.accept("right") || self.accept("full"));
            if outer {
                self.accept("outer");
            }
            let inner = !cross && !outer && self.accept("inner");
            if !self.accept("join") {
                return if cross || outer || inner { Err(self.fault("JOIN stands here")) } else { Ok(()) };
            }
            self.table()?;
            if cross {
                continue;
            }
            if self.accept("using") {
                self.expect_sign("(")?;
                self.names()?;
            } else {
                self.expect("on")?;
                self.expr()?;
            }
        }
    }

    fn table(&mut self) -> Outcome {
        if self.accept_sign("(") {
            if self.sees("select") || self.sees("with") || self.sees("values") {
                self.query(false)?;
                self.expect_sign(")")?;
                return if self.alias()? { Ok(()) } else { Err(self.fault("a name for the query stands here")) };
            }
            self.deeper(Self::joined)?;
            return self.expect_sign(")");
        }
        let (at, span) = (self.here(), self.tokens[self.at].span.clone());
        let name = self.name("a table")?;
        if self.shapes.contains_key(&name) {
            self.edit(span, To::Table(name));
        } else if !self.named.contains(&name) {
            return Err(SqlFault::new(at, self.no_table(&name)));
        }
        self.alias().map(|_| ())
    }

    /// `ORDER BY …`, if it is there.
    pub(super) fn order(&mut self) -> Outcome {
        if !self.accept("order") {
            return Ok(());
        }
        self.expect("by")?;
        loop {
            self.expr()?;
            if !self.accept("asc") {
                self.accept("desc");
            }
            if self.accept("nulls") && !self.accept("first") && !self.accept("last") {
                return Err(self.fault("FIRST or LAST stands here"));
            }
            if !self.accept_sign(",") {
                return Ok(());
            }
        }
    }

    fn windows(&mut self) -> Outcome {
        loop {
            self.given_name()?;
            self.expect("as")?;
            self.window()?;
            if !self.accept_sign(",") {
                return Ok(());
            }
        }
    }
}
