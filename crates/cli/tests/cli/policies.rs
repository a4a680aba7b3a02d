//! `quorate policy` on files, and `quorate breaker` on a node.

use std::fs;

use serde_json::Value;

use crate::harness::{Node, run};

const EDGE: &str = "\
kind: ResiliencePolicy
metadata: {name: edge-shop}
spec:
  from: edge
  targetRefs: [{name: shop}]
  timeouts: {request: 2s, backendRequest: 800ms}
  retry: {attempts: 2, ownership: ignored}
";
const SHOP: &str = "\
kind = 'ResiliencePolicy'
metadata.name = 'shop-stock'
[spec]
from = 'shop'
targetRefs = [{ name = 'stock' }]
retry = { attempts = 2, ownership = 'ignored' }
";

#[test]
fn a_check_names_file_line_and_field_and_follows_chains_from_file_to_file() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("edge.yaml"), EDGE).unwrap();
    fs::write(folder.path().join("shop.toml"), SHOP).unwrap();
    let check = ["policy", "check", "edge.yaml", "shop.toml", "--output", "json"];
    let ended = run(folder.path(), &check);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    let found = told["found"].as_array().unwrap();
    let places: Vec<_> =
        found.iter().map(|one| (one["file"].as_str(), one["line"].as_u64(), one["field"].as_str())).collect();
    let field = Some("spec.retry.attempts");
    assert_eq!(places, [(Some("edge.yaml"), Some(7), field), (Some("shop.toml"), Some(6), field)]);
    assert!(found[0]["what"].as_str().unwrap().contains("2.4s"), "{told}");
    assert!(found[1]["what"].as_str().unwrap().contains("`edge-shop` 3 × `shop-stock` 3"), "{told}");
    run(folder.path(), &["policy", "check", "shop.toml"]).ok();
}

#[test]
fn what_cannot_be_read_is_told_at_once_and_exits_as_bad_input() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("bad.yaml"), EDGE.replace("attempts: 2", "attemps: two")).unwrap();
    let ended = run(folder.path(), &["policy", "check", "bad.yaml"]);
    assert_eq!(ended.code, Some(65), "{ended:?}");
    assert!(
        ended.stdout.contains("bad.yaml:7:") && ended.stdout.contains("did you mean `attempts`?"),
        "{}",
        ended.stdout
    );
    run(folder.path(), &["policy", "check", "policy.txt"]).failed(2);
    run(folder.path(), &["policy", "check", "none.yaml"]).failed(74);
    let schema: Value = serde_json::from_str(&run(folder.path(), &["policy", "schema"]).ok().stdout).unwrap();
    assert_eq!(schema["title"], "ResiliencePolicy");
}

#[test]
fn a_policy_is_declared_from_a_file_shown_with_its_limit_and_deleted() {
    let node = Node::start();
    let file = node.folder().join("stock.yaml");
    let text =
        "kind: ResiliencePolicy\nmetadata: {name: stock}\nspec:\n  rateLimit: {requests: 40, per: 1h, burst: 20}\n";
    fs::write(&file, text).unwrap();
    let checked = node.run(&["policy", "declare", "stock.yaml", "--check"]).ok();
    assert_eq!(checked.rows(), [["stock", "true"]]);
    assert_eq!(node.run(&["policy", "list"]).ok().rows(), Vec::<Vec<&str>>::new(), "a check declares nothing");
    assert_eq!(node.run(&["policy", "declare", "stock.yaml"]).ok().rows(), [["stock", "true", "stock"]]);
    assert_eq!(node.run(&["policy", "document", "stock"]).ok().stdout, text);
    assert_eq!(node.run(&["policy", "show", "stock"]).ok().rows(), [["stock", "stock", "20", "0", "0"]]);
    let limit = ["stock", "calls", "40", "3600000", "20", "process", "0", "20"];
    assert_eq!(node.run(&["limit", "list"]).ok().rows(), [limit]);
    assert_eq!(node.run(&["limit", "show", "stock"]).ok().rows(), [limit]);
    assert_eq!(node.run(&["limit", "reset", "stock"]).ok().rows(), [limit]);
    node.run(&["limit", "show", "http/clients"]).failed(3);

    fs::write(&file, text.replace("40", "many")).unwrap();
    let said = node.run(&["policy", "declare", "stock.yaml"]).failed(65);
    assert!(said.contains("stock.yaml:4:25: `spec.rateLimit.requests`"), "{said}");
    fs::write(&file, text.replace("rateLimit", "traffic: {requestsPerSecond: 9}\n  rateLimit")).unwrap();
    let said = node.run(&["policy", "declare", "stock.yaml"]).failed(65);
    assert!(said.contains("stock.yaml:5:25: `spec.rateLimit.requests`"), "{said}");
    fs::write(node.folder().join("two.yaml"), format!("{EDGE}---\n{text}")).unwrap();
    node.run(&["policy", "declare", "two.yaml"]).failed(65);

    assert_eq!(node.run(&["policy", "delete", "stock"]).ok().rows(), [["stock", "stock"]]);
    node.run(&["policy", "delete", "stock"]).failed(3);
}

#[test]
fn a_breaker_that_is_not_there_is_not_found_and_a_node_without_any_lists_none() {
    let node = Node::start();
    assert!(node.run(&["breaker", "list"]).ok().stdout.contains("BREAKER"));
    for verb in ["show", "open", "close", "reset", "disable", "observe"] {
        node.run(&["breaker", verb, "bank/charge"]).failed(3);
    }
}
