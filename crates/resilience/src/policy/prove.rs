//! Policies that can be read and can't work: what is impossible, by arithmetic alone.

use std::{collections::BTreeMap, time::Duration};

use quorate_foundations::{document::Fault, name::Name};

use super::{Document, Ownership, Policy, shown};
use crate::{circuit_breaker::Window, hedge::After};

/// How many calls one call at the first hop may become at the last, unless a policy says otherwise.
const MAX_AMPLIFICATION: u32 = 4;
/// Chains of calls are followed so far.
const MAX_HOPS: usize = 32;

/// Something that can't work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// In which of the documents, counted from 0.
    pub of: usize,
    /// Where in it, and why.
    pub fault: Fault,
}

/// Everything in `documents` that can't work, in their order: each with the field that would have to change, and the
/// arithmetic that says so. Empty: nothing is impossible, which doesn't say that it is wise.
///
/// Chains of calls are looked at over all documents: a policy whose [`from`](Policy::from) is what another one
/// [applies to](Policy::dependencies) comes behind it. Of several policies with the same target, which cannot be in force together,
/// the first counts.
pub fn prove(documents: &[Document]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut before = Before::new();
    for policy in documents.iter().map(Document::policy) {
        for target in policy.dependencies() {
            before.entry(target).or_insert(policy);
        }
    }
    for (of, document) in documents.iter().enumerate() {
        let mut find = |field: &str, what: String| {
            findings.push(Finding { of, fault: Fault::at(&document.text, document.place(field), field, what) });
        };
        times(document.policy(), &mut find);
        waits(document.policy(), &mut find);
        places(document.policy(), &mut find);
        circuit(document.policy(), &mut find);
        traffic(document.policy(), &mut find);
        amplification(document, &before, &mut find);
    }
    findings
}

type Find<'a> = dyn FnMut(&str, String) + 'a;

/// The policy of calls to each target.
type Before<'a> = BTreeMap<&'a Name, &'a Policy>;

/// Do all attempts fit into the call?
fn times(policy: &Policy, find: &mut Find<'_>) {
    let (Some(total), Some(attempt)) = (policy.timeouts.total, policy.timeouts.attempt) else { return };
    if attempt >= total {
        let (attempt, total) = (shown(attempt), shown(total));
        find(
            "spec.timeouts.backendRequest",
            format!("an attempt may take {attempt}, and the whole call ends after {total}: its limit is never reached"),
        );
        return;
    }
    let tries = policy.tries();
    let needed = attempt.saturating_mul(tries);
    if needed > total {
        let fit = total.as_nanos() / attempt.as_nanos();
        let (attempt, needed, total) = (shown(attempt), shown(needed), shown(total));
        find(
            "spec.retry.attempts",
            format!(
                "{tries} attempts of {attempt} take {needed}, and the whole call ends after {total}: \
                 {fit} of them fit, without any wait between them"
            ),
        );
    }
}

/// Do waits between attempts fit, and grow?
fn waits(policy: &Policy, find: &mut Find<'_>) {
    let Some((retry, budget)) = &policy.retry else { return };
    if retry.attempts.get() == 1 {
        return;
    }
    let backoff = retry.backoff;
    if backoff.cap < backoff.base {
        let (base, cap) = (shown(backoff.base), shown(backoff.cap));
        find("spec.retry.backoff", format!("the first wait is {base}, and no wait is longer than {cap}"));
    }
    let least = backoff.least(1);
    if let Some(total) = policy.timeouts.total.filter(|total| least >= *total) {
        let (least, total) = (shown(least), shown(total));
        find(
            "spec.retry.backoff",
            format!(
                "the first wait is at least {least}, and the whole call ends after {total}: nothing is ever sent again"
            ),
        );
    }
    let tries = policy.tries();
    let attempts = policy.timeouts.attempt.unwrap_or_default().saturating_mul(tries);
    // From the thirty-third on they are all alike.
    let grown = tries.min(33);
    let waits = (1..grown).fold(Duration::ZERO, |sum, failed| sum.saturating_add(backoff.least(failed)));
    let waits = waits.saturating_add(backoff.least(grown).saturating_mul(tries - grown));
    if let Some(total) = policy.timeouts.total.filter(|total| {
        // What doesn't fit by itself is told apart.
        attempts <= *total && least < *total && attempts.saturating_add(waits) > *total
    }) {
        let (attempts, waits, total) = (shown(attempts), shown(waits), shown(total));
        find(
            "spec.retry.backoff",
            format!(
                "{tries} attempts may take {attempts}, the waits between them take at least {waits}, and the whole call ends \
                 after {total}: the last attempt is cut off, or never made"
            ),
        );
    }
    if budget.percent == 0 && budget.floor_per_second == 0 {
        find("spec.retryBudget", "nothing is allowed: no part of the calls, and none a second".to_owned());
    }
    let interval = budget.interval.as_secs_f64();
    if let Some(rate) = policy.traffic.requests_per_second
        && budget.floor_per_second == 0
        && rate * interval * f64::from(budget.percent) < 100.0
    {
        let (percent, calls) = (budget.percent, rate * interval);
        find(
            "spec.retryBudget.percent",
            format!(
                "{percent} % of the {calls} calls that {rate} a second make in {} is less than one retry, \
                 and `minRetryRate` allows none besides",
                shown(budget.interval)
            ),
        );
    }
}

