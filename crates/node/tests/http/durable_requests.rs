//! Durable requests: asked, answered and asked for, all over HTTP, over each store.

use quorate_runtime::Env;
use serde_json::{Value, json};

use crate::{
    client::{Reply, get, post, request},
    node::{Node, node, node_with},
    subscribe::Subscriber,
};

const TYPE: &str = "/v1/request-types/report";
const ASK: &str = "/v1/requests/report";
const QUEUE: &str = "/v1/queues/report";

async fn put(node: &Node, path: &str, config: Value) {
    let declared = node.send(request("PUT", path).json(config.to_string())).await;
    assert_eq!(declared.status, 200, "{}", declared.text());
}

/// A durable type, whose queue is like this.
async fn declare(node: &Node, time_limit: &str, queue: Value) {
    put(node, TYPE, json!({ "exchange": "durable", "time-limit": time_limit })).await;
    put(node, QUEUE, queue).await;
}

async fn ask(node: &Node, id: &str, body: &str) -> Reply {
    node.send(post(format!("{ASK}?id={id}")).header("content-type", "text/plain").body(body)).await
}

/// What a responder is told next, and what the request is named by.
async fn told(responder: &mut Subscriber, event: &str) -> (String, Value) {
    let sse = responder.told().await;
    assert_eq!(sse.event, event, "{sse:?}");
    let told = sse.json();
    (told["request"].as_str().unwrap().to_owned(), told)
}

/// Why a responder's stream is over.
async fn told_over(responder: &mut Subscriber) -> String {
    let sse = responder.told().await;
    assert_eq!(sse.event, "closing", "{sse:?}");
    sse.json()["reason"].as_str().unwrap().to_owned()
}

async fn serve(node: &Node) -> Subscriber {
    Subscriber::start(node, get(format!("{TYPE}/serve?window=4"))).await
}

async fn say(node: &Node, named: &str, how: &str, body: &str) -> Reply {
    let media = if how == "fault" { "application/json" } else { "text/csv; charset=utf-8" };
    node.send(post(format!("{TYPE}/requests/{named}/{how}")).header("content-type", media).body(body)).await
}

