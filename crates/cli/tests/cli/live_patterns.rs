//! Patterns, run by `quorate patterns` with their nodes killed or stopped. What these claim is checked by themselves.

use serde_json::Value;

use crate::harness::run;

/// Runs a pattern and asserts that it claims `count` things and that each of them held. Returns what it showed.
fn holds(pattern: &str, count: usize) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let told = run(folder.path(), &["patterns", pattern, "--output", "json"]).ok().json();
    let claims = told["claims"].as_array().unwrap();
    assert!(claims.len() == count && claims.iter().all(|claim| claim["holds"] == true), "{told:#}");
    told
}

#[test]
fn a_view_is_made_anew_with_its_node_killed_and_what_that_claims_holds() {
    holds("materialized-view", 9);
}

#[test]
fn commands_and_questions_run_with_their_node_killed_and_what_they_claim_holds() {
    holds("cqrs", 7);
}

#[test]
fn requests_run_with_a_responder_killed_and_their_node_told_to_stop_and_what_they_claim_holds() {
    let told = holds("request-response", 7);
    let notes: Vec<&str> = told["timelines"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|timeline| timeline["steps"].as_array().unwrap())
        .map(|step| step["note"].as_str().unwrap())
        .collect();
    let expected = [
        "heard `request-unknown`: responder-left",
        "made, and killed before it could answer",
        "heard `request-unknown`: deadline",
        "told to stop; its answer was late",
    ];
    assert_eq!(notes, expected);
}

#[test]
fn events_reach_consumers_that_fail_are_killed_or_come_late_with_their_node_killed_and_what_that_claims_holds() {
    holds("event-driven-architecture", 8);
}
