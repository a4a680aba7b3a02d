//! `quorate saga` on files and on a node, and `quorate sim saga`.

use serde_json::Value;

use crate::harness::{Node, file, run};

const ORDER: &str = r#"saga: order
version: 1
key: .input.customer
steps:
  - step: reserve
    http: { url: "http://127.0.0.1:1/reservations" }
    undo: { http: { url: "http://127.0.0.1:1/releases" } }
  - step: charge
    http: { url: "http://127.0.0.1:1/charges" }
    undo: { http: { url: "http://127.0.0.1:1/refunds" } }
  - step: send
    kind: pivot
    http: { url: "http://127.0.0.1:1/parcels" }
"#;

#[test]
fn a_check_names_file_line_and_field() {
    let folder = tempfile::tempdir().unwrap();
    file(folder.path(), "order.yaml", ORDER);
    run(folder.path(), &["saga", "check", "order.yaml"]).ok();
    file(folder.path(), "bad.yaml", ORDER.replace("kind: pivot", "kidn: pivot"));
    let ended = run(folder.path(), &["saga", "check", "bad.yaml", "order.yaml", "--output", "json"]);
    assert_eq!(ended.code, Some(65), "{ended:?}");
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    let found = &told["found"][0];
    assert_eq!((found["file"].as_str(), found["line"].as_u64()), (Some("bad.yaml"), Some(12)), "{told}");
    assert_eq!((found["field"].as_str(), told["sagas"][0]["saga"].as_str()), (Some("steps[2].kidn"), Some("order")));
}

#[test]
fn a_saga_that_compensates_too_early_is_found_out_and_a_barrier_helps_it() {
    let folder = tempfile::tempdir().unwrap();
    file(folder.path(), "order.yaml", ORDER);
    let ended = run(folder.path(), &["sim", "saga", "order.yaml"]).ok();
    assert!(ended.rows().iter().any(|row| row[0] == "charge compensation"), "{}", ended.stdout);
    file(folder.path(), "hasty.yaml", ORDER.replace("- step: charge", "- step: charge\n    quiet: 0s"));
    let found = run(folder.path(), &["sim", "saga", "hasty.yaml"]).failed(6);
    assert!(found.contains("do not end as they should"), "{found}");
    let all = run(folder.path(), &["sim", "saga", "hasty.yaml", "--output", "json"]);
    let told: Value = serde_json::from_str(&all.stdout).unwrap();
    let wrong = told["courses"].as_array().unwrap().iter().filter(|course| course["wrong"] != serde_json::json!([]));
    for course in wrong {
        assert_eq!((&course["call"]["step"], &course["fault"]), (&"charge".into(), &"arrives late".into()), "{course}");
    }
    run(folder.path(), &["sim", "saga", "hasty.yaml", "--barrier"]).ok();
}

#[test]
fn a_saga_is_declared_started_shown_and_decided_about_at_the_command_line() {
    let node = Node::start();
    // Nobody listens: what could not be sent is tried again, so there is time to look.
    file(
        node.folder(),
        "order.yaml",
        ORDER.replace("- step: reserve", "- step: reserve\n    backoff: 1s\n    attempts: 100"),
    );
    let declared = node.run(&["saga", "declare", "order.yaml", "--output", "json"]).ok().json();
    assert_eq!((&declared["version"], &declared["new"]), (&1.into(), &true.into()));
    let input = r#"{"customer":"ada"}"#;
    let start = ["saga", "start", "order", "17", "--input", input, "--output", "json"];
    assert_eq!(node.run(&start).ok().json()["repeated"], false);
    assert_eq!(node.run(&start).ok().json()["repeated"], true);
    node.run(&["saga", "start", "order", "17"]).failed(1);
    let listed = node.run(&["saga", "list", "order", "--key", "ada", "--status", "running", "--output", "json"]).ok();
    assert_eq!(listed.json()["sagas"][0]["id"], "17");
    node.run(&["saga", "skip", "order", "17", "--by", "ada"]).failed(1);
    file(
        node.folder(),
        "waits.yaml",
        ORDER.replace("saga: order", "saga: waits").replace("steps:", "steps:\n  - wait: approval\n    at-most: 1d"),
    );
    node.run(&["saga", "declare", "waits.yaml"]).ok();
    node.run(&["saga", "start", "waits", "1"]).ok();
    let waits = node.run(&["saga", "show", "waits", "1"]).ok();
    assert!(waits.stdout.contains("waits for signal `approval`, until 20"), "{}", waits.stdout);
    node.run(&["saga", "abort", "order", "17", "--by", "ada", "--note", "never mind"]).ok();
    let shown = node.run(&["saga", "show", "order", "17", "--wait", "20"]).ok();
    assert!(shown.stdout.contains("order 17, version 1: compensated: never mind"), "{}", shown.stdout);
    assert!(shown.stdout.contains("refused"), "what could not be sent was not done: {}", shown.stdout);
    node.run(&["saga", "show", "order", "18"]).failed(3);
    assert_eq!(node.run(&["saga", "document", "order"]).ok().stdout.lines().next(), Some("saga: order"));
    assert!(node.run(&["saga", "definitions"]).ok().stdout.contains("order"));
}

