use serde_json::json;

use crate::{
    client::{Request, post},
    node::{event, node},
};

fn append(streams: &str, conditions: &str) -> Request {
    post("/v1/events").json(format!(r#"{{"streams":[{streams}],"conditions":[{conditions}]}}"#))
}

fn part(stream: &str, expected: &str, id: &str, members: &str) -> String {
    format!(r#"{{"stream":"{stream}","expected":{expected},"events":[{}]}}"#, event(id, members))
}

#[tokio::test(flavor = "multi_thread")]
async fn several_streams_are_written_together_or_not_at_all() {
    let node = node().await;
    let both = [part("a", r#""none""#, "1", ""), part("b", r#""any""#, "2", "")].join(",");
    let reply = node.send(append(&both, "")).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    let token = reply.header("quorate-token").unwrap();
    let streams = json!([{ "stream": "a", "streamversion": "1" }, { "stream": "b", "streamversion": "1" }]);
    assert_eq!(reply.json(), json!({ "streams": streams, "token": token }));
    let second = [part("a", r#"{"version":1}"#, "3", ""), part("b", r#"{"version":"7"}"#, "4", "")].join(",");
    let reply = node.send(append(&second, "")).await;
    assert_eq!((reply.code().as_str(), &reply.json()["stream"]), ("version-conflict", &json!("b")));
    assert_eq!(node.get("/v1/events").await.events().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_across_streams_stands_only_if_nothing_it_depends_on_came_between() {
    let node = node().await;
    let condition = |after: &str| {
        format!(
            r#"{{"failIfEventsMatch":{{"items":[{{"types":["test.happened"],"tags":["seat:12"]}}]}},"after":{after}}}"#
        )
    };
    let take = |id: &str, after: &str| {
        append(&part(&format!("guest-{id}"), r#""any""#, id, r#","tags":"seat:12""#), &condition(after))
    };
    assert_eq!(node.send(take("1", "0")).await.status, 201);
    let late = node.send(take("2", "0")).await;
    assert_eq!((late.status, late.code().as_str()), (409, "condition-failed"));
    assert_eq!((&late.json()["condition"], &late.json()["logposition"]), (&json!(0), &json!("1")));
    let ahead = node.send(take("2", "2")).await;
    assert_eq!(
        (ahead.status, ahead.code().as_str(), &ahead.json()["logposition"]),
        (409, "position-ahead", &json!("1"))
    );
    assert_eq!(node.send(take("2", "\"1\"")).await.status, 201);
    assert_eq!(node.send(take("1", "0")).await.status, 201, "a repetition is answered as the first time");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_body_of_several_streams_is_said() {
    let node = node().await;
    let twice = [part("a", r#""any""#, "1", ""), part("a", r#""any""#, "2", "")].join(",");
    let cases = [
        (append("", ""), 400, "invalid-batch"),
        (append(&twice, ""), 400, "invalid-batch"),
        (append(r#"{"stream":"a","events":[]}"#, ""), 400, "invalid-batch"),
        (append(&part("..", r#""any""#, "1", ""), ""), 400, "invalid-name"),
        (append(&part("a", r#"{"version":0}"#, "1", ""), ""), 400, "invalid-precondition"),
        (append(&part("a", r#"{"version":-1}"#, "1", ""), ""), 400, "invalid-json"),
        (append(&part("a", r#""sometimes""#, "1", ""), ""), 400, "invalid-json"),
        (append(&part("a", r#""any""#, "1", r#","id":"2""#), ""), 400, "invalid-event"),
        (
            append(&part("a", r#""any""#, "1", ""), r#"{"failIfEventsMatch":{"items":[{"tags":["a b"]}]}}"#),
            400,
            "invalid-parameter",
        ),
        (
            append(&part("a", r#""any""#, "1", ""), r#"{"failIfEventsMatch":{"items":[]},"since":1}"#),
            400,
            "invalid-json",
        ),
        (post("/v1/events").json(r#"{"streams":[],"streams":[]}"#), 400, "invalid-json"),
        (post("/v1/events").json("[]"), 400, "invalid-json"),
        (post("/v1/events").event(event("1", "")), 415, "unsupported-media-type"),
        (append(&part("a", r#""any""#, "1", ""), "").header("if-match", "\"1\""), 400, "invalid-precondition"),
    ];
    for (request, status, code) in cases {
        let reply = node.send(request).await;
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{}", reply.text());
    }
    let wrong = [part("a", r#""any""#, "1", ""), part("b", r#""any""#, "2", r#","time":1"#)].join(",");
    let document = node.send(append(&wrong, "")).await.json();
    assert_eq!((&document["part"], &document["index"], &document["attribute"]), (&json!(1), &json!(0), &json!("time")));
    assert!(node.get("/v1/events").await.events().is_empty());
}
