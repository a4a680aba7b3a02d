//! Views, and commands with questions, run by `quorate patterns` with their nodes killed. What these claim is checked by themselves.

use crate::harness::run;

/// Runs a pattern and asserts that it claims `count` things and that each of them held.
fn holds(pattern: &str, count: usize) {
    let folder = tempfile::tempdir().unwrap();
    let told = run(folder.path(), &["patterns", pattern, "--output", "json"]).ok().json();
    let claims = told["claims"].as_array().unwrap();
    assert!(claims.len() == count && claims.iter().all(|claim| claim["holds"] == true), "{told:#}");
}

#[test]
fn a_view_is_made_anew_with_its_node_killed_and_what_that_claims_holds() {
    holds("materialized-view", 9);
}

#[test]
fn commands_and_questions_run_with_their_node_killed_and_what_they_claim_holds() {
    holds("cqrs", 7);
}
