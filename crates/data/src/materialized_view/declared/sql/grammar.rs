//! The grammar, by recursive descent.
//!
//! ```text
//! insert := INSERT INTO table (columns) {VALUES rows | query} [ON CONFLICT (columns) DO {NOTHING | UPDATE SET … [WHERE …]}]
//! update := UPDATE table [AS name] SET column = expr, … [FROM tables] [WHERE expr]
//! delete := DELETE FROM table [AS name] [WHERE expr]
//! query  := [WITH name AS (query), …] core {UNION [ALL] | EXCEPT | INTERSECT core} [ORDER BY …] [LIMIT expr [OFFSET expr]]
//! core   := SELECT [DISTINCT] items [FROM tables] [WHERE expr] [GROUP BY …] [HAVING expr] [WINDOW …] | VALUES rows
//! ```
//!
//! It recognizes and notes what has to change; it builds no tree, since the engine builds its own.

mod expr;
mod query;
mod typed;

use std::ops::Range;

use super::{
    POSITION, SqlFault,
    lexer::{Token, TokenKind, tokens},
    statement::{Edit, Parsed, Shape, ShapeColumn, Shapes, To},
    vocabulary::{RESERVED, foreign},
};

/// How deep expressions and queries may be nested.
pub(in super::super) const MAX_DEPTH: usize = 40;
/// The most words of a statement.
pub(in super::super) const MAX_TOKENS: usize = 4_000;

/// Parses `sql`, which may name the tables in `shapes`.
///
/// # Errors
/// The first place where it is not what a view may say.
pub(in super::super) fn parse<'s>(sql: &'s str, shapes: &'s Shapes) -> Result<Parsed, SqlFault> {
    let tokens = tokens(sql)?;
    if tokens.len() > MAX_TOKENS {
        return Err(SqlFault::new(0, format!("a statement has at most {MAX_TOKENS} words")));
    }
    let mut parser = Parser::new(sql, tokens, shapes);
    parser.statement()?;
    Ok(parser.finish())
}

struct Parser<'s> {
    sql: &'s str,
    tokens: Vec<Token>,
    at: usize,
    shapes: &'s Shapes,
    /// Names that `WITH` gives.
    named: Vec<String>,
    /// All names that the statement gives to something.
    given: Vec<String>,
    /// What is compared: both sides, and whether they are the same.
    compared: Vec<(Range<usize>, Range<usize>, bool)>,
    depth: usize,
    parsed: Parsed,
}

type Outcome<T = ()> = Result<T, SqlFault>;

impl<'s> Parser<'s> {
    fn new(sql: &'s str, tokens: Vec<Token>, shapes: &'s Shapes) -> Self {
        let parsed =
            Parsed { target: String::new(), parameters: Vec::new(), uses: Vec::new(), edits: Vec::new(), end: 0 };
        Self {
            sql,
            tokens,
            at: 0,
            shapes,
            named: Vec::new(),
            given: Vec::new(),
            compared: Vec::new(),
            depth: 0,
            parsed,
        }
    }

    fn finish(self) -> Parsed {
        self.parsed
    }

    fn statement(&mut self) -> Outcome {
        self.change()?;
        self.parsed.end = self.behind();
        self.accept_sign(";");
        match self.kind() {
            TokenKind::End => self.all_compared(),
            _ => Err(self.fault("the statement should end here; each statement stands on its own")),
        }
    }

    fn change(&mut self) -> Outcome {
        if self.accept("insert") {
            self.insert()
        } else if self.accept("update") {
            self.update()
        } else if self.sees("delete") {
            self.delete()
        } else {
            Err(self.fault("a statement begins with INSERT, UPDATE or DELETE"))
        }
    }

    fn insert(&mut self) -> Outcome {
        self.expect("into")?;
        let (table, shape) = self.target()?;
        self.alias()?;
        let columns =
            self.columns(&table, shape, "(columns) stand here, so that the order of columns never matters")?;
        let end = self.tokens[self.at - 1].span.start;
        self.edit(end..end, To::Words(format!(", {POSITION}")));
        if let Some(missing) = shape.columns.iter().find(|column| !column.null && !columns.contains(&column.name)) {
            let missing = &missing.name;
            let what = format!("`{missing}` of `{table}` may not be null and gets no value");
            return Err(SqlFault::new(end, what));
        }
        if self.accept("values") {
            let columns: Vec<&ShapeColumn> = columns.iter().filter_map(|name| shape.column(name)).collect();
            self.rows(Some((&table, &columns)), true)?;
        } else {
            self.query(true)?;
        }
        if self.accept("on") {
            self.conflict(&table, shape)?;
        }
        Ok(())
    }

