//! Message queues from the command line: declare, send, receive, settle, park, replay.

use serde_json::Value;

use crate::harness::Node;

fn json(node: &Node, args: &[&str]) -> Value {
    node.run(&[&["queue"], args, &["--output", "json"]].concat()).ok().json()
}

fn leases(received: &Value) -> Vec<String> {
    let deliveries = received["deliveries"].as_array().unwrap();
    deliveries.iter().map(|delivery| delivery["lease"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn messages_are_sent_received_settled_parked_and_replayed() {
    let node = Node::start();
    let declare = ["declare", "mails", "--lease-ttl", "1m", "--backoff-first", "10ms", "--rate", "1000/1s"];
    let declared = json(&node, &declare);
    assert_eq!((&declared["config"]["lease-ttl"], &declared["config"]["rate"]["count"]), (&"1m".into(), &1000.into()));
    assert_eq!(node.run(&["queue", "list"]).ok().rows(), [["mails", "1m", "10", "7days"]]);
    for id in ["a", "b", "c", "a"] {
        let data = format!(r#"{{"to": "{id}", "n": 1.50}}"#);
        let send = ["queue", "send", "mails", "--type", "mail.due", "--id", id, "--data", &data, "--group", id];
        let repeated = node.run(&send).ok();
        assert_eq!(repeated.rows().len(), 1, "{repeated:?}");
    }
    let received = json(&node, &["receive", "mails", "--max", "9", "--wait", "2s"]);
    let held = leases(&received);
    assert_eq!((held.len(), &received["deliveries"][0]["group"]), (3, &"a".into()));
    assert_eq!(json(&node, &["extend", "mails", &held[0], "--ttl", "2m"])["leases"], 1);
    assert_eq!(node.run(&["queue", "ack", "mails", &held[0]]).ok().stdout, "LEASES\n     1\n");
    assert_eq!(json(&node, &["nack", "mails", &held[1], "--delay", "1h", "--reason", "busy"])["leases"], 1);
    assert_eq!(json(&node, &["park", "mails", &held[2], "--reason", "no such address"])["leases"], 1);
    let lost = node.run(&["queue", "ack", "mails", &held[0]]).failed(1);
    assert!(lost.contains("Lease is lost") && lost.contains("/errors/lease-lost"), "{lost}");
    let shown = json(&node, &["show", "mails"]);
    assert_eq!((&shown["waiting"], &shown["parked"]), (&1.into(), &1.into()));
    let table = node.run(&["queue", "parked", "mails"]).ok();
    assert_eq!((table.rows()[0][0], table.rows()[0][5]), ("c", "no such address"));
    let mended = r#"{"specversion":"1.0","id":"c","source":"/quorate/cli","type":"mail.due","data":{"to":"mended"}}"#;
    assert_eq!(json(&node, &["replay", "mails", "--event", mended])["messages"], 1);
    let again = json(&node, &["receive", "mails"]);
    assert_eq!(again["deliveries"][0]["event"]["data"]["to"], "mended");
    assert_eq!(json(&node, &["discard", "mails", "--all"])["messages"], 0);
    assert_eq!(node.run(&["queue", "delete", "mails"]).ok().stdout, "DELETED\nmails\n");
}

#[test]
fn a_script_tells_missing_refused_and_unusable_apart() {
    let node = Node::start();
    json(&node, &["declare", "mails", "--max-messages", "1"]);
    let run = |args: &[&str]| node.run(&[&["queue"], args].concat());
    for action in [&["show", "x"][..], &["delete", "x"], &["receive", "x"], &["replay", "x", "--all"]] {
        assert!(run(action).failed(3).contains("queue-not-found"), "{action:?}");
    }
    run(&["send", "mails", "--type", "t"]).ok();
    assert!(run(&["send", "mails", "--type", "t"]).failed(1).contains("queue-full"));
    run(&["send", "mails", "--type", "t", "--priority", "10"]).failed(2);
    run(&["declare", "other", "--rate", "often"]).failed(2);
    run(&["ack", "mails", "not-a-lease"]).failed(2);
    run(&["replay", "mails"]).failed(2);
}

#[test]
fn messages_are_sent_by_the_clock_and_taken_as_they_come() {
    let node = Node::start();
    json(&node, &["declare", "reports"]);
    let declare = ["schedule", "reports", "often", "--cron", "* * * * * *", "--type", "report.due"];
    let says = ["--data", r#"{"n": 1.50}"#, "--unique", "report", "--missed", "skip"];
    let declared = json(&node, &[&declare[..], &says].concat());
    assert_eq!((&declared["schedule"], &declared["time-zone"]), (&"often".into(), &"UTC".into()));
    let listed = node.run(&["queue", "schedules", "reports"]).ok();
    assert_eq!(listed.rows()[0][0], "often");
    let subscribe = ["queue", "subscribe", "reports", "--window", "1", "--limit", "1", "--output", "json"];
    let told = node.run(&subscribe).ok();
    assert!(told.stdout.contains(r#""data":{"n": 1.50}"#), "{told:?}");
    let delivery: Value = serde_json::from_str(told.stdout.trim()).unwrap();
    assert!(delivery["event"]["id"].as_str().unwrap().starts_with("often@20"), "{delivery}");
    assert_eq!(node.run(&["queue", "unschedule", "reports", "often"]).ok().stdout, "DELETED\noften\n");
    let send = ["send", "reports", "--type", "report.due", "--id", "by-hand", "--unique", "report"];
    assert_eq!(json(&node, &send)["messages"][0]["held-by"], delivery["event"]["id"]);
    assert_eq!(json(&node, &["ack", "reports", delivery["lease"].as_str().unwrap()])["leases"], 1);
    assert_eq!(json(&node, &send)["messages"][0]["repeated"], false);
    assert!(node.run(&["queue", "unschedule", "reports", "often"]).failed(3).contains("schedule-not-found"));
    node.run(&["queue", "schedule", "reports", "x", "--type", "t", "--cron", "often"]).failed(2);
}
