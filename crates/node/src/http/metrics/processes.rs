//! What is measured of each choreographed process.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::{
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};
use quorate_consistency::saga::choreography::{Overview, Standing};
use quorate_data::event::Position;

type Label = [(&'static str, String); 1];
type Labels = [(&'static str, String); 2];
type Count = Family<Label, Gauge<u64, AtomicU64>>;

/// The gauges of processes. Those of what happened since the node began only grow: it is counted by the processes themselves.
#[derive(Default)]
pub(super) struct Processes {
    courses: Family<Labels, Gauge<u64, AtomicU64>>,
    lag: Count,
    troubled: Family<Label, Gauge<i64, AtomicI64>>,
    counts: [Count; 8],
}

impl Processes {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let processes = Self::default();
        let of = registry.sub_registry_with_prefix("quorate_process");
        of.register(
            "courses",
            "Courses of a process that have not ended, by their state; 100001 where there are more than 100000",
            processes.courses.clone(),
        );
        of.register("lag_events", "Positions of the log that a process has yet to look at", processes.lag.clone());
        of.register("troubled", "1 where a process does not go on right now, else 0", processes.troubled.clone());
        let names = [
            ("overdue", "Expectations that became overdue since the node began"),
            ("events", "Events that a process took in since the node began"),
            ("repeated", "Events that came once more since the node began"),
            ("late", "Events that came behind the end of their course since the node began"),
            ("keyless", "Events that belong to no course, for they have no key, since the node began"),
            ("stopped", "Courses that were stopped since the node began"),
            ("resumed", "Courses that somebody had go on since the node began"),
            ("ended", "Courses that ended or were undone since the node began"),
        ];
        for ((name, about), count) in names.into_iter().zip(&processes.counts) {
            of.register(name, about, count.clone());
        }
        processes
    }

    /// Shows `all`, and none that are gone.
    pub(super) fn show(&self, all: &[Overview], head: Position) {
        self.courses.clear();
        self.troubled.clear();
        self.lag.clear();
        self.counts.iter().for_each(Family::clear);
        for one in all {
            let label = [("process", one.name.as_str().to_owned())];
            let [process] = label.clone();
            // What cannot be counted right now is not there, rather than what it was.
            let open = one.open.as_deref().ok();
            for (standing, open) in Standing::OPEN.into_iter().filter_map(|standing| Some((standing, open?))) {
                let count = open.iter().find(|(of, _)| *of == standing).map_or(0, |(_, count)| *count);
                let labels = [process.clone(), ("state", standing.word().to_owned())];
                self.courses.get_or_create(&labels).set(count);
            }
            if let Some(position) = one.position {
                self.lag.get_or_create(&label).set(head.get().saturating_sub(position.get()));
            }
            self.troubled.get_or_create(&label).set(one.trouble.is_some().into());
            let (tally, keyless) = (one.counts.tally, one.counts.keyless);
            let counts = [
                tally.overdue,
                tally.events,
                tally.repeated,
                tally.late,
                keyless,
                tally.stopped,
                tally.resumed,
                tally.ended,
            ];
            for (count, now) in self.counts.iter().zip(counts) {
                count.get_or_create(&label).set(now);
            }
        }
    }
}
