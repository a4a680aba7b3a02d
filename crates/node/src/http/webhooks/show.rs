//! Webhooks and attempts in JSON.

use quorate_communication::event_bus::webhook::{Attempt, Declared, Description, Disabled, Signer, Summary, Tested};
use quorate_data::event::Timestamp;
use quorate_foundations::time::Wall;
use quorate_resilience::circuit_breaker::State;
use serde_json::{Value, json};

use super::config;
use crate::http::subscriptions::show as of_subscriptions;

pub(super) fn summary(one: &Summary) -> Value {
    json!({
        "webhook": one.name.as_str(),
        "config": config::shown(&one.config),
        "state": state(one),
        "disabled": one.disabled.as_ref().map(disabled_shown),
        "failing-since": one.failing.map(time),
        "paused-until": one.paused.map(time),
    })
}

fn disabled_shown(one: &Disabled) -> Value {
    json!({ "since": time(one.since), "reason": one.why, "automatic": one.is_automatic })
}

/// One word for how it is.
fn state(one: &Summary) -> &'static str {
    match one {
        Summary { is_deleting: true, .. } => "deleting",
        Summary { disabled: Some(_), .. } => "disabled",
        Summary { failing: Some(_), .. } => "failing",
        _ => "active",
    }
}

pub(super) fn description(one: &Description) -> Value {
    let mut shown = summary(&one.summary);
    let signer = |signer: &Signer| json!({ "fingerprint": signer.fingerprint, "until": signer.until.map(time) });
    shown["secrets"] = one.signers.iter().map(signer).collect();
    shown["breaker"] = one.breaker.as_ref().map(|breaker| word(breaker.state)).into();
    shown["subscription"] = one.subscription.as_ref().map(of_subscriptions::description).into();
    shown
}

pub(super) fn declared(one: &Declared) -> Value {
    let mut shown = description(&one.description);
    if let Some(secret) = &one.secret {
        shown["secret"] = secret.reveal().into();
    }
    shown
}

pub(super) fn attempt(one: &Attempt) -> Value {
    json!({
        "number": one.number.to_string(),
        "logposition": one.position.to_string(),
        "webhook-id": one.message,
        "type": one.kind,
        "attempt": one.attempt,
        "time": time(one.began),
        "took-seconds": one.took.as_secs_f64(),
        "status": one.status,
        "outcome": one.outcome,
    })
}

pub(super) fn tested(one: &Tested) -> Value {
    json!({
        "webhook-id": one.message,
        "delivered": one.is_delivered,
        "status": one.status,
        "outcome": one.outcome,
        "took-seconds": one.took.as_secs_f64(),
    })
}

const fn word(state: State) -> &'static str {
    match state {
        State::Closed => "closed",
        State::Open => "open",
        State::HalfOpen => "half-open",
    }
}

fn time(at: Wall) -> String {
    Timestamp::from(at).as_str().to_owned()
}
