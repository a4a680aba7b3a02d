//! What a stream keeps, and archives, as one types it.

use std::fs;

use crate::harness::{Node, run};

fn fill(node: &Node, stream: &str, events: u32) {
    for n in 1..=events {
        let (id, data) = (format!("{stream}-{n}"), format!("{{\"n\": {n}.0}}"));
        node.run(&["stream", "append", stream, "--type", "counted", "--id", &id, "--data", &data]).ok();
    }
}

#[test]
fn metadata_is_set_and_shown_and_a_scavenge_forgets() {
    let node = Node::start();
    fill(&node, "a", 5);
    let set = ["stream", "metadata", "set", "a", "--max-count", "2", "--value", "owner=ops", "--expect", "none"];
    node.run(&set).ok();
    let shown = node.run(&["stream", "metadata", "get", "a"]).ok();
    let rows = shown.rows();
    for row in [["metadataversion", "1"], ["max-count", "2"], ["values.owner", "ops"]] {
        assert!(rows.iter().any(|shown| shown[..] == row), "{row:?} in {rows:?}");
    }
    assert!(node.run(&set).failed(1).contains("metadata-conflict"));
    assert_eq!(node.run(&["stream", "read", "a"]).ok().rows().len(), 2);
    assert_eq!(node.run(&["store", "scavenge"]).ok().rows()[0], ["1", "3"]);
    node.run(&["stream", "metadata", "set", "a", "--value", "without-an-equals-sign"]).failed(2);
}

#[test]
fn a_stream_is_truncated_only_if_it_is_what_it_is_expected_to_be() {
    let node = Node::start();
    fill(&node, "a", 5);
    let truncate = |stream, expect| node.run(&["stream", "truncate", stream, "--before", "4", "--expect", expect]);
    for (stream, expect) in [("a", "4"), ("a", "6"), ("b", "exists"), ("b", "1")] {
        // As an append that expects the same is refused.
        let append = node.run(&["stream", "append", stream, "--type", "counted", "--expect", expect]);
        assert!(append.failed(1).contains("version-conflict"));
        let said = truncate(stream, expect).failed(1);
        assert!(said.contains("version-conflict"), "{stream} at {expect}: {said}");
    }
    let first = |stream| node.run(&["stream", "show", stream, "--output", "json"]).ok().json()["first"].clone();
    assert_eq!(first("a"), "1", "what was refused forgot nothing");
    assert_eq!(truncate("a", "5").ok().rows()[0][..2], ["a", "3"]);
    assert_eq!(first("a"), "4");
    assert_eq!(truncate("a", "exists").ok().rows()[0][..2], ["a", "0"]);
    assert!(truncate("a", "none").failed(1).contains("version-conflict"));
    truncate("a", "0").failed(2);
}

#[test]
fn an_archive_is_made_checked_read_and_brought_back() {
    let node = Node::start();
    fill(&node, "a", 5);
    let order = ["stream", "archive", "a", "--to", "old.qa", "--before", "4", "--output", "json"];
    let made = node.run(&order).ok().json();
    assert_eq!(node.run(&order).ok().json(), made, "repeated, it answers as the first time");
    let file = made["path"].as_str().unwrap();
    assert_eq!(node.run(&["stream", "archives", "a"]).ok().rows()[0][..4], ["1", "a", "1", "3"]);
    let said = run(node.folder(), &["archive", "verify", file]).ok();
    assert!(said.stdout.contains("sound: 3 events checked"), "{said:?}");
    let lines = run(node.folder(), &["archive", "cat", file]).ok().stdout;
    assert_eq!(lines.lines().count(), 3);
    assert!(lines.contains("\"data\":{\"n\": 2.0}"), "data as it was received: {lines}");

    let other = Node::start();
    let back = crate::harness::file(other.folder(), "back.ndjson", &lines);
    other.run(&["stream", "import", "--stream-from", "stream", &back]).ok();
    assert_eq!(other.run(&["stream", "read", "a"]).ok().rows().len(), 3);

    let away = node.folder().join("away.qa");
    fs::rename(node.folder().join(file), &away).unwrap();
    let said = node.run(&["store", "verify"]).ok();
    assert!(said.stdout.contains("MISSING ARCHIVE") && said.stdout.contains("old.qa"), "{said:?}");
    assert!(said.stderr.contains("put copies back"), "{said:?}");
    let mut bytes = fs::read(&away).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(node.folder().join(file), &bytes).unwrap();
    let said = node.run(&["store", "verify"]).failed(6);
    assert!(said.contains("the store itself is sound"), "{said}");
    let damaged = node.folder().join("damaged.qa");
    fs::write(&damaged, bytes).unwrap();
    run(node.folder(), &["archive", "verify", damaged.to_str().unwrap()]).failed(6);
    run(node.folder(), &["archive", "cat", "nowhere.qa"]).failed(3);
}
