//! Declaring views from the command line.

use std::fs;

use crate::harness::{Node, run};

const COUNTS: &str = r#"view = "counts"
version = 1

[tables.count]
key = "stream"
columns = { stream = "text", n = "integer" }

[[on]]
bind = { stream = "$.stream" }
sql = "INSERT INTO count (stream, n) VALUES (:stream, 1) ON CONFLICT (stream) DO UPDATE SET n = count.n + 1"

[[samples]]
events = [{ stream = "a", type = "x" }]
rows.count = [{ stream = "a", n = 1 }]
"#;

#[test]
fn a_view_is_declared_from_a_file_shown_explained_and_deleted() {
    let node = Node::start();
    fs::write(node.folder().join("counts.toml"), COUNTS).unwrap();
    for data in ["1", "2"] {
        node.run(&["stream", "append", "a", "--type", "x", "--data", data]).ok();
    }
    let checked = node.run(&["view", "declare", "counts.toml", "--check"]).ok();
    assert_eq!(checked.rows(), [["counts", "1", "true"]]);
    assert_eq!(node.run(&["view", "list"]).ok().rows(), Vec::<Vec<&str>>::new(), "a check declares nothing");
    assert_eq!(node.run(&["view", "declare", "counts.toml"]).ok().rows(), [["counts", "1", "true"]]);
    assert_eq!(node.run(&["view", "declare", "counts.toml"]).ok().rows(), [["counts", "1", "false"]]);
    assert_eq!(node.run(&["view", "document", "counts"]).ok().stdout, COUNTS);
    let explained = loop {
        let asked = node.run(&["view", "explain", "counts", "count", "a", "--output", "json"]);
        if asked.code == Some(0) && asked.stdout.contains("\"total\": 2") {
            break node.run(&["view", "explain", "counts", "count", "a"]).ok();
        }
    };
    assert_eq!(explained.rows()[1][..4], ["2", "a", "2", "x"]);
    assert!(explained.stdout.contains(r#"{"n":2,"stream":"a"}"#), "{}", explained.stdout);
    assert_eq!(node.run(&["view", "delete", "counts"]).ok().rows(), [["counts", "true"]]);
    node.run(&["view", "delete", "counts"]).failed(3);
}

#[test]
fn what_is_wrong_with_a_document_is_told_with_file_line_and_field() {
    let node = Node::start();
    let file = node.folder().join("counts.toml");
    for (from, to, told) in [
        // Found here,
        ("n = \"integer\"", "n = \"int\"", "counts.toml:6:34: `tables.count.columns.n`: `int` is no type"),
        ("INTO count", "INTO counts", "counts.toml:10:20: `on[0].sql`: this view has no table `counts`"),
        // and by the node.
        ("n = 1 }", "n = 2 }", "counts.toml:14:15: `samples[0].rows.count[0]`: there is no such row"),
    ] {
        assert!(COUNTS.contains(from));
        fs::write(&file, COUNTS.replace(from, to)).unwrap();
        let said = node.run(&["view", "declare", "counts.toml"]).failed(65);
        assert!(said.contains(told), "{said}");
    }
    fs::write(&file, COUNTS).unwrap();
    node.run(&["view", "declare", "counts.toml"]).ok();
    fs::write(&file, COUNTS.replace("count.n + 1", "count.n + 2")).unwrap();
    assert!(node.run(&["view", "declare", "counts.toml"]).failed(1).contains("view-changed"));
    node.run(&["view", "declare", "counts.yml"]).failed(74);
    run(node.folder(), &["view", "declare", "missing.toml"]).failed(74);
}
