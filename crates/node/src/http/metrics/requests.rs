//! What is measured of requests and their responders.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use quorate_communication::request::Counts;

/// What became of requests since the node began. Gauges that only grow: what counts is kept by the requests themselves.
#[derive(Default)]
pub(super) struct Requests {
    held: [Gauge<i64, AtomicI64>; 3],
    outcomes: [Gauge<u64, AtomicU64>; 9],
}

impl Requests {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let requests = Self::default();
        let of = registry.sub_registry_with_prefix("quorate_request");
        let held = [
            ("held", "Requests that wait for a responder or are worked on"),
            ("held_bytes", "The bytes of their bodies"),
            ("responders", "Responders that are there"),
        ];
        for ((name, about), gauge) in held.into_iter().zip(&requests.held) {
            of.register(name, about, gauge.clone());
        }
        let outcomes = [
            ("answered", "Requests that were answered, since the node began"),
            ("faults", "Requests that were answered with a fault, since the node began"),
            ("no_responder", "Requests for which nobody was there, since the node began"),
            ("refused", "Requests that nobody began on for another reason, since the node began"),
            ("unknown", "Requests of which it is not known what became of them, since the node began"),
            ("cancelled", "Requests whose caller left before, since the node began"),
            ("late_answers", "Answers that nobody waited for any more, since the node began"),
            ("delivered", "Messages without an answer that were done, since the node began"),
            (
                "lost",
                "Messages without an answer that were not done, or of which that is not known, since the node began",
            ),
        ];
        for ((name, about), gauge) in outcomes.into_iter().zip(&requests.outcomes) {
            of.register(name, about, gauge.clone());
        }
        requests
    }

    pub(super) fn show(&self, counts: Counts) {
        let Counts {
            held,
            held_bytes,
            responders,
            answered,
            faults,
            no_responder,
            refused,
            unknown,
            cancelled,
            late,
            delivered,
            lost,
        } = counts;
        for (gauge, now) in self.held.iter().zip([held, held_bytes, responders]) {
            gauge.set(i64::try_from(now).unwrap_or(i64::MAX));
        }
        let outcomes = [answered, faults, no_responder, refused, unknown, cancelled, late, delivered, lost];
        for (gauge, now) in self.outcomes.iter().zip(outcomes) {
            gauge.set(now);
        }
    }
}
