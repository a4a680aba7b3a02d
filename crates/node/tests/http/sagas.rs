//! Sagas over HTTP: declared, started, looked at, told, decided about; their participant is a node of its own.

use serde_json::{Value, json};

use crate::{
    client::{PATIENCE, Reply, post, request},
    node::{Node, node},
};

/// `reserve` is an append, and so is what makes up for it; `charge` only works where the stream is new; then a message goes out.
fn order(address: std::net::SocketAddr, version: u32) -> String {
    let event = |kind: &str| {
        format!(r#"'{{specversion: "1.0", id: (.id + "-{kind}"), source: "/shop", type: "{kind}", data: .input}}'"#)
    };
    let http = |stream: &str, kind: &str, more: &str| {
        let event = event(kind);
        format!(
            r#"http: {{ url: "http://{address}/v1/streams/{stream}/events", body: {event}, headers: {{ content-type: application/cloudevents+json{more} }} }}"#
        )
    };
    let (reserve, release) = (http("stock-{.id}", "reserved", ""), http("stock-{.id}", "released", ""));
    let charge = http("account-{.input.account}", "charged", r#", if-none-match: "*""#);
    format!(
        r#"saga: order
version: {version}
key: .input.customer
steps:
  - step: reserve
    {reserve}
    undo:
      {release}
  - wait: approval
  - step: charge
    when: .signals.approval
    {charge}
  - step: tell
    kind: pivot
    queue: {{ name: mails, type: mail.due, data: "{{to: .input.customer, version: .steps.reserve.streamversion}}" }}
output: "{{charged: (.steps.charge != null)}}"
"#
    )
}

pub(crate) async fn declare(node: &Node, text: &str) -> Reply {
    declare_as(node, "order", text).await
}

pub(crate) async fn declare_as(node: &Node, saga: &str, text: &str) -> Reply {
    let put = request("PUT", format!("/v1/saga-definitions/{saga}"));
    node.send(put.header("content-type", "application/yaml").body(text)).await
}

/// A saga that waits until it is told to go, and is done then.
pub(crate) const GO: &str = r#"saga: order
version: 1
steps:
  - wait: go
  - step: never
    when: "false"
    http: { url: "http://127.0.0.1:1/" }
"#;

/// Tells such a saga to go.
pub(crate) async fn go(node: &Node, id: &str) -> Reply {
    node.send(post(format!("/v1/sagas/order/{id}/signal")).json(r#"{"id":"1","signal":"go"}"#)).await
}

pub(crate) async fn start(node: &Node, id: &str, account: &str) -> Reply {
    let body = json!({ "id": id, "input": { "account": account, "customer": "ada" } });
    node.send(post("/v1/sagas/order").json(body.to_string())).await
}

pub(crate) async fn approve(node: &Node, id: &str) -> Reply {
    let body = json!({ "id": "mail-1", "signal": "approval", "data": true });
    node.send(post(format!("/v1/sagas/order/{id}/signal")).json(body.to_string())).await
}

/// How a saga stands once it has ended or is stuck.
pub(crate) async fn settled(node: &Node, id: &str) -> Value {
    let get = crate::client::get(format!("/v1/sagas/order/{id}")).header("prefer", "wait=20");
    node.send(get).await.json()
}

pub(crate) async fn kinds(node: &Node, stream: &str) -> Vec<String> {
    let events = node.get(&format!("/v1/streams/{stream}/events")).await.json();
    let events = events["events"].as_array().cloned().unwrap_or_default();
    events.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
}

/// Waits until a metric says `value`.
pub(crate) async fn until(node: &Node, metric: &str, value: i64) {
    let says = async {
        while node.metric(metric).await != value {
            node.pause(std::time::Duration::from_millis(20)).await;
        }
    };
    quorate_runtime::Env::real().timeout(PATIENCE, says).await.unwrap_or_else(|| panic!("{metric} is not {value}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_runs_over_http_is_undone_where_a_step_is_refused_and_goes_on_after_a_restart() {
    let (node, shop) = (node().await, node().await);
    node.send(request("PUT", "/v1/queues/mails").json("{}")).await;
    let declared = declare(&node, &order(shop.address, 1)).await;
    assert_eq!((declared.status, declared.json()["new"].clone()), (201, json!(true)), "{}", declared.text());
    assert_eq!(declare(&node, &order(shop.address, 1)).await.status, 200, "the same again");

    let started = start(&node, "1", "17").await;
    assert_eq!(started.status, 202, "{}", started.text());
    assert_eq!(started.header("location"), Some("/v1/sagas/order/1"));
    assert_eq!(start(&node, "1", "17").await.json()["repeated"], true);
    assert_eq!(start(&node, "1", "18").await.code(), "saga-id-reused");
    start(&node, "2", "17").await;

    // Both wait for their approval; what waits goes on in the next process.
    let node = node.restart().await;
    let waiting = node.get("/v1/sagas?status=running&key=ada&limit=1").await;
    assert_eq!(waiting.json()["sagas"][0]["id"], "1");
    let rest = node.get(&waiting.next().expect("the page is full")).await;
    assert_eq!(rest.json()["sagas"][0]["id"], "2");
    assert_eq!(approve(&node, "1").await.status, 200);
    let done = settled(&node, "1").await;
    assert_eq!((&done["status"], &done["output"]), (&json!("completed"), &json!({ "charged": true })), "{done}");
    assert_eq!(approve(&node, "1").await.status, 200, "told before");
    approve(&node, "2").await;
    let undone = settled(&node, "2").await;
    assert_eq!(undone["status"], "compensated", "{undone}");
    assert!(undone["abort"].as_str().unwrap().contains("412"), "the account is charged already: {undone}");
    assert_eq!(kinds(&shop, "stock-1").await, ["reserved"]);
    assert_eq!(kinds(&shop, "stock-2").await, ["reserved", "released"]);
    assert_eq!(kinds(&shop, "account-17").await, ["charged"]);

    let mail = node.send(post("/v1/queues/mails/receive").json(r#"{"max":9}"#)).await.json();
    let mails = mail["deliveries"].as_array().unwrap();
    assert_eq!((mails.len(), &mails[0]["event"]["data"]), (1, &json!({ "to": "ada", "version": "1" })), "{mail}");
    assert_eq!(mails[0]["event"]["id"], "order/1/tell/forward");
    assert_eq!(node.metric("quorate_saga_completed").await, 1);
    until(&node, "quorate_saga_open", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_that_is_stuck_shows_and_is_decided_about() {
    let node = node().await;
    // Nobody listens there, and what behind the pivot is not done stays stuck.
    let text = r#"saga: order
version: 1
steps:
  - step: pivot
    kind: pivot
    queue: { name: mails, type: mail.due }
  - step: call
    kind: retriable
    attempts: 1
    http: { url: "http://127.0.0.1:1/x" }
"#;
    node.send(request("PUT", "/v1/queues/mails").json("{}")).await;
    assert_eq!(declare(&node, text).await.status, 201);
    start(&node, "1", "17").await;
    let stuck = settled(&node, "1").await;
    assert_eq!(stuck["status"], "stuck", "{stuck}");
    assert_eq!(node.get("/v1/sagas/order?status=stuck").await.json()["sagas"][0]["id"], "1");
    let decide = |verb: &str, body: &'static str| {
        let path = format!("/v1/sagas/order/1/{verb}");
        let node = &node;
        async move { node.send(post(path).json(body)).await }
    };
    assert_eq!(decide("abort", r#"{"by":"ada"}"#).await.code(), "saga-refuses");
    assert_eq!(decide("skip", r#"{"by":"ada","step":"pivot"}"#).await.code(), "saga-refuses");
    assert_eq!(decide("skip", "{}").await.code(), "invalid-json");
    let skipped = decide("skip", r#"{"by":"ada","note":"done by phone","output":7}"#).await;
    assert_eq!(skipped.status, 200, "{}", skipped.text());
    let done = settled(&node, "1").await;
    assert_eq!((&done["status"], &done["steps"][1]["forward"]["output"]), (&json!("completed"), &json!(7)), "{done}");
    assert_eq!(decide("retry", r#"{"by":"ada"}"#).await.code(), "saga-ended");
    assert!(kinds(&node, "saga-order:1").await.contains(&"saga.operated".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_with_its_place_and_a_version_never_becomes_another() {
    let node = node().await;
    let text = order(node.address, 1);
    let wrong = text.replace("kind: pivot", "kind: pivots").replace("wait: approval", "wiat: approval");
    let refused = declare(&node, &wrong).await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "invalid-saga"));
    let faults = refused.json()["faults"].as_array().unwrap().clone();
    assert_eq!(faults.iter().map(|fault| fault["line"].as_u64().unwrap()).collect::<Vec<_>>().len(), 3, "{faults:?}");
    assert_eq!(start(&node, "1", "17").await.code(), "saga-undefined");
    assert_eq!(node.get("/v1/sagas/order/1").await.code(), "saga-not-found");
    assert_eq!(declare(&node, &text).await.status, 201);
    assert_eq!(declare(&node, &text.replace("key: .input.customer", "key: .input.account")).await.code(), "saga-taken");
    assert_eq!(declare(&node, &order(node.address, 2)).await.status, 201);
    let all = node.get("/v1/saga-definitions").await.json();
    assert_eq!(all["definitions"], json!([{ "saga": "order", "versions": [1, 2] }]));
    assert_eq!(node.get("/v1/saga-definitions/order?version=1").await.text(), text);
    let checked = request("POST", "/v1/saga-definitions/order/check").header("content-type", "application/yaml");
    assert_eq!(node.send(checked.body(text.as_str())).await.json()["valid"], true);
    assert_eq!(node.get("/v1/sagas?status=asleep").await.code(), "invalid-parameter");
    assert_eq!(approve(&node, "1").await.code(), "saga-not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_saga_writes_to_its_stream() {
    let node = node().await;
    assert_eq!(declare(&node, GO).await.status, 201);
    start(&node, "1", "17").await;
    let forged = r#"{"specversion":"1.0","id":"x","source":"/quorate/saga","type":"saga.ended","datacontenttype":"application/json","data":{"what":"ended","outcome":"completed"}}"#;
    let appended = node.send(post("/v1/streams/saga-order:1/events").event(forged)).await;
    assert_eq!((appended.status, appended.code().as_str()), (409, "stream-of-saga"));
    // Also where there is no such saga yet, which would find it in its way; and beside events of other streams.
    let before = node.send(post("/v1/streams/saga-order:2/events").event(forged)).await;
    assert_eq!((before.status, before.code().as_str()), (409, "stream-of-saga"));
    let several = format!(
        r#"{{"streams":[{{"stream":"free","events":[{forged}]}},{{"stream":"saga-order:2","events":[{forged}]}}]}}"#
    );
    let refused = node.send(post("/v1/events").json(several)).await;
    assert_eq!((refused.status, refused.json()["stream"].as_str()), (409, Some("saga-order:2")), "{}", refused.text());
    assert_eq!(node.get("/v1/streams/free/events").await.status, 404, "nothing of it was appended");
    // Nor is anything said beforehand about what it may keep.
    let metadata = request("PUT", "/v1/streams/saga-order:2/metadata").json(r#"{"maxcount":"1"}"#);
    assert_eq!(node.send(metadata).await.code(), "stream-of-saga");
    assert_eq!(node.send(post("/v1/streams/saga-order:2/tombstone")).await.code(), "stream-of-saga");
    assert_eq!(start(&node, "2", "17").await.status, 202);
    assert_eq!(node.send(post("/v1/streams/saga-order:1/tombstone")).await.code(), "stream-of-saga");
    assert_eq!(go(&node, "1").await.status, 200);
    assert_eq!(settled(&node, "1").await["status"], "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_says_what_it_waits_for_and_an_answer_that_is_too_large_is_not_kept() {
    let (node, shop) = (node().await, node().await);
    for id in 0..3 {
        let event = json!({ "specversion": "1.0", "id": id.to_string(), "source": "/s", "type": "t", "data": "x".repeat(100 << 10) });
        assert_eq!(shop.send(post("/v1/streams/large/events").event(event.to_string())).await.status, 201);
    }
    let text = format!(
        r#"saga: order
version: 1
steps:
  - wait: approval
    at-most: 1d
  - step: page
    http: {{ method: GET, url: "http://{}/v1/streams/large/events" }}
output: "{{page: .steps.page}}"
"#,
        shop.address
    );
    assert_eq!(declare(&node, &text).await.status, 201);
    start(&node, "1", "17").await;
    let waits = node.get("/v1/sagas/order/1").await.json();
    let [waiting] = waits["waiting"].as_array().unwrap().as_slice() else { panic!("{waits}") };
    assert_eq!((&waiting["for"], &waiting["name"]), (&json!("signal"), &json!("approval")));
    let at = |text: &Value| text.as_str().unwrap().parse::<quorate_data::event::Timestamp>().unwrap().instant();
    assert_eq!(at(&waiting["until"]), at(&waits["updated"]) + std::time::Duration::from_secs(86_400));
    assert_eq!(approve(&node, "1").await.status, 200);
    let done = settled(&node, "1").await;
    assert_eq!((&done["status"], &done["output"]), (&json!("completed"), &json!({ "page": null })), "{done}");
    let page = &done["steps"][0]["forward"];
    assert_eq!((&page["unkept"], &page["output"], &page["attempts"]), (&json!(true), &json!(null), &json!(1)));
    assert_eq!(done["waiting"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_is_a_saga_shows_and_both_are_found_by_each_other() {
    let node = node().await;
    node.send(request("PUT", "/v1/queues/mails").json("{}")).await;
    let payment = r#"saga: payment
version: 1
steps:
  - wait: go
  - step: hold
    queue: { name: mails, type: money.held }
    undo: { queue: { name: mails, type: money.released } }
output: "{paid: .input.cents}"
"#;
    let order = r#"saga: order
version: 1
key: .input.customer
steps:
  - step: pay
    saga: { name: payment, input: "{cents: 5, to: .input.account}" }
  - wait: approval
  - step: ship
    kind: pivot
    queue: { name: mails, type: parcel.due, data: ".steps.pay" }
output: .steps.pay
"#;
    assert_eq!(declare_as(&node, "payment", payment).await.status, 201);
    assert_eq!(declare(&node, order).await.status, 201);
    start(&node, "1", "17").await;
    let waits = node.get("/v1/sagas/order/1").await.json();
    let child = waits["children"][0]["id"].as_str().unwrap().to_owned();
    let reference = json!({ "saga": "payment", "id": child, "version": 1 });
    assert_eq!(waits["waiting"], json!([{ "for": "child", "step": "pay", "way": "forward", "child": reference }]));
    assert_eq!((&waits["steps"][0]["forward"]["child"], &waits["parent"]), (&reference, &json!(null)), "{waits}");
    let shown = node.get(&format!("/v1/sagas/payment/{child}")).await.json();
    assert_eq!(shown["parent"], json!({ "saga": "order", "id": "1", "step": "pay" }));
    assert_eq!((&shown["key"], &shown["input"]), (&json!("ada"), &json!({ "cents": 5, "to": "17" })));
    let found = node.get("/v1/sagas?parent=order/1&limit=1").await;
    assert_eq!((&found.json()["sagas"][0]["id"], found.next().is_some()), (&json!(child), true));
    assert_eq!(node.get("/v1/sagas/payment?parent=order/2").await.json()["sagas"], json!([]));
    assert_eq!(node.get("/v1/sagas?parent=order").await.code(), "invalid-parameter");

    let go = r#"{"id":"1","signal":"go"}"#;
    assert_eq!(node.send(post(format!("/v1/sagas/payment/{child}/signal")).json(go)).await.status, 200);
    let wait = crate::client::get(format!("/v1/sagas/payment/{child}")).header("prefer", "wait=20");
    assert_eq!(node.send(wait).await.json()["status"], "completed");
    // What it did may have to be undone.
    let tombstone = node.send(post(format!("/v1/streams/saga-payment:{child}/tombstone"))).await;
    assert_eq!(tombstone.code(), "stream-of-saga");
    assert_eq!(approve(&node, "1").await.status, 200);
    let done = settled(&node, "1").await;
    assert_eq!((&done["status"], &done["output"]), (&json!("completed"), &json!({ "paid": 5 })), "{done}");
    assert_eq!(done["children"][0]["status"], "completed");
}
