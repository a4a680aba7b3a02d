//! Inboxes from the command line, and a node that is killed while messages come in.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Node, file};

const INBOX: &str = "
[[inbox]]
name = 'orders-in'
topic = 'orders'
group = 'billing'
stream = 'in-{key}'
hold = '1s'
";

/// Shows the inbox until `holds` is true of it.
fn until(node: &Node, holds: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let shown = node.run(&["inbox", "show", "orders-in", "--output", "json"]).ok().json();
        if holds(&shown) {
            return shown;
        }
        assert!(Instant::now() < until, "{shown}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn send(node: &Node, id: &str, group: &str) {
    node.run(&["queue", "send", "orders.billing", "--id", id, "--source", "/shop", "--type", "x", "--group", group])
        .ok();
}

#[test]
fn an_inbox_of_the_file_takes_each_message_in_once_whenever_its_node_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    file(folder.path(), "quorate.toml", INBOX);
    let mut node = Node::start_in(folder.path(), &[]);
    until(&node, |shown| shown["state"] == "receiving");
    for n in 0..6 {
        send(&node, &n.to_string(), "a");
        if n % 2 == 1 {
            node.kill();
            node = Node::start_in(folder.path(), &[]);
            until(&node, |shown| shown["state"] == "receiving");
        }
    }
    send(&node, "end", "b");
    let all = Instant::now() + Duration::from_secs(120);
    while node.count() < 7 {
        assert!(Instant::now() < all, "{} of 7 came", node.count());
        std::thread::sleep(Duration::from_millis(100));
    }
    let read = node.run(&["stream", "read", "in-a", "--output", "json"]).ok().stdout;
    let ids: Vec<&str> =
        ["0", "1", "2", "3", "4", "5"].into_iter().filter(|id| read.contains(&format!("\"id\":\"{id}\""))).collect();
    assert_eq!(ids.len(), 6, "{read}");
    let listed = node.run(&["inbox", "list"]).ok();
    assert_eq!(listed.rows()[0][0], "orders-in");
    assert_eq!(
        node.run(&["inbox", "replay", "orders-in", "--all", "--output", "json"]).ok().json()["messages"],
        json!(0)
    );
    assert_eq!(
        node.run(&["inbox", "discard", "orders-in", "--key", "a", "--output", "json"]).ok().json(),
        json!({ "messages": 0 })
    );
    assert_eq!(node.run(&["inbox", "parked", "orders-in"]).ok().rows().len(), 0);
    node.run(&["inbox", "replay", "orders-in"]).failed(2);
}
