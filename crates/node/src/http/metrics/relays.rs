//! What is measured of each relay.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use quorate_communication::outbox::{RelayCounts, Standing};

use crate::verbs::RelayStanding;

type Label = [(&'static str, String); 1];
type Outcome = [(&'static str, String); 2];
type Count = Family<Label, Gauge<i64, AtomicI64>>;

/// What is shown of relays.
#[derive(Default)]
pub(super) struct Relays {
    works: Count,
    paused: Count,
    lag: Count,
    parked: Count,
    age: Family<Label, Gauge<f64, AtomicU64>>,
    events: Family<Outcome, Counter>,
}

impl Relays {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let relays = Self::default();
        let of = registry.sub_registry_with_prefix("quorate_relay");
        of.register(
            "working",
            "1 while the relay publishes or has nothing to publish, 0 while something is in its way",
            relays.works.clone(),
        );
        of.register("paused", "1 while the relay is paused", relays.paused.clone());
        let about = "Events yet to be published, and every event that was not looked at, whether it matches or not";
        of.register("lag_events", about, relays.lag.clone());
        of.register("lag_seconds", "How long ago the oldest of them was recorded", relays.age.clone());
        of.register("parked", "Events that were set aside", relays.parked.clone());
        of.register(
            "events",
            "What became of events in this process, as `GET /v1/relays/{name}` counts",
            relays.events.clone(),
        );
        relays
    }

    /// Shows `all`.
    pub(super) fn show(&self, all: &[RelayStanding]) {
        for one in all {
            let name = one.spec.name.as_str();
            let label = [("relay", name.to_owned())];
            let works = one.how.as_ref().is_ok_and(|how| how.standing == Standing::Working);
            self.works.get_or_create(&label).set(works.into());
            let Ok(how) = &one.how else { continue };
            self.paused.get_or_create(&label).set(how.paused.is_some().into());
            self.lag.get_or_create(&label).set(i64::try_from(how.subscription.lag_events).unwrap_or(i64::MAX));
            self.age.get_or_create(&label).set(how.subscription.lag.as_secs_f64());
            self.parked.get_or_create(&label).set(i64::try_from(how.subscription.counts.parked).unwrap_or(i64::MAX));
            for (outcome, count) in outcomes(how.counts) {
                let label = [("relay", name.to_owned()), ("outcome", outcome.to_owned())];
                let counter = self.events.get_or_create(&label);
                // A relay that begins anew counts from nothing: what was counted stays.
                counter.inc_by(count.saturating_sub(counter.get()));
            }
        }
    }
}

fn outcomes(counts: RelayCounts) -> [(&'static str, u64); 8] {
    let RelayCounts { published, repeated, unknown, given_back, held, unroutable, refused, skipped } = counts;
    [
        ("published", published),
        ("repeated", repeated),
        ("unknown", unknown),
        ("given-back", given_back),
        ("held", held),
        ("unroutable", unroutable),
        ("refused", refused),
        ("skipped", skipped),
    ]
}
