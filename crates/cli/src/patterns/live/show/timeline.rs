//! How something went step by step, as bars along its time.

use std::time::Duration;

use serde_json::{Value, json};

use super::millis;
use crate::{
    exit::Failure,
    output::{Column, Out, Table},
};

/// How wide all of its time is drawn.
const WIDTH: u128 = 40;

/// Something that took its time, step by step.
#[derive(Debug, Default)]
pub(in crate::patterns::live) struct Timeline {
    /// What it was, and how it ended.
    pub(in crate::patterns::live) title: String,
    /// Its steps, in the order in which they are shown.
    pub(in crate::patterns::live) spans: Vec<Span>,
}

/// A step: from when until when, counted from the beginning.
#[derive(Debug)]
pub(in crate::patterns::live) struct Span {
    /// What was done.
    pub(in crate::patterns::live) what: String,
    pub(in crate::patterns::live) from: Duration,
    pub(in crate::patterns::live) until: Duration,
    /// What came of it.
    pub(in crate::patterns::live) note: String,
}

impl Timeline {
    /// Draws it for people.
    pub(super) fn draw(&self, out: &mut Out) -> Result<(), Failure> {
        out.line(&self.title)?;
        let whole = self.spans.iter().map(|span| span.until).max().unwrap_or_default();
        let columns = [
            Column::Left("STEP"),
            Column::Right("FROM"),
            Column::Right("TOOK"),
            Column::Left("COURSE"),
            Column::Left("WHAT CAME OF IT"),
        ];
        let mut table = Table::new(columns);
        for Span { what, from, until, note } in &self.spans {
            let took = millis(until.saturating_sub(*from));
            table.row([what, &millis(*from), &took, &bar(*from, *until, whole), note]);
        }
        table.print(out)
    }

    /// The same for programs.
    pub(super) fn to_json(&self) -> Value {
        let span = |Span { what, from, until, note }: &Span| {
            let millis = |span: &Duration| span.as_micros() as f64 / 1e3;
            json!({ "step": what, "from-ms": millis(from), "until-ms": millis(until), "note": note })
        };
        json!({ "title": self.title, "steps": self.spans.iter().map(span).collect::<Vec<_>>() })
    }
}

/// A bar at its place in the whole, never nothing for something.
fn bar(from: Duration, until: Duration, whole: Duration) -> String {
    let whole = whole.as_nanos().max(1);
    let at = |moment: Duration| moment.as_nanos().min(whole) * WIDTH / whole;
    let begins = at(from).min(WIDTH - 1);
    let ends = at(until).max(begins + 1);
    let cells = |count: u128| usize::try_from(count).unwrap_or(0);
    " ".repeat(cells(begins)) + &"█".repeat(cells(ends - begins)) + &" ".repeat(cells(WIDTH - ends))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::bar;

    #[test]
    fn a_bar_stands_in_its_place_and_is_never_nothing() {
        let millis = Duration::from_millis;
        let drawn = |from, until, whole| bar(millis(from), millis(until), millis(whole));
        assert_eq!(drawn(0, 40, 40), "█".repeat(40));
        assert_eq!(drawn(10, 20, 40), format!("{}{}{}", " ".repeat(10), "█".repeat(10), " ".repeat(20)));
        assert_eq!(drawn(40, 40, 40), " ".repeat(39) + "█");
        assert_eq!(drawn(0, 0, 0), "█".to_owned() + &" ".repeat(39));
    }
}
