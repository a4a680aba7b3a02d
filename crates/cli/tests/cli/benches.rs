//! Every bench runs to its end and tells each figure by its name. What the figures are is no matter here.

use serde_json::Value;

use super::harness::run;

/// The names of the figures of `bench NAME`, each of which is a number above zero.
fn names(bench: &str, more: &[&str]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().to_str().unwrap();
    let quick = ["bench", bench, "--json", "--quick", "--rounds", "2", "--span", "300ms", "--events", "4000"];
    let args = [&quick[..], &["--folder", own], more].concat();
    let figures = run(folder.path(), &args).ok().json();
    let named = |figure: &Value| {
        assert!(figure["value"].as_f64().is_some_and(|value| value > 0.0), "{figure}");
        figure["name"].as_str().unwrap().to_owned()
    };
    figures["results"].as_array().unwrap().iter().map(named).collect()
}

#[test]
fn the_bench_of_views_catches_up_in_rust_and_declared() {
    let names = names("view", &[]);
    let first = ["catch-up/rust", "catch-up/declared", "inline/1", "inline/16", "inline/64", "lag/load"];
    assert_eq!(names[..6], first, "{names:?}");
}

#[test]
fn the_bench_of_sagas_recovers_round_after_round() {
    let names = names("saga", &["--only", "saga/recovery"]);
    assert_eq!(names, ["saga/recovery/1000"]);
}

#[test]
fn the_bench_of_sagas_has_them_run_and_fail() {
    let names = names("saga", &["--only", "saga/joined-failing"]);
    assert_eq!(names.iter().filter(|name| !name.contains("syncs")).count(), 3, "{names:?}");
}

#[test]
fn the_bench_of_transactions_measures_what_was_applied_and_what_was_decided() {
    let names = names("txn", &[]);
    assert!(
        ["txn/embedded/1/applied", "txn/embedded/1/decided"].iter().all(|name| names.iter().any(|n| n == name)),
        "{names:?}"
    );
}

#[test]
fn the_bench_of_queues_sends_and_consumes() {
    let names = names("queue", &[]);
    assert!(["queue/send/1", "queue/consume/16"].iter().all(|name| names.iter().any(|n| n == name)), "{names:?}");
}
