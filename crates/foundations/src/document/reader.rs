//! Reading fields strictly: what is missing, misspelt or of another kind is a fault, and reading goes on to find the next.

use std::{cell::RefCell, ops::Range};

use super::{Entry, Fault, Faults, Node, Value};

/// Collects what is wrong with a document while it is read.
pub struct Reader<'t> {
    text: &'t str,
    faults: RefCell<Vec<Fault>>,
}

impl<'t> Reader<'t> {
    /// A reader of `text` that has found nothing wrong yet.
    pub fn new(text: &'t str) -> Self {
        Self { text, faults: RefCell::default() }
    }

    /// Notes what is wrong at `span`.
    pub fn fault(&self, span: &Range<usize>, field: &str, what: impl Into<String>) {
        self.faults.borrow_mut().push(Fault::at(self.text, span.start, field, what));
    }

    /// Notes what is wrong inside the text at `span`, `offset` bytes from the beginning of what it says.
    ///
    /// Exact where the text says what it is without escapes; else it is the place where the text begins.
    pub fn fault_within(&self, span: &Range<usize>, says: &str, offset: usize, field: &str, what: impl Into<String>) {
        let written = self.text.get(span.clone()).unwrap_or_default();
        let start = written.find(says).map_or(span.start, |found| span.start + found + offset);
        self.fault(&(start..start), field, what);
    }

    /// How many faults there are so far.
    pub fn count(&self) -> usize {
        self.faults.borrow().len()
    }

    /// Everything that is wrong; `None` if nothing is.
    pub fn finish(self) -> Option<Faults> {
        Faults::of(self.faults.into_inner())
    }
}

/// A table that is being read field by field; what is left over at its end is not known here.
pub struct Table<'r, 'n, 't> {
    reader: &'r Reader<'t>,
    /// Its name, as in `on[2]`; empty for the document itself.
    pub field: String,
    /// Where it stands, in bytes.
    pub span: Range<usize>,
    entries: Vec<&'n Entry>,
    known: Vec<&'static str>,
}

impl<'r, 'n, 't> Table<'r, 'n, 't> {
    /// `node` as a table named `field`; `None`, and a fault, if it is none.
    pub fn of(reader: &'r Reader<'t>, field: impl Into<String>, node: &'n Node) -> Option<Self> {
        let field = field.into();
        let Value::Table(all) = &node.value else {
            reader.fault(&node.span, &field, format!("a table stands here, not {}", node.value.kind()));
            return None;
        };
        let mut entries: Vec<&Entry> = Vec::with_capacity(all.len());
        for entry in all {
            if entries.iter().any(|known| known.key == entry.key) {
                reader.fault(&entry.key_span, &under(&field, &entry.key), "this stands here twice");
            } else {
                entries.push(entry);
            }
        }
        Some(Self { reader, field, span: node.span.clone(), entries, known: Vec::new() })
    }

    /// The name of a member, as in `tables.account`.
    pub fn path(&self, key: &str) -> String {
        under(&self.field, key)
    }

    /// A member, if it is there.
    pub fn take(&mut self, key: &'static str) -> Option<&'n Node> {
        self.known.push(key);
        let found = self.entries.iter().position(|entry| entry.key == key)?;
        Some(&self.entries.remove(found).node)
    }

    /// All members that are left, whose names the document chooses.
    pub fn rest(&mut self) -> Vec<&'n Entry> {
        std::mem::take(&mut self.entries)
    }

    /// A text, if it is there.
    pub fn text(&mut self, key: &'static str) -> Option<(&'n str, Range<usize>)> {
        let node = self.take(key)?;
        let Value::Text(text) = &node.value else {
            self.wrong_kind(key, node, "a text");
            return None;
        };
        Some((text, node.span.clone()))
    }

    /// A text that has to be there.
    pub fn required_text(&mut self, key: &'static str) -> Option<(&'n str, Range<usize>)> {
        if !self.entries.iter().any(|entry| entry.key == key) {
            self.known.push(key);
            self.missing(key);
            return None;
        }
        self.text(key)
    }

