//! `quorate serve` over PostgreSQL: real processes, of which either may be killed.

use serde_json::Value;

use crate::{
    harness::{Node, command, ended, run},
    server::Own,
};

macro_rules! own {
    () => {
        match Own::new("") {
            Some(own) => own,
            None => return,
        }
    };
}

/// A node over `own` that gives up soon.
fn node_over(own: &Own, folder: &std::path::Path) -> Node {
    Node::start_in(folder, &["--store", &own.address(), "--store.patience", "500ms"])
}

fn append(node: &Node, id: &str) -> crate::harness::Ended {
    node.run(&[
        "stream",
        "append",
        "order-1",
        "--type",
        "placed",
        "--id",
        id,
        "--data",
        "{\"n\": 1}",
        "--output",
        "json",
    ])
}

fn ids(node: &Node) -> Vec<String> {
    let page = node.run(&["stream", "read", "order-1", "--output", "json"]).ok().json();
    page["events"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_node_over_postgres_goes_on_after_its_server_was_killed_and_after_it_was_itself() {
    let (own, folder) = (own!(), tempfile::tempdir().unwrap());
    let node = node_over(&own, folder.path());
    append(&node, "1").ok();
    append(&node, "2").ok();
    assert_eq!(ids(&node), ["1", "2"]);
    let (tail, _stdin) = node.feed(&["log", "tail", "--limit", "4", "--output", "json"]);

    own.kill();
    let told = append(&node, "3").failed(4);
    assert!(told.contains("the database cannot be reached") && told.contains("what to do: "), "{told}");
    node.run(&["log", "read"]).failed(4);
    own.start();
    append(&node, "3").ok();

    node.signal("-KILL");
    drop(node);
    let listening = "127.0.0.1:0";
    let node = Node::start_at(folder.path(), listening, &["--store", &own.address()]);
    let again = append(&node, "3").ok().json();
    assert_eq!(again["streamversion"], "3", "what was acknowledged is known: {again}");
    append(&node, "4").ok();
    assert_eq!(ids(&node), ["1", "2", "3", "4"]);
    assert!(!folder.path().join("data").exists(), "nothing is kept beside the database");
    drop(tail);
}

#[test]
fn a_tail_misses_nothing_and_repeats_nothing_while_the_server_is_killed() {
    let (own, folder) = (own!(), tempfile::tempdir().unwrap());
    let node = node_over(&own, folder.path());
    append(&node, "1").ok();
    let (tail, _stdin) = node.feed(&["log", "tail", "--limit", "3", "--output", "json"]);
    own.kill();
    append(&node, "2").failed(4);
    own.start();
    append(&node, "2").ok();
    append(&node, "3").ok();
    let told = ended(tail).ok();
    let seen: Vec<Value> = told.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seen: Vec<&str> = seen.iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(seen, ["1", "2", "3"]);
}

#[test]
fn what_the_database_cannot_do_is_refused_at_the_command_line() {
    let (own, folder) = (own!(), tempfile::tempdir().unwrap());
    let node = node_over(&own, folder.path());
    append(&node, "1").ok();
    for args in [
        &["store", "backup", "monday"][..],
        &["store", "scavenge"],
        &["view", "list"],
        &["queue", "list"],
        &["erasure", "list"],
        &["stream", "truncate", "order-1", "--before", "2"],
    ] {
        let told = node.run(args).failed(1);
        assert!(told.contains("the postgres store cannot "), "{args:?}: {told}");
    }
    let verified = node.run(&["store", "verify", "--output", "json"]).ok().json();
    assert_eq!(verified["events"], 1, "{verified}");
    let address = own.address();
    let told = run(folder.path(), &["store", "restore", "monday", "--store", &address]).failed(1);
    assert!(told.contains("this is done to the embedded store"), "{told}");
}

#[test]
fn an_address_that_leads_nowhere_is_refused_and_its_password_is_shown_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let secret = "postgres://u:s3cret@127.0.0.1:1/db";
    let told = run(folder.path(), &["serve", "--listen", "127.0.0.1:0", "--store", secret]).failed(4);
    assert!(told.contains("cannot be reached") && !told.contains("s3cret"), "{told}");
    let told = run(folder.path(), &["serve", "--listen", "127.0.0.1:0", "--store", "mysql://u:s3cret@h/db"]).failed(2);
    assert!(told.contains("store.address") && !told.contains("s3cret"), "{told}");
    for format in ["json", "table"] {
        let mut show = command(folder.path(), &["config", "show", "--output", format]);
        let shown = ended(show.env("QUORATE_STORE_ADDRESS", secret).spawn().unwrap()).ok();
        assert!(shown.stdout.contains("postgres://u:***@127.0.0.1:1/db") && !shown.stdout.contains("s3cret"));
    }
}
