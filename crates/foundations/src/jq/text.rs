//! Functions of texts: splitting, searching, escaping.

use std::{fmt::Write as _, ops::Range, sync::Arc};

use base64::Engine as _;

use super::{
    date,
    meter::{Meter, Step, Stop},
    native::{Native, as_text, list, object},
    pattern::RegexFlags,
    value::Value,
};

/// The function of that name with so many arguments.
pub(super) fn native(name: &str, arguments: usize) -> Option<Native> {
    Some(match (name, arguments) {
        ("startswith", 1) => |meter, value, args| ends(meter, &value, &args[0], |text, part| text.starts_with(part)),
        ("endswith", 1) => |meter, value, args| ends(meter, &value, &args[0], |text, part| text.ends_with(part)),
        ("ltrimstr", 1) => |meter, value, args| cut(meter, value, &args[0], |text, part| text.strip_prefix(part)),
        ("rtrimstr", 1) => |meter, value, args| cut(meter, value, &args[0], |text, part| text.strip_suffix(part)),
        ("trim", 0) => |meter, value, _| written(meter, &value, |text| text.trim().to_owned()),
        ("ltrim", 0) => |meter, value, _| written(meter, &value, |text| text.trim_start().to_owned()),
        ("rtrim", 0) => |meter, value, _| written(meter, &value, |text| text.trim_end().to_owned()),
        ("ascii_downcase", 0) => |meter, value, _| written(meter, &value, str::to_ascii_lowercase),
        ("ascii_upcase", 0) => |meter, value, _| written(meter, &value, str::to_ascii_uppercase),
        ("explode", 0) => explode,
        ("implode", 0) => implode,
        ("split", 1) => |meter, value, args| split(meter, &as_text(&value)?, &as_text(&args[0])?),
        ("find_matches", 2) => |meter, value, args| {
            let found = search(meter, &as_text(&value)?, args)?;
            Value::list(meter, found.into_iter().map(|(_, found)| found).collect())
        },
        ("cut_matches", 2) => cut_matches,
        ("fromdateiso8601", 0) => |meter, value, _| {
            let text = as_text(&value)?;
            meter.look(text.len())?;
            date::from_text(&text)
        },
        ("todateiso8601", 0) => |_, value, _| date::to_text(&value),
        ("@text", 0) => to_string,
        ("@json", 0) => |meter, value, _| Ok(Value::Text(value.to_json(meter)?.into())),
        ("@base64", 0) => {
            |meter, value, _| formatted(meter, value, |text| Ok(base64::engine::general_purpose::STANDARD.encode(text)))
        }
        ("@base64d", 0) => |meter, value, _| {
            formatted(meter, value, |text| {
                let bytes = base64::engine::general_purpose::STANDARD_NO_PAD.decode(text.trim_end_matches('='));
                let text = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
                text.ok_or_else(|| Stop::raise("this is no text in Base64"))
            })
        },
        ("@uri", 0) => |meter, value, _| formatted(meter, value, |text| Ok(uri(text))),
        ("@html", 0) => |meter, value, _| formatted(meter, value, |text| Ok(html(text))),
        ("@csv", 0) => |meter, value, _| row(meter, value, ",", |text| format!("\"{}\"", text.replace('"', "\"\""))),
        ("@tsv", 0) => |meter, value, _| {
            row(meter, value, "\t", |text| {
                let text = text.replace('\\', "\\\\").replace('\t', "\\t");
                text.replace('\n', "\\n").replace('\r', "\\r")
            })
        },
        ("@sh", 0) => |meter, value, _| match value {
            list @ Value::List(_) => row(meter, list, " ", shell),
            one => row(meter, Value::of_items(vec![one])?, " ", shell),
        },
        _ => return None,
    })
}

/// A text that comes from one, and is not much longer.
fn written(meter: &mut Meter, value: &Value, of: impl Fn(&str) -> String) -> Step<Value> {
    let text = as_text(value)?;
    meter.look(text.len())?;
    Value::written(meter, &of(&text))
}

pub(super) fn to_string(meter: &mut Meter, value: Value, _: &[Value]) -> Step<Value> {
    match value {
        text @ Value::Text(_) => Ok(text),
        other => Ok(Value::Text(other.to_json(meter)?.into())),
    }
}

