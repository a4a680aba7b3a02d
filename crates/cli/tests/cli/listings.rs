//! Everything that lists does so for people and for programs.

use crate::harness::{ACCOUNTS, Node, run};

fn filled() -> Node {
    let node = Node::start();
    node.run_with(&["stream", "import", "-", "--order", "log"], ACCOUNTS.as_bytes()).ok();
    node
}

#[test]
fn every_list_has_a_json_form_that_can_be_read() {
    let node = filled();
    node.run(&["stream", "truncate", "account-2", "--before", "3", "--output", "json"]).ok().json();
    node.run(&["stream", "tombstone", "account-3", "--output", "json"]).ok().json();
    for (verb, member) in [
        (&["stream", "read", "account-1"][..], "events"),
        (&["stream", "list"], "streams"),
        (&["log", "read"], "events"),
        (&["config", "show"], "settings"),
        (&["patterns"], "patterns"),
        (&["guarantees"], "guarantees"),
    ] {
        let list = node.run(&[verb, &["--output", "json"]].concat()).ok().json();
        assert!(!list[member].as_array().unwrap().is_empty(), "{verb:?}");
        let table = node.run(verb).ok();
        let fixed = list.get("limits").and_then(|limits| limits.as_array()).map_or(0, Vec::len);
        // Below the guarantees, behind an empty line, stand the stores' capabilities under a heading of their own.
        let beside = list.get("capabilities").and_then(|all| all.as_array()).map_or(0, |all| all.len() + 2);
        let (rows, items) = (table.rows().len(), list[member].as_array().unwrap().len() + fixed + beside);
        assert_eq!(rows, items, "{verb:?} shows the same in both forms: {table:?}");
    }
    let shown = node.run(&["stream", "show", "account-3", "--output", "json"]).ok().json();
    assert_eq!(shown["tombstoned"], true);
    let shown = node.run(&["stream", "show", "account-2"]).ok();
    assert_eq!(shown.rows()[0][2], "3", "the first version that is left: {shown:?}");
}

#[test]
fn an_empty_list_is_still_a_list() {
    let node = Node::start();
    assert_eq!(node.run(&["log", "read", "--output", "json"]).ok().json(), serde_json::json!({ "events": [] }));
    assert_eq!(node.run(&["stream", "list", "--output", "json"]).ok().json(), serde_json::json!({ "streams": [] }));
    assert_eq!(node.run(&["stream", "list"]).ok().stdout, "STREAM  VERSION  FIRST  STATE\n");
}

#[test]
fn a_list_goes_as_far_as_asked_and_says_how_to_go_on() {
    let node = filled();
    let all = node.run(&["log", "read", "--all", "--output", "json"]).ok().json();
    let all = all["events"].as_array().unwrap().clone();
    assert_eq!(all.len(), ACCOUNTS.lines().count());
    let mut seen = Vec::new();
    let mut after = "0".to_owned();
    loop {
        let page = node.run(&["log", "read", "--limit", "70", "--after", &after, "--output", "json"]).ok();
        seen.extend(page.json()["events"].as_array().unwrap().clone());
        let Some((_, rest)) = page.stderr.split_once("--after ") else { break };
        after = rest.split(',').next().unwrap().to_owned();
    }
    assert_eq!(seen, all);
    let newest =
        node.run(&["stream", "read", "account-1", "--backward", "--limit", "1", "--output", "json"]).ok().json();
    let versions = node.run(&["stream", "show", "account-1", "--output", "json"]).ok().json();
    assert_eq!(newest["events"][0]["streamversion"], versions["streamversion"]);
}

#[test]
fn a_page_larger_than_the_node_allows_is_read_in_smaller_ones() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start_in(folder.path(), &["--http.max-page", "7", "--http.default-page", "7"]);
    node.run_with(&["stream", "import", "-"], ACCOUNTS.as_bytes()).ok();
    assert_eq!(node.count(), ACCOUNTS.lines().count());
}

#[test]
fn the_log_is_filtered_by_type_tag_and_category() {
    let node = filled();
    let count = |args: &[&str]| {
        let read = node.run(&[&["log", "read", "--all", "--output", "json"], args].concat()).ok().json();
        read["events"].as_array().unwrap().len()
    };
    let lines = |word: &str| ACCOUNTS.lines().filter(|line| line.contains(word)).count();
    assert_eq!(count(&["--type", "account.opened"]), lines("account.opened"));
    assert_eq!(count(&["--type", "transfer.sent", "--type", "transfer.received"]), lines("\"type\":\"transfer."));
    assert_eq!(count(&["--tag", "branch:north"]), lines("branch:north"));
    assert_eq!(count(&["--category", "account"]), ACCOUNTS.lines().count());
    assert_eq!(count(&["--category", "nothing"]), 0);
}

