use serde_json::json;

use crate::{
    client::{Client, Request, post, request},
    node::{event, node, node_with},
};

const PATH: &str = "/v1/streams/order-1/events";

fn keyed(key: &str, id: &str) -> Request {
    post(PATH).header("idempotency-key", key).event(event(id, ""))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_is_answered_with_the_first_reply_also_after_a_restart() {
    let node = node().await;
    let first = node.send(keyed("\"k-1\"", "1")).await;
    node.fill("order-1", 2, 3).await;
    let second = node.send(keyed("k-1", "1")).await;
    assert_eq!((first.status, second.status), (201, 201));
    assert_eq!(
        (first.body.clone(), first.header("etag"), first.header("quorate-token")),
        (second.body.clone(), second.header("etag"), second.header("quorate-token"))
    );
    assert_eq!((first.header("idempotency-replayed"), second.header("idempotency-replayed")), (None, Some("true")));
    let node = node.restart().await;
    let third = node.send(keyed("k-1", "1")).await;
    assert_eq!((&third.body, third.header("idempotency-replayed")), (&first.body, Some("true")));
    assert_eq!(node.get(PATH).await.events().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_comes_with_another_request_is_refused() {
    let node = node().await;
    assert_eq!(node.send(keyed("k", "1")).await.status, 201);
    for other in [keyed("k", "2"), keyed("k", "1").header("if-match", "\"1\"")] {
        let reply = node.send(other).await;
        assert_eq!((reply.status, reply.code().as_str()), (422, "key-reused"));
    }
    let elsewhere = post("/v1/streams/order-2/events").header("idempotency-key", "k").event(event("1", ""));
    assert_eq!(node.send(elsewhere).await.status, 201, "another path is another scope");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_the_streams_state_decided_stands() {
    let node = node().await;
    let request = || keyed("k", "x").header("if-match", "\"2\"");
    node.fill("order-1", 1, 1).await;
    let first = node.send(request()).await;
    assert_eq!((first.status, first.code().as_str()), (412, "version-conflict"));
    node.fill("order-1", 2, 2).await;
    let second = node.send(request()).await;
    assert_eq!((second.status, second.header("idempotency-replayed")), (412, Some("true")));
    assert_eq!((second.body, second.headers.iter().filter(|(name, _)| name == "etag").count()), (first.body, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_could_not_be_understood_keeps_no_reply() {
    let node = node().await;
    let bad = post(PATH).header("idempotency-key", "k").event("{");
    assert_eq!(node.send(bad).await.code(), "invalid-json");
    assert_eq!(node.send(keyed("k", "1")).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_equal_requests_at_once_one_is_done_and_the_others_repeat_its_reply_or_wait() {
    let node = node().await;
    let (tell, mut told) = tokio::sync::mpsc::channel(32);
    let env = quorate_runtime::Env::real();
    for n in 0..32 {
        let (address, tell) = (node.address, tell.clone());
        env.tasks().spawn("client", async move {
            let id = if n == 31 { "other" } else { "same" };
            tell.send((n, Client::connect(address).await.send(keyed("k", id)).await)).await.unwrap();
        });
    }
    drop(tell);
    let (mut first, mut winner) = (0, None);
    while let Some((n, reply)) = told.recv().await {
        match reply.status {
            201 => {
                first += usize::from(reply.header("idempotency-replayed").is_none());
                winner = Some(n == 31);
            }
            409 => assert_eq!((reply.code().as_str(), &reply.json()["retry"]), ("request-in-flight", &json!("after"))),
            422 => assert_eq!(reply.code(), "key-reused"),
            other => panic!("{other}: {}", reply.text()),
        }
    }
    assert_eq!((first, winner.is_some()), (1, true));
    assert_eq!(node.get(PATH).await.events().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_have_an_end_and_one_spelling() {
    let node = node().await;
    for bad in ["", "\"\"", "a\"b", &"k".repeat(256)] {
        assert_eq!(node.send(keyed(bad, "1")).await.code(), "invalid-parameter", "{bad}");
    }
    let twice = keyed("a", "1").header("idempotency-key", "b");
    assert_eq!(node.send(twice).await.code(), "invalid-parameter");
    assert_eq!(node.send(keyed(&"k".repeat(255), "1")).await.status, 201);
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
async fn a_schema_under_a_key_is_held_against_its_mode_as_well() {
    let node = node().await;
    let register = |mode: &str| post(format!("/v1/schemas/t/versions{mode}")).json("{}").header("idempotency-key", "k");
    assert_eq!(node.send(register("")).await.status, 201);
    assert_eq!(node.send(register("?mode=none")).await.code(), "key-reused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_cannot_be_kept_undoes_what_it_tells_of() {
    let limit = 40_000;
    let node = node_with(|config| (config.limits.batch_bytes, config.limits.unit_bytes) = (limit, limit)).await;
    // The reply names every stream, and is larger than what it tells of.
    let stream = |n: usize| json!({ "stream": format!("{}-{n}", "\"".repeat(500)), "events": [{ "specversion": "1.0", "id": "1", "source": "/t", "type": "t" }] });
    let several = json!({ "streams": (0..60).map(stream).collect::<Vec<_>>() }).to_string();
    let refused = node.send(post("/v1/events").json(several.clone()).header("idempotency-key", "k")).await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "limit-exceeded"), "{}", refused.code());
    assert_eq!((&refused.json()["limit"], &refused.json()["outcome"]), (&json!(limit), &json!("unchanged")));
    assert!(node.get("/v1/events").await.events().is_empty());
    assert_eq!(node.send(post("/v1/events").json(several)).await.status, 201, "without a key nothing is kept");
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

#[tokio::test(flavor = "multi_thread")]
async fn what_fits_without_a_key_fits_with_one() {
    let limit = 100_000;
    let node = node_with(|config| (config.limits.batch_bytes, config.limits.unit_bytes) = (limit, limit)).await;
    let sent = |stream: &str, bytes: usize| {
        let data = format!(r#","data":"{}""#, "x".repeat(bytes));
        post(format!("/v1/streams/{stream}-{bytes}/events")).event(event("1", &data))
    };
    let mut most = limit;
    while node.send(sent("plain", most)).await.status != 201 {
        most -= 1;
        assert!(most > limit - 1_000, "an event is little more than its data");
    }
    let reply = node.send(sent("keyed", most).header("idempotency-key", "k")).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    let again = node.send(sent("keyed", most).header("idempotency-key", "k")).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (201, Some("true")));
}
