//! Subscriptions, deliveries and parked events in JSON.

use bytes::{BufMut, Bytes, BytesMut};
use humantime_serde::re::humantime::format_duration;
use quorate_data::{
    event::Timestamp,
    subscription::{Cause, Delivery, Description, Failure, ParkedEvent, Stall, Summary},
};
use quorate_foundations::time::Wall;
use serde_json::{Value, json};

use super::config;
use crate::http::{
    cloud_events::{Layout, Renderer},
    json::{write_number, write_string},
};

pub(super) fn summary(one: &Summary) -> Value {
    json!({
        "subscription": one.name.as_str(),
        "config": config::shown(&one.config),
        "checkpoint": one.checkpoint.to_string(),
    })
}

pub(in crate::http) fn description(one: &Description) -> Value {
    json!({
        "subscription": one.name.as_str(),
        "config": config::shown(&one.config),
        "checkpoint": one.checkpoint.to_string(),
        "head": one.head.to_string(),
        "scanned": one.scanned.to_string(),
        "lag-events": one.lag_events,
        "lag-seconds": one.lag.as_secs_f64(),
        "oldest": one.oldest.map(|position| position.to_string()),
        "in-flight": one.counts.in_flight,
        "resting": one.counts.resting,
        "waiting": one.counts.waiting,
        "parked": one.counts.parked,
        "settled-ahead": one.counts.settled_ahead,
        "passed-over": one.passed_over,
        "stall": one.stall.map(|stall| match stall {
            Stall::Window(_) => "window",
            Stall::Parked(_) => "parked",
        }),
    })
}

pub(in crate::http) fn parked(one: &ParkedEvent) -> Value {
    json!({
        "logposition": one.position.to_string(),
        "key": &*one.key,
        "attempts": one.attempts,
        "failures": one.failures.iter().map(failure).collect::<Vec<_>>(),
    })
}

fn failure(one: &Failure) -> Value {
    let cause = match one.cause {
        Cause::Nacked => "nacked",
        Cause::Expired => "expired",
        Cause::Parked => "parked",
        Cause::Behind => "behind",
    };
    let at = Timestamp::from(Wall::from_unix_nanos(one.at));
    json!({ "attempt": one.attempt, "time": at.as_str(), "cause": cause, "reason": one.reason })
}

/// Bytes of a delivery beside its event and its key, at most; the key is taken from the event.
pub(super) const DELIVERY_BYTES: usize = 512;

/// `{"deliveries":[…]}`, each event as the log serves it.
pub(super) fn deliveries(all: &[Delivery]) -> Bytes {
    let (mut buffer, mut renderer) = (BytesMut::new(), Renderer::new(Layout::AsReceived));
    buffer.put_slice(b"{\"deliveries\":[");
    for (n, one) in all.iter().enumerate() {
        buffer.put_slice(if n == 0 { b"{\"event\":" } else { b",{\"event\":" });
        renderer.event(&mut buffer, &one.event);
        buffer.put_slice(b",\"lease\":");
        write_string(&mut buffer, &one.lease.to_string());
        buffer.put_slice(b",\"attempt\":");
        write_number(&mut buffer, u64::from(one.attempt));
        buffer.put_slice(b",\"key\":");
        write_string(&mut buffer, &one.key);
        buffer.put_slice(b",\"ttl\":");
        write_string(&mut buffer, &format_duration(one.ttl).to_string());
        buffer.put_u8(b'}');
    }
    buffer.put_slice(b"]}");
    buffer.freeze()
}
