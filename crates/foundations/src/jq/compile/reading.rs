//! What is wrong with a program's text, before any name is looked at.

use jaq_core::load::{
    lex::{self, StrPart, Tok, Token},
    parse, span,
};

use super::{super::Fault, MAX_NESTING};

/// Refuses brackets that lie too deep in each other, for those who read them by recursion.
pub(super) fn brackets(text: &str) -> Result<(), Fault> {
    let mut open = Vec::new();
    let mut rest = text.bytes().enumerate();
    while let Some((at, byte)) = rest.next() {
        match (byte, open.last()) {
            (b'"', Some(b'"')) => drop(open.pop()),
            (b'\\', Some(b'"')) => {
                if let Some((_, b'(')) = rest.next() {
                    open.push(b'(');
                }
            }
            (_, Some(b'"')) => {}
            (b'"' | b'(' | b'[' | b'{', _) => open.push(byte),
            (b')' | b']' | b'}', _) => drop(open.pop()),
            (b'#', _) => drop(rest.find(|(_, byte)| *byte == b'\n')),
            _ => {}
        }
        if open.len() > MAX_NESTING {
            return Err(Fault { at, what: format!("a program is nested at most {MAX_NESTING} deep") });
        }
    }
    Ok(())
}

/// How many tokens there are, those inside of others included.
pub(super) fn length(tokens: &[Token<&str>]) -> usize {
    let inside = |token: &Token<&str>| match &token.1 {
        Tok::Block(tokens) => length(tokens),
        Tok::Str(parts) => {
            let terms = parts.iter().map(|part| match part {
                StrPart::Term(term) => length(std::slice::from_ref(term)),
                _ => 0,
            });
            terms.sum()
        }
        _ => 0,
    };
    tokens.iter().map(|token| 1 + inside(token)).sum()
}

pub(super) fn unlexed(text: &str, wrong: &[lex::Error<&str>]) -> Fault {
    let Some((expected, at)) = wrong.first() else { return Fault { at: 0, what: "this is no program".to_owned() } };
    let what = match expected {
        lex::Expect::Delim(open) => format!("`{open}` is never closed"),
        lex::Expect::Token => "nothing of a program begins so".to_owned(),
        other => format!("this is no {}", other.as_str()),
    };
    Fault { at: span(text, at).start, what }
}

pub(super) fn unparsed(text: &str, wrong: &[parse::TError<'_, &str>]) -> Fault {
    let Some((expected, found)) = wrong.first() else { return Fault { at: 0, what: "this is no program".to_owned() } };
    let found = found.map_or(&text[text.len()..], |found| found.0);
    let expected = match expected {
        parse::Expect::Just(word) => format!("`{word}`"),
        parse::Expect::Nothing => "the end of the program".to_owned(),
        other => format!("a {}", other.as_str()),
    };
    let mut shown: String = found.chars().take(20).collect();
    if shown.is_empty() {
        shown = "the end of the program".to_owned();
    } else {
        shown = format!("`{shown}`");
    }
    Fault { at: span(text, found).start, what: format!("{expected} stands here, not {shown}") }
}