    fn conflict(&mut self, table: &str, shape: &Shape) -> Outcome {
        self.expect("conflict")?;
        let at = self.here();
        let columns = self.columns(table, shape, "the columns that would collide stand here")?;
        let same = |one: &[String], other: &[String]| {
            one.len() == other.len() && one.iter().all(|column| other.contains(column))
        };
        if !same(&columns, &shape.key) {
            let what = format!("rows of `{table}` collide on their key: ({})", shape.key.join(", "));
            return Err(SqlFault::new(at, what));
        }
        self.expect("do")?;
        if self.accept("nothing") {
            return Ok(());
        }
        self.expect("update")?;
        self.expect("set")?;
        self.insert_words(&format!(" {POSITION} = excluded.{POSITION},"));
        self.assignments(table, shape)?;
        if self.accept("where") { self.expr() } else { Ok(()) }
    }

    fn update(&mut self) -> Outcome {
        let (table, shape) = self.target()?;
        self.alias()?;
        self.expect("set")?;
        let behind = self.behind();
        self.edit(behind..behind, To::Position(" logposition = ", ","));
        self.assignments(&table, shape)?;
        if self.accept("from") {
            self.tables()?;
        }
        if self.accept("where") { self.expr() } else { Ok(()) }
    }

    fn delete(&mut self) -> Outcome {
        self.expect("delete")?;
        self.expect("from")?;
        self.target()?;
        self.alias()?;
        if self.accept("where") { self.expr() } else { Ok(()) }
    }

    /// `column = expr, …`: never of the key, whose rows are deleted and inserted instead.
    fn assignments(&mut self, table: &str, shape: &Shape) -> Outcome {
        loop {
            let at = self.here();
            let column = self.column(table, shape)?;
            if shape.key.contains(&column) {
                let what = format!("`{column}` is part of the key of `{table}`: delete the row and insert another");
                return Err(SqlFault::new(at, what));
            }
            self.expect_sign("=")?;
            let begin = self.at;
            self.expr()?;
            if let Some(column) = shape.column(&column) {
                self.stored(begin..self.at, table, column)?;
            }
            if !self.accept_sign(",") {
                return Ok(());
            }
        }
    }

    fn columns(&mut self, table: &str, shape: &Shape, why: &str) -> Outcome<Vec<String>> {
        if !self.accept_sign("(") {
            return Err(self.fault(why));
        }
        let mut columns = Vec::new();
        loop {
            let at = self.here();
            let column = self.column(table, shape)?;
            if columns.contains(&column) {
                return Err(SqlFault::new(at, format!("`{column}` stands here twice")));
            }
            columns.push(column);
            if !self.accept_sign(",") {
                break;
            }
        }
        self.expect_sign(")")?;
        Ok(columns)
    }

    /// A column of `table`.
    fn column(&mut self, table: &str, shape: &Shape) -> Outcome<String> {
        let at = self.here();
        let name = self.name("a column")?;
        if shape.column(&name).is_some() {
            return Ok(name);
        }
        let all: Vec<&str> = shape.columns.iter().map(|column| column.name.as_str()).collect();
        Err(SqlFault::new(at, format!("`{table}` has no column `{name}`; it has {}", all.join(", "))))
    }

    /// The table that the statement changes.
    fn target(&mut self) -> Outcome<(String, &'s Shape)> {
        let at = self.here();
        let span = self.tokens[self.at].span.clone();
        let name = self.name("a table")?;
        let shape = self.shapes.get(&name).ok_or_else(|| SqlFault::new(at, self.no_table(&name)))?;
        self.edit(span, To::Table(name.clone()));
        self.parsed.target = name.clone();
        Ok((name, shape))
    }

    fn no_table(&self, name: &str) -> String {
        let all: Vec<&str> = self.shapes.keys().map(String::as_str).collect();
        format!("this view has no table `{name}`; it has {}", all.join(", "))
    }

    /// `[AS] name`, if it is there.
    fn alias(&mut self) -> Outcome<bool> {
        if !self.accept("as") {
            let TokenKind::Word(word) = self.kind() else {
                return if matches!(self.kind(), TokenKind::Quoted(_)) {
                    self.given_name().map(|_| true)
                } else {
                    Ok(false)
                };
            };
            if RESERVED.contains(&word.as_str()) {
                return Ok(false);
            }
        }
        self.given_name().map(|_| true)
    }

