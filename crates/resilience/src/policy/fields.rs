//! Fields of a policy: times with units, counts, parts of one.

use std::{num::NonZeroU32, ops::Range, time::Duration};

use quorate_foundations::document::{Node, Reader, Table};

/// A table whose fields remember where they stand.
pub(super) struct Fields<'r, 'n, 't> {
    reader: &'r Reader<'t>,
    table: Table<'r, 'n, 't>,
    places: &'r std::cell::RefCell<Vec<(String, Range<usize>)>>,
}

impl<'r, 'n, 't> Fields<'r, 'n, 't> {
    pub(super) fn of(
        reader: &'r Reader<'t>,
        field: impl Into<String>,
        node: &'n Node,
        places: &'r std::cell::RefCell<Vec<(String, Range<usize>)>>,
    ) -> Option<Self> {
        let table = Table::of(reader, field, node)?;
        places.borrow_mut().push((table.field.clone(), node.span.clone()));
        Some(Self { reader, table, places })
    }

    fn note(&self, key: &str, span: Range<usize>) {
        self.places.borrow_mut().push((self.table.path(key), span));
    }

    /// Reads a table inside of this one, if it is there.
    pub(super) fn inner<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Fields<'r, 'n, 't>) -> Option<T>,
    ) -> Option<T> {
        let node = self.table.take(key)?;
        let mut fields = Fields::of(self.reader, self.table.path(key), node, self.places)?;
        let read = read(&mut fields);
        fields.end();
        read
    }

    pub(super) fn reader(&self) -> &'r Reader<'t> {
        self.reader
    }

    pub(super) fn end(self) {
        self.table.end();
    }

    pub(super) fn text(&mut self, key: &'static str) -> Option<(&'n str, Range<usize>)> {
        let (text, span) = self.table.text(key)?;
        self.note(key, span.clone());
        Some((text, span))
    }

    pub(super) fn required_text(&mut self, key: &'static str) -> Option<(&'n str, Range<usize>)> {
        self.table.required_text(key)
    }

    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        self.table.choice(key, choices)
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        self.table.boolean(key)
    }

    pub(super) fn list(&mut self, key: &'static str) -> Option<&'n [Node]> {
        self.table.list(key)
    }

    pub(super) fn fault(&self, key: &str, span: &Range<usize>, what: impl Into<String>) {
        self.reader.fault(span, &self.table.path(key), what);
    }

    /// Says of this table what is wrong with all of it.
    pub(super) fn wrong(&self, what: impl Into<String>) {
        self.reader.fault(&self.table.span, &self.table.field, what);
    }

    /// A time, if it is there.
    pub(super) fn span(&mut self, key: &'static str) -> Option<Duration> {
        let node = self.table.take(key)?;
        let quorate_foundations::document::Value::Text(text) = &node.value else {
            self.table.wrong_kind(key, node, "a time with its unit, such as `1m30s`,");
            return None;
        };
        self.note(key, node.span.clone());
        let read = duration(text);
        if read.is_none() {
            let what = format!(
                "`{text}` is no time: write whole numbers with units, as in `1m30s`; h, m, s, ms and us are known"
            );
            self.fault(key, &node.span, what);
        }
        read
    }

    /// A whole number above zero, if it is there.
    pub(super) fn count(&mut self, key: &'static str) -> Option<NonZeroU32> {
        let (number, span) = self.table.number_if_there(key)?;
        self.note(key, span.clone());
        let read = number.parse().ok();
        if read.is_none() {
            self.fault(key, &span, format!("{number} is not a whole number from 1 to {}", u32::MAX));
        }
        read
    }

    /// A whole number, zero included, if it is there.
    pub(super) fn number(&mut self, key: &'static str) -> Option<u32> {
        let (number, span) = self.table.number_if_there(key)?;
        self.note(key, span.clone());
        let read = number.parse().ok();
        if read.is_none() {
            self.fault(key, &span, format!("{number} is not a whole number from 0 to {}", u32::MAX));
        }
        read
    }

    /// A number above zero, and at most `most`, if it is there.
    pub(super) fn part(&mut self, key: &'static str, most: f64) -> Option<f64> {
        let (number, span) = self.table.number_if_there(key)?;
        self.note(key, span.clone());
        let read = number.parse().ok().filter(|read: &f64| *read > 0.0 && *read <= most);
        if read.is_none() {
            self.fault(key, &span, format!("{number} is not above 0 and at most {most}"));
        }
        read
    }
}

/// A time as the Gateway API writes it: `1h30m`, `500ms`; `us` besides.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|digits| (1..=9).contains(digits))?;
        let (number, behind) = rest.split_at(digits);
        let number: u64 = number.parse().ok()?;
        let letters = behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(letters);
        sum += match unit {
            "h" => Duration::from_secs(number * 3_600),
            "m" => Duration::from_secs(number * 60),
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            "us" => Duration::from_micros(number),
            _ => return None,
        };
        rest = behind;
    }
    (!text.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::duration;

    #[test]
    fn a_time_is_whole_numbers_with_units() {
        assert_eq!(duration("1h30m5s250ms"), Some(Duration::from_millis(5_405_250)));
        assert_eq!(duration("100us"), Some(Duration::from_micros(100)));
        for text in ["", "5", "s", "1.5s", "-1s", "1 s", "1d", "1234567890s", "1sé"] {
            assert_eq!(duration(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,24}") {
            let _ = duration(&text);
        }
    }
}
