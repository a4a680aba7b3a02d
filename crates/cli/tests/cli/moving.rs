//! `quorate move`: real processes, which are killed.

use std::{path::Path, time::Duration};

use serde_json::{Value, json};

use crate::{
    harness::{Node, command, run},
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

/// A node over a store: an address, or the data directory `data` of a folder.
fn over(folder: &Path, place: &str) -> Node {
    if place.starts_with("postgres://") {
        return Node::start_at(folder, "127.0.0.1:0", &["--store", place]);
    }
    let of_node = folder.join(place.strip_suffix("/data").unwrap());
    std::fs::create_dir_all(&of_node).unwrap();
    Node::start_at(&of_node, "127.0.0.1:0", &[])
}

/// The whole log, as it is shown.
fn log(node: &Node) -> Vec<Value> {
    let read = node.run(&["log", "read", "--limit", "1000", "--output", "json"]).ok().json();
    read["events"].as_array().unwrap().clone()
}

fn append(node: &Node, id: &str) -> Value {
    let args = ["stream", "append", "order-1", "--type", "placed", "--id", id, "--data", "{}", "--output", "json"];
    node.run(&args).ok().json()
}

/// What a pattern hands out next, which is settled.
fn taken(node: &Node, [pattern, verb, name]: [&str; 3]) -> Option<String> {
    let taken = node.run(&[pattern, verb, name, "--wait", "5s", "--output", "json"]).ok().json();
    let delivery = taken["deliveries"].as_array().unwrap().first()?;
    node.run(&[pattern, "ack", name, delivery["lease"].as_str().unwrap()]).ok();
    Some(delivery["event"]["id"].as_str().unwrap().to_owned())
}

fn send(node: &Node, id: &str) {
    node.run(&["queue", "send", "mails", "--type", "mail.due", "--id", id, "--data", "{}"]).ok();
}

fn receive(node: &Node) -> Option<String> {
    taken(node, ["queue", "receive", "mails"])
}

#[test]
fn a_store_moves_to_a_database_and_back_and_its_node_goes_on() {
    let (own, folder) = (own!(), tempfile::tempdir().unwrap());
    let (folder, address) = (folder.path(), own.address());
    let mut node = over(folder, "here/data");
    for id in ["1", "2", "3", "4"] {
        append(&node, id);
    }
    node.run(&["subscription", "create", "billing"]).ok();
    node.run(&["queue", "declare", "mails"]).ok();
    ["m1", "m2", "m3"].iter().for_each(|id| send(&node, id));
    let mut left = log(&node);
    assert!(node.terminate().success());

    for (n, (from, to)) in [("here/data", &*address), (&address, "back/data")].into_iter().enumerate() {
        let moved = run(folder, &["move", from, to, "--verify", "--output", "json"]).ok().json();
        assert_eq!((&moved["events"], &moved["verified"]), (&json!(left.len()), &json!(true)), "{moved}");
        let flag = |place: &str| if place.starts_with("postgres") { "--store" } else { "--data" };
        let told = run(folder, &["serve", "--listen", "127.0.0.1:0", flag(from), from]).failed(1);
        assert!(told.contains("has moved to"), "{told}");
        let again = run(folder, &["move", from, to, "--output", "json"]).ok().json();
        assert_eq!(again["tables"], json!([]), "it was done: {again}");

        node = over(folder, to);
        assert_eq!(log(&node), left, "every attribute of every event");
        assert_eq!(append(&node, "1")["streamversion"], "1", "it is known");
        for expected in [["1", "2"], ["3", "4"]][n] {
            let next = taken(&node, ["subscription", "pull", "billing"]);
            assert_eq!(next.as_deref(), Some(expected), "the subscription goes on where it was");
        }
        assert_eq!(receive(&node), Some(format!("m{}", n + 1)), "and so does the queue");
        send(&node, &format!("m{}", n + 4));
        append(&node, &format!("behind {n}"));
        assert_eq!(node.run(&["store", "verify", "--output", "json"]).ok().json()["sound"], true);
        left = log(&node);
        assert!(node.terminate().success());
    }
    let node = over(folder, "back/data");
    let rest: Vec<_> = std::iter::from_fn(|| receive(&node)).take(3).collect();
    assert_eq!(rest, ["m3", "m4", "m5"], "what was sent on either side stands behind what was there");
}

/// Kills it again and again, each time a little later, until it ends by itself. How often it was killed.
fn moved_and_killed(folder: &Path, from: &str, to: &str) -> usize {
    let mut span = Duration::from_millis(15);
    for kills in 0..200 {
        let mut moving = command(folder, &["move", from, to]).spawn().unwrap();
        std::thread::sleep(span);
        if let Some(status) = moving.try_wait().unwrap() {
            // What a killed process held is given back when its connections end, which may take a moment.
            if status.success() {
                return kills;
            }
            assert_eq!(status.code(), Some(4), "{:?}", moving.wait_with_output());
        }
        moving.kill().unwrap();
        moving.wait().unwrap();
        span = span.mul_f64(1.25);
    }
    panic!("it never ends")
}

#[test]
fn a_move_that_is_killed_again_and_again_ends_with_everything() {
    let (own, folder) = (own!(), tempfile::tempdir().unwrap());
    let (folder, address) = (folder.path(), own.address());
    let mut node = over(folder, "here/data");
    let event = |n: usize| {
        json!({ "specversion": "1.0", "type": "seen", "source": "/import", "id": format!("{n}"),
        "subject": format!("thing-{}", n % 50), "data": { "n": n } })
    };
    let lines: String = (0..6_000).map(|n| format!("{}\n", event(n))).collect();
    node.run_with(&["stream", "import", "-"], lines.as_bytes()).ok();
    node.run(&["queue", "declare", "mails"]).ok();
    node.run(&["queue", "send", "mails", "--type", "mail.due", "--id", "m1", "--data", "{}"]).ok();
    let first = log(&node);
    assert!(node.terminate().success());

    let kills = moved_and_killed(folder, "here/data", &address);
    assert!(kills > 0);
    let node = over(folder, &address);
    assert_eq!(log(&node), first);
    let verified = node.run(&["store", "verify", "--output", "json"]).ok().json();
    assert_eq!((&verified["sound"], &verified["events"]), (&json!(true), &json!(6_000)), "{verified}");
    node.kill();
    let kills = moved_and_killed(folder, &address, "back/data");
    assert!(kills > 0);
    let node = over(folder, "back/data");
    assert_eq!(log(&node), first);
    let verified = node.run(&["store", "verify", "--output", "json"]).ok().json();
    assert_eq!((&verified["sound"], &verified["events"]), (&json!(true), &json!(6_000)), "{verified}");
    assert_eq!(receive(&node), Some("m1".to_owned()));
    let again = run(folder, &["move", &address, "back/data", "--output", "json"]).failed(4);
    assert!(again.contains("is open in another process"), "{again}");
}

#[test]
fn a_move_that_cannot_be_says_why_and_what_to_do() {
    let (own, folder) = (own!(), tempfile::tempdir().unwrap());
    let (folder, address) = (folder.path(), own.address());
    let told = run(folder, &["move", "nowhere", &address]).failed(3);
    assert!(told.contains("nowhere"), "{told}");
    run(folder, &["move", &address, "nowhere"]).failed(3);
    run(folder, &["move", "one", "mysql://u:s3cret@h/db"]).failed(2);

    let mut node = over(folder, "here/data");
    append(&node, "1");
    let told = run(folder, &["move", "here/data", &address]).failed(4);
    assert!(told.contains("stop the node"), "{told}");
    node.run(&["stream", "append", "order-2", "--type", "placed", "--data", "{}"]).ok();
    node.run(&["stream", "truncate", "order-2", "--before", "2"]).ok();
    assert!(node.terminate().success());
    let told = run(folder, &["move", "here/data", "there"]).failed(2);
    assert!(told.contains("restore it where it is to be"), "{told}");
    let told = run(folder, &["move", "here/data", &address]).failed(1);
    assert!(told.contains("`order-2`"), "{told}");

    let mut other = over(folder, &address);
    append(&other, "1");
    assert!(other.terminate().success());
    over(folder, "plain/data").terminate();
    let told = run(folder, &["move", "plain/data", &address]).failed(1);
    assert!(told.contains("overwrites nothing") && told.contains("--schema"), "{told}");
}
