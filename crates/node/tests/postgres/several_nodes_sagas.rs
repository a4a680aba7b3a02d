//! Sagas of several nodes over one database.

use std::time::Duration;

use futures_util::future::join;
use quorate_runtime::Env;
use serde_json::{Value, json};

use crate::{
    client::{PATIENCE, post, request},
    node::Node,
    sagas::{GO, declare, declare_as, go, kinds, settled, start, until},
    several_nodes::two,
    stranger::stranger,
};

fn version(number: u32) -> String {
    GO.replace("version: 1", &format!("version: {number}"))
}

async fn show(node: &Node, id: &str) -> Value {
    node.get(&format!("/v1/sagas/order/{id}")).await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_declared_holds_at_every_other_at_once() {
    let [one, other] = two().await;
    assert_eq!(declare(&one, GO).await.status, 201);
    let started = start(&other, "1", "17").await;
    assert_eq!((started.status, started.json()["version"].clone()), (202, json!(1)), "{}", started.text());
    assert_eq!(declare(&other, GO).await.status, 200, "it is there already");
    assert_eq!(declare(&other, &format!("{GO}output: .id\n")).await.code(), "saga-taken");
    // Whoever is asked for a saga starts it by the newest version, wherever that was declared.
    for number in 2..=6 {
        let [one, other] = if number % 2 == 0 { [&other, &one] } else { [&one, &other] };
        assert_eq!(declare(one, &version(number)).await.status, 201);
        let started = start(other, &number.to_string(), "17").await;
        assert_eq!(started.json()["version"], json!(number), "{}", started.text());
    }
    for node in [&one, &other] {
        let all = node.get("/v1/saga-definitions").await.json();
        assert_eq!(all["definitions"], json!([{ "saga": "order", "versions": [1, 2, 3, 4, 5, 6] }]));
        assert_eq!(node.get("/v1/saga-definitions/order").await.text(), version(6));
        assert_eq!(show(node, "1").await["stalled"], json!(false));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_is_shown_told_and_called_off_at_a_node_that_does_not_run_it() {
    let [one, other] = two().await;
    let shop = crate::node::node().await;
    let text = format!(
        r#"saga: order
version: 1
steps:
  - step: reserve
    http: {{ url: "http://{0}/v1/streams/stock/events", body: '{{specversion: "1.0", id: (.id + "-a"), source: "/s", type: "reserved"}}', headers: {{ content-type: application/cloudevents+json }} }}
    undo:
      http: {{ url: "http://{0}/v1/streams/stock/events", body: '{{specversion: "1.0", id: (.id + "-b"), source: "/s", type: "released"}}', headers: {{ content-type: application/cloudevents+json }} }}
  - wait: go
  - step: tell
    kind: pivot
    queue: {{ name: mails, type: mail.due }}
"#,
        shop.address
    );
    assert_eq!(declare(&one, &text).await.status, 201);
    for id in ["1", "2"] {
        assert_eq!(start(&one, id, "17").await.status, 202);
    }
    // The saga sends to a queue that its node was never asked for.
    assert_eq!(other.send(request("PUT", "/v1/queues/mails").json("{}")).await.status, 200);
    assert_eq!(show(&other, "1").await["status"], "running");
    let listed = other.get("/v1/sagas?status=running").await.json();
    assert_eq!(listed["sagas"].as_array().map(Vec::len), Some(2), "{listed}");
    let waits = async {
        while show(&other, "2").await["waiting"][0]["for"] != "signal" {
            other.pause(Duration::from_millis(20)).await;
        }
    };
    Env::real().timeout(PATIENCE, waits).await.expect("it waits to be told");
    let abort = post("/v1/sagas/order/2/abort").json(r#"{"by":"ada","note":"not wanted"}"#);
    assert_eq!(other.send(abort).await.status, 200);
    assert_eq!(settled(&one, "2").await["status"], "compensated");
    assert_eq!(go(&one, "1").await.status, 200);
    assert_eq!(go(&other, "1").await.status, 200, "told before");
    for node in [&one, &other] {
        let done = settled(node, "1").await;
        assert_eq!((&done["status"], &done["abort"]), (&json!("completed"), &json!(null)), "{done}");
        let undone = show(node, "2").await;
        assert!(undone["abort"].as_str().unwrap().contains("not wanted"), "{undone}");
    }
    let mut seen = kinds(&shop, "stock").await;
    seen.sort();
    assert_eq!(seen, ["released", "reserved", "reserved"]);
    let mails = other.send(post("/v1/queues/mails/receive").json(r#"{"max":9}"#)).await.json();
    assert_eq!(mails["deliveries"].as_array().map(Vec::len), Some(1), "{mails}");
    // Whoever lost a saga lets go of it.
    until(&one, "quorate_saga_open", 0).await;
    until(&other, "quorate_saga_open", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_of_a_node_that_is_gone_goes_on_at_one_that_was_never_asked_about_sagas() {
    let [one, other] = two().await;
    // It cannot be done before there is such a queue.
    let text = "saga: order\nversion: 1\nsteps:\n  - step: tell\n    kind: pivot\n    attempts: 10000\n    max-backoff: 200ms\n    \
                queue: { name: mails, type: mail.due }\n";
    let declared = declare(&one, text).await;
    assert_eq!(declared.status, 201, "{}", declared.text());
    assert_eq!(start(&one, "1", "17").await.status, 202);
    one.end().await;
    assert_eq!(other.send(request("PUT", "/v1/queues/mails").json("{}")).await.status, 200);
    until(&other, "quorate_saga_completed", 1).await;
    assert_eq!(show(&other, "1").await["status"], "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_documents_that_are_declared_at_two_nodes_at_once_one_is_the_version() {
    let [one, other] = two().await;
    for number in 1..=5 {
        let texts = [version(number), format!("{}output: .id\n", version(number))];
        let (first, second) = join(declare(&one, &texts[0]), declare(&other, &texts[1])).await;
        let mut statuses = [first.status, second.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 409], "{} {}", first.text(), second.text());
        let of_one = one.get("/v1/saga-definitions/order").await.text();
        assert!(texts.contains(&of_one), "{of_one}");
        assert_eq!(other.get("/v1/saga-definitions/order").await.text(), of_one);
    }
    // And of different sagas both are.
    let idle = GO.replace("order", "idle");
    let (first, second) = join(declare(&one, &version(6)), declare_as(&other, "idle", &idle)).await;
    assert_eq!((first.status, second.status), (201, 201), "{} {}", first.text(), second.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_version_that_a_node_cannot_read_is_left_alone_there_and_nothing_is_started_by_an_older_one() {
    let [one, other] = two().await;
    assert_eq!(declare(&one, GO).await.status, 201);
    assert_eq!(start(&one, "1", "17").await.status, 202);
    let address = crate::server::address().unwrap();
    let schema = crate::database(&address, one.folder.path()).schema;
    // As a newer quorate would: a word that this one does not know, and a saga of that version that it runs.
    let newer = version(2).replace("- wait: go", "- await: go");
    let sql = format!(
        "INSERT INTO {schema}.quorate_saga_document (name, version, format, document) VALUES ('order', 2, 'yaml', '{newer}')"
    );
    stranger(&address).await.batch_execute(&sql).await.unwrap();
    for node in [&one, &other] {
        let refused = start(node, "2", "17").await;
        assert_eq!((refused.status, refused.code().as_str()), (409, "saga-stalled"), "{}", refused.text());
        assert_eq!((&refused.json()["saga"], &refused.json()["version"]), (&json!("order"), &json!(2)));
        assert_eq!(node.get("/v1/sagas/order/2").await.code(), "saga-not-found");
    }
    assert_eq!(declare(&other, &version(2)).await.code(), "saga-taken");
    assert_eq!(go(&other, "1").await.status, 200, "what runs by the older one goes on");
    assert_eq!(settled(&one, "1").await["status"], "completed");
    assert_eq!(declare(&other, &version(3)).await.status, 201);
    assert_eq!(start(&one, "2", "17").await.json()["version"], 3);
}
