//! Durable subscriptions from the command line: create, pull, settle, park, replay.

use serde_json::Value;

use crate::harness::{ACCOUNTS, Node};

fn leases(pulled: &Value) -> Vec<String> {
    let deliveries = pulled["deliveries"].as_array().unwrap();
    deliveries.iter().map(|delivery| delivery["lease"].as_str().unwrap().to_owned()).collect()
}

fn json(node: &Node, args: &[&str]) -> Value {
    node.run(&[&["subscription"], args, &["--output", "json"]].concat()).ok().json()
}

#[test]
fn events_are_pulled_settled_parked_and_replayed() {
    let node = Node::start();
    node.run_with(&["stream", "import", "-", "--order", "log"], ACCOUNTS.as_bytes()).ok();
    let create = ["create", "billing", "--lease-ttl", "1m", "--category", "account", "--backoff-first", "10ms"];
    let created = json(&node, &create);
    assert_eq!((&created["config"]["lease-ttl"], &created["lag-events"]), (&"1m".into(), &200.into()));
    assert_eq!(json(&node, &create)["config"], created["config"], "the same again changes nothing");
    assert_eq!(node.run(&["subscription", "list"]).ok().rows(), [["billing", "0", "1m"]]);

    let held = leases(&json(&node, &["pull", "billing", "--max", "3", "--wait", "2s", "--owner", "worker-1"]));
    assert_eq!(held.len(), 3);
    assert_eq!(json(&node, &["extend", "billing", &held[0], "--ttl", "2m"])["leases"], 1);
    assert_eq!(node.run(&["subscription", "ack", "billing", &held[0]]).ok().stdout, "LEASES\n     1\n");
    assert_eq!(json(&node, &["nack", "billing", &held[1], "--delay", "1h", "--reason", "busy"])["leases"], 1);
    assert_eq!(json(&node, &["park", "billing", &held[2], "--reason", "unknown account"])["leases"], 1);
    let lost = node.run(&["subscription", "ack", "billing", &held[0]]).failed(1);
    assert!(lost.contains("Lease is lost") && lost.contains("/errors/lease-lost"), "{lost}");

    let shown = json(&node, &["show", "billing"]);
    assert_eq!((&shown["in-flight"], &shown["resting"]), (&0.into(), &1.into()));
    let parked = json(&node, &["parked", "billing", "--all"])["parked"].clone();
    let key = parked[0]["key"].as_str().unwrap();
    assert_eq!(parked[0]["failures"][0]["reason"], "unknown account");
    let table = node.run(&["subscription", "parked", "billing"]).ok();
    assert_eq!((table.rows()[0][1], table.rows()[0][4]), (key, "unknown account"));
    let count = parked.as_array().unwrap().iter().filter(|one| one["key"] == key).count();
    assert_eq!(json(&node, &["replay", "billing", "--key", key])["events"], count);
    assert_eq!(json(&node, &["discard", "billing", "--all"])["events"], 0);

    let pulled = node.run(&["subscription", "pull", "billing", "--max", "50"]).ok();
    assert!(pulled.rows().iter().any(|row| row[3] == key && row[1] == "2"), "{pulled:?}");
    assert_eq!(node.run(&["subscription", "delete", "billing"]).ok().stdout, "DELETED\nbilling\n");
}

#[test]
fn a_script_tells_refused_missing_and_unusable_apart() {
    let node = Node::start();
    json(&node, &["create", "billing", "--key", "tag:customer", "--start", "7"]);
    let run = |args: &[&str]| node.run(&[&["subscription"], args].concat());
    assert!(run(&["create", "billing", "--start", "end"]).failed(1).contains("another configuration"));
    for action in [&["show", "x"][..], &["delete", "x"], &["pull", "x"], &["replay", "x", "--all"]] {
        assert!(run(action).failed(3).contains("subscription-not-found"), "{action:?}");
    }
    run(&["create", "other", "--key", "customer"]).failed(2);
    run(&["create", "other", "--lease-ttl", "1ms"]).failed(2);
    run(&["ack", "billing"]).failed(2);
    run(&["ack", "billing", "not-a-lease"]).failed(2);
    run(&["replay", "billing"]).failed(2);
    assert_eq!(json(&node, &["pull", "billing", "--wait", "10ms"])["deliveries"], serde_json::json!([]));
}
