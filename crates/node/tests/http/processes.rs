//! Choreographed processes over HTTP: declared, followed over restarts, looked at, drawn, and had go on.

use quorate_consistency::saga::choreography::{Process, Processes};
use serde_json::{Value, json};

use crate::{
    client::{Reply, get, post, request},
    node::{Node, node},
};

/// What is paid for is overdue at once, and what is sent in an hour.
const ORDER: &str = "process: order
begins: [placed]
ends: [done]
undone: [cancelled]
expect:
- after: placed
  events: [paid, refused]
  within: 1ms
- after: paid
  events: [sent]
  within: 1h
reactions:
- by: bank
  on: placed
  emits: [paid, refused]
";

async fn declare(node: &Node, name: &str, text: &str) -> Reply {
    let put = request("PUT", format!("/v1/processes/{name}"));
    node.send(put.header("content-type", "application/yaml").body(text.to_owned())).await
}

async fn append(node: &Node, kind: &str, id: &str, course: &str, cause: Option<&str>) {
    let mut event = json!({ "specversion": "1.0", "id": id, "source": "/shop", "type": kind, "correlationid": course });
    if let Some(cause) = cause {
        event["causationid"] = cause.into();
    }
    let reply = node.send(post("/v1/streams/orders/events").event(event.to_string())).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
}

/// The course, once it stands so.
async fn until(node: &Node, course: &str, state: &str) -> Value {
    let path = format!("/v1/processes/order/courses/{course}");
    for _ in 0..6_000 {
        let found = node.get(&path).await;
        if found.status == 200 && found.json()["state"] == state {
            return found.json();
        }
        node.pause(std::time::Duration::from_millis(10)).await;
    }
    panic!("{course} is not {state}: {}", node.get(&path).await.text());
}

