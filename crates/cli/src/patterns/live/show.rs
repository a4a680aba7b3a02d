//! What a run shows: a chart over time, how single things went, and what was proved.

mod timeline;

use std::time::Duration;

use quorate_foundations::time::Mono;
use serde_json::{Value, json};

pub(super) use self::timeline::{Span, Timeline};
use crate::{
    exit::{Exit, Failure},
    output::{Column, Format, Out, Table},
};

/// What happened.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// What was done, for people.
    pub(super) scene: String,
    /// What is counted in each tenth of a second.
    pub(super) series: Vec<(&'static str, Vec<u64>)>,
    /// Tenths of a second in which something was unwell: the upstream, or what `mark` says.
    pub(super) unwell: Vec<usize>,
    /// What those tenths mean, where it is not the upstream that is unwell.
    pub(super) mark: Option<&'static str>,
    /// How single things went.
    pub(super) timelines: Vec<Timeline>,
    /// Figures.
    pub(super) figures: Vec<(String, String)>,
    /// What has to hold, and whether it did.
    pub(super) claims: Vec<(String, bool)>,
}

/// The widest bar.
const WIDEST: u64 = 28;
/// All bars of a line together, where there are many.
const WIDTH: u64 = 84;

impl Shown {
    /// Counts moments in tenths of a second since `begun`.
    pub(super) fn count(&mut self, what: &'static str, begun: Mono, moments: impl IntoIterator<Item = Mono>) {
        let mut tenths = Vec::new();
        for moment in moments {
            let tenth = tenth(moment.saturating_since(begun));
            tenths.resize(tenths.len().max(tenth + 1), 0);
            tenths[tenth] += 1;
        }
        self.series.push((what, tenths));
    }

    /// The most that was seen in each tenth of a second since `begun`; where nothing was, what was seen last.
    pub(super) fn level(&mut self, what: &'static str, begun: Mono, seen: impl IntoIterator<Item = (Mono, u64)>) {
        let mut most: Vec<Option<u64>> = Vec::new();
        for (moment, level) in seen {
            let tenth = tenth(moment.saturating_since(begun));
            most.resize(most.len().max(tenth + 1), None);
            most[tenth] = most[tenth].max(Some(level));
        }
        let mut last = 0;
        let tenths = most.into_iter().map(|level| {
            last = level.unwrap_or(last);
            last
        });
        self.series.push((what, tenths.collect()));
    }

    /// Something was unwell in this time.
    pub(super) fn unwell(&mut self, begun: Mono, from: Mono, until: Mono) {
        self.unwell.extend(tenth(from.saturating_since(begun))..=tenth(until.saturating_since(begun)));
    }

    pub(super) fn figure(&mut self, what: &str, value: impl ToString) {
        self.figures.push((what.to_owned(), value.to_string()));
    }

    pub(super) fn claim(&mut self, what: impl Into<String>, holds: bool) {
        self.claims.push((what.into(), holds));
    }

    /// Prints it; what doesn't hold is a failure.
    pub(super) fn print(&self, out: &mut Out, format: Format) -> Result<(), Failure> {
        if format == Format::Json {
            out.json(&self.to_json())?;
        } else {
            self.chart(out)?;
        }
        out.flush()?;
        self.verdict()
    }

    /// What does not hold is a failure.
    fn verdict(&self) -> Result<(), Failure> {
        let broken: Vec<&str> = self.claims.iter().filter(|(_, holds)| !holds).map(|(what, _)| what.as_str()).collect();
        if broken.is_empty() {
            return Ok(());
        }
        Err(Failure::new(Exit::Refused, format!("it did not hold that {}", broken.join("; that "))))
    }

