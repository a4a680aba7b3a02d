//! What people and scripts see: tables and JSON on standard output, everything else on standard error.

mod items;
mod table;
mod whole_file;
mod working;

use std::io::{self, IsTerminal, Write as _};

use clap::ValueEnum;
use serde_json::Value;

pub(crate) use self::{
    items::{Layout, cell, print},
    table::{Column, Table, plain},
    whole_file::WholeFile,
    working::{Reach, working, working_towards},
};
use crate::exit::Failure;

/// How a list is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// JSON for programs: one document, or one line per item where there is no end.
    Json,
}

/// Standard output, buffered. A reader that went away ends the command quietly.
pub(crate) struct Out(io::BufWriter<io::Stdout>);

impl Out {
    /// Standard output.
    pub(crate) fn new() -> Self {
        Self(io::BufWriter::with_capacity(64 << 10, io::stdout()))
    }

    /// Writes `bytes`.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.0.write_all(bytes).map_err(closed)
    }

    /// Writes `text` and ends the line.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.write(text.as_bytes())?;
        self.write(b"\n")
    }

    /// Writes `value` on lines of its own, indented.
    pub(crate) fn json(&mut self, value: &Value) -> Result<(), Failure> {
        self.line(&format!("{value:#}"))
    }

    /// Hands over what was written so far.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.0.flush().map_err(closed)
    }
}

fn closed(cause: io::Error) -> Failure {
    match cause.kind() {
        io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::io("standard output", &cause),
    }
}

/// Tells people something. Nobody listening is no reason to fail.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{}", plain(text));
}

/// Tells people what went wrong.
pub(crate) fn complain(text: &str) {
    let lead = if is_colourful(&io::stderr()) { "\x1b[1;31merror:\x1b[0m" } else { "error:" };
    let lines: Vec<String> = text.lines().map(plain).collect();
    let _ = writeln!(io::stderr(), "{lead} {}", lines.join("\n"));
}

/// Whether `stream` shows colours, and its reader wants them (<https://no-color.org>).
pub(crate) fn is_colourful(stream: &impl IsTerminal) -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    stream.is_terminal() && !unwanted && !dumb
}
