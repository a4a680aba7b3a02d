//! YAML 1.2, the part of it that people write by hand: mappings, sequences and scalars of the core schema.
//!
//! Anchors and aliases aren't read: a document of a few lines could otherwise stand for more than memory holds, and what a
//! fault in it means couldn't be told with one place.

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};

use super::{Entry, Fault, MAX_DEPTH, Node, Value};

/// Every document in `text`, in order; those without anything in them are left out.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, Fault> {
    let offsets = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let mut reading = Reading { text, offsets, events: Parser::new_from_str(text) };
    let mut documents = Vec::new();
    loop {
        match reading.next()? {
            (Event::StreamEnd, _) => return Ok(documents),
            (Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing, _) => {}
            (event, span) => {
                let node = reading.node(event, span, 0)?;
                if node.value != Value::Null {
                    documents.push(node);
                }
            }
        }
    }
}

struct Reading<'t> {
    text: &'t str,
    /// Where each character begins, in bytes.
    offsets: Vec<usize>,
    events: Parser<'t, saphyr_parser::StrInput<'t>>,
}

impl<'t> Reading<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), Fault> {
        let wrong = |wrong: &ScanError| {
            let (line, column) = (wrong.marker().line(), wrong.marker().col() + 1);
            let (line, column) = (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX));
            Fault { line, column, field: String::new(), what: format!("this is not YAML: {}", wrong.info()) }
        };
        match self.events.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(cause)) => Err(wrong(&cause)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn byte(&self, index: usize) -> usize {
        self.offsets.get(index).copied().unwrap_or(self.text.len())
    }

    fn bytes(&self, span: Span) -> std::ops::Range<usize> {
        self.byte(span.start.index())..self.byte(span.end.index())
    }

    fn fault(&self, span: Span, what: impl Into<String>) -> Fault {
        Fault::at(self.text, self.byte(span.start.index()), "", what)
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, Fault> {
        if depth > MAX_DEPTH {
            return Err(self.fault(span, format!("a document is nested at most {MAX_DEPTH} deep")));
        }
        let (anchor, tag) = match &event {
            Event::Scalar(_, _, anchor, tag) | Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => {
                (*anchor, tag.as_deref())
            }
            _ => (0, None),
        };
        if anchor != 0 || matches!(event, Event::Alias(_)) {
            return Err(self.fault(span, "anchors and aliases are not read here: write it out"));
        }
        let text_wanted = match tag {
            None => false,
            Some(tag) if is_text(tag) => true,
            Some(_) => return Err(self.fault(span, "tags are not read here, but for `!!str`")),
        };
        let begun = self.bytes(span);
        match event {
            Event::Scalar(text, style, ..) => {
                let plain = style == ScalarStyle::Plain && !text_wanted;
                let value = if plain { scalar(&text) } else { Value::Text(text.into_owned()) };
                Ok(Node { span: begun, value })
            }
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, end) => {
                            let span = begun.start..self.bytes(end).end.max(begun.end);
                            return Ok(Node { span, value: Value::List(items) });
                        }
                        (event, span) => items.push(self.node(event, span, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(..) => {
                let mut entries = Vec::new();
                loop {
                    let (event, span) = self.next()?;
                    if event == Event::MappingEnd {
                        let span = begun.start..self.bytes(span).end.max(begun.end);
                        return Ok(Node { span, value: Value::Table(entries) });
                    }
                    let Event::Scalar(key, _, 0, _) = event else {
                        return Err(self.fault(span, "a name stands here, and nothing else can be one"));
                    };
                    let (key, key_span) = (key.into_owned(), self.bytes(span));
                    let (event, span) = self.next()?;
                    entries.push(Entry { key, key_span, node: self.node(event, span, depth + 1)? });
                }
            }
            _ => Err(self.fault(span, "this ends where it should not")),
        }
    }
}

fn is_text(tag: &Tag) -> bool {
    tag.is_yaml_core_schema() && tag.suffix == "str"
}

/// What a scalar without quotes is, by the core schema.
fn scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Boolean(true),
        "false" | "False" | "FALSE" => Value::Boolean(false),
        _ if is_number(text) => Value::Number(text.to_owned()),
        _ => Value::Text(text.to_owned()),
    }
}

/// Whether a text is a number as JSON writes them.
fn is_number(text: &str) -> bool {
    let begins = text.strip_prefix('-').unwrap_or(text).starts_with(|first: char| first.is_ascii_digit());
    begins && serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok()
}
