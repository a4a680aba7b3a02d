//! The table, in Markdown: medians, and what quorate's is of each.

use std::fmt::Write as _;

use crate::{
    contender::{Contender, LIMIT, QUORATE},
    results::Results,
};

/// Everybody's medians; behind those of the others how many times theirs quorate's is.
pub(crate) fn of(results: &Results, contenders: &[Contender], how: &str) -> String {
    let columns: Vec<&str> = [LIMIT].into_iter().chain(contenders.iter().map(|contender| contender.name)).collect();
    let head = ["figure", "unit"].into_iter().chain(columns.iter().copied()).map(str::to_owned).collect();
    let mut rows: Vec<Vec<String>> = vec![head];
    for (figure, unit) in results.figures() {
        let cells = columns.iter().map(|contender| cell(results, figure, contender));
        rows.push([figure.to_owned(), unit.to_owned()].into_iter().chain(cells).collect());
    }
    let mut text = aligned(&rows);
    let _ = writeln!(text, "\nMedians; behind each, quorate's as a multiple of it.\n{how}");
    for contender in contenders {
        let _ = writeln!(text, "{}: {}", contender.name, contender.versions);
    }
    text
}

fn cell(results: &Results, figure: &str, contender: &str) -> String {
    let Some(value) = results.median(figure, contender) else { return "–".to_owned() };
    match results.median(figure, QUORATE) {
        Some(ours) if contender != QUORATE => format!("{} ({}×)", number(value), ratio(ours / value)),
        _ => number(value),
    }
}

/// Thousands apart.
fn number(value: f64) -> String {
    let digits = format!("{value:.0}");
    let groups = digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap_or_default());
    groups.collect::<Vec<_>>().join(",")
}

/// Two significant digits or so: more would promise more than a run can keep.
fn ratio(ratio: f64) -> String {
    if ratio < 0.995 {
        format!("{ratio:.2}")
    } else if ratio < 9.95 {
        format!("{ratio:.1}")
    } else {
        format!("{ratio:.0}")
    }
}

/// The first row is the head; the first two columns are words, the others numbers.
fn aligned(rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default().max(3))
        .collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = match column {
                0 | 1 => write!(text, "| {cell:<width$} "),
                _ => write!(text, "| {cell:>width$} "),
            };
        }
        text.push_str("|\n");
        if index == 0 {
            for (column, width) in widths.iter().enumerate() {
                let (rule, end) = ("-".repeat(width + 1), if column < 2 { '-' } else { ':' });
                let _ = write!(text, "|{rule}{end}");
            }
            text.push_str("|\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_promise_two_digits_and_no_more() {
        assert_eq!(ratio(0.254), "0.25");
        assert_eq!(ratio(3.26), "3.3");
        assert_eq!(ratio(12.7), "13");
        assert_eq!(number(1_234_567.4), "1,234,567");
    }

    #[test]
    fn columns_line_up_and_a_rule_stands_below_the_head() {
        let rows = [["figure", "unit", "a"], ["f", "1/s", "12,345"]].map(|row| row.map(str::to_owned).to_vec());
        let expected = "| figure | unit |      a |\n|--------|------|-------:|\n| f      | 1/s  | 12,345 |\n";
        assert_eq!(aligned(&rows), expected);
    }
}
