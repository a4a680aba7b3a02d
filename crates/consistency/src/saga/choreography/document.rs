//! Processes as documents, for every language: what a [`Process`] says in Rust, but for process managers, which are programs.

use std::{ops::Range, sync::Arc, time::Duration};

use humantime_serde::re::humantime::parse_duration;
use quorate_foundations::{
    document::{Fault, Faults, Format, Node, Reader, Table, parse},
    jq::Program,
    name::Name,
};

use super::{By, Expectation, Process, Reaction, Start};

/// A process's document.
#[derive(Clone, Debug)]
pub struct Document {
    process: Process,
    format: Format,
    text: Arc<str>,
}

impl Document {
    /// The longest document, in bytes.
    pub const MAX_BYTES: usize = 64 << 10;

    /// Reads a document.
    ///
    /// # Errors
    /// [`Faults`]: everything that is wrong, with line, column and field.
    ///
    /// # Example
    /// ```
    /// use quorate_consistency::saga::choreography::Document;
    /// use quorate_foundations::document::Format;
    /// let text = r#"
    /// process = "order"
    /// begins = ["order.placed"]
    /// ends = ["order.shipped"]
    ///
    /// [[expect]]
    /// after = "order.placed"
    /// events = ["payment.taken", "payment.refused"]
    /// within = "15m"
    /// "#;
    /// assert_eq!(Document::read(text, Format::Toml).unwrap().process().expectations().len(), 1);
    ///
    /// let faults = Document::read(&text.replace("15m", "soon"), Format::Toml).unwrap_err();
    /// assert_eq!(
    ///     faults.to_string(),
    ///     "line 9, column 10: `expect[0].within`: `soon` is no time: write numbers with units, as in `1h 30m` or `500ms`"
    /// );
    /// ```
    pub fn read(text: &str, format: Format) -> Result<Self, Faults> {
        if text.len() > Self::MAX_BYTES {
            let what = format!("a document has at most {} bytes, this one has {}", Self::MAX_BYTES, text.len());
            return Err(Fault::at(text, 0, "", what).into());
        }
        let root = parse(text, format)?;
        let reader = Reader::new(text);
        let read = Table::of(&reader, "", &root).and_then(|table| Reading { reader: &reader }.whole(table));
        match (reader.finish(), read) {
            (None, Some(process)) => match process.check() {
                Ok(()) => Ok(Self { process, format, text: text.into() }),
                Err(wrong) => Err(Fault::at(text, 0, "", wrong.to_string()).into()),
            },
            (Some(faults), _) => Err(faults),
            (None, None) => Err(Fault::at(text, 0, "", "this is no process").into()),
        }
    }

    /// What it says.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// What it is written in.
    pub fn format(&self) -> Format {
        self.format
    }

    /// As it was written.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }
}

struct Reading<'r, 't> {
    reader: &'r Reader<'t>,
}

#[derive(Clone, Copy)]
enum Belongs {
    Correlation,
    Subject,
    Stream,
    Data,
}

impl<'r, 't> Reading<'r, 't> {
    fn whole(&self, mut table: Table<'r, '_, 't>) -> Option<Process> {
        let name = table.required_text("process").and_then(|(name, span)| {
            Name::new(name).map_err(|wrong| self.reader.fault(&span, "process", wrong.to_string())).ok()
        });
        let description = table.text("description").map_or("", |(text, _)| text).into();
        let by = self.by(&mut table);
        let (begins, ends, undone) =
            (types(&mut table, "begins"), types(&mut table, "ends"), types(&mut table, "undone"));
        let start = table.choice("start", &[("now", Start::Now), ("beginning", Start::Beginning)]).unwrap_or_default();
        let max_depth = self.number(&mut table, "max-depth").unwrap_or(Process::DEPTH);
        let max_repeats = self.number(&mut table, "max-repeats").unwrap_or(Process::REPEATS);
        let keep = self.span(&mut table, "keep").unwrap_or(Process::KEEP);
        let expectations = self.each(table.list("expect"), "expect", |table| self.expectation(table));
        let reactions = self.each(table.list("reactions"), "reactions", |table| self.reaction(table));
        table.end();
        let name = name?;
        Some(Process {
            description,
            by: by?,
            begins,
            ends,
            undone,
            expectations,
            reactions,
            start,
            max_depth,
            max_repeats,
            keep,
            ..Process::new(name)
        })
    }

