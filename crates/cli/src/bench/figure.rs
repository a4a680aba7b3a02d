//! Figures: what was measured, beside what could be.

use serde_json::{Value, json};

use crate::{
    exit::Failure,
    output::{Column, Out, Table, note},
};

/// One thing that was measured.
struct Figure {
    name: String,
    unit: &'static str,
    value: f64,
    limit: Option<f64>,
}

/// Everything that was measured, in order.
#[derive(Default)]
pub(super) struct Figures(Vec<Figure>);

impl Figures {
    /// Adds the median of `values`, beside the median of the limit's values.
    pub(super) fn put(&mut self, name: &str, unit: &'static str, values: &[f64], limit: Option<&[f64]>) {
        let figure = Figure { name: name.to_owned(), unit, value: median(values), limit: limit.map(median) };
        note(&format!("{:<36} {:>14} {unit}{}", figure.name, number(figure.value), figure.beside()));
        self.0.push(figure);
    }

    /// As `{"results": [{"name", "value", "unit", "limit", "ratio"}, …]}`.
    pub(super) fn to_json(&self) -> Value {
        let result = |figure: &Figure| {
            json!({
                "name": figure.name, "value": figure.value, "unit": figure.unit,
                "limit": figure.limit, "ratio": figure.ratio(),
            })
        };
        json!({ "results": self.0.iter().map(result).collect::<Vec<_>>() })
    }

    /// As a table for people.
    pub(super) fn table(&self, out: &mut Out) -> Result<(), Failure> {
        let columns = [
            Column::Left("figure"),
            Column::Right("value"),
            Column::Left("unit"),
            Column::Right("limit"),
            Column::Right("ratio"),
        ];
        let mut table = Table::new(columns);
        for figure in &self.0 {
            let ratio = figure.ratio().map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
            let limit = figure.limit.map(number).unwrap_or_default();
            table.row([figure.name.clone(), number(figure.value), figure.unit.to_owned(), limit, ratio]);
        }
        table.print(out)
    }
}

impl Figure {
    fn ratio(&self) -> Option<f64> {
        self.limit.map(|limit| self.value / limit)
    }

    fn beside(&self) -> String {
        let beside = |(limit, ratio)| format!("  of {} ({ratio:.2}×)", number(limit));
        self.limit.zip(self.ratio()).map(beside).unwrap_or_default()
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// Large numbers with separators, small ones with digits behind the point.
fn number(value: f64) -> String {
    if value < 100.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap_or("")).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::{median, number};

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(number(1_234_567.8), "1,234,568");
        assert_eq!(number(0.155), "0.15");
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
    }
}
