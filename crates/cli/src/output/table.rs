//! Columns for people.

use std::io;

use unicode_width::UnicodeWidthStr;

use super::{Out, is_colourful};
use crate::exit::Failure;

/// A column's heading and how its cells lie.
#[derive(Clone, Debug)]
pub(crate) enum Column {
    /// Text, aligned left.
    Left(&'static str),
    /// Numbers, aligned right.
    Right(&'static str),
    /// Whatever the node calls it.
    Given {
        /// Its heading.
        heading: String,
        /// Whether it is aligned right.
        right: bool,
    },
}

/// Rows under headings, as wide as they need to be.
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(columns: impl Into<Vec<Column>>) -> Self {
        Self { columns: columns.into(), rows: Vec::new() }
    }

    /// Adds a row; control characters in it are made visible.
    pub(crate) fn row<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(|cell| plain(cell.as_ref())).collect());
    }

    /// Prints headings and rows.
    pub(crate) fn print(&self, out: &mut Out) -> Result<(), Failure> {
        let colours = is_colourful(&io::stdout());
        for line in self.lines(colours) {
            out.line(&line)?;
        }
        out.flush()
    }

    fn lines(&self, colours: bool) -> impl Iterator<Item = String> {
        let widths = self.widths();
        let headings: Vec<String> = self.columns.iter().map(|column| column.heading().to_owned()).collect();
        let head = self.lay(&headings, &widths);
        let head = if colours { format!("\x1b[1m{head}\x1b[0m") } else { head };
        std::iter::once(head).chain(self.rows.iter().map(move |row| self.lay(row, &widths)))
    }

    fn widths(&self) -> Vec<usize> {
        let cells = |n: usize| self.rows.iter().filter_map(move |row| row.get(n)).map(|cell| cell.width());
        let columns = self.columns.iter().enumerate();
        columns.map(|(n, column)| cells(n).chain([column.heading().width()]).max().unwrap_or(0)).collect()
    }

    fn lay(&self, cells: &[String], widths: &[usize]) -> String {
        let padded = self.columns.iter().zip(cells).zip(widths).map(|((column, cell), width)| {
            let blanks = " ".repeat(width.saturating_sub(cell.width()));
            match column {
                Column::Left(_) | Column::Given { right: false, .. } => format!("{cell}{blanks}"),
                Column::Right(_) | Column::Given { right: true, .. } => format!("{blanks}{cell}"),
            }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    }
}

impl Column {
    fn heading(&self) -> &str {
        match self {
            Self::Left(heading) | Self::Right(heading) => heading,
            Self::Given { heading, .. } => heading,
        }
    }
}

/// `text` in one line that cannot move the cursor or colour the terminal.
pub(crate) fn plain(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    text.chars()
        .map(|c| {
            if c.is_whitespace() {
                ' '
            } else if c.is_control() {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Column, Table, plain};

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_in_any_script() {
        let mut table = Table::new([Column::Left("NAME"), Column::Right("N"), Column::Left("LAST")]);
        table.row(["日本", "7", "x"]);
        table.row(["a", "1234", ""]);
        let lines: Vec<String> = table.lines(false).collect();
        assert_eq!(lines, ["NAME     N  LAST", "日本     7  x", "a     1234"]);
    }

    #[test]
    fn data_cannot_command_the_terminal() {
        assert_eq!(plain("a\x1b[2Jb\u{9b}c\nd"), "a\u{fffd}[2Jb\u{fffd}c d");
    }
}