    fn each<T>(&self, list: Option<&[Node]>, field: &str, read: impl Fn(Table<'r, '_, 't>) -> Option<T>) -> Vec<T> {
        let table = |(n, node)| Table::of(self.reader, format!("{field}[{n}]"), node).and_then(&read);
        list.unwrap_or_default().iter().enumerate().filter_map(table).collect()
    }

    fn by(&self, table: &mut Table<'r, '_, 't>) -> Option<By> {
        const WORDS: [(&str, Belongs); 4] = [
            ("correlation", Belongs::Correlation),
            ("subject", Belongs::Subject),
            ("stream", Belongs::Stream),
            ("data", Belongs::Data),
        ];
        let faults = self.reader.count();
        let by = table.choice("by", &WORDS);
        let key = table.text("key");
        match (by, key) {
            (Some(Belongs::Data), Some((text, span))) => {
                let wrong = |fault: quorate_foundations::jq::Fault| {
                    self.reader.fault_within(&span, text, fault.at, "key", fault.what);
                };
                Program::compile(text).map_err(wrong).ok().map(|program| By::Data(Arc::new(program)))
            }
            (Some(Belongs::Data), None) => {
                table.missing("key");
                None
            }
            (_, Some((_, span))) => {
                self.reader.fault(&span, "key", "a key is found in the data only where `by` is `data`");
                None
            }
            (None, None) => (self.reader.count() == faults).then_some(By::Correlation),
            (Some(Belongs::Correlation), None) => Some(By::Correlation),
            (Some(Belongs::Subject), None) => Some(By::Subject),
            (Some(Belongs::Stream), None) => Some(By::Stream),
        }
    }

    fn number(&self, table: &mut Table<'r, '_, 't>, key: &'static str) -> Option<u32> {
        let (number, span) = table.number_if_there(key)?;
        let read = number.parse().ok();
        if read.is_none() {
            self.reader.fault(&span, &table.path(key), format!("`{number}` is no whole number that fits here"));
        }
        read
    }

    fn span(&self, table: &mut Table<'r, '_, 't>, key: &'static str) -> Option<Duration> {
        let (text, span): (&str, Range<usize>) = table.text(key)?;
        let read = parse_duration(text).ok();
        if read.is_none() {
            let what = format!("`{text}` is no time: write numbers with units, as in `1h 30m` or `500ms`");
            self.reader.fault(&span, &table.path(key), what);
        }
        read
    }

    fn expectation(&self, mut table: Table<'r, '_, 't>) -> Option<Expectation> {
        let after = table.required_text("after").map(|(text, _)| text.into());
        let any_of = types(&mut table, "events");
        let is_there = !any_of.is_empty();
        if !is_there {
            table.missing("events");
        }
        let (before, within) = (self.reader.count(), self.span(&mut table, "within"));
        if within.is_none() && self.reader.count() == before {
            table.missing("within");
        }
        table.end();
        Some(Expectation { after: after?, any_of: is_there.then_some(any_of)?, within: within? })
    }

    fn reaction(&self, mut table: Table<'r, '_, 't>) -> Option<Reaction> {
        let on = table.required_text("on").map(|(text, _)| text.into());
        let emits = types(&mut table, "emits");
        let by = table.text("by").map_or("", |(text, _)| text).into();
        let again = table.boolean("again").unwrap_or(false);
        table.end();
        Some(Reaction { on: on?, emits, by, again, act: None })
    }
}

fn types(table: &mut Table<'_, '_, '_>, key: &'static str) -> Vec<Arc<str>> {
    table.texts(key).unwrap_or_default().into_iter().map(|(text, _)| text.into()).collect()
}