/// Whether a text begins or ends so.
fn ends(meter: &mut Meter, value: &Value, part: &Value, does: fn(&str, &str) -> bool) -> Step<Value> {
    let (text, part) = (as_text(value)?, as_text(part)?);
    meter.look(text.len().min(part.len()))?;
    Ok(does(&text, &part).into())
}

fn cut(meter: &mut Meter, value: Value, part: &Value, of: for<'t> fn(&'t str, &str) -> Option<&'t str>) -> Step<Value> {
    match (&value, part) {
        (Value::Text(text), Value::Text(part)) => {
            meter.look(text.len().min(part.len()))?;
            of(text, part).map_or_else(|| Ok(value.clone()), |rest| Value::written(meter, rest))
        }
        _ => Ok(value),
    }
}

fn explode(meter: &mut Meter, value: Value, _: &[Value]) -> Step<Value> {
    let text = as_text(&value)?;
    meter.look(text.len() * 8)?;
    Value::list(meter, text.chars().map(|c| Value::from(i64::from(u32::from(c)))).collect())
}

fn implode(meter: &mut Meter, value: Value, _: &[Value]) -> Step<Value> {
    let list = list(value)?;
    meter.look(list.items.len() * 8)?;
    let mut text = String::new();
    for item in &list.items {
        let code = match item {
            Value::Number(number) => {
                number.floored().and_then(|code| u32::try_from(code).ok()).and_then(char::from_u32)
            }
            _ => None,
        };
        text.push(code.ok_or_else(|| Stop::raise(format!("{} is no character", item.shown())))?);
    }
    Value::written(meter, &text)
}

/// The parts of a text between separators; its characters where the separator is empty.
pub(super) fn split(meter: &mut Meter, text: &Arc<str>, separator: &Arc<str>) -> Step<Value> {
    meter.look(text.len() + separator.len())?;
    let mut parts = Vec::new();
    let mut part = |meter: &mut Meter, part: &str| {
        parts.push(Value::written(meter, part)?);
        Ok(())
    };
    if separator.is_empty() {
        for (at, c) in text.char_indices() {
            part(meter, &text[at..at + c.len_utf8()])?;
        }
    } else if !text.is_empty() {
        for piece in text.split(&**separator) {
            part(meter, piece)?;
        }
    }
    Value::list(meter, parts)
}

/// What lies between the matches of a regular expression, as texts, and the matches themselves, in order.
fn cut_matches(meter: &mut Meter, value: Value, args: &[Value]) -> Step<Value> {
    let text = as_text(&value)?;
    let (mut pieces, mut from) = (Vec::new(), 0);
    for (range, found) in search(meter, &text, args)? {
        pieces.push(Value::written(meter, &text[from..range.start])?);
        pieces.push(found);
        from = range.end;
    }
    pieces.push(Value::written(meter, &text[from..])?);
    Value::list(meter, pieces)
}

/// What the letters behind a regular expression say.
#[derive(Clone, Copy, Default)]
pub(super) struct Flags {
    pub(super) how: RegexFlags,
    is_global: bool,
    skips_empty: bool,
}

impl Flags {
    pub(super) fn read(letters: &str) -> Result<Self, String> {
        let mut flags = Self::default();
        for letter in letters.chars() {
            match letter {
                'g' => flags.is_global = true,
                'i' => flags.how.ignore_case = true,
                'x' => flags.how.extended = true,
                's' => flags.how.dot_matches_newline = true,
                'n' => flags.skips_empty = true,
                _ => return Err(format!("{letter:?} is no flag of regular expressions; g, i, n, s, x are")),
            }
        }
        Ok(flags)
    }
}

