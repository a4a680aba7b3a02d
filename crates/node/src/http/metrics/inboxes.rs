//! What is measured of each inbox.

use std::sync::atomic::AtomicI64;

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use quorate_communication::inbox::{InboxCounts, Standing};

use crate::verbs::InboxStanding;

type Label = [(&'static str, String); 1];
type Outcome = [(&'static str, String); 2];
type Count = Family<Label, Gauge<i64, AtomicI64>>;

/// What is shown of inboxes.
#[derive(Default)]
pub(super) struct Inboxes {
    receiving: Count,
    parked: Count,
    messages: Family<Outcome, Counter>,
}

impl Inboxes {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let inboxes = Self::default();
        let of = registry.sub_registry_with_prefix("quorate_inbox");
        let about = "1 while the inbox receives or waits for messages, 0 while something is in its way";
        of.register("receiving", about, inboxes.receiving.clone());
        of.register("parked", "Messages that were set aside", inboxes.parked.clone());
        let about = "What became of messages in this process, as `GET /v1/inboxes/{name}` counts";
        of.register("messages", about, inboxes.messages.clone());
        inboxes
    }

    /// Shows `all`.
    pub(super) fn show(&self, all: &[InboxStanding]) {
        for one in all {
            let name = one.spec.name.as_str();
            let label = [("inbox", name.to_owned())];
            let receives = one.how.as_ref().is_ok_and(|how| how.standing == Standing::Receiving);
            self.receiving.get_or_create(&label).set(receives.into());
            let Ok(how) = &one.how else { continue };
            self.parked.get_or_create(&label).set(i64::try_from(how.parked).unwrap_or(i64::MAX));
            let InboxCounts { done, repeated, failed, parked, held_back } = how.counts;
            let outcomes = [
                ("done", done),
                ("repeated", repeated),
                ("failed", failed),
                ("parked", parked),
                ("held-back", held_back),
            ];
            for (outcome, count) in outcomes {
                let label = [("inbox", name.to_owned()), ("outcome", outcome.to_owned())];
                let counter = self.messages.get_or_create(&label);
                counter.inc_by(count.saturating_sub(counter.get()));
            }
        }
    }
}
