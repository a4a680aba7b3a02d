//! Relays in JSON.

use quorate_communication::outbox::{Description, RelayCounts, Route, Standing};
use quorate_data::event::Timestamp;
use quorate_foundations::time::Wall;
use serde_json::{Value, json};

use crate::{http::subscriptions::show as of_subscriptions, verbs::RelayStanding};

pub(super) fn relay(one: &RelayStanding) -> Value {
    let topic = match &one.spec.relay.route {
        Route::Topic(topic) => Some(topic.name.as_str()),
        Route::ByCategory(_) => None,
    };
    let (state, paused, last_error) = match &one.how {
        Ok(Description { standing, paused, last_error, .. }) => (word(standing), paused.as_ref(), last_error.as_ref()),
        Err(why) => ("starting", None, why.as_ref()),
    };
    let described = one.how.as_ref().ok();
    json!({
        "relay": one.spec.name.as_str(),
        "transport": one.spec.reach.address.to_string(),
        "topic": topic,
        "state": state,
        "paused": paused.map(|paused| json!({ "since": time(paused.since), "reason": &*paused.reason })),
        "last-error": last_error.map(|(at, what)| json!({ "time": time(*at), "what": what })),
        "counts": described.map(|described| counts(described.counts)),
        "subscription": described.map(|described| of_subscriptions::description(&described.subscription)),
    })
}

fn word(standing: &Standing) -> &'static str {
    match standing {
        Standing::Working => "working",
        Standing::Resting => "resting",
        Standing::Paused => "paused",
        Standing::Stopped => "stopped",
    }
}

fn counts(counts: RelayCounts) -> Value {
    let RelayCounts { published, repeated, unknown, given_back, held, unroutable, refused, skipped } = counts;
    json!({
        "published": published,
        "repeated": repeated,
        "unknown": unknown,
        "given-back": given_back,
        "held": held,
        "unroutable": unroutable,
        "refused": refused,
        "skipped": skipped,
    })
}

fn time(at: Wall) -> String {
    Timestamp::from(at).as_str().to_owned()
}