    /// A boolean, if it is there.
    pub fn boolean(&mut self, key: &'static str) -> Option<bool> {
        let node = self.take(key)?;
        let Value::Boolean(yes) = node.value else {
            self.wrong_kind(key, node, "true or false");
            return None;
        };
        Some(yes)
    }

    /// A number as it is written, if it is there.
    pub fn number_if_there(&mut self, key: &'static str) -> Option<(&'n str, Range<usize>)> {
        let node = self.take(key)?;
        let Value::Number(number) = &node.value else {
            self.wrong_kind(key, node, "a number");
            return None;
        };
        Some((number, node.span.clone()))
    }

    /// A number that has to be there.
    pub fn number(&mut self, key: &'static str) -> Option<(&'n str, Range<usize>)> {
        if !self.entries.iter().any(|entry| entry.key == key) {
            self.known.push(key);
            self.missing(key);
            return None;
        }
        self.number_if_there(key)
    }

    /// One of several words, if one is there.
    pub fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let (word, span) = self.text(key)?;
        let found = choices.iter().find(|(known, _)| *known == word).map(|(_, choice)| *choice);
        if found.is_none() {
            let all: Vec<&str> = choices.iter().map(|(known, _)| *known).collect();
            self.reader.fault(&span, &self.path(key), format!("`{word}` is none of {}", all.join(", ")));
        }
        found
    }

    /// A list, if it is there.
    pub fn list(&mut self, key: &'static str) -> Option<&'n [Node]> {
        let node = self.take(key)?;
        let Value::List(list) = &node.value else {
            self.wrong_kind(key, node, "a list");
            return None;
        };
        Some(list)
    }

    /// One text or a list of texts, if it is there.
    pub fn texts(&mut self, key: &'static str) -> Option<Vec<(&'n str, Range<usize>)>> {
        let node = self.take(key)?;
        texts(self.reader, &self.path(key), node)
    }

    /// Says that a member has to be there.
    pub fn missing(&self, key: &str) {
        self.reader.fault(&self.span, &self.path(key), "this is missing");
    }

    /// Says that a member is not what stands there.
    pub fn wrong_kind(&self, key: &str, node: &Node, wanted: &str) {
        let what = format!("{wanted} stands here, not {}", node.value.kind());
        self.reader.fault(&node.span, &self.path(key), what);
    }

    /// Says of every member that was not asked for that it is not known.
    pub fn end(self) {
        for entry in &self.entries {
            let near = self.known.iter().find(|known| is_near(known, &entry.key));
            let hint = near.map_or_else(
                || format!("there is {}", self.known.join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            let what = format!("there is no `{}` here; {hint}", entry.key);
            self.reader.fault(&entry.key_span, &self.path(&entry.key), what);
        }
    }
}

/// One text, or a list of texts.
pub fn texts<'n>(reader: &Reader<'_>, field: &str, node: &'n Node) -> Option<Vec<(&'n str, Range<usize>)>> {
    let wrong = |node: &Node, field: &str| {
        reader.fault(&node.span, field, format!("a text stands here, not {}", node.value.kind()));
    };
    match &node.value {
        Value::Text(text) => Some(vec![(text, node.span.clone())]),
        Value::List(list) => {
            let mut texts = Vec::with_capacity(list.len());
            for (n, item) in list.iter().enumerate() {
                match &item.value {
                    Value::Text(text) => texts.push((text.as_str(), item.span.clone())),
                    _ => wrong(item, &format!("{field}[{n}]")),
                }
            }
            Some(texts)
        }
        _ => {
            wrong(node, field);
            None
        }
    }
}

fn under(field: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    let key = if plain { key.to_owned() } else { format!("{key:?}") };
    if field.is_empty() { key } else { format!("{field}.{key}") }
}

/// Whether one word is most likely the other, misspelt.
fn is_near(one: &str, other: &str) -> bool {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().take(64).collect());
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let change = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()] <= (one.len() / 3).max(1)
}
