//! Views as JSON.

use quorate_data::{
    event::Timestamp,
    materialized_view::{
        Audit, BuildDescription, Description, FeedStanding, OpenEffect, ParkedEvent, ShardDescription, SkippedEvent,
        Standing, ViewName,
    },
};
use quorate_foundations::time::Wall;
use serde_json::{Value, json};

pub(super) fn view(described: &Description) -> Value {
    json!({
        "view": described.name.as_str(),
        "head": described.head.to_string(),
        "live": described.live.map(|build| build.get()),
        "effects-waiting": described.effects.0,
        "effects-given-up": described.effects.1,
        "not-started": described.not_started.iter().map(not_started).collect::<Vec<_>>(),
        "builds": described.builds.iter().map(|one| build(one, described)).collect::<Vec<_>>(),
    })
}

fn not_started((version, reason): &(u32, String)) -> Value {
    json!({ "version": version, "reason": reason })
}

fn build(build: &BuildDescription, of: &Description) -> Value {
    let not_started = of.not_started.iter().find(|(version, _)| *version == build.version);
    let sum = |of: fn(&ShardDescription) -> u64| build.shards.iter().map(of).sum::<u64>();
    json!({
        "build": build.build.get(),
        "version": build.version,
        "fingerprint": build.fingerprint.as_str(),
        "live": build.live,
        "paused": build.paused,
        "mode": build.mode.as_str(),
        "tables": build.tables,
        "logposition": build.position.to_string(),
        "lag-events": build.lag_events,
        "lag-seconds": build.lag.map(|lag| lag.as_secs_f64()),
        "feeds": build.feeds.iter().map(feed).collect::<Vec<_>>(),
        "applied": sum(|shard| shard.applied),
        "parked": sum(|shard| shard.parked),
        "skipped": sum(|shard| shard.skipped),
        "unaccounted": build.unaccounted(),
        "shards": build.shards.iter().map(|one| shard(one, not_started)).collect::<Vec<_>>(),
    })
}

pub(super) fn feed(feed: &FeedStanding) -> Value {
    json!({
        "source": feed.source,
        "time": feed.said.map(time),
        "heard": feed.heard.map(time),
        "lag-seconds": feed.lag.map(|lag| lag.as_secs_f64()),
        "stale": feed.stale,
    })
}

fn shard(shard: &ShardDescription, not_started: Option<&(u32, String)>) -> Value {
    let mut shown = json!({
        "shard": shard.shard,
        "epoch": shard.epoch,
        "checkpoint": shard.checkpoint.to_string(),
        "applied": shard.applied,
        "parked": shard.parked,
        "skipped": shard.skipped,
        "filtered": shard.filtered,
        "unaccounted": shard.unaccounted,
        "standing": word(&shard.standing),
    });
    match &shard.standing {
        Standing::Stopped { position, reason } => {
            shown["stopped-at"] = position.to_string().into();
            shown["reason"] = reason.as_str().into();
        }
        Standing::Failing { reason } => shown["reason"] = reason.as_str().into(),
        Standing::Idle => {
            if let Some((_, reason)) = not_started {
                shown["reason"] = reason.as_str().into();
            }
        }
        _ => {}
    }
    shown
}

/// Every word for how a shard stands.
pub(crate) const STANDINGS: [&str; 10] =
    ["idle", "waiting", "catching-up", "caught-up", "inline", "paused", "stopped", "parked-full", "fenced", "failing"];

fn word(standing: &Standing) -> &'static str {
    match standing {
        Standing::Idle => "idle",
        Standing::Waiting => "waiting",
        Standing::CatchingUp => "catching-up",
        Standing::CaughtUp => "caught-up",
        Standing::Inline => "inline",
        Standing::Paused => "paused",
        Standing::Stopped { .. } => "stopped",
        Standing::ParkedFull => "parked-full",
        Standing::Fenced => "fenced",
        _ => "failing",
    }
}

pub(super) fn parked(event: &ParkedEvent) -> Value {
    json!({
        "logposition": event.position.to_string(),
        "key": event.key,
        "type": event.kind,
        "reason": event.reason,
        "attempts": event.attempts,
        "parked": time(event.parked_at),
    })
}

pub(super) fn skipped(event: &SkippedEvent) -> Value {
    json!({
        "logposition": event.position.to_string(),
        "key": event.key,
        "type": event.kind,
        "reason": event.reason,
        "by": event.skipped_by,
        "skipped": time(event.skipped_at),
    })
}

pub(super) fn effect(open: &OpenEffect) -> Value {
    let effect = &open.effect;
    json!({
        "logposition": effect.position.to_string(),
        "ordinal": effect.ordinal,
        "kind": effect.kind,
        "key": effect.key(),
        "payload": &*effect.payload,
        "attempts": effect.attempts,
        "reason": open.reason,
        "given-up": open.given_up,
    })
}

pub(super) fn audit(view: &ViewName, audit: &Audit) -> Value {
    json!({
        "view": view.as_str(),
        "build": audit.build.get(),
        "expected": audit.expected,
        "handled": audit.handled,
        "whole": audit.is_whole(),
    })
}

fn time(at: Wall) -> String {
    Timestamp::from(at).as_str().to_owned()
}
