//! How far an import is, and what it came to.

use std::{
    io::{self, IsTerminal},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use quorate_runtime::Env;
use serde_json::{Value, json};

use super::input::Reach;
use crate::output::note;

/// How often a progress bar moves, and how often a line is written where there is none.
const REDRAW: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What all lanes count together.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Events written by this import.
    pub(crate) new: AtomicU64,
    /// Events that were in the log already.
    pub(crate) known: AtomicU64,
    /// Bad lines passed over.
    pub(crate) skipped: AtomicU64,
    /// Whether the node had to be waited for.
    pub(super) waited: AtomicBool,
}

/// What an import came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Summary {
    new: u64,
    known: u64,
    skipped: u64,
    took: Duration,
}

impl Counts {
    /// What was counted, after `took`.
    pub(crate) fn summary(&self, took: Duration) -> Summary {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Summary { new: count(&self.new), known: count(&self.known), skipped: count(&self.skipped), took }
    }
}

impl Summary {
    fn events(&self) -> u64 {
        self.new + self.known
    }

    fn rate(&self) -> f64 {
        self.events() as f64 / self.took.as_secs_f64().max(1e-9)
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        json!({
            "events": self.events(),
            "new": self.new,
            "known": self.known,
            "skipped": self.skipped,
            "seconds": (self.took.as_secs_f64() * 1_000.0).round() / 1_000.0,
            "eventspersecond": self.rate().round(),
        })
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { new, known, skipped, took } = self;
        let (events, seconds, rate) = (self.events(), took.as_secs_f64(), self.rate());
        write!(f, "{events} events: {new} new, {known} known, {skipped} skipped; {seconds:.2} s, {rate:.0} events/s")
    }
}

/// Shows how far an import is for as long as it is polled: a bar on a terminal, else a line every few seconds.
pub(crate) async fn show(env: &Env, counts: &Counts, reach: &Reach) {
    let begun = env.mono();
    let terminal = io::stderr().is_terminal();
    let bar = terminal.then(|| Bar::new(reach.size));
    loop {
        env.sleep(if terminal { REDRAW.0 } else { REDRAW.1 }).await;
        let summary = counts.summary(env.mono().saturating_since(begun));
        let read = reach.read.load(Ordering::Relaxed);
        match &bar {
            Some(bar) => bar.draw(read, &summary),
            None => note(&line(read, reach.size, &summary)),
        }
    }
}

fn line(read: u64, size: Option<u64>, summary: &Summary) -> String {
    let share = size.map_or_else(String::new, |size| format!("{:.0} %: ", read as f64 / size.max(1) as f64 * 100.0));
    format!("{share}{summary}")
}

/// A bar that is wiped when it is dropped.
struct Bar(ProgressBar);

impl Bar {
    fn new(size: Option<u64>) -> Self {
        let bar = ProgressBar::with_draw_target(size, ProgressDrawTarget::stderr());
        let template =
            if size.is_some() { "{bar:24} {percent:>3} %  {msg}, {eta} left" } else { "{spinner} {bytes} read  {msg}" };
        // A template that indicatif does not take leaves its own in place.
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar)
    }

    fn draw(&self, read: u64, summary: &Summary) {
        self.0.set_position(read);
        self.0.set_message(format!("{} events, {:.0}/s", summary.events(), summary.rate()));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
