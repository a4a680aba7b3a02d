//! What is measured of each webhook, beside the attempts that the room counts.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::{
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};
use quorate_communication::event_bus::webhook::Description;

type Label = [(&'static str, String); 1];
type Count = Family<Label, Gauge<i64, AtomicI64>>;

/// The gauges of webhooks.
#[derive(Default)]
pub(super) struct Webhooks {
    disabled: Count,
    failing: Count,
    lag: Count,
    parked: Count,
    in_flight: Count,
    passed_over: Count,
    age: Family<Label, Gauge<f64, AtomicU64>>,
}

impl Webhooks {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let webhooks = Self::default();
        let of = registry.sub_registry_with_prefix("quorate_webhook");
        of.register("disabled", "1 while nothing is sent to the webhook", webhooks.disabled.clone());
        of.register("failing", "1 while the webhook's last attempts failed", webhooks.failing.clone());
        let about = "Events yet to be delivered, and every event that was not looked at, whether it matches or not";
        of.register("lag_events", about, webhooks.lag.clone());
        of.register("lag_seconds", "How long ago the oldest of them was recorded", webhooks.age.clone());
        of.register("parked", "Events that were set aside", webhooks.parked.clone());
        of.register("in_flight", "Events that are being sent", webhooks.in_flight.clone());
        let about = "Events that were truncated or archived before their turn, which nobody was sent";
        of.register("passed_over", about, webhooks.passed_over.clone());
        webhooks
    }

    /// Shows `all`, and none that are gone.
    pub(super) fn show(&self, all: &[Description]) {
        let all_counts = [&self.disabled, &self.failing, &self.lag, &self.parked, &self.in_flight, &self.passed_over];
        all_counts.into_iter().for_each(Count::clear);
        self.age.clear();
        for one in all {
            let label = [("webhook", one.summary.name.as_str().to_owned())];
            self.disabled.get_or_create(&label).set(one.summary.disabled.is_some().into());
            self.failing.get_or_create(&label).set(one.summary.failing.is_some().into());
            if let Some(fed) = &one.subscription {
                self.lag.get_or_create(&label).set(i64::try_from(fed.lag_events).unwrap_or(i64::MAX));
                self.parked.get_or_create(&label).set(count(fed.counts.parked));
                self.in_flight.get_or_create(&label).set(count(fed.counts.in_flight));
                self.passed_over.get_or_create(&label).set(i64::try_from(fed.passed_over).unwrap_or(i64::MAX));
                self.age.get_or_create(&label).set(fed.lag.as_secs_f64());
            }
        }
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
