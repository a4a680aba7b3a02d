//! Documents that are read, refused, and proved to be unable to work.

use std::time::Duration;

use quorate_foundations::document::{Fault, Faults, Format};

use super::*;
use crate::{
    circuit_breaker::{Per, Split, Window},
    retry::Jitter,
};

const WHOLE: &str = "
kind: ResiliencePolicy
metadata: {name: orders}
spec:
  from: shop
  targetRefs: [{kind: Backend, name: orders-v1}, {kind: Backend, name: orders-v2}]
  timeouts: {request: 3s, backendRequest: 800ms, idle: 5s}
  retry: {attempts: 2, backoff: 50ms, maxBackoff: 1s, jitter: equal, maxRetryAfter: 9s, ownership: carried}
  retryBudget: {percent: 20, interval: 10s, minRetryRate: {count: 10, interval: 1s}}
  breaker:
    consecutive: 7
    successRate: {below: 0.8, window: 30s, minRequests: 20}
    slowCallRate: {above: 0.5, longerThan: 500ms}
    open: {min: 1s, max: 60s, jitter: 0.2}
    per: endpointAndOperation
    most: 64
    probes: 1
    probeTimeout: 2s
    counts: {throttled: true, attemptTimeout: true, totalTimeout: true}
  concurrency:
    {mode: adaptive, min: 2, max: 200, queue: {length: 50, maxWait: 100ms}, shares: {background: 0.5, normal: 0.8}, tenantShare: 0.5}
  hedge: {percentile: 0.95, atLeast: 20ms, extra: 1}
  rateLimit: {requests: 100, per: 1s, burst: 20, count: store, onStoreUnavailable: local}
  traffic: {requestsPerSecond: 40, maxAmplification: 3}
";

fn read(text: &str) -> Result<Vec<Document>, Faults> {
    Document::read_all(text, Format::Yaml)
}

/// What is wrong with a policy whose `spec` is this, with line and field.
fn faults(spec: &str) -> Vec<(u32, String)> {
    let text = format!("kind: ResiliencePolicy\nmetadata: {{name: a}}\nspec:\n{spec}");
    let faults = read(&text).unwrap_err();
    faults.list.into_iter().map(|fault| (fault.line, fault.field)).collect()
}

/// What can't work in a policy whose `spec` is this.
fn findings(spec: &str) -> Vec<Fault> {
    proved(&format!("kind: ResiliencePolicy\nmetadata: {{name: a}}\nspec:\n{spec}"))
}

fn proved(text: &str) -> Vec<Fault> {
    prove(&read(text).unwrap()).into_iter().map(|finding| finding.fault).collect()
}

#[test]
fn a_whole_document_becomes_a_stack_and_nothing_in_it_is_impossible() {
    let documents = read(WHOLE).unwrap();
    assert_eq!(prove(&documents), []);
    let policy = documents[0].policy();
    let (retry, budget) = policy.retry.unwrap();
    assert_eq!((policy.name.as_str(), retry.attempts.get(), retry.backoff.jitter), ("orders", 3, Jitter::Equal));
    assert_eq!((budget.percent, budget.floor_per_second), (20, 10));
    assert_eq!(policy.targets.len(), 2);
    let breaker = policy.breaker.as_ref().unwrap();
    assert!(breaker.counts.total_timeout);
    let split = policy.circuits.unwrap();
    assert_eq!((split.per, split.most.get()), (Per::EndpointAndOperation, 64));
    let shares = policy.concurrency.as_ref().unwrap().shares;
    assert_eq!((shares.background, shares.normal), (0.5, 0.8));
    assert_eq!((breaker.window, breaker.minimum_calls.get()), (Window::Time(Duration::from_secs(30)), 20));
    let rate = policy.rate_limit.unwrap();
    assert_eq!((rate.burst.get(), policy.counted), (20, Some(OnUnavailable::Local(rate))));
}