    fn chart(&self, out: &mut Out) -> Result<(), Failure> {
        out.line(&format!("\n{}\n", self.scene))?;
        let length = self.series.iter().map(|(_, tenths)| tenths.len()).max().unwrap_or(0);
        let most = self.series.iter().flat_map(|(_, tenths)| tenths.iter()).max().copied().unwrap_or(1).max(1);
        if length > 0 {
            let widest = WIDEST.min(WIDTH / self.series.len().max(1) as u64);
            let columns =
                std::iter::once(Column::Left("SECOND")).chain(self.series.iter().map(|(what, _)| Column::Left(what)));
            let mut table = Table::new(columns.collect::<Vec<_>>());
            for tenth in 0..length {
                let mark = if self.unwell.contains(&tenth) { "†" } else { "" };
                let place = format!("{}.{} {mark}", tenth / 10, tenth % 10);
                let cells = self.series.iter().map(|(_, tenths)| {
                    let count = tenths.get(tenth).copied().unwrap_or(0);
                    format!("{:<width$} {count}", "█".repeat(width(count, most, widest)), width = widest as usize)
                });
                table.row(std::iter::once(place).chain(cells));
            }
            table.print(out)?;
            if !self.unwell.is_empty() {
                out.line(&format!("† {}", self.mark.unwrap_or("the upstream is unwell")))?;
            }
            out.line("")?;
        }
        for timeline in &self.timelines {
            timeline.draw(out)?;
            out.line("")?;
        }
        for (what, value) in &self.figures {
            out.line(&format!("{what}: {value}"))?;
        }
        for (what, holds) in &self.claims {
            out.line(&format!("{} {what}", if *holds { "holds:" } else { "BROKEN:" }))?;
        }
        Ok(())
    }

    fn to_json(&self) -> Value {
        let series: serde_json::Map<String, Value> =
            self.series.iter().map(|(what, tenths)| ((*what).to_ascii_lowercase(), json!(tenths))).collect();
        let figures: serde_json::Map<String, Value> =
            self.figures.iter().map(|(what, value)| (what.clone(), value.as_str().into())).collect();
        let claims: Vec<Value> =
            self.claims.iter().map(|(what, holds)| json!({ "claim": what, "holds": holds })).collect();
        let mut shown = json!({
            "scene": self.scene, "tenths": series, "unwell": self.unwell, "figures": figures, "claims": claims,
        });
        if !self.timelines.is_empty() {
            shown["timelines"] = self.timelines.iter().map(Timeline::to_json).collect();
        }
        shown
    }
}

fn tenth(span: Duration) -> usize {
    usize::try_from(span.as_millis() / 100).unwrap_or(usize::MAX).min(600)
}

/// As wide as its part of the most, and never nothing for something.
fn width(count: u64, most: u64, widest: u64) -> usize {
    let width = (count * widest).div_ceil(most).min(widest);
    usize::try_from(width).unwrap_or(0)
}

/// The part `part` of spans that are sorted.
pub(super) fn quantile(sorted: &[Duration], part: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get(((last as f64) * part) as usize).copied().unwrap_or_default()
}

/// A span in milliseconds.
pub(super) fn millis(span: Duration) -> String {
    format!("{:.1} ms", span.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quorate_foundations::time::Mono;

    use super::Shown;
    use crate::exit::{Exit, Failure};

    #[test]
    fn a_claim_that_does_not_hold_is_named_and_ends_in_1() {
        let mut shown = Shown::default();
        shown.claim("this holds", true);
        assert!(shown.verdict().is_ok());
        shown.claim("this does not", false);
        let Err(Failure::Local { exit, what, .. }) = shown.verdict() else { panic!("a broken claim passed") };
        assert_eq!((exit, what.as_str()), (Exit::Refused, "it did not hold that this does not"));
    }

    #[test]
    fn a_level_is_the_most_of_its_tenth_or_what_was_seen_last() {
        let begun = Mono::ZERO;
        let seen = [(0, 3), (90, 7), (50, 5), (310, 2)].map(|(at, level)| (begun + Duration::from_millis(at), level));
        let mut shown = Shown::default();
        shown.level("lag", begun, seen);
        assert_eq!(shown.series, [("lag", vec![7, 7, 7, 2])]);
    }
}