    /// A name that the statement gives to something.
    fn given_name(&mut self) -> Outcome<String> {
        let at = self.here();
        let name = self.name("a name")?;
        if self.shapes.contains_key(&name) {
            return Err(SqlFault::new(at, format!("`{name}` is a table: use another name")));
        }
        self.given.push(name.clone());
        Ok(name)
    }

    /// A name of something.
    fn name(&mut self, what: &str) -> Outcome<String> {
        let name = match self.kind() {
            TokenKind::Quoted(name) => name.clone(),
            TokenKind::Word(word) => {
                if RESERVED.contains(&word.as_str()) {
                    return Err(self.fault(&format!("{what} stands here")));
                }
                if let Some(why) = foreign(word) {
                    return Err(self.fault(why));
                }
                word.clone()
            }
            _ => return Err(self.fault(&format!("{what} stands here"))),
        };
        self.at += 1;
        Ok(name)
    }

    /// Goes one level down, as far as there are levels.
    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        if self.depth == MAX_DEPTH {
            return Err(self.fault(&format!("a statement is nested at most {MAX_DEPTH} deep")));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn parameter(&mut self, name: String) {
        let Token { span, .. } = self.tokens[self.at].clone();
        let all = &mut self.parsed.parameters;
        let found = all.iter().position(|(known, _)| *known == name);
        let index = found.unwrap_or_else(|| {
            all.push((name, span.start));
            all.len() - 1
        });
        self.edit(span, To::Parameter(index + 1));
        self.at += 1;
    }

    fn edit(&mut self, span: Range<usize>, to: To) {
        self.parsed.edits.push(Edit { span, to });
    }

    /// Puts words behind the last token.
    fn insert_words(&mut self, words: &str) {
        let behind = self.behind();
        self.edit(behind..behind, To::Words(words.to_owned()));
    }

    fn kind(&self) -> &TokenKind {
        &self.tokens[self.at].kind
    }

    /// The word after the one at hand.
    fn following(&self) -> &TokenKind {
        self.tokens.get(self.at + 1).map_or(&TokenKind::End, |token| &token.kind)
    }

    /// Where the word at hand begins.
    fn here(&self) -> usize {
        self.tokens[self.at].span.start
    }

    /// Where the last word ended.
    fn behind(&self) -> usize {
        self.at.checked_sub(1).map_or(0, |last| self.tokens[last].span.end)
    }

    fn sees(&self, word: &str) -> bool {
        matches!(self.kind(), TokenKind::Word(found) if found == word)
    }

    fn sees_sign(&self, sign: &str) -> bool {
        matches!(self.kind(), TokenKind::Sign(found) if *found == sign)
    }

    fn accept(&mut self, word: &str) -> bool {
        let sees = self.sees(word);
        self.at += usize::from(sees);
        sees
    }

    fn accept_sign(&mut self, sign: &str) -> bool {
        let sees = self.sees_sign(sign);
        self.at += usize::from(sees);
        sees
    }

    fn expect(&mut self, word: &str) -> Outcome {
        if self.accept(word) { Ok(()) } else { Err(self.fault(&format!("{} stands here", word.to_ascii_uppercase()))) }
    }

    fn expect_sign(&mut self, sign: &str) -> Outcome {
        if self.accept_sign(sign) { Ok(()) } else { Err(self.fault(&format!("`{sign}` stands here"))) }
    }

    /// A fault at the word at hand, which says what is there instead.
    fn fault(&self, what: &str) -> SqlFault {
        let found = match self.kind() {
            TokenKind::Word(word) => match foreign(word) {
                Some(why) => return SqlFault::new(self.here(), format!("`{word}` cannot be used: {why}")),
                None => format!("`{word}`"),
            },
            TokenKind::Quoted(name) => format!("\"{name}\""),
            TokenKind::Number => "a number".to_owned(),
            TokenKind::Text => "a text".to_owned(),
            TokenKind::Parameter(name) => format!("`:{name}`"),
            TokenKind::Sign(sign) => format!("`{sign}`"),
            TokenKind::End => "the end".to_owned(),
        };
        SqlFault::new(self.here(), format!("{what}, not {found}"))
    }
}
