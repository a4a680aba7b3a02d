//! `quorate txn begin`, and nodes that are killed in the middle of what they coordinate. The participants outlive them.

use serde_json::{Value, json};

use crate::{
    harness::{Node, file},
    participant::{Mood, Participant},
};

/// Who may be called.
const NEIGHBOURS: [&str; 2] = ["--transactions.allow", "127.0.0.0/8"];

/// A transaction among `participants`, with an event for the stream `moved`.
fn document(id: &str, participants: &[&Participant]) -> Value {
    let participants: Vec<Value> = participants.iter().map(|one| one.asked_for(json!({ "amount": 30 }))).collect();
    let noted = json!({ "specversion": "1.0", "id": id, "source": "/test", "type": "money.moved" });
    json!({ "id": id, "participants": participants, "events": [{ "stream": "moved", "events": [noted] }] })
}

/// How it ended, for whoever waits for that.
fn begun(node: &Node, of_file: &str) -> Value {
    node.run(&["txn", "begin", of_file, "--wait", "30", "--output", "json"]).json()
}

fn moved(node: &Node) -> usize {
    let read = node.run(&["stream", "read", "moved", "--output", "json"]);
    if read.code == Some(3) { 0 } else { read.ok().json()["events"].as_array().unwrap().len() }
}

#[test]
fn a_node_killed_at_any_point_leaves_all_participants_the_same_and_its_caller_learns_how_it_ended() {
    let at_prepare = Mood::StillAtPrepare;
    let (at_commit, folder) = (Mood::StillAtCommit, tempfile::tempdir().unwrap());
    let mut node = Node::start_in(folder.path(), &NEIGHBOURS);
    let mut committed = 0;
    let points = [(at_prepare, at_prepare), (Mood::Good, at_prepare), (at_commit, at_commit), (Mood::Good, at_commit)];
    for (n, point) in points.into_iter().enumerate() {
        let (left, right) = (Participant::new(), Participant::new());
        left.be(point.0);
        right.be(point.1);
        let written = file(folder.path(), &format!("{n}.json"), document(&n.to_string(), &[&left, &right]).to_string());
        let (mut asking, _) = node.feed(&["txn", "begin", &written]);
        right.until_still();
        match point {
            (Mood::Good, Mood::StillAtPrepare) => left.until_held(1),
            (Mood::Good, _) => left.until_ended(1),
            _ => left.until_still(),
        }
        node.kill();
        asking.kill().unwrap();
        asking.wait().unwrap();
        // What was on its way arrives now.
        left.be(Mood::Good);
        right.be(Mood::Good);
        node = Node::start_in(folder.path(), &NEIGHBOURS);
        let told = begun(&node, &written);
        let is_decided = point.1 == at_commit;
        let (status, ending) = if is_decided { ("committed", "commit") } else { ("aborted", "abort") };
        assert_eq!(told["status"], status, "{point:?}: {told}");
        let gid = told["transaction"].as_str().unwrap();
        for one in [&left, &right] {
            one.until_ended(1);
            one.until_held(0);
            assert_eq!(one.ended(), [(gid.to_owned(), ending)].into(), "{point:?}");
            assert_eq!(one.prepares(), 1, "{point:?}: nobody is asked again");
        }
        committed += usize::from(is_decided);
        assert_eq!(moved(&node), committed, "{point:?}");
        let listed = node.run(&["txn", "list", "--output", "json"]).ok().json();
        assert_eq!(listed["transactions"], json!([]), "{point:?}");
    }
}

#[test]
fn a_transaction_is_begun_from_a_file_and_how_it_ended_is_told_by_the_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let patient = ["--transactions.prepare-timeout", "1h", "--http.max-wait", "100ms"];
    let node = Node::start_in(folder.path(), &[&NEIGHBOURS[..], &patient].concat());
    let (left, right) = (Participant::new(), Participant::new());
    let yaml = format!(
        "id: transfer-1\nparticipants:\n  - url: {}\n    work: {{ amount: 30 }}\n  - url: {}\n    work: {{ amount: 30 }}\n",
        left.address(),
        right.address()
    );
    let written = file(folder.path(), "transfer.yaml", yaml);
    let done = node.run(&["txn", "begin", &written]).ok();
    assert_eq!((done.rows()[0][0], done.rows()[0][2]), ("transfer-1", "committed"), "{}", done.stdout);
    let shown = node.run(&["txn", "show", "transfer-1", "--wait", "1"]).ok().stdout;
    assert!(shown.contains("decision commit") && shown.contains("committed"), "{shown}");
    // A number is told as it is written, so that the file and the node's own interface speak of the same.
    let one = |amount: &str| {
        let json = format!(
            r#"{{"id":"transfer-0","participants":[{{"url":"{}","work":{{"amount":{amount}}}}}]}}"#,
            left.address()
        );
        file(folder.path(), "one.json", json)
    };
    node.run(&["txn", "begin", &one("1.50")]).ok();
    node.run(&["txn", "begin", &one("1.50")]).ok();
    assert!(node.run(&["txn", "begin", &one("1.5")]).failed(1).contains("something else"));
    right.be(Mood::Unwilling);
    let refused = node.run(&["txn", "begin", &written, "--id", "transfer-2"]);
    assert!(
        refused.stdout.contains("nothing is left of it") && refused.stdout.contains(right.address()),
        "{refused:?}"
    );
    assert!(refused.failed(1).contains("it is aborted"));
    right.be(Mood::StillAtPrepare);
    let (mut asking, _) = node.feed(&["txn", "begin", &written, "--id", "transfer-3"]);
    right.until_still();
    // For longer than the node waits for one request.
    let (mut waiting, _) = node.feed(&["txn", "begin", &written, "--id", "transfer-3", "--wait", "300"]);
    let open = node.run(&["txn", "begin", &written, "--id", "transfer-3", "--wait", "1"]);
    assert!(open.failed(5).contains("it may be either"));
    right.be(Mood::Good);
    assert!(asking.wait().unwrap().success());
    assert!(waiting.wait().unwrap().success());
    let list = file(folder.path(), "list.yaml", "- 1\n");
    assert!(node.run(&["txn", "begin", &list, "--id", "transfer-4"]).failed(65).contains("no object"));
    let listed = node.run(&["txn", "participants"]).ok();
    assert_eq!(listed.rows(), [[left.address(), "service"], [right.address(), "service"]]);
    let remove = ["txn", "remove", right.address(), "--by", "carol", "--why", "it moved away"];
    // It may not have been told yet how the last one ended.
    let removed = (0..600).map(|_| node.run(&remove)).find(|removed| removed.code == Some(0)).expect("it is removed");
    assert_eq!(removed.rows()[0], [right.address(), "true"]);
    assert_eq!(node.run(&["txn", "participants"]).ok().rows().len(), 1);
}