async fn status(node: &Node, id: &str) -> Value {
    let status = node.get(&format!("{ASK}/{id}")).await;
    assert_eq!(status.status, 200, "{}", status.text());
    status.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_request_is_kept_answered_once_and_told_to_whoever_asks() {
    let node = node().await;
    put(&node, TYPE, json!({ "exchange": "durable", "time-limit": "1m" })).await;
    assert_eq!(node.get(TYPE).await.json()["queue"], QUEUE);
    let asked = ask(&node, "of%2Fmay", "tea \"\n☂").await;
    assert_eq!((asked.status, asked.header("location")), (202, Some("/v1/requests/report/of%2Fmay")));
    assert_eq!(asked.json(), json!({ "type": "report", "id": "of/may", "repeated": false }));
    assert_eq!(ask(&node, "of%2Fmay", "tea \"\n☂").await.json()["repeated"], true);
    assert_eq!(ask(&node, "of%2Fmay", "coal").await.code(), "request-id-reused");
    let drawn = node.send(post(ASK).body([0xff_u8, 0])).await;
    let second = drawn.header("location").unwrap().trim_start_matches("/v1/requests/report/").to_owned();
    let node = node.restart().await;
    assert_eq!(
        status(&node, "of%2Fmay").await,
        json!({ "type": "report", "id": "of/may", "status": "waiting", "attempts": 0 })
    );
    let mut responder = serve(&node).await;
    let (first, what) = told(&mut responder, "request").await;
    assert_eq!((&what["id"], &what["attempt"]), (&json!("of/may"), &json!(1)));
    assert_eq!((&what["body"], &what["content-type"]), (&json!("tea \"\n☂"), &json!("text/plain")));
    assert!(what["timeout"].is_string(), "{what}");
    assert_eq!(status(&node, "of%2Fmay").await["status"], "running");
    let mut waiting = node.client().await;
    waiting.begin(&get(format!("{ASK}/of%2Fmay?wait=10s"))).await;
    assert_eq!(say(&node, &first, "answer", "250;EUR").await.json()["receipt"], "taken");
    let done = json!({ "type": "report", "id": "of/may", "status": "done",
        "answer": { "content-type": "text/csv; charset=utf-8", "body": "250;EUR" } });
    assert_eq!(waiting.reply().await.unwrap().json(), done);
    assert_eq!(say(&node, &first, "answer", "again").await.code(), "lease-lost");
    let (named, what) = told(&mut responder, "request").await;
    assert_eq!((&what["id"], &what["body-base64"]), (&json!(second), &json!("/wA=")));
    let said = say(&node, &named, "fault", r#"{"code":"not-sold","detail":"there is none"}"#).await;
    assert_eq!(said.status, 200, "{}", said.text());
    drop(responder);
    let node = node.restart().await;
    assert_eq!(status(&node, "of%2Fmay").await, done, "also behind a restart");
    let failed = status(&node, &second).await;
    assert_eq!(failed["fault"], json!({ "code": "not-sold", "detail": "there is none" }));
    assert_eq!((&failed["status"], &failed["dead-letter"]), (&json!("failed"), &Value::Null));
    assert_eq!(ask(&node, "of%2Fmay", "tea \"\n☂").await.json()["repeated"], true);
    assert_eq!(node.get(QUEUE).await.json()["messages"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_durable_responder_that_left_holds_is_anothers_and_its_late_answer_is_refused() {
    let node = node().await;
    // Were the lease waited for, this would take hours.
    let queue = json!({ "lease-ttl": "10h", "max-attempts": 3, "backoff": { "first": "1ms", "max": "1ms" } });
    declare(&node, "1h", queue).await;
    ask(&node, "1", "tea").await;
    let mut leaving = serve(&node).await;
    let (old, _) = told(&mut leaving, "request").await;
    drop(leaving);
    let mut responder = serve(&node).await;
    let (letting_go, what) = told(&mut responder, "request").await;
    assert_eq!((&what["id"], &what["attempt"]), (&json!("1"), &json!(2)));
    assert_eq!(say(&node, &old, "answer", "late").await.code(), "lease-lost");
    assert_eq!(say(&node, &letting_go, "let-go", "").await.json()["receipt"], "let-go");
    let (last, what) = told(&mut responder, "request").await;
    assert_eq!(what["attempt"], 3);
    assert_eq!(say(&node, &last, "let-go", "").await.status, 200);
    // Three were all there may be.
    let failed = node.get(&format!("{ASK}/1?wait=10s")).await.json();
    assert_eq!((&failed["status"], &failed["fault"]["code"]), (&json!("failed"), &json!("dead-letter")));
    let letters = node.get(failed["dead-letter"].as_str().unwrap()).await.json();
    assert_eq!(letters["parked"][0]["event"]["id"], "1", "{letters}");
    let replayed = node.send(post(format!("{QUEUE}/replay")).json(r#"{"id":"1"}"#)).await;
    assert_eq!(replayed.json()["messages"], 1);
    let (named, _) = told(&mut responder, "request").await;
    for late in [&old, &letting_go, &last] {
        assert_eq!(say(&node, late, "fault", r#"{"code":"late"}"#).await.code(), "lease-lost");
    }
    assert_eq!(say(&node, &named, "answer", "250").await.status, 200);
    assert_eq!(status(&node, "1").await["answer"]["body"], "250");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_responder_keeps_a_request_beyond_its_lease_and_not_beyond_the_time_limit() {
    let node = node().await;
    let queue = json!({ "lease-ttl": "3s", "backoff": { "first": "1ms", "max": "1ms" } });
    declare(&node, "6s", queue).await;
    ask(&node, "1", "tea").await;
    let (env, began) = (Env::real(), Env::real().boot());
    let mut responder = serve(&node).await;
    let (slow, _) = told(&mut responder, "request").await;
    // Had its lease run out before, it would have been handed out again before that.
    assert_eq!(told(&mut responder, "stop").await.0, slow);
    assert!(env.boot().saturating_since(began) >= std::time::Duration::from_secs(6), "its lease was lost");
    let (again, what) = told(&mut responder, "request").await;
    assert_eq!(what["attempt"], 2);
    assert_eq!(say(&node, &slow, "answer", "late").await.code(), "lease-lost");
    assert_eq!(say(&node, &again, "answer", "250").await.status, 200);
    // Whoever changes the type to another kind has its durable responders leave.
    put(&node, TYPE, json!({})).await;
    assert_eq!(told_over(&mut responder).await, "type-gone");
    assert_eq!(node.get(&format!("{ASK}/1")).await.code(), "request-not-found");
    // And the other way round, at once.
    let mut ordinary = serve(&node).await;
    put(&node, TYPE, json!({ "exchange": "durable" })).await;
    assert_eq!(told_over(&mut ordinary).await, "type-gone");
    assert_eq!(status(&node, "1").await["answer"]["body"], "250");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_of_durable_requests_is_refused() {
    let node = node().await;
    assert_eq!(node.get(&format!("{ASK}/1")).await.code(), "request-type-not-found");
    let both = r#"{"exchange":"durable","idempotent":true}"#;
    assert_eq!(node.send(request("PUT", TYPE).json(both)).await.code(), "invalid-parameter");
    put(&node, TYPE, json!({ "exchange": "durable" })).await;
    put(&node, "/v1/request-types/price", json!({})).await;
    let forgotten = node.get(&format!("{ASK}/1")).await;
    assert_eq!((forgotten.status, forgotten.code().as_str()), (404, "request-not-found"));
    assert!(forgotten.json()["detail"].as_str().unwrap().contains("604800s ago"), "{}", forgotten.text());
    assert_eq!(node.get("/v1/requests/price/1").await.code(), "request-not-found");
    let long = "x".repeat(513);
    for (path, code) in [
        (format!("{ASK}?id="), "invalid-name"),
        (format!("{ASK}?id=.."), "invalid-name"),
        (format!("{ASK}?id=%00"), "invalid-name"),
        (format!("{ASK}?id=%ff"), "invalid-parameter"),
        (format!("{ASK}?id={long}"), "invalid-name"),
        (format!("{ASK}?id=1&id=2"), "invalid-parameter"),
        (format!("{ASK}?callback=http%3A%2F%2F127.0.0.1%2F"), "invalid-parameter"),
        ("/v1/requests/price?id=1".to_owned(), "invalid-parameter"),
        (format!("{TYPE}/requests/nonsense/answer"), "invalid-parameter"),
    ] {
        assert_eq!(node.send(post(path.as_str()).body("tea")).await.code(), code, "{path}");
    }
    let keyed = post(ASK).header("idempotency-key", "k").body("tea");
    assert_eq!(node.send(keyed).await.code(), "invalid-parameter", "its id is its key");
    for (query, code) in [
        ("wait=soon", "invalid-parameter"),
        ("wait=100h", "limit-exceeded"),
        ("limit=1", "invalid-parameter"),
        ("wait=1s&wait=1s", "invalid-parameter"),
    ] {
        assert_eq!(node.get(&format!("{ASK}/1?{query}")).await.code(), code, "{query}");
    }
    // What another queue handed out is nothing here.
    put(&node, "/v1/queues/others", json!({})).await;
    let event = r#"{"messages":[{"event":{"specversion":"1.0","id":"1","source":"/requests","type":"report"}}]}"#;
    assert_eq!(node.send(post("/v1/queues/others/messages").json(event)).await.status, 201);
    let taken = node.send(post("/v1/queues/others/receive").json("{}")).await.json();
    let lease = taken["deliveries"][0]["lease"].as_str().unwrap();
    for how in ["answer", "let-go"] {
        assert_eq!(say(&node, lease, how, "").await.code(), "lease-lost");
        // No responder is handed messages of a queue that is no type's.
        let path = format!("/v1/request-types/others/requests/{lease}/{how}");
        assert_eq!(node.send(post(path)).await.code(), "request-type-not-found");
    }
    // An empty body is one, and a message that somebody settles past the type leaves its request without an answer.
    assert_eq!(ask(&node, "1", "").await.status, 202);
    let taken = node.send(post(format!("{QUEUE}/receive")).json("{}")).await.json();
    let leases = json!({ "leases": [taken["deliveries"][0]["lease"]] }).to_string();
    assert_eq!(node.send(post(format!("{QUEUE}/ack")).json(leases)).await.status, 200);
    assert_eq!(status(&node, "1").await, json!({ "type": "report", "id": "1", "status": "unanswered" }));
    assert_eq!(node.send(request("DELETE", QUEUE)).await.status, 200);
    assert_eq!(node.get(&format!("{ASK}/1")).await.code(), "queue-not-found");
    let refused = ask(&node, "2", "tea").await;
    assert_eq!((refused.code().as_str(), &refused.json()["id"]), ("queue-not-found", &json!("2")));
    let drawn = node.send(post(ASK).body("tea")).await.json();
    assert_eq!(drawn["id"].as_str().map(str::len), Some(32), "whatever became of it, it has a name: {drawn}");
    put(&node, TYPE, json!({ "exchange": "durable" })).await;
    assert_eq!(ask(&node, "2", "tea").await.status, 202);
}

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Asks, and has `address` told.
async fn ask_calling(node: &Node, id: &str, address: &str) -> Reply {
    let address = address.replace(':', "%3A").replace('/', "%2F");
    let asking = post(format!("{ASK}?id={id}&callback={address}")).header("quorate-callback-secret", SECRET);
    node.send(asking.body("tea")).await
}

/// Looks until `holds` is true of what is found there.
async fn until(node: &Node, path: &str, holds: impl Fn(&Reply) -> bool) -> Reply {
    let looking = async {
        loop {
            let found = node.get(path).await;
            if holds(&found) {
                return found;
            }
            node.pause(std::time::Duration::from_millis(20)).await;
        }
    };
    Env::real().timeout(crate::client::PATIENCE, looking).await.expect("it comes to be so")
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_a_request_names_is_told_the_outcome_and_what_cannot_be_told_is_parked() {
    let node = node_with(|config| config.webhook_targets = vec!["127.0.0.0/8".parse().unwrap()]).await;
    // Whoever is told keeps events.
    let told = crate::node::node().await;
    put(&node, TYPE, json!({ "exchange": "durable", "time-limit": "1m" })).await;
    put(&node, "/v1/queues/request-callbacks", json!({ "max-attempts": 1 })).await;
    let there = format!("http://{}/v1/streams/told/events", told.address);
    let mut responder = serve(&node).await;
    for (id, address) in [("of-may", there.clone()), ("of-june", format!("http://{}/nowhere", told.address))] {
        assert_eq!(ask_calling(&node, id, &address).await.status, 202);
        assert_eq!(ask_calling(&node, id, &address).await.json()["repeated"], true);
        let (named, _) = self::told(&mut responder, "request").await;
        assert_eq!(say(&node, &named, "answer", "250;EUR").await.json()["receipt"], "taken");
    }
    let heard = until(&told, "/v1/streams/told/events", |found| found.status == 200).await.events();
    assert_eq!(heard.len(), 1);
    assert_eq!((&heard[0]["type"], &heard[0]["subject"]), (&json!("quorate.request.done"), &json!("of-may")));
    assert_eq!((&heard[0]["source"], &heard[0]["data"]), (&json!("/v1/requests/report/of-may"), &json!("250;EUR")));
    let queue = "/v1/queues/request-callbacks";
    until(&node, queue, |found| found.json()["parked"] == 1).await;
    let parked = node.get(&format!("{queue}/parked")).await.text();
    assert!(parked.contains("404 Not Found") && parked.contains("of-june"), "{parked}");
    assert!(!parked.contains("whsec_"), "{parked}");
    assert_eq!(ask_calling(&node, "of-may", "http://10.0.0.1/").await.code(), "forbidden-target");
    assert_eq!(ask_calling(&node, "of-may", "https://shop.example/").await.code(), "request-id-reused");
    assert_eq!(ask_calling(&node, "x", "nowhere").await.code(), "invalid-parameter");
    for (path, secret) in
        [(format!("{ASK}?callback=https%3A%2F%2Fa.b%2F"), "whsec_short"), (format!("{ASK}?id=x"), SECRET)]
    {
        let refused = node.send(post(path).header("quorate-callback-secret", secret).body("tea")).await;
        assert_eq!(
            (refused.code().as_str(), &refused.json()["header"]),
            ("invalid-parameter", &json!("quorate-callback-secret"))
        );
    }
    let taken =
        node.send(request("PUT", "/v1/request-types/request-callbacks").json(r#"{"exchange":"durable"}"#)).await;
    assert_eq!(taken.code(), "invalid-parameter");
}