/// All matches of a regular expression with where they stand, as `match` gives them: offsets and lengths in characters.
fn search(meter: &mut Meter, text: &str, args: &[Value]) -> Step<Vec<(Range<usize>, Value)>> {
    let (pattern, flags) = match &args[0] {
        Value::List(both) => {
            let at = |n: usize| both.items.get(n).cloned().unwrap_or_default();
            (at(0), at(1))
        }
        pattern => (pattern.clone(), args[1].clone()),
    };
    let flags = match &flags {
        Value::Null => Flags::default(),
        flags => {
            let flags = as_text(flags)?;
            meter.step(flags.len() as u64)?;
            Flags::read(&flags).map_err(Stop::raise)?
        }
    };
    let searched = meter.regex(&as_text(&pattern)?, flags.how)?;
    let mut found = Vec::new();
    // Offsets are counted in characters, from the match before.
    let (mut bytes, mut characters) = (0, 0);
    let mut at = 0;
    while at <= text.len() {
        let captures = searched.regex.captures_at(text, at);
        let end = captures.as_ref().and_then(|captures| captures.get(0)).map_or(text.len(), |whole| whole.end());
        meter.search(&searched, end - at, text.len() - end)?;
        let Some(captures) = captures else { break };
        let whole = captures.get(0).map_or(at..at, |whole| whole.range());
        if !(flags.skips_empty && whole.is_empty()) {
            characters += text[bytes..whole.start].chars().count();
            bytes = whole.start;
            let mut groups = Vec::new();
            for (group, name) in captures.iter().zip(searched.regex.capture_names()).skip(1) {
                let said = group.map(|group| group.range());
                let offset = said.as_ref().map(|range| characters_between(text, bytes, range.start));
                let offset = offset.map(|offset| i64::try_from(characters).unwrap_or(i64::MAX) + offset);
                let piece = piece(meter, text, said, offset)?;
                let name = name.map_or(Value::Null, Value::text);
                groups.push(object(meter, piece.into_iter().chain([(Arc::from("name"), name)]).collect())?);
            }
            let offset = i64::try_from(characters).unwrap_or(i64::MAX);
            let piece = piece(meter, text, Some(whole.clone()), Some(offset))?;
            let groups = Value::list(meter, groups)?;
            let match_ = object(meter, piece.into_iter().chain([(Arc::from("captures"), groups)]).collect())?;
            found.push((whole.clone(), match_));
        }
        if !flags.is_global {
            break;
        }
        let next = text[whole.end..].chars().next().map_or(1, char::len_utf8);
        at = if whole.is_empty() { whole.end + next } else { whole.end };
    }
    Ok(found)
}

fn characters_between(text: &str, from: usize, to: usize) -> i64 {
    let count = |range: Range<usize>| i64::try_from(text[range].chars().count()).unwrap_or(i64::MAX);
    if from <= to { count(from..to) } else { -count(to..from) }
}

/// Offset, length and text of a match or a group; of a group without one, `null`.
fn piece(
    meter: &mut Meter,
    text: &str,
    range: Option<Range<usize>>,
    offset: Option<i64>,
) -> Step<[(Arc<str>, Value); 3]> {
    let said = range.map(|range| &text[range]);
    let length = said.map_or(0, |said| said.chars().count());
    let said = said.map(|said| Value::written(meter, said)).transpose()?.unwrap_or_default();
    Ok([
        (Arc::from("offset"), offset.unwrap_or(-1).into()),
        (Arc::from("length"), Value::count(length)),
        (Arc::from("string"), said),
    ])
}

fn formatted(meter: &mut Meter, value: Value, of: impl Fn(&str) -> Step<String>) -> Step<Value> {
    let text = to_string(meter, value, &[])?;
    let text = as_text(&text)?;
    // No form makes more than six bytes of one.
    meter.look(text.len() * 6)?;
    Value::written(meter, &of(&text)?)
}

fn uri(text: &str) -> String {
    let mut written = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            written.push(char::from(byte));
        } else {
            let _ = write!(written, "%{byte:02X}");
        }
    }
    written
}

fn html(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('\'', "&#39;").replace('"', "&quot;")
}

fn shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn row(meter: &mut Meter, value: Value, between: &str, quoted: fn(&str) -> String) -> Step<Value> {
    let (list, mut written) = (list(value)?, String::new());
    for (n, item) in list.items.iter().enumerate() {
        meter.step(1)?;
        if n > 0 {
            written.push_str(between);
        }
        match item {
            Value::Null if between != " " => {}
            Value::Text(text) => {
                meter.build(text.len() * 2)?;
                written.push_str(&quoted(text));
            }
            Value::Null | Value::Boolean(_) | Value::Number(_) => written.push_str(&item.to_json(meter)?),
            other => return Err(Stop::raise(format!("{} cannot stand in a row", other.shown()))),
        }
    }
    Value::written(meter, &written)
}
