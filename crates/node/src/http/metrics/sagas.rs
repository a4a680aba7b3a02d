//! What is measured of sagas.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use quorate_consistency::saga::Counts;

type Count = Gauge<u64, AtomicU64>;

/// What happened to sagas since the node began. Gauges that only grow: what counts is kept by the sagas themselves.
#[derive(Default)]
pub(super) struct Sagas {
    open: Gauge<i64, AtomicI64>,
    troubled: Gauge<i64, AtomicI64>,
    calling: Gauge<i64, AtomicI64>,
    waiting: Gauge<i64, AtomicI64>,
    counts: [Count; 7],
}

impl Sagas {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let sagas = Self::default();
        let of = registry.sub_registry_with_prefix("quorate_saga");
        of.register("open", "Sagas that have not ended", sagas.open.clone());
        let about = "Sagas whose next step cannot be written until somebody helps";
        of.register("troubled", about, sagas.troubled.clone());
        of.register("calls_under_way", "Calls of sagas that are under way", sagas.calling.clone());
        of.register("calls_waiting", "Calls of sagas that wait until others are over", sagas.waiting.clone());
        let names = [
            ("started", "Sagas started since the node began"),
            ("completed", "Sagas completed since the node began"),
            ("compensated", "Sagas compensated since the node began"),
            ("forced", "Sagas that an operator ended since the node began"),
            ("got_stuck", "How often a saga got stuck since the node began"),
            ("calls", "Calls that sagas made since the node began"),
            ("late_answers", "Answers that nobody waited for any more, since the node began"),
        ];
        for ((name, about), count) in names.into_iter().zip(&sagas.counts) {
            of.register(name, about, count.clone());
        }
        sagas
    }

    pub(super) fn show(&self, counts: Counts) {
        let Counts { started, completed, compensated, forced, stuck, calls, calling, waiting, late, open, troubled } =
            counts;
        self.troubled.set(i64::try_from(troubled).unwrap_or(i64::MAX));
        self.open.set(i64::try_from(open).unwrap_or(i64::MAX));
        self.calling.set(i64::try_from(calling).unwrap_or(i64::MAX));
        self.waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        for (count, now) in self.counts.iter().zip([started, completed, compensated, forced, stuck, calls, late]) {
            count.set(now);
        }
    }
}
