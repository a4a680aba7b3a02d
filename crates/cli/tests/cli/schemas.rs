//! Schemas from the command line: register, check, show, and what they refuse.

use std::fs;

use serde_json::Value;

use crate::harness::{Node, run};

const ORDER: &str = r#"{"type":"object","required":["n"],"properties":{"n":{"type":"integer"}}}"#;
const OTHER: &str = r#"{"type":"object","required":["m"],"properties":{"m":{"type":"integer"}}}"#;

fn json(node: &Node, args: &[&str], input: &str) -> Value {
    node.run_with(&[&["schema"], args, &["--output", "json"]].concat(), input.as_bytes()).ok().json()
}

#[test]
fn a_schema_is_registered_from_a_file_or_standard_input_and_shown() {
    let node = Node::start();
    fs::write(node.folder().join("order.json"), ORDER).unwrap();
    let first = node.run(&["schema", "register", "order.placed", "order.json", "--mode", "full"]).ok();
    let address = "/v1/schemas/order.placed/versions/1";
    assert_eq!(first.rows(), [["order.placed", "1", "full", "true", address]]);
    assert_eq!(json(&node, &["register", "order.placed", "-"], ORDER)["new"], false);
    assert_eq!(json(&node, &["register", "order.placed", "-", "--mode", "none"], OTHER)["version"], 2);
    assert_eq!(node.run(&["schema", "list"]).ok().rows(), [["order.placed", "2", "full"]]);
    let versions = node.run(&["schema", "show", "order.placed"]).ok();
    assert_eq!((versions.rows()[0][1], versions.rows()[1][1]), ("full", "none"));
    let shown = json(&node, &["show", "order.placed", "--version", "1"], "");
    assert_eq!(shown, serde_json::from_str::<Value>(ORDER).unwrap());
    assert_eq!(json(&node, &["mode", "order.placed", "backward"], "")["mode"], "backward");
    assert_eq!(json(&node, &["list"], "")["schemas"][0]["mode"], "backward");
}

#[test]
fn a_script_tells_incompatible_unusable_and_missing_schemas_apart() {
    let node = Node::start();
    json(&node, &["register", "order.placed", "-"], ORDER);
    let schema = |args: &[&str], input: &str| node.run_with(&[&["schema"], args].concat(), input.as_bytes());
    let refused = schema(&["register", "order.placed", "-"], OTHER).failed(1);
    assert!(refused.contains("/errors/schema-incompatible") && refused.contains("`/properties/m`"), "{refused}");
    let check = schema(&["check", "order.placed", "-"], OTHER);
    assert_eq!(check.rows()[0][..2], ["1", "/properties/m"]);
    assert!(check.failed(1).contains("not backward compatible"));
    schema(&["check", "order.placed", "-", "--mode", "none"], OTHER).ok();
    schema(&["check", "order.placed", "-"], ORDER).ok();
    let remote = schema(&["register", "x", "-"], r#"{"$ref":"http://example.com"}"#).failed(65);
    assert!(remote.contains("/errors/invalid-schema"), "{remote}");
    assert!(schema(&["register", "x", "-"], "{").failed(65).contains("standard input is not JSON"));
    schema(&["register", "x", "nowhere.json"], "").failed(74);
    schema(&["register", "x", "-", "--mode", "sideways"], ORDER).failed(2);
    for args in [&["show", "x"][..], &["show", "order.placed", "--version", "2"], &["mode", "x", "none"]] {
        assert!(schema(args, "").failed(3).contains("schema-not-found"), "{args:?}");
    }
}

#[test]
fn an_event_and_an_imported_line_that_do_not_fit_are_refused_by_place() {
    let node = Node::start();
    json(&node, &["register", "order.placed", "-"], ORDER);
    let append = ["stream", "append", "o-1", "--type", "order.placed", "--data"];
    let refused = node.run(&[&append[..], &[r#"{"n":"one"}"#]].concat()).failed(65);
    assert!(refused.contains("/errors/schema-violation") && refused.contains("`/n`"), "{refused}");
    node.run(&[&append[..], &[r#"{"n":1}"#, "--schema", "/v1/schemas/order.placed/versions/1"]].concat()).ok();

    let line = |n: usize, data: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"{n}","source":"/s","subject":"o-{n}","type":"order.placed","data":{data}}}"#
        )
    };
    let lines = [line(1, r#"{"n":1}"#), line(2, r#"{"n":"two"}"#), line(3, r#"{"n":3}"#)].join("\n");
    let stopped = node.run_with(&["stream", "import", "-"], lines.as_bytes()).failed(65);
    assert!(stopped.contains("line 2") && stopped.contains("`/n`"), "{stopped}");
    let skipped = node.run_with(&["stream", "import", "-", "--on-error", "skip", "--output", "json"], lines.as_bytes());
    let skipped = skipped.ok().json();
    assert_eq!((&skipped["events"], &skipped["skipped"]), (&2.into(), &1.into()));
}

#[test]
fn what_becomes_of_unknown_types_is_a_setting_that_is_shown_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("quorate.toml"), "[schemas]\nunknown-types = 'closed'\nmax-types = 7\n").unwrap();
    let shown = run(folder.path(), &["config", "show"]).ok();
    assert!(shown.stdout.contains("schemas.unknown-types"), "{}", shown.stdout);
    let node = Node::start_in(folder.path(), &[]);
    let refused = node.run(&["stream", "append", "a", "--type", "new.thing", "--data", "1"]).failed(65);
    assert!(refused.contains("/errors/unknown-type"), "{refused}");
    fs::write(folder.path().join("quorate.toml"), "[schemas]\nunknown-types = 'shut'\n").unwrap();
    assert!(run(folder.path(), &["config", "show"]).failed(2).contains("schemas.unknown-types"));
}
