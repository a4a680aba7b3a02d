//! `quorate process` on files and on a node; and a node that is killed while it tells what is overdue.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use crate::harness::{Node, file, run};

/// What does not come is overdue at once.
const ORDER: &str = "process: order
by: subject
start: beginning
begins: [placed]
ends: [done]
expect:
- after: placed
  events: [paid, refused]
  within: 1ms
- after: paid
  events: [sent]
  within: 30d
";

/// How often it is looked: for much longer than a busy machine takes.
const LOOKS: usize = 2_000;

fn event(kind: &str, id: &str, course: &str) -> String {
    format!(r#"{{"specversion":"1.0","id":"{id}","source":"/shop","type":"{kind}","subject":"{course}"}}"#)
}

fn import(node: &Node, lines: &[String]) {
    node.run_with(&["stream", "import", "-"], lines.join("\n").as_bytes()).ok();
}

fn courses(node: &Node, state: &str) -> Vec<String> {
    let listed = node.run(&["process", "courses", "order", "--state", state, "--all", "--output", "json"]).ok().json();
    let all = listed["courses"].as_array().unwrap().clone();
    all.iter().map(|one| one["course"].as_str().unwrap().to_owned()).collect()
}

fn until(node: &Node, state: &str, count: usize) {
    for _ in 0..LOOKS {
        if courses(node, state).len() == count {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{:?} are {state}, not {count}", courses(node, state));
}

/// How often each course was told to have something overdue.
fn told(node: &Node) -> BTreeMap<String, usize> {
    let log = node.run(&["log", "read", "--all", "--output", "json"]).ok().json();
    let mut told = BTreeMap::new();
    for event in log["events"].as_array().unwrap().iter().filter(|one| one["type"] == "quorate.process.overdue") {
        *told.entry(event["subject"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    told
}

#[test]
fn a_check_names_file_line_and_field() {
    let folder = tempfile::tempdir().unwrap();
    file(folder.path(), "order.yaml", ORDER);
    let fine = run(folder.path(), &["process", "check", "order.yaml"]).ok();
    assert!(fine.stdout.contains("1 processes, and nothing is wrong"), "{fine:?}");
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/sagas/order-process.yaml");
    run(folder.path(), &["process", "check", example]).ok();
    file(folder.path(), "bad.yaml", ORDER.replace("within: 30d", "within: soon"));
    let circle =
        "process: circle\nbegins: [a]\nreactions:\n- {on: a, emits: [b], by: x}\n- {on: b, emits: [a], by: y}\n";
    file(folder.path(), "circle.yaml", circle);
    let ended = run(folder.path(), &["process", "check", "bad.yaml", "circle.yaml", "order.yaml", "--output", "json"]);
    assert_eq!(ended.code, Some(65), "{ended:?}");
    let told: Value = ended.json();
    let found = told["found"].as_array().unwrap();
    assert_eq!((&found[0]["file"], &found[0]["line"]), (&"bad.yaml".into(), &12.into()), "{told}");
    assert!(found[1]["what"].as_str().unwrap().contains("a → b (by x) → a (by y)"), "{told}");
    assert_eq!(told["processes"][0]["process"], "order");
}

#[test]
fn a_process_is_declared_shown_drawn_had_go_on_and_removed_at_the_command_line() {
    let node = Node::start();
    file(node.folder(), "order.yaml", format!("{ORDER}max-repeats: 1\n"));
    let declared = node.run(&["process", "declare", "order.yaml", "--output", "json"]).ok().json();
    assert_eq!((&declared["process"], &declared["new"]), (&"order".into(), &true.into()));
    assert!(node.run(&["process", "document", "order"]).ok().stdout.starts_with("process: order\n"));
    let again = event("placed", "c", "2").replace("\"subject\"", "\"causationid\":\"b\",\"subject\"");
    import(&node, &[event("placed", "a", "1"), event("placed", "b", "2"), again]);
    until(&node, "overdue", 1);
    until(&node, "stopped", 1);
    let listed = node.run(&["process", "list"]).ok();
    assert_eq!(listed.rows()[0][..4], ["order", "0", "1", "1"], "{}", listed.stdout);
    let shown = node.run(&["process", "show", "order"]).ok();
    assert!(shown.stdout.starts_with("order, declared by a document: "), "{}", shown.stdout);
    assert!(shown.stdout.contains("paid or refused"), "{}", shown.stdout);
    let course = node.run(&["process", "show", "order", "1"]).ok();
    assert!(course.stdout.contains("paid or refused is overdue since 20"), "{}", course.stdout);
    let tree = node.run(&["process", "graph", "order", "1"]).ok();
    assert!(tree.stdout.contains("✗ paid or refused is overdue"), "{}", tree.stdout);
    assert!(node.run(&["process", "graph", "order", "1", "--as", "mermaid"]).ok().stdout.starts_with("flowchart TD\n"));
    let drawn = node.run(&["process", "graph", "order", "1", "--output", "json"]).ok().json();
    assert_eq!(drawn["missing"][0]["overdue"], true, "{drawn}");

    node.run(&["process", "resume", "order", "2"]).failed(2);
    let gone_on = node.run(&["process", "resume", "order", "2", "--by", "ada", "--output", "json"]).ok().json();
    assert_eq!(gone_on["course"], "2", "{gone_on}");
    let refused = node.run(&["process", "resume", "order", "2", "--by", "ada"]).failed(1);
    assert!(refused.contains("not stopped"), "{refused}");
    node.run(&["process", "show", "order", "3"]).failed(3);
    node.run(&["process", "show", "other"]).failed(3);
    node.run(&["process", "declare", "order.txt"]).failed(2);
    node.run(&["process", "remove", "order"]).ok();
    node.run(&["process", "show", "order"]).failed(3);
    assert_eq!(node.run(&["process", "list", "--output", "json"]).ok().json()["processes"], serde_json::json!([]));
}

#[test]
fn what_is_overdue_is_told_exactly_once_however_often_the_node_is_killed() {
    const ROUNDS: usize = 6;
    const COURSES: usize = 40;
    let folder = tempfile::tempdir().unwrap();
    file(folder.path(), "order.yaml", ORDER);
    let mut node = Node::start_in(folder.path(), &[]);
    node.run(&["process", "declare", "order.yaml"]).ok();
    for round in 0..ROUNDS {
        let placed = |n| event("placed", &format!("{round}-{n}"), &format!("{round}-{n}"));
        import(&node, &(0..COURSES).map(placed).collect::<Vec<_>>());
        // Some of it is told by then, some is not, and some is being told.
        std::thread::sleep(Duration::from_millis(4 * round as u64));
        node.kill();
        node = Node::start_in(folder.path(), &[]);
    }
    until(&node, "overdue", ROUNDS * COURSES);
    // What was told stays told over an answer and one more kill.
    import(&node, &[event("paid", "late", "0-0")]);
    until(&node, "on-time", 1);
    node.kill();
    let node = Node::start_in(folder.path(), &[]);
    import(&node, &[event("placed", "last", "last")]);
    until(&node, "overdue", ROUNDS * COURSES);
    let told = told(&node);
    let doubled: Vec<_> = told.iter().filter(|(_, count)| **count != 1).collect();
    assert_eq!((told.len(), doubled), (ROUNDS * COURSES + 1, vec![]));
}
