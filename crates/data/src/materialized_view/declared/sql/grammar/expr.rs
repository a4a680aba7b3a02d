//! Expressions, loosest first: OR, AND, NOT, comparisons, sums, products, operands.

use std::ops::Range;

use super::{Outcome, Parser, SqlFault, TokenKind};
use crate::materialized_view::declared::sql::vocabulary::{CASTS, Function, function};

impl Parser<'_> {
    /// `expr, …`; how many there are.
    pub(super) fn exprs(&mut self) -> Outcome<usize> {
        self.each_expr().map(|found| found.len())
    }

    /// `expr, …`; the tokens of each.
    pub(super) fn each_expr(&mut self) -> Outcome<Vec<Range<usize>>> {
        let mut found = Vec::new();
        loop {
            let begin = self.at;
            self.expr()?;
            found.push(begin..self.at);
            if !self.accept_sign(",") {
                return Ok(found);
            }
        }
    }

    pub(super) fn expr(&mut self) -> Outcome {
        self.deeper(|parser| {
            parser.negated()?;
            while parser.accept("or") || parser.accept("and") {
                parser.negated()?;
            }
            Ok(())
        })
    }

    fn negated(&mut self) -> Outcome {
        while self.accept("not") {}
        self.compared()
    }

    fn compared(&mut self) -> Outcome {
        let begin = self.at;
        self.sum()?;
        let left = begin..self.at;
        loop {
            if let Some(sign) = ["=", "<>", "!=", "<", "<=", ">", ">="].iter().find(|sign| self.accept_sign(sign)) {
                let begin = self.at;
                self.sum()?;
                self.compared.push((left.clone(), begin..self.at, ["=", "<>", "!="].contains(sign)));
            } else if self.accept("is") {
                self.is()?;
            } else if self.sees("not") || self.sees("in") || self.sees("between") || self.sees("like") {
                self.accept("not");
                self.tested()?;
            } else {
                return Ok(());
            }
        }
    }

    fn is(&mut self) -> Outcome {
        self.accept("not");
        if ["null", "true", "false"].iter().any(|word| self.accept(word)) {
            return Ok(());
        }
        if self.accept("distinct") {
            self.expect("from")?;
            return self.sum();
        }
        Err(self.fault("NULL, TRUE, FALSE or DISTINCT FROM stands here"))
    }

    fn tested(&mut self) -> Outcome {
        if self.accept("in") {
            self.expect_sign("(")?;
            self.query_or_exprs()?;
            return self.expect_sign(")");
        }
        if self.accept("between") {
            self.sum()?;
            self.expect("and")?;
            return self.sum();
        }
        Err(self.fault("IN or BETWEEN stands here"))
    }

    fn sum(&mut self) -> Outcome {
        self.signed()?;
        while ["+", "-", "*", "/", "%", "||"].iter().any(|sign| self.accept_sign(sign)) {
            self.signed()?;
        }
        Ok(())
    }

    fn signed(&mut self) -> Outcome {
        while self.accept_sign("-") || self.accept_sign("+") {}
        self.operand()
    }

    fn operand(&mut self) -> Outcome {
        match self.kind().clone() {
            TokenKind::Number | TokenKind::Text => {
                self.at += 1;
                Ok(())
            }
            TokenKind::Parameter(name) => {
                self.parameter(name);
                Ok(())
            }
            TokenKind::Sign("(") => {
                self.at += 1;
                self.query_or_exprs()?;
                self.expect_sign(")")
            }
            TokenKind::Word(word) => self.word(&word),
            TokenKind::Quoted(_) => self.reference(),
            _ => Err(self.fault("an expression stands here")),
        }
    }

    fn query_or_exprs(&mut self) -> Outcome {
        if self.sees("select") || self.sees("with") || self.sees("values") {
            self.query(false)
        } else {
            self.exprs().map(|_| ())
        }
    }

    fn word(&mut self, word: &str) -> Outcome {
        match word {
            "null" | "true" | "false" => {
                self.at += 1;
                Ok(())
            }
            "case" => self.case(),
            "cast" => self.cast(),
            "exists" => {
                self.at += 1;
                self.expect_sign("(")?;
                self.query(false)?;
                self.expect_sign(")")
            }
            _ if *self.following() == TokenKind::Sign("(") => self.call(word),
            _ => self.reference(),
        }
    }

    /// A column, perhaps with its table before it.
    fn reference(&mut self) -> Outcome {
        if *self.following() == TokenKind::Sign(".") {
            self.qualifier();
        }
        self.name("an expression").map(|_| ())
    }

    fn case(&mut self) -> Outcome {
        self.expect("case")?;
        if !self.sees("when") {
            self.expr()?;
        }
        self.expect("when")?;
        loop {
            self.expr()?;
            self.expect("then")?;
            self.expr()?;
            if !self.accept("when") {
                break;
            }
        }
        if self.accept("else") {
            self.expr()?;
        }
        self.expect("end")
    }

    fn cast(&mut self) -> Outcome {
        self.expect("cast")?;
        self.expect_sign("(")?;
        self.expr()?;
        self.expect("as")?;
        if !CASTS.iter().any(|kind| self.accept(kind)) {
            return Err(self.fault(&format!("one of {} stands here", CASTS.join(", "))));
        }
        self.expect_sign(")")
    }

    fn call(&mut self, name: &str) -> Outcome {
        let at = self.here();
        self.at += 2;
        let mut arguments = 0;
        if self.accept_sign("*") {
            if name != "count" {
                return Err(SqlFault::new(at, "only `count` counts rows with `*`"));
            }
        } else if !self.sees_sign(")") {
            self.accept("distinct");
            arguments = self.exprs()?;
        }
        self.expect_sign(")")?;
        let kind = function(name, arguments, at)?;
        if self.accept("filter") {
            self.expect_sign("(")?;
            self.expect("where")?;
            self.expr()?;
            self.expect_sign(")")?;
        }
        if self.accept("over") {
            if kind == Function::Scalar {
                return Err(SqlFault::new(at, format!("`{name}` has no window")));
            }
            return if self.sees_sign("(") { self.window() } else { self.name("a window").map(|_| ()) };
        }
        if kind == Function::Windowed {
            return Err(SqlFault::new(at, format!("`{name}` needs a window: OVER (…)")));
        }
        Ok(())
    }

    /// `([PARTITION BY …] [ORDER BY …] [ROWS …])`
    pub(super) fn window(&mut self) -> Outcome {
        self.expect_sign("(")?;
        if self.accept("partition") {
            self.expect("by")?;
            self.exprs()?;
        }
        self.order()?;
        if self.accept("rows") || self.accept("range") || self.accept("groups") {
            if self.accept("between") {
                self.bound()?;
                self.expect("and")?;
            }
            self.bound()?;
        }
        self.expect_sign(")")
    }

    fn bound(&mut self) -> Outcome {
        if self.accept("current") {
            return self.expect("row");
        }
        if !self.accept("unbounded") {
            self.sum()?;
        }
        if self.accept("preceding") || self.accept("following") {
            return Ok(());
        }
        Err(self.fault("PRECEDING or FOLLOWING stands here"))
    }
}