#[test]
fn the_schema_knows_exactly_the_fields_that_are_read() {
    let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let tree = quorate_foundations::document::parse(WHOLE, Format::Yaml).unwrap();
    let instance: serde_json::Value = serde_json::from_str(&tree.value.to_json()).unwrap();
    assert!(validator.is_valid(&instance), "{:?}", validator.iter_errors(&instance).collect::<Vec<_>>());
    // Every field of the schema stands in the whole document, or takes the place of one that does.
    let mut waiting = vec![(String::new(), &schema)];
    while let Some((path, part)) = waiting.pop() {
        for (name, inner) in part["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}/{name}");
            let there = instance.pointer(&path).is_some();
            let apart = ["/apiVersion", "/metadata/namespace", "/spec/breaker/successRate/calls", "/spec/hedge/after"]
                .contains(&path.as_str());
            assert!(there || apart, "{path} is in the schema, and the reader was not asked for it");
            waiting.push((path, inner));
        }
    }
    // And what the one refuses, the other does.
    for (field, value) in [("spec", serde_json::json!({"retries": 1})), ("kind", serde_json::json!("Policy"))] {
        let mut wrong = instance.clone();
        wrong[field] = value;
        assert!(!validator.is_valid(&wrong));
        assert!(Document::read_all(&wrong.to_string(), Format::Json).is_err());
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once_with_line_and_field() {
    let found = faults(
        "  timeouts: {request: 3}\n  retry: {attemps: 2, jitter: some}\n  breaker: {probes: 0}\n  rateLimit: {per: 1x}\n",
    );
    let expected = [
        (4, "spec.timeouts.request"),
        (5, "spec.retry.attemps"),
        (5, "spec.retry.jitter"),
        (6, "spec.breaker"),
        (6, "spec.breaker.probes"),
        (7, "spec.rateLimit"),
        (7, "spec.rateLimit.per"),
    ];
    assert_eq!(found, expected.map(|(line, field)| (line, field.to_owned())));
}

#[test]
fn circuits_are_told_apart_by_what_is_known_and_are_no_more_than_there_may_be() {
    let split = |spec: &str| {
        let text = format!("kind: ResiliencePolicy\nmetadata: {{name: a}}\nspec:\n  breaker: {{consecutive: 3{spec}}}");
        read(&text).map(|documents| documents[0].policy().circuits).map_err(|faults| faults.to_string())
    };
    assert_eq!(split("").unwrap(), None);
    assert_eq!(split(", per: dependency").unwrap(), None);
    assert_eq!(split(", per: operation").unwrap(), Some(Split::per(Per::Operation)));
    assert!(split(", per: endpoints").unwrap_err().contains("spec.breaker.per"));
    assert!(split(", most: 10").unwrap_err().contains("say `per`"));
    assert!(split(", per: endpoint, most: 4097").unwrap_err().contains("4096"));
    assert!(split(", per: endpoint, most: 0").is_err());
}

#[test]
fn what_holds_while_the_store_cannot_count_has_no_default() {
    let counted = |spec: &str| {
        let text = format!("kind: ResiliencePolicy\nmetadata: {{name: a}}\nspec:\n  rateLimit: {{requests: 3{spec}}}");
        read(&text).map(|documents| documents[0].policy().counted).map_err(|faults| faults.to_string())
    };
    assert_eq!(counted(", count: process").unwrap(), None);
    assert_eq!(counted(", count: store, onStoreUnavailable: allow").unwrap(), Some(OnUnavailable::Allow));
    assert_eq!(counted(", count: store, onStoreUnavailable: deny").unwrap(), Some(OnUnavailable::Deny));
    assert!(counted(", count: store").unwrap_err().contains("has no default"));
    assert!(counted(", onStoreUnavailable: deny").unwrap_err().contains("say `count: store`"));
    assert!(counted(", count: store, onStoreUnavailable: maybe").unwrap_err().contains("onStoreUnavailable"));
}

#[test]
fn a_text_without_a_policy_is_no_policy_and_other_kinds_beside_one_are_left_alone() {
    assert!(read("kind: HTTPRoute\nspec: {}\n").unwrap_err().to_string().contains("no ResiliencePolicy"));
    assert!(read("").is_err());
    let route = "---\nkind: HTTPRoute\nmetadata: {name: r}\nspec: {rules: []}\n---";
    assert_eq!(read(&format!("{route}{WHOLE}")).unwrap().len(), 1);
    let twice = read(&format!("{WHOLE}---{WHOLE}")).unwrap_err();
    assert_eq!(twice.list[0].field, "metadata.name");
}

#[test]
fn toml_says_the_same() {
    let text = "kind = 'ResiliencePolicy'\nmetadata.name = 'a'\n[spec.retry]\nattempts = 2\n";
    assert_eq!(Document::read_all(text, Format::Toml).unwrap()[0].policy().tries(), 3);
}

#[test]
fn each_impossible_combination_is_named_with_the_field_that_would_have_to_change() {
    for (spec, field, says) in [
        ("  timeouts: {request: 2s, backendRequest: 2s}\n", "spec.timeouts.backendRequest", "never reached"),
        (
            "  timeouts: {request: 2s, backendRequest: 800ms}\n  retry: {attempts: 2}\n",
            "spec.retry.attempts",
            "2 of them fit",
        ),
        ("  retry: {attempts: 1, backoff: 2s, maxBackoff: 1s}\n", "spec.retry.backoff", "no wait is longer than 1s"),
        (
            "  timeouts: {request: 1s}\n  retry: {attempts: 1, backoff: 1s, jitter: none}\n",
            "spec.retry.backoff",
            "nothing is ever sent again",
        ),
        (
            "  retry: {attempts: 1}\n  retryBudget: {percent: 0, minRetryRate: {count: 0}}\n",
            "spec.retryBudget",
            "nothing is allowed",
        ),
        (
            "  retry: {attempts: 1}\n  retryBudget: {percent: 10, interval: 1s, minRetryRate: {count: 0}}\n  traffic: {requestsPerSecond: 5}\n",
            "spec.retryBudget.percent",
            "less than one retry",
        ),
        (
            "  breaker: {successRate: {below: 0.5, window: 30s, minRequests: 20}}\n  traffic: {requestsPerSecond: 0.5}\n",
            "spec.breaker.successRate.minRequests",
            "never says anything",
        ),
        (
            "  timeouts: {backendRequest: 3s}\n  breaker: {consecutive: 5, probeTimeout: 2s}\n",
            "spec.breaker.probeTimeout",
            "may keep it open",
        ),
        (
            "  timeouts: {request: 30s}\n  breaker: {consecutive: 5}\n",
            "spec.breaker.probeTimeout",
            "a probe fails after 10s, while a call may take 30s",
        ),
        (
            "  timeouts: {backendRequest: 1s}\n  breaker: {slowCallRate: {above: 0.5, longerThan: 1s}, probeTimeout: 2s}\n",
            "spec.breaker.slowCallRate.longerThan",
            "none is ever slow",
        ),
        (
            "  rateLimit: {requests: 10, per: 1m}\n  traffic: {requestsPerSecond: 5}\n",
            "spec.rateLimit.requests",
            "are expected",
        ),
        (
            "  timeouts: {request: 1s}\n  concurrency: {max: 5, queue: {length: 5, maxWait: 2s}}\n",
            "spec.concurrency.queue.maxWait",
            "served to nobody",
        ),
        ("  timeouts: {backendRequest: 1s}\n  hedge: {after: 1s}\n", "spec.hedge.after", "no copy is ever sent"),
        ("  retry: {attempts: 4}\n", "spec.retry.attempts", "one call may become 5"),
    ] {
        let found = findings(spec);
        assert_eq!(found.len(), 1, "{spec}: {found:?}");
        assert_eq!(found[0].field, field);
        assert!(found[0].what.contains(says), "{}", found[0]);
        assert!(found[0].line >= 4, "{}", found[0]);
    }
}

#[test]
fn what_just_works_is_not_impossible() {
    for spec in [
        "  timeouts: {request: 2400ms, backendRequest: 800ms}\n  retry: {attempts: 2}\n",
        "  breaker: {successRate: {below: 0.5, window: 30s, minRequests: 20}}\n  traffic: {requestsPerSecond: 0.67}\n",
        "  breaker: {per: endpoint, successRate: {below: 0.5, window: 30s, minRequests: 20}}\n  traffic: {requestsPerSecond: 0.67}\n",
        // A copy of a late call passes the circuit as well.
        "  breaker: {successRate: {below: 0.5, window: 30s, minRequests: 20}}\n  hedge: {after: 20ms}\n  traffic: {requestsPerSecond: 0.34}\n",
        "  rateLimit: {requests: 5, per: 1s}\n  traffic: {requestsPerSecond: 5}\n",
        "  timeouts: {request: 30s, backendRequest: 9s}\n  retry: {attempts: 1}\n  breaker: {consecutive: 5}\n",
        "  timeouts: {request: 1s}\n  retry: {attempts: 1, backoff: 30s, maxBackoff: 60s, jitter: full}\n",
    ] {
        assert_eq!(findings(spec), [], "{spec}");
    }
}

fn hop(from: &str, to: &str, ownership: &str) -> String {
    format!(
        "---\nkind: ResiliencePolicy\nmetadata: {{name: {from}-{to}}}\nspec:\n  from: {from}\n  \
         targetRefs: [{{name: {to}}}]\n  retry: {{attempts: 2, ownership: {ownership}}}\n"
    )
}

#[test]
fn hops_that_each_retry_multiply_and_hops_that_carry_the_owner_do_not() {
    let chain = |ownership: &str| {
        let text = [hop("edge", "shop", ownership), hop("shop", "stock", ownership), hop("stock", "bank", ownership)];
        proved(&text.concat())
    };
    assert_eq!(chain("carried"), []);
    let found = chain("ignored");
    assert_eq!(found.len(), 2, "the second hop makes 9 of one, the third 27: {found:?}");
    assert!(found[1].what.contains("one call may become 27"), "{}", found[1]);
    assert!(found[1].what.contains("`edge-shop` 3 × `shop-stock` 3 × `stock-bank` 3"), "{}", found[1]);
    // A circle of calls is followed once round.
    let circle = [hop("a", "b", "ignored"), hop("b", "a", "ignored")];
    assert_eq!(proved(&circle.concat()).len(), 2);
}

#[test]
fn many_policies_that_call_each_other_are_followed_in_as_many_steps_as_a_chain_has_hops() {
    // With each of forty before each other one, there would be more chains than can ever be followed.
    let one = |number: usize| hop("x", "x", "ignored").replace("name: x-x", &format!("name: p{number}"));
    let same: String = (0..40).map(one).collect();
    assert_eq!(proved(&same).len(), 39, "each but the first comes behind the first");
    let long: String =
        (0..1_000).map(|number| hop(&format!("s{number}"), &format!("s{}", number + 1), "ignored")).collect();
    assert_eq!(proved(&long).len(), 999);
}

#[test]
fn waits_that_leave_no_time_for_the_last_attempt_are_impossible() {
    for (total, attempt, retry) in [
        ("1s", "400ms", "{attempts: 1, backoff: 500ms, jitter: none}"),
        ("2s", "600ms", "{attempts: 2, backoff: 1s, jitter: decorrelated}"),
        ("1s", "200ms", "{attempts: 3, backoff: 100ms, jitter: none}"),
        ("2s", "300ms", "{attempts: 3, backoff: 400ms, jitter: equal}"),
    ] {
        let found =
            findings(&format!("  timeouts: {{request: {total}, backendRequest: {attempt}}}\n  retry: {retry}\n"));
        let fields: Vec<&str> = found.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["spec.retry.backoff"], "{retry}");
    }
    for (total, retry) in [
        ("1300ms", "{attempts: 1, backoff: 500ms, jitter: none}"),
        ("1s", "{attempts: 1, backoff: 500ms, jitter: full}"),
    ] {
        let timeouts = format!("  timeouts: {{request: {total}, backendRequest: 400ms}}\n  retry: {retry}\n");
        assert_eq!(findings(&timeouts), [], "{retry}");
    }
}

