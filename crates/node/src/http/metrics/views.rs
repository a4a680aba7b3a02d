//! What is measured of each view: of the build that readers have, or else wait for.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::{
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};
use quorate_data::materialized_view::{BuildDescription, Description, Standing};

type Label = [(&'static str, String); 1];
type Count = Family<Label, Gauge<i64, AtomicI64>>;

/// The gauges of views.
#[derive(Default)]
pub(super) struct Views {
    lag_events: Count,
    lag_seconds: Family<Label, Gauge<f64, AtomicU64>>,
    feed_lag_seconds: Family<[(&'static str, String); 2], Gauge<f64, AtomicU64>>,
    feed_stale: Count,
    parked: Count,
    skipped: Count,
    unaccounted: Count,
    stalled: Count,
    effects: Count,
    effects_given_up: Count,
    queries: Gauge<i64, AtomicI64>,
}

impl Views {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let views = Self::default();
        let of = registry.sub_registry_with_prefix("quorate_view");
        of.register("lag_events", "Positions of the log that a view has yet to look at", views.lag_events.clone());
        let about = "The age of the oldest event that a view has yet to apply; nothing where nobody here knows";
        of.register("lag_seconds", about, views.lag_seconds.clone());
        let about = "How far a view is behind what a source said, by its own time; nothing where it never said any";
        of.register("feed_lag_seconds", about, views.feed_lag_seconds.clone());
        let about = "1 where a view is further behind a source than its contract allows, else 0";
        of.register("feed_stale", about, views.feed_stale.clone());
        of.register("parked_events", "Events of a view that are parked", views.parked.clone());
        of.register("skipped_events", "Events that a view left out, on record", views.skipped.clone());
        let about = "Positions and events of all builds of a view that were neither dealt with nor found not to matter, or dealt with twice; other than 0 something is wrong";
        of.register("unaccounted", about, views.unaccounted.clone());
        of.register("stalled", "1 where something stops a view, or its next version, else 0", views.stalled.clone());
        of.register("effects", "Effects of a view that wait to be carried out", views.effects.clone());
        let about = "Effects of a view that failed as often as they are tried, and wait for somebody";
        of.register("effects_given_up", about, views.effects_given_up.clone());
        of.register("queries", "Queries of views that run right now", views.queries.clone());
        views
    }

    /// Shows `all`, and none that are gone, and how many queries run.
    pub(super) fn show(&self, all: &[Description], queries: usize) {
        self.queries.set(i64::try_from(queries).unwrap_or(i64::MAX));
        for family in [
            &self.lag_events,
            &self.feed_stale,
            &self.parked,
            &self.skipped,
            &self.unaccounted,
            &self.stalled,
            &self.effects,
            &self.effects_given_up,
        ] {
            family.clear();
        }
        self.lag_seconds.clear();
        self.feed_lag_seconds.clear();
        for view in all {
            let label = [("view", view.name.as_str().to_owned())];
            self.effects.get_or_create(&label).set(count(view.effects.0));
            self.effects_given_up.get_or_create(&label).set(count(view.effects.1));
            let unaccounted = view.builds.iter().map(BuildDescription::unaccounted).fold(0, u64::saturating_add);
            self.unaccounted.get_or_create(&label).set(count(unaccounted));
            // Where readers have none yet they wait for the newest.
            if let Some(shown) = view.builds.iter().find(|build| build.live).or(view.builds.last()) {
                self.build(&label, shown);
                self.stalled.get_or_create(&label).set(is_stalled(view, shown).into());
            }
        }
    }

    fn build(&self, label: &Label, shown: &BuildDescription) {
        self.lag_events.get_or_create(label).set(count(shown.lag_events));
        if let Some(lag) = shown.lag {
            self.lag_seconds.get_or_create(label).set(lag.as_secs_f64());
        }
        for feed in &shown.feeds {
            let [view] = label.clone();
            if let Some(lag) = feed.lag {
                self.feed_lag_seconds.get_or_create(&[view, ("source", feed.source.clone())]).set(lag.as_secs_f64());
            }
        }
        if !shown.feeds.is_empty() {
            self.feed_stale.get_or_create(label).set(shown.feeds.iter().any(|feed| feed.stale).into());
        }
        self.parked.get_or_create(label).set(count(shown.shards.iter().map(|shard| shard.parked).sum()));
        self.skipped.get_or_create(label).set(count(shown.shards.iter().map(|shard| shard.skipped).sum()));
    }
}

/// Whether something stops the build that is shown, or one behind it that is on its way to readers.
fn is_stalled(view: &Description, shown: &BuildDescription) -> bool {
    let stands_still = |standing: &Standing| {
        matches!(standing, Standing::Stopped { .. } | Standing::ParkedFull | Standing::Failing { .. })
    };
    let mut awaited = view.builds.iter().filter(|one| one.build >= shown.build && one.version >= shown.version);
    awaited.any(|build| build.shards.iter().any(|shard| stands_still(&shard.standing)))
        || view.not_started.iter().any(|(version, _)| *version >= shown.version)
}

fn count(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
