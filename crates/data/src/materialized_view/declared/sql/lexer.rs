//! SQL as words.

use std::ops::Range;

use super::SqlFault;

/// A word of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) span: Range<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A word in small letters.
    Word(String),
    /// `"a name"`.
    Quoted(String),
    Number,
    /// `'a text'`.
    Text,
    /// `:name`.
    Parameter(String),
    /// An operator or a bracket.
    Sign(&'static str),
    End,
}

/// Signs, longer ones first.
const SIGNS: [&str; 18] =
    ["<>", "<=", ">=", "!=", "||", "(", ")", ",", ".", "=", "<", ">", "+", "-", "*", "/", "%", ";"];

/// The words of `sql`, with an end.
pub(super) fn tokens(sql: &str) -> Result<Vec<Token>, SqlFault> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(token) = next(sql, &mut at)? {
        tokens.push(token);
    }
    tokens.push(Token { kind: TokenKind::End, span: sql.len()..sql.len() });
    Ok(tokens)
}

fn next(sql: &str, at: &mut usize) -> Result<Option<Token>, SqlFault> {
    skip(sql, at)?;
    let start = *at;
    let rest = &sql[start..];
    let Some(first) = rest.chars().next() else { return Ok(None) };
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let (kind, length) = match first {
        '\'' => quoted(rest, '\'', start).map(|(text, length)| {
            // Tables are filled in where they stand in braces.
            let brace = text.find('{').filter(|open| text[*open..].contains('}'));
            match brace {
                Some(open) => Err(SqlFault::new(start + open, "a text with braces is given as a parameter here")),
                None => Ok((TokenKind::Text, length)),
            }
        })??,
        '"' => {
            let (name, length) = quoted(rest, '"', start)?;
            (TokenKind::Quoted(name), length)
        }
        ':' => {
            let name: String = rest[1..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
                return Err(SqlFault::new(start, "a parameter is written `:name`"));
            }
            let length = 1 + name.len();
            (TokenKind::Parameter(name), length)
        }
        c if c.is_ascii_digit() => (TokenKind::Number, number(rest, start)?),
        c if part(c) => {
            let length = rest.find(|c| !part(c)).unwrap_or(rest.len());
            (TokenKind::Word(rest[..length].to_ascii_lowercase()), length)
        }
        '?' | '$' | '@' => return Err(SqlFault::new(start, "a parameter is written `:name`")),
        _ => {
            let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign));
            let sign = sign.ok_or_else(|| SqlFault::new(start, format!("`{first}` means nothing here")))?;
            (TokenKind::Sign(sign), sign.len())
        }
    };
    *at = start + length;
    Ok(Some(Token { kind, span: start..start + length }))
}

/// Skips blanks and comments.
fn skip(sql: &str, at: &mut usize) -> Result<(), SqlFault> {
    loop {
        let rest = &sql[*at..];
        *at += rest.len() - rest.trim_start().len();
        let rest = rest.trim_start();
        if rest.starts_with("--") {
            *at += rest.find('\n').unwrap_or(rest.len());
        } else if rest.starts_with("/*") {
            let end = rest.find("*/").ok_or_else(|| SqlFault::new(*at, "the comment is not closed"))?;
            *at += end + 2;
        } else {
            return Ok(());
        }
    }
}

/// What stands in quotes, and how long it is with them.
fn quoted(rest: &str, quote: char, start: usize) -> Result<(String, usize), SqlFault> {
    let mut text = String::new();
    let mut letters = rest.char_indices().skip(1).peekable();
    while let Some((at, letter)) = letters.next() {
        if letter != quote {
            text.push(letter);
        } else if letters.peek().is_some_and(|(_, next)| *next == quote) {
            text.push(quote);
            letters.next();
        } else {
            return Ok((text, at + 1));
        }
    }
    Err(SqlFault::new(start, "the quote is not closed"))
}

/// The length of `12`, `1.5` or `2e3`.
fn number(rest: &str, start: usize) -> Result<usize, SqlFault> {
    let digits = |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let mut length = digits(rest);
    if rest[length..].starts_with('.') {
        length += 1 + digits(&rest[length + 1..]);
    }
    if let Some(exponent) = rest[length..].strip_prefix(['e', 'E']) {
        let sign = usize::from(exponent.starts_with(['+', '-']));
        let power = digits(&exponent[sign..]);
        length += if power > 0 { 1 + sign + power } else { 0 };
    }
    match rest[length..].chars().next() {
        Some(c) if c.is_alphanumeric() || c == '_' => Err(SqlFault::new(start, "this is no number")),
        _ => Ok(length),
    }
}
