//! Every bench runs to its end and tells each figure by its name. What the figures are is no matter here.

use serde_json::Value;

use crate::{harness::run, server::Own};

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
fn the_bench_of_queues_goes_through_process_http_and_database_and_leaves_out_who_is_not_there() {
    let own = Own::new("-c max_connections=100");
    let database = own.as_ref().map(|own| format!("postgres={}", own.address()));
    let peers = database.iter().map(String::as_str).chain(["nats=nats://127.0.0.1:9", "redis=redis://127.0.0.1:9"]);
    let args: Vec<&str> = peers.flat_map(|peer| ["--peer", peer]).collect();
    let names = names("queue", &args);
    let has = |name: &str| names.iter().any(|known| known == name);
    assert!(has("queue/send/1") && has("queue/consume/16"), "{names:?}");
    for who in ["http"].into_iter().chain(own.iter().map(|_| "postgres")) {
        for what in ["send/1", "send/16", "consume/1", "consume/16", "end-to-end/p50", "end-to-end/p99"] {
            assert!(has(&format!("queue/{who}/{what}")), "{who} {what} is missing: {names:?}");
        }
    }
    assert!(!names.iter().any(|name| name.contains("nats") || name.contains("redis")), "{names:?}");
}

#[test]
fn a_peer_that_is_no_broker_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let said = run(folder.path(), &["bench", "queue", "--peer", "kafka=127.0.0.1:9092"]).failed(2);
    assert!(said.contains("nats=URL, rabbitmq=URL, postgres=URL or redis=URL"), "{said}");
}
