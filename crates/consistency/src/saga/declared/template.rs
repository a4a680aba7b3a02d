//! Texts with programs in braces, as `http://stock/items/{.input.item}`.

use quorate_foundations::jq::Program;
use serde_json::Value;

use super::plan;

/// A text with programs in it.
#[derive(Debug)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Text(String),
    Program(Program),
}

/// What is wrong with a template, and at which byte.
pub(super) struct Wrong {
    pub(super) at: usize,
    pub(super) what: String,
}

impl Template {
    /// Reads a template. Braces inside of a program have to be in pairs.
    pub(super) fn read(text: &str) -> Result<Self, Wrong> {
        let (mut parts, mut rest, mut at) = (Vec::new(), text, 0);
        while let Some(open) = rest.find('{') {
            if open > 0 {
                parts.push(Part::Text(rest[..open].to_owned()));
            }
            let inside = &rest[open + 1..];
            let Some(close) = closing(inside) else {
                return Err(Wrong { at: at + open, what: "this `{` is never closed".to_owned() });
            };
            let program = Program::compile(&inside[..close])
                .map_err(|fault| Wrong { at: at + open + 1 + fault.at, what: fault.what })?;
            parts.push(Part::Program(program));
            at += open + 1 + close + 1;
            rest = &inside[close + 1..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// The texts of its programs.
    pub(super) fn programs(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Program(program) => Some(program.text()),
        })
    }

    /// The text that it begins with.
    pub(super) fn beginning(&self) -> &str {
        match self.parts.first() {
            Some(Part::Text(text)) => text,
            _ => "",
        }
    }

    /// The text for what happened, what programs say written as `escape` wants.
    pub(super) fn fill(&self, seen: &Value, escape: fn(&str) -> Result<String, String>) -> Result<String, String> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(fixed) => text.push_str(fixed),
                Part::Program(program) => text.push_str(&escape(&plain(&plan::one(program, seen)?)?)?),
            }
        }
        Ok(text)
    }
}

/// Where the brace that was opened before is closed.
fn closing(inside: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, letter) in inside.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn plain(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        other => Err(format!("a text, a number or a boolean can stand here, not {other}")),
    }
}

/// The text as a part of an address: every byte that has a meaning there as `%XX`.
///
/// # Errors
/// It is nothing, or would lead elsewhere.
pub(super) fn percent(text: &str) -> Result<String, String> {
    if matches!(text, "" | "." | "..") {
        return Err(format!("`{text}` cannot stand in an address"));
    }
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    Ok(encoded)
}
