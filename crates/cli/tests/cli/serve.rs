//! `quorate serve` as a process: one store, one process, and an orderly end.

use std::io::{Read as _, Write as _};

use crate::harness::{Node, file, run};

#[test]
fn a_second_node_on_the_same_data_is_refused_with_a_clear_message() {
    let node = Node::start();
    let told = run(node.folder(), &["serve", "--listen", "127.0.0.1:0", "--data", "data"]).failed(4);
    assert!(told.contains("is open in another process: stop that one"), "{told}");
    let told = run(node.folder(), &["serve", "--listen", node.address(), "--data", "other"]).failed(4);
    assert!(told.contains("cannot listen on") && told.contains("what to do: "), "{told}");
    node.run(&["stream", "append", "a", "--type", "t"]).ok();
}

#[test]
fn what_is_no_store_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    file(folder.path(), "data/quorate.db", "not a database, but long enough to look like one".repeat(100));
    let ended = run(folder.path(), &["serve", "--listen", "127.0.0.1:0", "--data", "data"]);
    assert!(matches!(ended.code, Some(1 | 6)), "{ended:?}");
    assert!(ended.stderr.contains("quorate.db"), "{ended:?}");
}

#[test]
fn sigterm_lets_a_request_in_progress_end() {
    let mut node = Node::start();
    let body = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#;
    let mut socket = std::net::TcpStream::connect(node.address()).unwrap();
    let head = format!(
        "POST /v1/streams/a/events HTTP/1.1\r\nhost: {}\r\ncontent-type: application/cloudevents+json\r\ncontent-length: {}\r\n\r\n",
        node.address(),
        body.len()
    );
    let (first, second) = body.split_at(10);
    socket.write_all(format!("{head}{first}").as_bytes()).unwrap();
    // A request behind it has been answered, so the node is reading this one's body.
    node.run(&["stream", "append", "b", "--type", "t"]).ok();
    node.signal("-TERM");
    wait_until_nobody_listens(node.address());
    socket.write_all(second.as_bytes()).unwrap();
    let mut reply = String::new();
    socket.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 201 "), "{reply}");
    assert!(node.wait().success(), "a drained node exits with 0");

    let node = Node::start_in(node.folder(), &[]);
    node.run(&["stream", "show", "a"]).ok();
}

fn wait_until_nobody_listens(address: &str) {
    while std::net::TcpStream::connect(address).is_ok() {}
}

#[test]
fn a_subscription_does_not_keep_a_node_from_stopping_and_resumes_on_the_next() {
    let mut node = Node::start();
    let (tail, _stdin) = node.feed(&["log", "tail", "--limit", "2", "--output", "json"]);
    node.run(&["stream", "append", "a", "--type", "first"]).ok();
    let (folder, address) = (node.folder().to_owned(), node.address().to_owned());
    assert!(node.terminate().success());
    let node_again = Node::start_at(&folder, &address, &[]);
    node_again.run(&["stream", "append", "a", "--type", "second"]).ok();
    let seen = crate::harness::ended(tail).ok().stdout;
    let kinds: Vec<serde_json::Value> =
        seen.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["type"].clone()).collect();
    assert_eq!(kinds, ["first", "second"]);
}

#[test]
fn every_acknowledged_append_is_there_after_a_kill_and_answers_as_the_first_time() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start_in(folder.path(), &[]);
    let append = |node: &Node, n: usize| {
        node.run(&["stream", "append", "a", "--type", "t", "--id", &format!("e-{n}"), "--output", "json"]).ok().json()
    };
    let first: Vec<_> = (0..5).map(|n| append(&node, n)).collect();
    node.kill();
    let node = Node::start_in(folder.path(), &[]);
    let again: Vec<_> = (0..5).map(|n| append(&node, n)).collect();
    assert_eq!(again, first);
    assert_eq!(node.count(), 5);
}
