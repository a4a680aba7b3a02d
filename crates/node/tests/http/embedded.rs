//! What streams, subscriptions and keys have to do with things that only the embedded store has.

use serde_json::{Value, json};

use crate::{
    client::{get, post, request},
    keys::PATH,
    node::{event, node},
    read::{all, positions, versions},
    subscribe::Subscriber,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_closed_is_gone() {
    let node = node().await;
    node.fill("a", 1, 4).await;
    let wrong = node.send(post("/v1/streams/a/tombstone").header("if-match", "\"3\"")).await;
    assert_eq!(wrong.code(), "version-conflict");
    let gone = node.send(post("/v1/streams/a/tombstone").header("if-match", "\"4\"")).await;
    assert_eq!((gone.status, gone.json()["retired"].clone()), (200, json!(4)), "{}", gone.text());
    for path in ["/v1/streams/a/events", "/v1/streams/a/events/1", "/v1/streams/a/subscribe"] {
        let reply = node.get(path).await;
        assert_eq!((reply.status, reply.code().as_str()), (410, "stream-tombstoned"), "{path}");
    }
    let append = node.send(post("/v1/streams/a/events").event(event("new", ""))).await;
    assert_eq!((append.status, append.code().as_str()), (410, "stream-tombstoned"));
    assert_eq!(node.get("/v1/streams/a").await.json()["tombstoned"], true);
    let log = node.get("/v1/events").await.events();
    assert_eq!(positions(&log), [1, 2, 3, 4], "places are kept");
    assert!(log.iter().all(|event| event["stub"] == "tombstoned" && event.get("data").is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_stream_begins_later_and_keeps_its_places() {
    let node = node().await;
    node.fill("a", 1, 6).await;
    let reply = node.send(post("/v1/streams/a/truncate").json(r#"{"before":4}"#)).await;
    assert_eq!((reply.status, reply.json()["retired"].clone()), (200, json!(3)), "{}", reply.text());
    assert_eq!(versions(&all(&node, "/v1/streams/a/events?limit=2").await), [4, 5, 6]);
    assert_eq!(versions(&all(&node, "/v1/streams/a/events?limit=2&direction=backward").await), [6, 5, 4]);
    let head = node.get("/v1/streams/a").await.json();
    assert_eq!((&head["first"], &head["streamversion"]), (&json!("4"), &json!("6")));
    assert_eq!(node.get("/v1/streams/a/events/2").await.code(), "event-not-found");
    let log = node.get("/v1/events").await.events();
    assert_eq!(positions(&log), [1, 2, 3, 4, 5, 6]);
    assert_eq!((&log[2]["stub"], &log[3]["stub"]), (&json!("truncated"), &Value::Null));
    for (body, code) in [
        (r#"{"before":0}"#, "invalid-parameter"),
        (r#"{"before":-1}"#, "invalid-json"),
        ("{}", "invalid-json"),
        (r#"{"before":1,"x":1}"#, "invalid-json"),
    ] {
        assert_eq!(node.send(post("/v1/streams/a/truncate").json(body)).await.code(), code, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_names_the_version_for_writers_and_never_says_that_a_reply_would_be_the_same() {
    let node = node().await;
    let data = r#","datasubject":"c-17","data":{"to":"Elm"}"#;
    let append = |id: &str| post("/v1/streams/a/events").event(event(id, data));
    assert_eq!(node.send(append("1")).await.status, 201);
    assert_eq!(node.send(append("2")).await.status, 201);
    let read = || get("/v1/streams/a/events").header("if-none-match", "\"2\"");
    let known = node.send(read()).await;
    assert_eq!((known.status, known.header("etag"), known.events().len()), (200, Some("\"2\""), 2));
    assert!(known.text().contains("Elm"), "{}", known.text());
    assert_eq!(node.send(post("/v1/subjects/c-17/erase")).await.status, 200);
    let erased = node.send(read()).await;
    assert_eq!((erased.status, erased.header("etag")), (200, Some("\"2\"")));
    assert!(!erased.text().contains("Elm"), "{}", erased.text());
    let truncate = post("/v1/streams/a/truncate").header("if-match", "\"2\"").json(r#"{"before":2}"#);
    assert_eq!(node.send(truncate).await.status, 200);
    let truncated = node.send(read()).await;
    assert_eq!((truncated.status, truncated.events().len()), (200, 1));
    let batch = node.send(read().header("accept", "application/cloudevents-batch+json")).await;
    assert_eq!((batch.status, batch.header("content-type")), (200, Some("application/cloudevents-batch+json")));
    let head = node.send(request("HEAD", "/v1/streams/a/events")).await;
    assert_eq!((head.status, head.header("etag"), head.body.len()), (200, Some("\"2\""), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_comes_back_after_a_restore_is_told_so_for_the_log_and_for_a_stream() {
    let node = node().await;
    node.fill("a", 1, 3).await;
    assert_eq!(node.send(post("/v1/store/backup").json(r#"{"to":"early"}"#)).await.status, 201);
    node.fill("a", 4, 5).await;
    let mut subscriber = Subscriber::start(&node, get("/v1/events/subscribe?after=4")).await;
    let last = subscriber.told().await;
    let id = format!("{}@{}", last.id.unwrap(), last.timeline.unwrap());
    for path in ["/v1/events/subscribe", "/v1/streams/a/subscribe"] {
        // Where it was given out, the id is good: a signal and a heartbeat carry the same.
        Subscriber::start(&node, get(path).header("last-event-id", &id)).await.until_caught_up().await;
    }
    let backup = node.folder.path().join("data/backups/early");
    let target = node.folder.path().join("restored");
    let env = quorate_runtime::Env::real();
    env.disk().create_dir_all(&target).unwrap();
    quorate_data::store::sqlite::restore(&env, backup, target.join("quorate.db"), std::sync::Arc::new(|_, _| {}))
        .await
        .unwrap();
    let folder = node.end().await;
    let restored = crate::node::start(folder, |config| config.data = target).await;
    // As many events as before, but others: a position alone cannot tell.
    restored.fill("a", 14, 16).await;
    for path in ["/v1/events/subscribe", "/v1/streams/a/subscribe"] {
        let reply = restored.send(get(path).header("last-event-id", &id)).await;
        assert_eq!((reply.status, reply.code().as_str()), (409, "other-timeline"), "{path}");
        assert_eq!(reply.json()["logposition"], "6");
        Subscriber::start(&restored, get(format!("{path}?after=3"))).await.until_caught_up().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_closed_for_good_ends_its_subscriptions() {
    let node = node().await;
    node.fill("a", 1, 1).await;
    let mut subscriber = Subscriber::start(&node, get("/v1/streams/a/subscribe")).await;
    assert_eq!(subscriber.until_caught_up().await, [1]);
    assert_eq!(node.send(post("/v1/streams/a/tombstone")).await.status, 200);
    let closing = subscriber.told().await;
    assert_eq!((closing.event.as_str(), closing.json()), ("closing", json!({ "reason": "tombstoned" })));
    assert_eq!(subscriber.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_unsafe_verb_honours_a_key() {
    let node = node().await;
    node.fill("order-1", 1, 5).await;
    let several =
        || post("/v1/events").json(format!(r#"{{"streams":[{{"stream":"s","events":[{}]}}]}}"#, event("1", "")));
    let requests = [
        ("several", several()),
        ("truncate", post("/v1/streams/order-1/truncate").json(r#"{"before":3}"#)),
        ("scavenge", post("/v1/store/scavenge")),
        ("subscription", request("PUT", "/v1/subscriptions/s").json(r#"{"key":"unordered"}"#)),
        ("no subscription", request("DELETE", "/v1/subscriptions/s")),
        ("queue", request("PUT", "/v1/queues/q").json("{}")),
        ("no queue", request("DELETE", "/v1/queues/q")),
        ("schema", post("/v1/schemas/t/versions").json("{}")),
        ("mode", request("PUT", "/v1/schemas/t/mode").json(r#"{"mode":"none"}"#)),
        ("view", request("PUT", "/v1/views/v/document").header("content-type", "application/toml").body(VIEW)),
        ("no view", request("DELETE", "/v1/views/v")),
        ("backup", post("/v1/store/backup").json(r#"{"to":"one"}"#)),
        ("tombstone", post("/v1/streams/order-1/tombstone").header("if-match", "\"5\"")),
    ];
    for (name, request) in requests {
        // One that is being built may be about to become the one that readers have.
        while name == "no view" && node.get("/v1/views/v").await.json()["builds"][0]["live"] != true {
            node.pause(std::time::Duration::from_millis(5)).await;
        }
        let first = node.send(request.clone().header("idempotency-key", name)).await;
        let second = node.send(request.clone().header("idempotency-key", name)).await;
        assert!((200..300).contains(&first.status), "{name}: {}", first.text());
        assert_eq!((second.status, second.body.clone()), (first.status, first.body), "{name}: {}", second.text());
        assert_eq!(second.header("idempotency-replayed"), Some("true"), "{name}");
    }
}

const VIEW: &str = r#"
view = "v"
version = 1

[tables.seen]
key = "stream"
columns = { stream = "text" }

[[on]]
bind = { stream = "$.stream" }
sql = "INSERT INTO seen (stream) VALUES (:stream) ON CONFLICT (stream) DO NOTHING"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_refused_where_no_answer_is_kept_for_it() {
    let node = node().await;
    node.fill("order-1", 1, 1).await;
    assert_eq!(node.send(request("PUT", "/v1/subscriptions/s").json(r#"{"key":"unordered"}"#)).await.status, 200);
    assert_eq!(node.send(request("PUT", "/v1/queues/q").json("{}")).await.status, 200);
    for (path, body) in [("/v1/subscriptions/s/pull", "{}"), ("/v1/queues/q/receive", "{}")] {
        let refused = node.send(post(path).json(body).header("idempotency-key", "k")).await;
        assert_eq!((refused.status, refused.code().as_str()), (400, "invalid-parameter"), "{path}");
        assert_eq!(refused.json()["header"], "idempotency-key", "{path}");
    }
    let pulled = node.send(post("/v1/subscriptions/s/pull").json("{}")).await;
    assert_eq!(pulled.json()["deliveries"].as_array().map(Vec::len), Some(1), "{}", pulled.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_refuses_an_event_refuses_it_under_a_key_as_well() {
    let node = node().await;
    let view = r#"
view = "paid"
version = 1
mode = "inline"

[tables.sum]
key = "stream"
columns = { stream = "text", cents = "integer" }

[[on]]
bind = { stream = "$.stream", cents = "$.data.cents" }
sql = "INSERT INTO sum (stream, cents) VALUES (:stream, :cents) ON CONFLICT (stream) DO UPDATE SET cents = sum.cents + excluded.cents"
"#;
    let declare = request("PUT", "/v1/views/paid/document").header("content-type", "application/toml").body(view);
    let declared = node.send(declare).await;
    assert_eq!(declared.status, 201, "{}", declared.text());
    let live = async || node.get("/v1/views/paid").await.json()["builds"][0]["live"] == true;
    while !live().await {
        node.pause(std::time::Duration::from_millis(5)).await;
    }
    let paid = |id: &str, data: &str| post(PATH).event(event(id, &format!(r#","data":{data}"#)));
    for key in [None, Some("k")] {
        let append = key.into_iter().fold(paid("1", "{}"), |append, key| append.header("idempotency-key", key));
        let refused = node.send(append).await;
        assert_eq!((refused.status, refused.code().as_str()), (409, "view-refuses"), "{}", refused.text());
        assert_eq!((&refused.json()["view"], &refused.json()["outcome"]), (&json!("paid"), &json!("unchanged")));
    }
    // Nothing was kept for the key either: the event is not there, and another attempt may be.
    assert!(node.get(PATH).await.status == 404);
    let fits = node.send(paid("1", r#"{"cents":5}"#).header("idempotency-key", "other")).await;
    assert_eq!(fits.status, 201, "{}", fits.text());
}