/// Can a call wait for its place, and a late one be copied?
fn places(policy: &Policy, find: &mut Find<'_>) {
    if let (Some(concurrency), Some(total)) = (&policy.concurrency, policy.timeouts.total)
        && concurrency.queue.length > 0
        && concurrency.queue.max_wait >= total
    {
        let (wait, total) = (shown(concurrency.queue.max_wait), shown(total));
        find(
            "spec.concurrency.queue.maxWait",
            format!("a call may wait {wait} for its place, and ends after {total}: it would be served to nobody"),
        );
    }
    let late = policy.hedge.map(|hedge| match hedge.after {
        After::Fixed(span) => ("spec.hedge.after", span),
        After::Percentile { at_least, .. } => ("spec.hedge.atLeast", at_least),
    });
    if let (Some((field, late)), Some(attempt)) = (late, policy.timeouts.attempt.or(policy.timeouts.total))
        && late >= attempt
    {
        let (late, attempt) = (shown(late), shown(attempt));
        find(
            field,
            format!("an answer is late after {late}, and its attempt ends after {attempt}: no copy is ever sent"),
        );
    }
}

/// Can the circuit open, and its probes succeed?
fn circuit(policy: &Policy, find: &mut Find<'_>) {
    let Some(breaker) = &policy.breaker else { return };
    let takes_rates = breaker.failure_rate.is_some() || breaker.slow_rate.is_some();
    if let (Some(rate), Window::Time(window), true) = (policy.traffic.requests_per_second, breaker.window, takes_rates)
    {
        // Each further attempt passes the circuit as well, when everything fails, and each copy of a late one. Where endpoints or
        // operations have circuits of their own, all of that may still go to one of them.
        let copies = policy.hedge.map_or(0, |hedge| hedge.extra.get());
        let attempts = f64::from(policy.tries()) * f64::from(copies.saturating_add(1));
        let most = rate * window.as_secs_f64() * attempts;
        let minimum = breaker.minimum_calls.get();
        if most < f64::from(minimum) {
            find(
                "spec.breaker.successRate.minRequests",
                format!(
                    "{minimum} calls have to be in a window of {}, and {rate} a second make {most} at most: \
                     the rate never says anything",
                    shown(window)
                ),
            );
        }
    }
    if policy.timeouts.attempt.is_none()
        && let (Some(total), true) = (policy.timeouts.total, breaker.slow_rate.is_some())
        && breaker.slow_after >= total
    {
        let (slow, total) = (shown(breaker.slow_after), shown(total));
        find(
            "spec.breaker.slowCallRate.longerThan",
            format!("a call is slow after {slow}, and ends after {total}: none is ever slow"),
        );
    }
    let whole = policy.timeouts.total.map(|total| ("a call", total));
    let limit = policy.timeouts.attempt.map(|attempt| ("an attempt", attempt)).or(whole);
    if let Some((what, limit)) = limit.filter(|(_, limit)| breaker.probe_timeout < *limit) {
        let (probe, limit) = (shown(breaker.probe_timeout), shown(limit));
        find(
            "spec.breaker.probeTimeout",
            format!("a probe fails after {probe}, while {what} may take {limit}: one that succeeds may keep it open"),
        );
    }
    let Some(attempt) = policy.timeouts.attempt else { return };
    if breaker.slow_rate.is_some() && breaker.slow_after >= attempt {
        let (slow, attempt) = (shown(breaker.slow_after), shown(attempt));
        find(
            "spec.breaker.slowCallRate.longerThan",
            format!("a call is slow after {slow}, and an attempt ends after {attempt}: none is ever slow"),
        );
    }
}

/// Is what is expected allowed?
fn traffic(policy: &Policy, find: &mut Find<'_>) {
    let (Some(rate), Some(limit)) = (policy.traffic.requests_per_second, policy.rate_limit) else { return };
    let allowed = f64::from(limit.quota.get()) / limit.window.as_secs_f64();
    if allowed < rate {
        find(
            "spec.rateLimit.requests",
            format!("{allowed} calls a second are allowed, and {rate} are expected in quiet hours already"),
        );
    }
}

/// How many calls does one call become, over all hops that end here?
fn amplification(document: &Document, before: &Before<'_>, find: &mut Find<'_>) {
    let policy = document.policy();
    let most = policy.traffic.max_amplification.unwrap_or(MAX_AMPLIFICATION);
    // From the last hop to the first; each is the policy of calls to whoever makes those of the one behind it.
    let mut hops = vec![policy];
    while hops.len() < MAX_HOPS
        && let Some(from) = hops.last().and_then(|hop| hop.from.as_ref())
        && let Some(hop) = before.get(from)
        && !hops.iter().any(|known| known.name == hop.name)
    {
        hops.push(hop);
    }
    let calls = calls_of(&hops);
    if calls <= most {
        return;
    }
    while hops.len() > 1 && calls_of(&hops[..hops.len() - 1]) == calls {
        hops.pop();
    }
    let told: Vec<String> = hops.iter().rev().map(|hop| format!("`{}` {}", hop.name, hop.tries())).collect();
    let remedy = if hops.iter().any(|hop| hop.ownership == Ownership::Ignored) {
        "have one of them retry, or carry who does (`retry.ownership: carried`)"
    } else {
        "retry less often, or say that it may be so many (`traffic.maxAmplification`)"
    };
    find(
        "spec.retry.attempts",
        format!("one call may become {calls}, more than {most}: {}; {remedy}", told.join(" × ")),
    );
}

/// How many calls one call becomes along a path. Hops that carry who retries have one owner among them.
fn calls_of(path: &[&Policy]) -> u32 {
    let by_itself = |hop: &&&Policy| hop.ownership == Ownership::Ignored;
    let ignoring = path.iter().filter(by_itself).fold(1_u32, |product, hop| product.saturating_mul(hop.tries()));
    let carrying = path.iter().filter(|hop| !by_itself(hop)).map(|hop| hop.tries()).max().unwrap_or(1);
    ignoring.saturating_mul(carrying)
}