const PAYMENT: &str = r#"saga: payment
version: 1
steps:
  - wait: go
  - step: hold
    queue: { name: mails, type: money.held }
    undo: { queue: { name: mails, type: money.released } }
"#;

/// Where nothing is to be shipped, what its message says cannot be worked out, and the step is refused.
const PAID_ORDER: &str = r#"saga: order
version: 1
steps:
  - step: reserve
    queue: { name: mails, type: item.reserved }
    undo: { queue: { name: mails, type: item.released } }
  - step: pay
    saga: { name: payment, version: 1 }
  - step: ship
    queue: { name: mails, type: parcel.due, data: "1 / .input.parcels" }
"#;

#[test]
fn sagas_whose_steps_are_sagas_in_flight_end_once_each_though_their_node_is_killed() {
    const ORDERS: usize = 6;
    let folder = tempfile::tempdir().unwrap();
    file(folder.path(), "payment.yaml", PAYMENT);
    file(folder.path(), "order.yaml", PAID_ORDER);
    let courses = run(folder.path(), &["sim", "saga", "order.yaml", "--input", r#"{"parcels":1}"#]).ok();
    assert!(courses.rows().iter().any(|row| row[0] == "pay compensation"), "{}", courses.stdout);
    let node = Node::start_in(folder.path(), &[]);
    node.run(&["queue", "declare", "mails"]).ok();
    for document in ["payment.yaml", "order.yaml"] {
        node.run(&["saga", "declare", document]).ok();
    }
    let ids: Vec<String> = (0..ORDERS).map(|id| id.to_string()).collect();
    for (n, id) in ids.iter().enumerate() {
        let input = format!(r#"{{"parcels":{}}}"#, n % 2);
        node.run(&["saga", "start", "order", id, "--input", &input]).ok();
    }
    node.kill();

    let node = Node::start_in(folder.path(), &[]);
    let child = |node: &Node, id: &str| {
        let listed = node.run(&["saga", "list", "--parent", &format!("order/{id}"), "--output", "json"]).ok().json();
        let [child] = listed["sagas"].as_array().unwrap().as_slice() else { panic!("{listed}") };
        child["id"].as_str().unwrap().to_owned()
    };
    let children: Vec<String> = ids.iter().map(|id| child(&node, id)).collect();
    let go = |node: &Node, child: &str| node.run(&["saga", "signal", "payment", child, "go", "--signal-id", "s"]).ok();
    children.iter().take(ORDERS / 2).for_each(|child| drop(go(&node, child)));
    node.kill();

    let node = Node::start_in(folder.path(), &[]);
    children.iter().for_each(|child| drop(go(&node, child)));
    for (n, (id, child)) in ids.iter().zip(&children).enumerate() {
        let ended = node.run(&["saga", "show", "order", id, "--wait", "60", "--output", "json"]).ok().json();
        let status = if n % 2 == 1 { "completed" } else { "compensated" };
        assert_eq!(ended["status"], status, "{ended}");
        let [only] = ended["children"].as_array().unwrap().as_slice() else { panic!("{ended}") };
        assert_eq!((&only["id"], &only["status"]), (&child.as_str().into(), &status.into()), "{ended}");
    }
    let shown = node.run(&["saga", "show", "order", "1"]).ok();
    assert!(shown.stdout.contains(&format!("`pay` is payment {}: completed", children[1])), "{}", shown.stdout);
    let shown = node.run(&["saga", "show", "payment", &children[0]]).ok();
    assert!(shown.stdout.contains("started by step `pay` of order/0"), "{}", shown.stdout);
}

#[test]
fn sagas_run_with_their_node_killed_and_a_bank_that_fails_and_what_they_claim_holds() {
    let folder = tempfile::tempdir().unwrap();
    let told = run(folder.path(), &["patterns", "saga", "--output", "json"]).ok().json();
    let claims = told["claims"].as_array().unwrap();
    assert!(claims.len() >= 7 && claims.iter().all(|claim| claim["holds"] == true), "{told}");
    let [done, undone] = told["timelines"].as_array().unwrap().as_slice() else { panic!("{told}") };
    let steps = |timeline: &Value| -> Vec<String> {
        let steps = timeline["steps"].as_array().unwrap().iter();
        steps.map(|step| step["step"].as_str().unwrap().to_owned()).filter(|step| step != "the node is down").collect()
    };
    assert_eq!(steps(done), ["tell", "reserve", "charge", "ship"], "{done}");
    assert!(done["steps"].as_array().unwrap().iter().any(|step| step["step"] == "the node is down"), "{done}");
    let all = ["tell", "reserve", "charge", "ship", "undo charge", "undo reserve", "undo tell"];
    assert_eq!(steps(undone), all, "{undone}");
}