#[test]
fn a_moment_is_taken_by_the_events_time_or_by_the_stores() {
    let node = filled();
    let lines: Vec<serde_json::Value> = ACCOUNTS.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let middle = lines[lines.len() / 2]["time"].as_str().unwrap();
    let by_then = node.run(&["log", "read", "--all", "--at", middle, "--output", "json"]).ok().json();
    assert_eq!(by_then["events"].as_array().unwrap().len(), lines.len() / 2 + 1);
    let recorded = node.run(&["log", "read", "--recorded-at", middle, "--output", "json"]).ok().json();
    assert!(recorded["events"].as_array().unwrap().is_empty(), "nothing had been recorded by then");
}

#[test]
fn a_token_makes_a_read_include_its_write() {
    let node = Node::start();
    let token = node.run(&["stream", "append", "a", "--type", "t", "--output", "json"]).ok().json()["token"].clone();
    let read = node.run(&["stream", "read", "a", "--token", token.as_str().unwrap(), "--output", "json"]).ok().json();
    assert_eq!(read["events"].as_array().unwrap().len(), 1);
}

#[test]
fn names_of_any_script_can_be_used() {
    let node = Node::start();
    for name in ["a/b", "☂ 🧾", "%2F", "--flag", "q?x=1#y"] {
        node.run(&["stream", "append", "--type", "t", "--", name]).ok();
        let shown = node.run(&["stream", "show", "--output", "json", "--", name]).ok().json();
        assert_eq!(shown["stream"], name);
    }
}

#[test]
fn the_store_is_checked_backed_up_and_restored() {
    let node = filled();
    for verb in [["store", "verify"], ["stream", "verify"]] {
        let found = node.run(&[&verb[..], &["--output", "json"]].concat()).ok().json();
        assert_eq!((&found["sound"], &found["events"]), (&true.into(), &ACCOUNTS.lines().count().into()));
    }
    let written = node.run(&["store", "backup", "monday.db", "--output", "json"]).ok().json();
    node.run(&["store", "backup", "monday.db"]).failed(1);
    let path = written["path"].as_str().unwrap();

    let told = node.run(&["store", "restore", path, "--data", "data"]).failed(4);
    assert!(told.contains("open in another process"), "{told}");
    node.run(&["store", "restore", path, "--data", "elsewhere/data"]).ok();
    let told = node.run(&["store", "restore", path, "--data", "elsewhere/data"]).failed(1);
    assert!(told.contains("a restore never overwrites"), "{told}");
    node.run(&["store", "restore", "missing.db", "--data", "third"]).failed(3);

    let restored = Node::start_in(&node.folder().join("elsewhere"), &[]);
    assert_eq!(crate::harness::stored_ids(&restored), crate::harness::stored_ids(&node));
}

#[test]
fn completions_and_manual_pages_are_written() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(folder.path(), &["completions", shell]).ok().stdout;
        assert!(script.contains("tombstone"), "{shell} knows every verb");
    }
    assert!(run(folder.path(), &["man"]).ok().stdout.contains(".TH quorate 1"));
    run(folder.path(), &["man", "--out", "pages"]).ok();
    assert!(folder.path().join("pages/quorate-stream-import.1").exists());
}

#[test]
fn one_pattern_tells_what_there_is_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let shown = run(folder.path(), &["patterns", "time-and-ordering"]).ok();
    assert!(shown.stdout.contains("crates/foundations/src/ordering"), "{shown:?}");
}

#[test]
fn the_patterns_of_resilience_run_against_upstreams_that_fail_and_what_they_claim_holds() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["circuit-breaker", "bulkhead", "retry", "timeout", "rate-limit", "fallback", "hedge"];
    // Side by side: each mostly waits.
    let running = names.map(|name| {
        let child = crate::harness::command(folder.path(), &["patterns", name, "--output", "json"]).spawn().unwrap();
        (name, child)
    });
    for (name, child) in running {
        let told = crate::harness::ended(child).ok().json();
        let claims = told["claims"].as_array().unwrap();
        assert!(claims.len() >= 2 && claims.iter().all(|claim| claim["holds"] == true), "{name}: {told}");
    }
    let drawn = run(folder.path(), &["patterns", "rate-limit"]).ok().stdout;
    assert!(drawn.contains("REACHED THE UPSTREAM") && drawn.contains("holds: "), "{drawn}");
}

#[test]
fn a_message_queue_runs_with_a_worker_and_its_node_killed_and_what_it_claims_holds() {
    let folder = tempfile::tempdir().unwrap();
    let told = run(folder.path(), &["patterns", "message-queue", "--output", "json"]).ok().json();
    let claims = told["claims"].as_array().unwrap();
    assert!(claims.len() >= 6 && claims.iter().all(|claim| claim["holds"] == true), "{told}");
}
