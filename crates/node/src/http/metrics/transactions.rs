//! What is measured of transactions of two-phase commit.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::{metrics::gauge::Gauge, registry::Registry};

use crate::verbs::Standing;

type Count = Gauge<u64, AtomicU64>;

/// What is in doubt, and what the coordinators in this process did. Gauges that only grow: what counts is kept by the coordinators.
#[derive(Default)]
pub(super) struct Transactions {
    promised: Count,
    unfinished: Gauge<i64, AtomicI64>,
    oldest: Gauge<f64, AtomicU64>,
    counts: [Count; 5],
}

impl Transactions {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let transactions = Self::default();
        let of = registry.sub_registry_with_prefix("quorate_transaction");
        of.register("promised", "Promises of embedded participants in the store", transactions.promised.clone());
        let about = "Transactions of coordinators in this process that have not ended";
        of.register("unfinished", about, transactions.unfinished.clone());
        let about = "How long the oldest thing has been in doubt; 0 where nothing is";
        of.register("oldest_doubt_seconds", about, transactions.oldest.clone());
        let names = [
            ("committed", "Transactions committed by coordinators in this process"),
            ("aborted", "Transactions aborted by coordinators in this process"),
            ("unknown", "Transactions whose callers were told that the outcome is unknown"),
            ("resolved", "Branches in doubt that a sweep ended"),
            ("contradicted", "Branches that had been ended otherwise than decided"),
        ];
        for ((name, about), count) in names.into_iter().zip(&transactions.counts) {
            of.register(name, about, count.clone());
        }
        transactions
    }

    pub(super) fn show(&self, standing: Standing) {
        let Standing { promised, oldest, counts } = standing;
        self.promised.set(promised);
        self.oldest.set(oldest.unwrap_or_default().as_secs_f64());
        let counts = counts.unwrap_or_default();
        self.unfinished.set(i64::try_from(counts.unfinished).unwrap_or(i64::MAX));
        let all = [counts.committed, counts.aborted, counts.unknown, counts.resolved, counts.contradicted];
        for (count, now) in self.counts.iter().zip(all) {
            count.set(now);
        }
    }
}
