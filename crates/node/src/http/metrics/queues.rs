//! What is measured of each message queue.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::{
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};
use quorate_communication::message_queue::Description;

type Label = [(&'static str, String); 1];
type Count = Family<Label, Gauge<i64, AtomicI64>>;

/// The gauges of queues.
#[derive(Default)]
pub(super) struct Queues {
    ready: Count,
    in_flight: Count,
    waiting: Count,
    parked: Count,
    consumers: Count,
    age: Family<Label, Gauge<f64, AtomicU64>>,
}

impl Queues {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let queues = Self::default();
        let of = registry.sub_registry_with_prefix("quorate_queue");
        of.register("ready", "Messages that the next consumer could get", queues.ready.clone());
        of.register("in_flight", "Messages in consumers' hands", queues.in_flight.clone());
        let about = "Messages that rest, or wait behind the first of their group";
        of.register("waiting", about, queues.waiting.clone());
        of.register("parked", "Dead letters", queues.parked.clone());
        of.register("consumers", "Consumers that wait for a message", queues.consumers.clone());
        let about = "The age of the oldest message that is no dead letter; nothing where there is none";
        of.register("age_seconds", about, queues.age.clone());
        queues
    }

    /// Shows `all`, and none that are gone.
    pub(super) fn show(&self, all: &[Description]) {
        for family in [&self.ready, &self.in_flight, &self.waiting, &self.parked, &self.consumers] {
            family.clear();
        }
        self.age.clear();
        for queue in all {
            let label = [("queue", queue.name.as_str().to_owned())];
            let counts = queue.counts;
            self.ready.get_or_create(&label).set(count(counts.ready));
            self.in_flight.get_or_create(&label).set(count(counts.in_flight));
            self.waiting.get_or_create(&label).set(count(counts.waiting));
            self.parked.get_or_create(&label).set(count(counts.parked));
            self.consumers.get_or_create(&label).set(count(queue.consumers));
            if let Some(age) = queue.age {
                self.age.get_or_create(&label).set(age.as_secs_f64());
            }
        }
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
