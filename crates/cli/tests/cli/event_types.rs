//! Event types from the command line.

use serde_json::Value;

use crate::harness::{Node, file};

#[test]
fn event_types_are_listed_shown_and_described_as_asyncapi() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start_in(folder.path(), &[]);
    let schema = file(folder.path(), "schema.json", r#"{"type":"object"}"#);
    node.run(&["schema", "register", "order.placed", &schema]).ok();
    node.run(&["subscription", "create", "billing", "--type", "order.placed"]).ok();
    let event = |n| {
        format!(
            r#"{{"specversion":"1.0","id":"{n}","source":"/shop","type":"order.placed","subject":"o-{n}","data":{{}}}}"#
        )
    };
    let lines: Vec<String> = (0..3).map(event).collect();
    node.run_with(&["stream", "import", "-"], lines.join("\n").as_bytes()).ok();

    let listed = node.run(&["event-type", "list"]).ok();
    let rows = listed.rows();
    assert_eq!(rows[0][..5], ["order.placed", "3", "1", "1", "1"], "{listed:?}");
    let shown = node.run(&["event-type", "show", "order.placed"]).ok();
    let told: Vec<&str> = shown.rows().iter().map(|row| row[0]).collect();
    assert_eq!(told, ["schema", "producer", "subscription"], "{shown:?}");
    let document: Value = node.run(&["event-type", "asyncapi"]).ok().json();
    assert_eq!(document["asyncapi"], "3.0.0");
    assert!(document["components"]["messages"]["order.placed_v1"].is_object(), "{document}");
    assert!(node.run(&["event-type", "show", "order.lost"]).failed(3).contains("event-type-not-found"));
}
