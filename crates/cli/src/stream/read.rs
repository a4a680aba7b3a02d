//! Reading pages of events, and only those of a moment.

use clap::Args;
use quorate_data::event::Timestamp;

use crate::{
    client::{Client, Target},
    event::{COLUMNS, Event},
    exit::Failure,
    output::{Format, Out, Table, note},
    pages::{HowMany, Pages, moment},
};

/// Which of the events that are read are shown.
#[derive(Args, Debug)]
pub(crate) struct Selection {
    /// Only events that had happened by then, by their own `time`: the state at that moment
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<Timestamp>,
    /// Only events that had been recorded by then: what was known at that moment
    #[arg(long, value_name = "TIME", value_parser = moment)]
    recorded_at: Option<Timestamp>,
    /// Include the write that this token names
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
}

/// How a reader goes on behind what it has seen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Continue {
    /// `--from` a version.
    From,
    /// `--after` a position.
    After,
}

impl Selection {
    fn apply(&self, target: Target) -> Target {
        target.with_some("at", self.at.as_ref()).with_some("recordedat", self.recorded_at.as_ref())
    }
}

/// Reads events at `target` and prints those of `selection`.
pub(crate) async fn read(
    client: &Client,
    target: Target,
    selection: &Selection,
    how_many: HowMany,
    format: Format,
    go_on: Continue,
) -> Result<(), Failure> {
    let mut pages = Pages::new(client, selection.apply(target), how_many.page()).including(selection.token.clone());
    let mut printer = Printer::new(format);
    let mut more = None;
    while let Some(page) = pages.next("events").await? {
        for item in page.items()? {
            let event = Event::of(item.get())?;
            if printer.count == how_many.max() {
                more = Some(hint(go_on, &event, &printer));
                break;
            }
            printer.print(item.get(), &event)?;
        }
        if more.is_some() || (printer.count == how_many.max() && !pages.has_next()) {
            break;
        }
    }
    printer.finish()?;
    more.into_iter().for_each(|hint| note(&hint));
    Ok(())
}

fn hint(go_on: Continue, next: &Event<'_>, printer: &Printer) -> String {
    match go_on {
        Continue::From => format!("there is more: go on with --from {}, or take --all", next.version()),
        Continue::After => format!("there is more: go on with --after {}, or take --all", printer.last),
    }
}

/// Prints events as a table, or as one JSON document.
struct Printer {
    format: Format,
    out: Out,
    table: Table,
    count: usize,
    last: String,
}

/// Rows after which a table is printed, so that a long one neither waits nor grows without end.
const ROWS: usize = 1_000;

impl Printer {
    fn new(format: Format) -> Self {
        Self { format, out: Out::new(), table: Table::new(COLUMNS), count: 0, last: "0".to_owned() }
    }

    fn print(&mut self, json: &str, event: &Event<'_>) -> Result<(), Failure> {
        self.count += 1;
        event.position().clone_into(&mut self.last);
        match self.format {
            Format::Json => {
                self.out.write(if self.count == 1 { b"{\"events\":[\n" } else { b",\n" })?;
                self.out.write(json.as_bytes())
            }
            Format::Table => {
                self.table.row(event.cells());
                if self.count.is_multiple_of(ROWS) {
                    std::mem::replace(&mut self.table, Table::new(COLUMNS)).print(&mut self.out)?;
                }
                Ok(())
            }
        }
    }

    fn finish(&mut self) -> Result<(), Failure> {
        match (self.format, self.count) {
            (Format::Json, 0) => self.out.line("{\"events\":[]}")?,
            (Format::Json, _) => self.out.line("\n]}")?,
            (Format::Table, _) => self.table.print(&mut self.out)?,
        }
        self.out.flush()
    }
}
