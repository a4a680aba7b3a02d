//! Documents that come into force, become others, and are refused.

use std::time::Duration;

use quorate_foundations::document::Format;
use quorate_runtime::Env;
use tower_layer::Layer as _;
use tower_service::Service as _;

use super::*;
use crate::{
    CallError, Rejection,
    circuit_breaker::State,
    kit::{Failed, Reply, Upstream},
    outcome::Verdict,
    stack::Plain,
    timeout::Timers,
};

mod circuits;
mod counted;

type Judge = fn(Result<&u64, &Failed>) -> Verdict;

fn plain() -> Plain<Judge> {
    Plain::idempotent().judged_by(Upstream::judge)
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn registry(env: &Env) -> Registry {
    Registry::new(&Stacks::new(&Timers::new(env)), &circuit_breaker::Registry::new(env))
}

/// A policy called `name` with this `spec`.
fn policy(name: &str, spec: &str) -> String {
    format!("---\nkind: ResiliencePolicy\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n")
}

fn documents(texts: &[String]) -> Vec<Document> {
    let text = texts.concat();
    if text.is_empty() { Vec::new() } else { Document::read_all(&text, Format::Yaml).unwrap() }
}

fn apply(registry: &Registry, texts: &[String]) -> Changes {
    registry.apply(&documents(texts)).unwrap()
}

const FRAGILE: &str = "breaker: {consecutive: 1, open: {min: 60s, max: 60s, jitter: 0.1}}";

#[tokio::test(start_paused = true)]
async fn an_open_circuit_a_spent_rate_and_a_spent_budget_stay_so_when_their_policy_changes() {
    let env = Env::real();
    let (policies, upstream) = (registry(&env), Upstream::new(&env));
    let retry = "retry: {attempts: 1, backoff: 1ms}, retryBudget: {percent: 0, interval: 10s, minRetryRate: {count: 1, interval: 1s}}";
    apply(
        &policies,
        &[policy("open", FRAGILE), policy("limited", "rateLimit: {requests: 2, per: 100s}"), policy("retried", retry)],
    );
    let mut open = policies.stack(&name("open"), plain()).unwrap().layer(upstream.clone());
    upstream.script([Reply::Fail]);
    open.call(1).await.unwrap_err();
    let mut limited = policies.stack(&name("limited"), plain()).unwrap().layer(upstream.clone());
    limited.call(1).await.unwrap();
    limited.call(1).await.unwrap();
    let before = policies.standing(&name("limited")).unwrap();

    // Something else changes in each of them.
    let changes = apply(
        &policies,
        &[
            policy("open", &format!("{FRAGILE}, timeouts: {{request: 3s}}")),
            policy("limited", "rateLimit: {requests: 4, per: 100s}, timeouts: {request: 3s}"),
            policy("retried", &format!("{retry}, timeouts: {{request: 3s}}")),
        ],
    );
    assert_eq!(changes.changed, [name("limited"), name("open"), name("retried")]);
    assert!(matches!(open.call(1).await, Err(CallError::Rejected(Rejection::Breaker(_)))));
    assert!(matches!(limited.call(1).await, Err(CallError::Rejected(Rejection::Limit(_)))));
    let after = policies.standing(&name("limited")).unwrap();
    assert_eq!((before.limit.unwrap().remaining, after.limit.unwrap().remaining), (0, 0));
    assert_eq!(after.limit.unwrap().burst, 4, "the new rate holds");
    let success = |standing: &Standing| standing.outcomes.iter().find(|(word, _)| *word == "success").unwrap().1;
    assert_eq!((success(&before), success(&after)), (2, 2), "what was counted stays counted");
    assert_eq!(policies.standing(&name("open")).unwrap().breaker.unwrap().state, State::Open);
}

#[tokio::test(start_paused = true)]
async fn services_that_are_there_heed_what_is_declared_changed_and_removed() {
    let env = Env::real();
    let (policies, upstream) = (registry(&env), Upstream::new(&env));
    upstream.always(Reply::Hang);
    let mut service = policies.stack(&name("slow"), plain()).unwrap().layer(upstream.clone());
    let mut clone = service.clone();
    let waits = async |service: &mut crate::stack::Living<_, _>| {
        let begun = env.mono();
        let ended = env.timeout(Duration::from_secs(60), service.call(1)).await;
        ended.map(|_| env.mono().saturating_since(begun).as_secs())
    };
    assert_eq!(waits(&mut service).await, None, "nothing is declared");
    assert_eq!(apply(&policies, &[policy("slow", "timeouts: {request: 5s}")]).added, [name("slow")]);
    assert_eq!(waits(&mut service).await, Some(5));
    assert_eq!(apply(&policies, &[policy("slow", "timeouts: {request: 7s}")]).changed, [name("slow")]);
    assert_eq!((waits(&mut service).await, waits(&mut clone).await), (Some(7), Some(7)));
    assert_eq!(apply(&policies, &[policy("slow", "timeouts: {request: 7s}")]), Changes::default());
    assert_eq!(apply(&policies, &[]).removed, [name("slow")]);
    assert_eq!(waits(&mut service).await, None);
    assert!(policies.standing(&name("slow")).is_none());
}

#[tokio::test(start_paused = true)]
async fn documents_of_which_one_cannot_work_change_nothing() {
    let env = Env::real();
    let policies = registry(&env);
    apply(&policies, &[policy("a", "timeouts: {request: 5s}")]);
    let refused = |texts: &[String]| policies.apply(&documents(texts)).unwrap_err();
    let impossible = policy("b", "timeouts: {request: 2s, backendRequest: 1s}, retry: {attempts: 2}");
    let error = refused(&[policy("a", "timeouts: {request: 9s}"), impossible]);
    let ApplyError::Impossible(findings) = &error else { panic!("{error}") };
    assert_eq!((findings[0].of, findings[0].fault.field.as_str()), (1, "spec.retry.attempts"));
    let twice = refused(&[
        policy("a", "targetRefs: [{name: shared}]"),
        policy("b", "targetRefs: [{name: other}, {name: shared}]"),
    ]);
    assert!(matches!(twice, ApplyError::Twice { dependency, .. } if dependency == name("shared")));
    let standings = policies.standings();
    assert_eq!(standings.len(), 1);
    assert_eq!(standings[0].policy.timeouts.total, Some(Duration::from_secs(5)));
}

#[tokio::test(start_paused = true)]
async fn each_target_of_a_policy_has_a_circuit_of_its_own() {
    let env = Env::real();
    let breakers = circuit_breaker::Registry::new(&env);
    let policies = Registry::new(&Stacks::new(&Timers::new(&env)), &breakers);
    apply(&policies, &[policy("orders", &format!("targetRefs: [{{name: v1}}, {{name: v2}}], {FRAGILE}"))]);
    let upstream = Upstream::new(&env);
    let [mut first, mut second] =
        ["v1", "v2"].map(|target| policies.stack(&name(target), plain()).unwrap().layer(upstream.clone()));
    upstream.script([Reply::Fail]);
    first.call(1).await.unwrap_err();
    assert!(matches!(first.call(1).await, Err(CallError::Rejected(Rejection::Breaker(_)))));
    assert_eq!(second.call(1).await, Ok(1));
    let names: Vec<_> = breakers.snapshots().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [name("v1"), name("v2")]);
    drop((first, second));
    // A circuit that is open outlives its policy, so that one which comes back finds it; one that is closed doesn't.
    apply(&policies, &[]);
    let names: Vec<_> = breakers.snapshots().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [name("v1")]);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_reset_has_all_its_units_again() {
    let env = Env::real();
    let (policies, upstream) = (registry(&env), Upstream::new(&env));
    apply(&policies, &[policy("a", "rateLimit: {requests: 1, per: 100s}"), policy("b", FRAGILE)]);
    let mut service = policies.stack(&name("a"), plain()).unwrap().layer(upstream);
    service.call(1).await.unwrap();
    service.call(1).await.unwrap_err();
    assert!(policies.reset_limit(&name("a")).await.unwrap());
    service.call(1).await.unwrap();
    assert!(!policies.reset_limit(&name("b")).await.unwrap(), "it has none");
}
