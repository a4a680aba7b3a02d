//! Where everything stands: which operations are shown, in which row, at which place.

use std::collections::BTreeMap;

use quorate_foundations::time::Mono;

use super::Timeline;
use crate::check::history::{ClientId, Operation};

/// The height of a row of bars, and of the axis above the lanes.
pub(super) const ROW: f64 = 26.0;
pub(super) const AXIS: f64 = 44.0;
/// The space between lanes.
const GAP: f64 = 10.0;
/// Bars are at least this wide, so that they can be seen and pointed at.
const NARROWEST: f64 = 5.0;

/// An operation's bar.
pub(super) struct Bar<'h, O, R> {
    pub(super) operation: &'h Operation<O, R>,
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
}

/// A client's lane.
pub(super) struct Lane {
    pub(super) client: ClientId,
    pub(super) y: f64,
    pub(super) height: f64,
}

/// The picture in numbers.
pub(super) struct Layout<'h, O, R> {
    pub(super) bars: Vec<Bar<'h, O, R>>,
    pub(super) lanes: Vec<Lane>,
    pub(super) left_out: usize,
    pub(super) width: f64,
    pub(super) height: f64,
    from: u64,
    span: u64,
}

impl<'h, O, R> Layout<'h, O, R> {
    pub(super) fn of(timeline: &Timeline<'h, O, R>) -> Self {
        let all = timeline.history.operations();
        let shown = selected(timeline);
        let end = timeline.history.span().end;
        let from = shown.iter().map(|operation| operation.invoked.at.as_nanos()).min().unwrap_or(0);
        let until = shown.iter().map(|operation| ended(operation, end)).max().unwrap_or(0);
        let lanes: BTreeMap<ClientId, ()> = shown.iter().map(|operation| (operation.client, ())).collect();
        let busiest = shown.len() as f64 / lanes.len().max(1) as f64;
        let mut layout = Self {
            bars: Vec::new(),
            lanes: Vec::new(),
            left_out: all.len() - shown.len(),
            width: (busiest * 64.0).clamp(960.0, 24_000.0),
            height: 0.0,
            from,
            span: until.saturating_sub(from).max(1),
        };
        let mut y = AXIS + GAP;
        for client in lanes.into_keys() {
            let height = layout.lane(shown.iter().copied().filter(|operation| operation.client == client), y, end);
            layout.lanes.push(Lane { client, y, height });
            y += height + GAP;
        }
        layout.height = y;
        layout
    }

    /// Puts a client's bars into as few rows as they need not to cover each other. Returns the height of them all.
    fn lane(&mut self, operations: impl Iterator<Item = &'h Operation<O, R>>, y: f64, end: Mono) -> f64 {
        let mut rows: Vec<f64> = Vec::new();
        for operation in operations {
            let x = self.x(operation.invoked.at);
            let width = (self.x(Mono::from_nanos(ended(operation, end))) - x).max(NARROWEST);
            let row = rows.iter().position(|free_from| *free_from <= x).unwrap_or(rows.len());
            if row == rows.len() {
                rows.push(0.0);
            }
            rows[row] = x + width + 1.0;
            self.bars.push(Bar { operation, x, y: y + row as f64 * ROW, width });
        }
        rows.len() as f64 * ROW
    }

    /// Where a time stands, within the picture.
    pub(super) fn x(&self, at: Mono) -> f64 {
        let since = at.as_nanos().saturating_sub(self.from).min(self.span);
        since as f64 / self.span as f64 * (self.width - 2.0 * GAP) + GAP
    }

    /// Whether any of this while is in the picture.
    pub(super) fn covers(&self, from: Mono, until: Mono) -> bool {
        from.as_nanos() <= self.from + self.span && until.as_nanos() >= self.from
    }

    /// Round times, about one per 120 pixels.
    pub(super) fn ticks(&self) -> Vec<Mono> {
        let wanted = self.span as f64 / (self.width / 120.0);
        let magnitude = 10_u64.pow(wanted.max(1.0).log10().floor() as u32);
        let step = [1, 2, 5, 10].map(|factor| factor * magnitude).into_iter().find(|step| *step as f64 >= wanted);
        let step = step.unwrap_or(self.span).max(1);
        let first = self.from.div_ceil(step);
        (first..).map(|n| n * step).take_while(|at| *at <= self.from + self.span).map(Mono::from_nanos).collect()
    }
}

fn ended<O, R>(operation: &Operation<O, R>, end: Mono) -> u64 {
    operation.outcome.ended().map_or(end, |moment| moment.at).as_nanos()
}

/// The operations nearest to the marked ones, in the order of their invocation.
fn selected<'h, O, R>(timeline: &Timeline<'h, O, R>) -> Vec<&'h Operation<O, R>> {
    let all = timeline.history.operations();
    let marked = || all.iter().filter(|operation| timeline.marked.contains(&operation.id));
    let first = marked().map(|operation| operation.invoked.order).min().unwrap_or(0);
    let last = marked().filter_map(|operation| operation.outcome.ended()).map(|at| at.order).max().unwrap_or(first);
    let distance = |operation: &&Operation<O, R>| {
        let ended = operation.outcome.ended().map_or(operation.invoked.order, |at| at.order);
        let away = first.saturating_sub(ended).max(operation.invoked.order.saturating_sub(last));
        (!timeline.marked.contains(&operation.id), away)
    };
    let mut shown: Vec<_> = all.iter().collect();
    shown.sort_by_key(distance);
    shown.truncate(timeline.shown);
    shown.sort_by_key(|operation| operation.invoked.order);
    shown
}