/// What the process told, by type.
async fn told(node: &Node, kind: &str) -> Vec<Value> {
    let found = node.get("/v1/streams/process-order/events").await;
    if found.status == 404 {
        return Vec::new();
    }
    let events = found.json()["events"].as_array().unwrap().clone();
    events.into_iter().filter(|event| event["type"] == kind).map(|event| event["data"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_is_followed_over_a_restart_and_tells_what_is_overdue_once() {
    let node = node().await;
    let declared = declare(&node, "order", ORDER).await;
    let shown = json!({ "process": "order", "new": true, "changed": false });
    assert_eq!((declared.status, declared.json()), (201, shown), "{}", declared.text());
    let again = declare(&node, "order", ORDER).await;
    assert_eq!((again.status, &again.json()["changed"]), (200, &json!(false)));
    append(&node, "placed", "a", "1", None).await;
    append(&node, "placed", "b", "2", None).await;
    let overdue = until(&node, "1", "overdue").await;
    assert_eq!(overdue["expected"][0]["overdue"], true, "{overdue}");
    until(&node, "2", "overdue").await;

    let node = node.restart().await;
    let all = told(&node, "quorate.process.overdue").await;
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!(all[0]["after"], json!({ "type": "placed", "id": "a", "logposition": "1" }));
    append(&node, "paid", "c", "1", Some("a")).await;
    let paid = until(&node, "1", "on-time").await;
    let (expected, events) = (&paid["expected"][0], paid["events"].as_array().unwrap());
    assert_eq!((&expected["events"], &expected["overdue"]), (&json!(["sent"]), &json!(false)));
    assert!(expected["until"].as_str().unwrap().starts_with("20"), "{paid}");
    assert_eq!((events.len(), &events[1]["causationid"], &events[1]["depth"]), (2, &json!("a"), &json!(1)));
    assert_eq!(told(&node, "quorate.process.overdue").await.len(), 2, "nothing is told twice");

    let described = node.get("/v1/processes/order").await.json();
    assert_eq!((&described["declared-by"], &described["trouble"]), (&json!("document"), &Value::Null), "{described}");
    assert_eq!(described["courses"], json!({ "on-time": 1, "overdue": 1 }));
    assert_eq!(described["rules"]["expect"][1], json!({ "after": "paid", "events": ["sent"], "within": "1h" }));
    assert_eq!(node.get("/v1/processes/order/document").await.text(), ORDER);
    let listed = node.get("/v1/processes").await.json();
    let (courses, more) = (&listed["processes"][0]["courses"], &listed["processes"][0]["more"]);
    assert_eq!((courses, more), (&json!({ "on-time": 1, "overdue": 1 }), &json!([])), "{listed}");
    assert_eq!(node.get("/v1/processes?after=order").await.json(), json!({ "processes": [] }));
    let metric = |state: &str| format!("quorate_process_courses{{process=\"order\",state=\"{state}\"}}");
    assert_eq!((node.metric(&metric("overdue")).await, node.metric(&metric("stopped")).await), (1, 0));
    assert_eq!(node.metric("quorate_process_troubled{process=\"order\"}").await, 0);
    let lag = || node.metric("quorate_process_lag_events{process=\"order\"}");
    for _ in 0..6_000 {
        if lag().await == 0 {
            break;
        }
        node.pause(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(lag().await, 0, "all of the log is looked at some time");
    assert_eq!(node.get("/readyz").await.json()["checks"]["processes"], "pass");

    append(&node, "done", "d", "1", Some("c")).await;
    until(&node, "1", "ended").await;
    let removed = node.send(request("DELETE", "/v1/processes/order")).await;
    assert_eq!(removed.json(), json!({ "process": "order", "deleted": true }), "{}", removed.text());
    assert_eq!(node.get("/v1/processes/order").await.code(), "process-not-found");
    assert_eq!(node.send(request("DELETE", "/v1/processes/order")).await.code(), "process-not-found");
    assert_eq!(told(&node, "quorate.process.overdue").await.len(), 2, "what was told stays in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn courses_are_listed_page_by_page_and_drawn_in_every_form() {
    let node = node().await;
    declare(&node, "order", ORDER).await;
    for course in ["1", "2", "a/b"] {
        append(&node, "placed", course, course, None).await;
    }
    append(&node, "paid", "c", "2", Some("2")).await;
    until(&node, "1", "overdue").await;
    until(&node, "2", "on-time").await;
    until(&node, "a%2Fb", "overdue").await;
    let first = node.get("/v1/processes/order/courses?state=overdue&limit=1").await;
    assert_eq!(first.json()["courses"][0]["course"], "1");
    let second = node.get(&first.next().expect("the page is full")).await;
    assert_eq!(second.json()["courses"][0]["course"], "a/b");
    let third = node.get(&second.next().expect("the page is full")).await;
    assert_eq!((third.json()["courses"].clone(), third.next()), (json!([]), None));
    assert_eq!(node.get("/v1/processes/order/courses").await.json()["courses"].as_array().unwrap().len(), 3);

    let drawn = node.get("/v1/processes/order/courses/2/graph").await;
    let (graph, positions) = (drawn.json(), |n: usize| drawn.json()["events"][n]["logposition"].clone());
    assert_eq!((&graph["events"][1]["cause"], &graph["state"]), (&positions(0), &json!("on-time")), "{graph}");
    assert_eq!(graph["missing"], json!([{ "after": positions(1), "events": ["sent"], "overdue": false }]));
    for (form, media, holds) in [
        ("mermaid", "text/vnd.mermaid", "flowchart TD\n"),
        ("dot", "text/vnd.graphviz", "digraph \"order\" {\n"),
        ("tree", "text/plain", "order 2: on-time\n  placed  orders @"),
    ] {
        let named = node.get(&format!("/v1/processes/order/courses/2/graph?format={form}")).await;
        assert!(named.header("content-type").unwrap().starts_with(media), "{:?}", named.header("content-type"));
        assert!(named.text().starts_with(holds), "{}", named.text());
        let accepted = node.send(get("/v1/processes/order/courses/2/graph").header("accept", media)).await;
        assert_eq!((accepted.text(), accepted.header("vary")), (named.text(), Some("accept")));
    }
    let odd = node.send(get("/v1/processes/order/courses/2/graph").header("accept", "image/png")).await;
    assert_eq!(odd.json(), graph);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_with_its_place_and_nothing_is_declared() {
    let node = node().await;
    let refused = declare(&node, "order", &ORDER.replace("1ms", "soon").replace("ends:", "end:")).await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "invalid-process"));
    let faults = refused.json()["faults"].as_array().unwrap().clone();
    assert_eq!(faults.iter().map(|fault| fault["line"].as_u64().unwrap()).collect::<Vec<_>>(), [3, 8], "{faults:?}");
    assert_eq!(declare(&node, "other", ORDER).await.code(), "invalid-process");
    let untyped = node.send(request("PUT", "/v1/processes/order").body(ORDER)).await;
    assert_eq!(untyped.code(), "unsupported-media-type");
    assert_eq!(declare(&node, "order", &"#".repeat(70_000)).await.code(), "too-large");
    assert_eq!(node.get("/v1/processes").await.json(), json!({ "processes": [] }));
    for path in ["", "/document", "/courses", "/courses/1", "/courses/1/graph"] {
        assert_eq!(node.get(&format!("/v1/processes/order{path}")).await.code(), "process-not-found", "{path}");
    }
    let check = request("POST", "/v1/processes/order/check").header("content-type", "application/yaml").body(ORDER);
    assert_eq!(node.send(check).await.json(), json!({ "process": "order", "valid": true }));
    assert_eq!(node.get("/v1/processes/order").await.status, 404, "checking declares nothing");

    assert_eq!(declare(&node, "order", ORDER).await.status, 201);
    let circle = "process: bank\nbegins: [paid]\nreactions:\n- {by: shop, on: paid, emits: [placed]}\n";
    let refused = declare(&node, "bank", circle).await;
    assert_eq!((refused.status, refused.code().as_str()), (409, "process-cycle"), "{}", refused.text());
    assert_eq!(refused.json()["path"], "paid → placed (by shop) → paid (by bank)");
    assert_eq!(node.get("/v1/processes/bank").await.status, 404);
    for (path, code) in [
        ("/courses/1", "course-not-found"),
        ("/courses/1/graph", "course-not-found"),
        ("/courses?state=asleep", "invalid-parameter"),
        ("/courses?limit=0", "invalid-parameter"),
        ("/courses/1/graph?format=png", "invalid-parameter"),
    ] {
        assert_eq!(node.get(&format!("/v1/processes/order{path}")).await.code(), code, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_course_goes_on_once_somebody_says_so_and_that_is_written_down() {
    let node = node().await;
    declare(&node, "order", &format!("{ORDER}max-repeats: 1\n")).await;
    append(&node, "placed", "a", "1", None).await;
    append(&node, "placed", "b", "1", Some("a")).await;
    let stopped = until(&node, "1", "stopped").await;
    assert!(stopped["reason"].as_str().unwrap().contains("came 2 times"), "{stopped}");
    append(&node, "paid", "c", "1", Some("b")).await;
    let resume = |body: &'static str| post("/v1/processes/order/courses/1/resume").json(body);
    assert_eq!(node.send(resume("{}")).await.code(), "invalid-json");
    assert_eq!(node.send(resume(r#"{"by":""}"#)).await.code(), "invalid-parameter");
    let wish = || resume(r#"{"by":"ada","note":"it was meant"}"#).header("idempotency-key", "go-1");
    let gone_on = node.send(wish()).await;
    assert_eq!((gone_on.status, &gone_on.json()["process"]), (200, &json!("order")), "{}", gone_on.text());
    assert_eq!(node.send(wish()).await.json(), gone_on.json(), "asked once more under its key");
    assert_eq!(node.send(resume(r#"{"by":"ada"}"#)).await.code(), "course-refuses");
    // One payment answers one of the two orders: the other one's is missing, which is told now.
    let course = until(&node, "1", "overdue").await;
    assert_eq!((&course["reason"], &course["late"]), (&Value::Null, &json!(0)), "{course}");
    let said = told(&node, "quorate.process.resumed").await;
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(
        (&said[0]["by"], &said[0]["note"], &said[0]["at"]["id"]),
        (&json!("ada"), &json!("it was meant"), &json!("b"))
    );
    assert_eq!(node.metric("quorate_process_resumed{process=\"order\"}").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_process_writes_what_it_tells_or_closes_its_stream() {
    let node = node().await;
    let forged = r#"{"specversion":"1.0","id":"x","source":"/quorate/process","type":"quorate.process.overdue"}"#;
    // Also before there is such a process, and beside events of other streams.
    let appended = node.send(post("/v1/streams/process-order/events").event(forged)).await;
    assert_eq!((appended.status, appended.code().as_str()), (409, "stream-of-process"));
    let several = format!(
        r#"{{"streams":[{{"stream":"free","events":[{forged}]}},{{"stream":"process-order","events":[{forged}]}}]}}"#
    );
    let refused = node.send(post("/v1/events").json(several)).await;
    assert_eq!((refused.status, refused.json()["stream"].as_str()), (409, Some("process-order")), "{}", refused.text());
    assert_eq!(node.get("/v1/streams/free/events").await.status, 404, "nothing of it was appended");
    declare(&node, "order", ORDER).await;
    append(&node, "placed", "a", "1", None).await;
    append(&node, "placed", "b", "2", None).await;
    until(&node, "1", "overdue").await;
    until(&node, "2", "overdue").await;
    assert_eq!(node.send(post("/v1/streams/process-order/tombstone")).await.code(), "stream-of-process");
    let truncated = node.send(post("/v1/streams/process-order/truncate").json(r#"{"before":2}"#)).await;
    assert_eq!(truncated.status, 200, "nothing is decided by what was told: {}", truncated.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_programs_process_is_shown_and_no_document_takes_its_place() {
    let node = node().await;
    let processes = Processes::open(&node.store).await.unwrap();
    processes.declare(Process::new("order".parse().unwrap()).begins(&["placed"])).await.unwrap();
    append(&node, "placed", "a", "1", None).await;
    until(&node, "1", "on-time").await;
    assert_eq!(node.get("/v1/processes/order").await.json()["declared-by"], "program");
    assert_eq!(node.get("/v1/processes/order/document").await.code(), "process-of-program");
    assert_eq!(declare(&node, "order", ORDER).await.code(), "process-of-program");
    drop(processes);
    // Its program is not there any more, which whoever asks is warned of.
    let node = node.restart().await;
    let ready = node.get("/readyz").await;
    assert_eq!((ready.status, &ready.json()["status"]), (200, &json!("warn")), "{}", ready.text());
    assert!(ready.json()["checks"]["processes"].as_str().unwrap().contains("process `order`"), "{}", ready.text());
    assert_eq!(node.metric("quorate_process_troubled{process=\"order\"}").await, 1);
    let listed = node.get("/v1/processes").await.json();
    let trouble = listed["processes"][0]["trouble"].as_str().unwrap();
    assert!(trouble.contains("nobody declares it"), "{listed}");
    assert_eq!(node.get("/v1/processes/order").await.json()["trouble"], trouble);
    let gone_on = node.send(post("/v1/processes/order/courses/1/resume").json(r#"{"by":"ada"}"#)).await;
    assert_eq!(gone_on.code(), "course-refuses");
    assert_eq!(node.send(request("DELETE", "/v1/processes/order")).await.status, 200);
    assert_eq!(declare(&node, "order", ORDER).await.status, 201);
    assert_eq!(node.get("/readyz").await.json()["status"], "pass");
    assert_eq!(node.get("/v1/processes").await.json()["processes"][0]["trouble"], Value::Null);
}
