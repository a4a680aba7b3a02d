//! What was measured, and its medians.

use serde_json::json;

use crate::contender::{Contender, Value};

/// All values, by figure and contender in the order in which they first came.
#[derive(Default)]
pub(crate) struct Results(Vec<Row>);

/// The values of one contender for one figure, one of each round.
struct Row {
    figure: String,
    unit: String,
    contender: &'static str,
    values: Vec<f64>,
}

impl Results {
    /// Adds what one run of a program came to.
    pub(crate) fn add(&mut self, values: Vec<Value>) {
        for Value { contender, figure, unit, value } in values {
            match self.0.iter_mut().find(|row| row.figure == figure && row.contender == contender) {
                Some(row) => row.values.push(value),
                None => self.0.push(Row { figure, unit, contender, values: vec![value] }),
            }
        }
    }

    /// The figures with their units, in order.
    pub(crate) fn figures(&self) -> Vec<(&str, &str)> {
        let mut figures: Vec<(&str, &str)> = Vec::new();
        for row in &self.0 {
            if figures.iter().all(|(name, _)| *name != row.figure) {
                figures.push((&row.figure, &row.unit));
            }
        }
        figures
    }

    /// The median of what `contender` came to at `figure`.
    pub(crate) fn median(&self, figure: &str, contender: &str) -> Option<f64> {
        let row = self.0.iter().find(|row| row.figure == figure && row.contender == contender)?;
        median(&row.values)
    }

    /// Medians, every round behind them, and what was measured how.
    pub(crate) fn to_json(&self, contenders: &[Contender], how: &str) -> serde_json::Value {
        let versions = contenders.iter().map(|contender| (contender.name.to_owned(), json!(contender.versions)));
        let result = |row: &Row| {
            json!({
                "name": row.figure, "contender": row.contender, "unit": row.unit,
                "value": median(&row.values), "rounds": row.values,
            })
        };
        json!({
            "how": how,
            "versions": versions.collect::<serde_json::Map<_, _>>(),
            "results": self.0.iter().map(result).collect::<Vec<_>>(),
        })
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let (low, high) = (sorted.len().checked_sub(1)? / 2, sorted.len() / 2);
    Some(f64::midpoint(sorted[low], sorted[high]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_the_mean_of_the_two_about_it() {
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[9.0, 1.0, 2.0, 4.0]), Some(3.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn rounds_of_one_figure_gather_in_one_row() {
        let value = |value| Value { contender: "a", figure: "f".to_owned(), unit: "1/s".to_owned(), value };
        let mut results = Results::default();
        results.add(vec![value(1.0)]);
        results.add(vec![value(3.0)]);
        assert_eq!(results.figures(), [("f", "1/s")]);
        assert_eq!(results.median("f", "a"), Some(2.0));
    }
}
