//! Schedules and unique keys of a queue over HTTP.

use serde_json::{Value, json};

use crate::{
    client::{Reply, post, request},
    node::{Node, node},
};

const PATH: &str = "/v1/queues/reports";

pub(crate) async fn put(node: &Node, path: &str, body: &str) -> Reply {
    node.send(request("PUT", format!("{PATH}{path}")).json(body)).await
}

pub(crate) fn schedule(cron: &str) -> String {
    let event = r#"{"specversion":"1.0","id":"nightly","source":"/shop","type":"report.due","datacontenttype":"application/json","data":{"n":1.50}}"#;
    format!(
        r#"{{"cron":"{cron}","time-zone":"Europe/Berlin","missed":"all","message":{{"event":{event},"unique":"nightly"}}}}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_is_declared_listed_changed_and_deleted_also_over_a_restart() {
    let node = node().await;
    assert_eq!(put(&node, "/schedules/a", &schedule("30 2 * * *")).await.code(), "queue-not-found");
    assert_eq!(put(&node, "", "{}").await.status, 200);
    let declared = put(&node, "/schedules/nightly%2Fone", &schedule("30 2 * * *")).await;
    assert_eq!(declared.status, 200, "{}", declared.text());
    let shown = declared.json();
    assert_eq!((&shown["schedule"], &shown["missed"]), (&json!("nightly/one"), &json!("all")));
    assert!(shown["next"].as_str().unwrap().ends_with(":30:00Z"), "{shown}");
    assert!(declared.text().contains(r#""data":{"n":1.50}"#), "data stays as it was sent: {}", declared.text());
    assert_eq!(shown["message"]["unique"], "nightly");
    let twin = put(&node, "/schedules/twin", &schedule("0 * * * *")).await;
    assert_eq!((twin.status, twin.code().as_str()), (400, "invalid-parameter"));
    let node = node.restart().await;
    let again = node.get(&format!("{PATH}/schedules/nightly%2Fone")).await;
    assert_eq!(again.json(), shown);
    let listed = node.get(&format!("{PATH}/schedules?limit=1")).await;
    assert_eq!(listed.json()["schedules"][0]["cron"], "30 2 * * *");
    let next = listed.next().expect("the page is full");
    assert_eq!(node.get(&next).await.json()["schedules"], json!([]));
    let changed = put(&node, "/schedules/nightly%2Fone", &schedule("@daily")).await;
    assert_eq!(changed.json()["cron"], "@daily");
    let deleted = node.send(request("DELETE", format!("{PATH}/schedules/nightly%2Fone"))).await;
    assert_eq!(deleted.json(), json!({ "queue": "reports", "schedule": "nightly/one", "deleted": true }));
    let gone = node.get(&format!("{PATH}/schedules/nightly%2Fone")).await;
    assert_eq!((gone.status, gone.code().as_str()), (404, "schedule-not-found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_schedule_cannot_be_is_refused_and_named() {
    let node = node().await;
    assert_eq!(put(&node, "", "{}").await.status, 200);
    for (body, code) in [
        (schedule("now and then"), "invalid-parameter"),
        (schedule("0 0 30 2 *"), "invalid-parameter"),
        (schedule("* * * * *").replace("Europe/Berlin", "Europe/Atlantis"), "invalid-parameter"),
        (schedule("* * * * *").replace("\"all\"", "\"some\""), "invalid-json"),
        (schedule("* * * * *").replace("\"type\":\"report.due\",", ""), "invalid-event"),
        ("{}".to_owned(), "invalid-json"),
    ] {
        let refused = put(&node, "/schedules/a", &body).await;
        assert_eq!((refused.status, refused.code().as_str()), (400, code), "{body}: {}", refused.text());
    }
    assert_eq!(node.get(&format!("{PATH}/schedules")).await.json()["schedules"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_sends_its_message_at_its_moment() {
    let node = node().await;
    assert_eq!(put(&node, "", "{}").await.status, 200);
    assert_eq!(put(&node, "/schedules/often", &schedule("* * * * * *")).await.status, 200);
    let receive = post(format!("{PATH}/receive")).json(r#"{"wait":"10s"}"#);
    let delivery = node.send(receive).await.json()["deliveries"][0].clone();
    let moment = delivery["event"]["time"].as_str().unwrap();
    assert_eq!(delivery["event"]["id"], format!("nightly@{moment}"));
    assert_eq!((&delivery["unique"], &delivery["attempt"]), (&json!("nightly"), &json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_one_key_the_second_message_is_told_which_one_has_it() {
    let node = node().await;
    assert_eq!(put(&node, "", "{}").await.status, 200);
    let send = |id: &str| {
        let event = json!({ "specversion": "1.0", "id": id, "source": "/shop", "type": "report.due" });
        let body = json!({ "messages": [{ "event": event, "unique": "report" }] });
        node.send(post(format!("{PATH}/messages")).json(body.to_string()))
    };
    assert_eq!(send("a").await.json()["messages"][0], json!({ "id": "a", "repeated": false }));
    let held = send("b").await;
    assert_eq!(held.status, 201, "{}", held.text());
    assert_eq!(held.json()["messages"][0], json!({ "id": "b", "repeated": false, "held-by": "a" }));
    let received = node.send(post(format!("{PATH}/receive")).json("{}")).await.json();
    let lease: &Value = &received["deliveries"][0]["lease"];
    node.send(post(format!("{PATH}/ack")).json(json!({ "leases": [lease] }).to_string())).await;
    assert_eq!(send("b").await.json()["messages"][0], json!({ "id": "b", "repeated": false }));
}
