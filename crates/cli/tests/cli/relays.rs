//! Relays from the command line, and a node that is killed while one is paused.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Node, command, ended, file};

const RELAYS: &str = "
[[relay]]
name = 'orders-out'
topic = 'orders'
categories = ['order']

[[relay]]
name = 'stock-out'
transport = 'nats://127.0.0.1:9'
topic = 'stock'
categories = ['stock']
";

/// Shows the relay until `holds` is true of it.
fn until(node: &Node, holds: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let shown = node.run(&["relay", "show", "orders-out", "--output", "json"]).ok().json();
        if holds(&shown) {
            return shown;
        }
        assert!(Instant::now() < until, "{shown}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn append(node: &Node) {
    node.run(&["stream", "append", "order-17", "--type", "order.placed", "--data", "{}"]).ok();
}

fn messages(node: &Node) -> Value {
    node.run(&["queue", "show", "orders.billing", "--output", "json"]).ok().json()["messages"].clone()
}

#[test]
fn relays_of_the_file_are_listed_paused_and_resumed_and_go_on_after_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    file(folder.path(), "quorate.toml", RELAYS);
    let node = Node::start_in(folder.path(), &[]);
    node.run(&["queue", "declare", "orders.billing"]).ok();
    append(&node);
    until(&node, |shown| shown["counts"]["published"] == 1 && shown["subscription"]["lag-events"] == 0);
    assert_eq!(messages(&node), json!(1));
    let listed = node.run(&["relay", "list"]).ok();
    let names: Vec<&str> = listed.rows().iter().map(|row| row[0]).collect();
    assert_eq!(names, ["orders-out", "stock-out"]);

    let paused = node.run(&["relay", "pause", "orders-out", "--reason", "they move"]).ok();
    assert!(paused.stderr.contains("they move"), "{paused:?}");
    append(&node);
    until(&node, |shown| shown["state"] == "paused" && shown["subscription"]["lag-events"] == 1);
    node.kill();
    let node = Node::start_in(folder.path(), &[]);
    let shown = until(&node, |shown| shown["state"] == "paused" && shown["subscription"]["lag-events"] == 1);
    assert_eq!((&shown["paused"]["reason"], messages(&node)), (&json!("they move"), json!(1)));
    node.run(&["relay", "resume", "orders-out"]).ok();
    until(&node, |shown| shown["counts"]["published"] == 1 && shown["subscription"]["lag-events"] == 0);
    assert_eq!(messages(&node), json!(2));

    node.run(&["relay", "wake", "stock-out"]).ok();
    assert_eq!(
        node.run(&["relay", "replay", "stock-out", "--all", "--output", "json"]).ok().json(),
        json!({ "events": 0 })
    );
    assert_eq!(node.run(&["relay", "parked", "stock-out"]).ok().rows().len(), 0);
    assert!(node.run(&["relay", "show", "none"]).failed(3).contains("none"));
}

#[test]
fn a_password_of_a_relay_is_shown_nowhere_and_one_that_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let relay = "[[relay]]\nname = 'out'\ntransport = 'nats://shop@127.0.0.1:9'\npassword-variable = 'NATS_PASSWORD'";
    file(folder.path(), "quorate.toml", relay);
    let show = |password: Option<&str>| {
        let mut show = command(folder.path(), &["config", "show"]);
        show.envs(password.map(|password| ("NATS_PASSWORD", password)));
        ended(show.spawn().unwrap())
    };
    let shown = show(Some("s@cret")).ok();
    assert!(shown.stdout.contains("NATS_PASSWORD") && !shown.stdout.contains("s@cret"), "{shown:?}");
    assert!(show(None).failed(2).contains("there is no environment variable `NATS_PASSWORD`"));
}