#[test]
fn a_rate_that_a_store_is_to_count_is_none_of_a_stack_that_has_no_store() {
    let stack = |spec: &str| {
        let text = format!("kind: ResiliencePolicy\nmetadata: {{name: bank}}\nspec:\n  rateLimit: {spec}\n");
        read(&text).unwrap()[0].policy().stack().map(|_| ())
    };
    let refused = stack("{requests: 5, per: 1s, count: store, onStoreUnavailable: deny}");
    assert_eq!(refused, Err(ApplyError::NoCount { dependency: "bank".parse().unwrap() }));
    assert_eq!(stack("{requests: 5, per: 1s}"), Ok(()));
}

#[test]
fn the_waits_of_as_many_attempts_as_can_be_written_are_summed_at_once() {
    let spec = "  timeouts: {request: 1h, backendRequest: 1us}\n  retry: {attempts: 999999, backoff: 1ms, maxBackoff: 1s, jitter: none}\n  \
                traffic: {maxAmplification: 4294967295}\n";
    assert_eq!(findings(spec)[0].field, "spec.retry.backoff");
    let most = spec.replace("999999", "4294967294").replace("1us", "30m");
    assert_eq!(findings(&most)[0].field, "spec.retry.attempts");
}

#[test]
fn a_policy_that_names_no_target_is_the_hop_to_what_it_is_called() {
    let hop = |from: &str, to: &str| {
        let spec = format!("  from: {from}\n  retry: {{attempts: 2, ownership: ignored}}\n");
        format!("---\nkind: ResiliencePolicy\nmetadata: {{name: {to}}}\nspec:\n{spec}")
    };
    let found = proved(&[hop("edge", "shop"), hop("shop", "stock")].concat());
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].what.contains("one call may become 9"), "{}", found[0]);
}

#[test]
fn a_floor_of_retries_that_cannot_be_kept_is_a_fault() {
    let floor =
        |count, interval| format!("  retryBudget: {{minRetryRate: {{count: {count}, interval: {interval}}}}}\n");
    assert_eq!(faults(&floor(1, "10s")), [(4, "spec.retryBudget.minRetryRate".to_owned())]);
    let text =
        format!("kind: ResiliencePolicy\nmetadata: {{name: a}}\nspec:\n  retry: {{attempts: 1}}\n{}", floor(20, "10s"));
    let (_, budget) = read(&text).unwrap()[0].policy().retry.unwrap();
    assert_eq!(budget.floor_per_second, 2);
}
