use serde_json::json;

use crate::{
    client::{get, post, request},
    node::{Node, event, node, node_with},
};

const METADATA: &str = "/v1/streams/a/metadata";

fn put(body: &str) -> crate::client::Request {
    request("PUT", METADATA).json(body)
}

async fn versions(node: &Node, stream: &str) -> Vec<u64> {
    let reply = node.get(&format!("/v1/streams/{stream}/events")).await;
    let version = |event: &serde_json::Value| event["streamversion"].as_str().unwrap().parse().unwrap();
    reply.events().iter().map(version).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_is_set_under_a_precondition_and_read_back() {
    let node = node().await;
    assert_eq!(node.get(METADATA).await.code(), "stream-not-found");
    let set = put(r#"{"max-count":3,"max-age":"30days","values":{"owner":"billing"}}"#);
    let first = node.send(set.clone().header("if-none-match", "*")).await;
    assert_eq!((first.status, first.header("etag")), (200, Some("\"1\"")), "{}", first.text());
    let expected = json!({
        "stream": "a", "metadataversion": "1", "max-count": "3", "max-age": "30days", "values": { "owner": "billing" },
    });
    assert_eq!(first.json(), expected);
    assert_eq!(node.get(METADATA).await.json(), expected);
    for stale in [set.clone().header("if-none-match", "*"), set.clone().header("if-match", "\"2\"")] {
        let refused = node.send(stale).await;
        assert_eq!((refused.status, refused.code().as_str()), (412, "metadata-conflict"));
        assert_eq!((refused.header("etag"), &refused.json()["metadataversion"]), (Some("\"1\""), &json!("1")));
    }
    let second = node.send(put("{}").header("if-match", "\"1\"")).await;
    assert_eq!((second.status, second.header("etag")), (200, Some("\"2\"")));
    assert_eq!(node.get(METADATA).await.json(), json!({ "stream": "a", "metadataversion": "2", "values": {} }));
    node.fill("b", 1, 1).await;
    let none = node.get("/v1/streams/b/metadata").await;
    assert_eq!((none.status, none.header("etag"), &none.json()["metadataversion"]), (200, None, &json!("0")));
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_breaks_a_rule_are_refused() {
    let node = node().await;
    for (body, code) in [
        ("", "invalid-json"),
        ("[]", "invalid-json"),
        (r#"{"max_count":1}"#, "invalid-json"),
        (r#"{"max-count":-1}"#, "invalid-json"),
        (r#"{"max-age":"soon"}"#, "invalid-json"),
        (r#"{"values":{"a":1}}"#, "invalid-json"),
        (r#"{"max-count":0}"#, "invalid-parameter"),
        (r#"{"max-age":"0s"}"#, "invalid-parameter"),
        (r#"{"max-age":"200years"}"#, "invalid-parameter"),
        (r#"{"values":{"":"x"}}"#, "invalid-parameter"),
    ] {
        let refused = node.send(put(body)).await;
        assert_eq!((refused.status, refused.code().as_str()), (400, code), "{body}");
    }
    for (body, path) in [
        (r#"{"values":{"owner":"a","region":"b","owner":"c"}}"#, "/values/owner"),
        (r#"{"values":{"a/b":"a","a/b":"a"}}"#, "/values/a~1b"),
    ] {
        let refused = node.send(put(body)).await;
        assert_eq!((refused.status, refused.code().as_str()), (400, "invalid-json"), "{body}");
        assert_eq!(refused.json()["path"], path);
        assert!(refused.json()["detail"].as_str().unwrap().contains(path), "{}", refused.text());
    }
    let weak = node.send(put("{}").header("if-match", "W/\"1\"")).await;
    assert_eq!(weak.code(), "invalid-precondition");
    assert_eq!(node.get(METADATA).await.code(), "stream-not-found", "nothing was set");
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_hide_events_at_once_and_a_scavenge_forgets_them() {
    let node = node().await;
    node.fill("a", 1, 10).await;
    assert_eq!(node.send(put(r#"{"max-count":"4"}"#)).await.status, 200);
    assert_eq!(versions(&node, "a").await, [7, 8, 9, 10]);
    let head = node.get("/v1/streams/a").await.json();
    assert_eq!((&head["first"], &head["metadataversion"]), (&json!("7"), &json!("1")));
    assert_eq!(node.get("/v1/streams/a/events/3").await.code(), "event-not-found");
    let stubs = async || {
        let log = node.get("/v1/events").await.events();
        log.iter().filter(|event| event["stub"] == "truncated").count()
    };
    let refused = node.send(post("/v1/store/scavenge").json(r#"{"streams":["b"]}"#)).await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "invalid-json"));
    assert_eq!(stubs().await, 0);
    let done = node.send(post("/v1/store/scavenge")).await;
    assert_eq!(done.json(), json!({ "streams": 1, "retired": 6 }));
    assert_eq!(stubs().await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_scavenges_by_itself() {
    let node = node_with(|config| config.scavenge_every = std::time::Duration::from_millis(20)).await;
    node.fill("a", 1, 10).await;
    assert_eq!(node.send(put(r#"{"max-count":1}"#)).await.status, 200);
    for _ in 0..400 {
        let log = node.get("/v1/events").await.events();
        if log.iter().filter(|event| event["stub"] == "truncated").count() == 9 {
            return;
        }
        node.pause(std::time::Duration::from_millis(20)).await;
    }
    panic!("expired events are still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_truncate_is_answered_as_the_first_time_also_after_a_restart() {
    let node = node().await;
    node.fill("a", 1, 10).await;
    let truncate = || post("/v1/streams/a/truncate").header("idempotency-key", "k").json(r#"{"before":5}"#);
    let first = node.send(truncate()).await;
    assert_eq!((first.status, &first.json()["retired"]), (200, &json!(4)), "{}", first.text());
    let node = node.restart().await;
    let second = node.send(truncate()).await;
    assert_eq!((&second.body, second.header("idempotency-replayed")), (&first.body, Some("true")));
    let plain = node.send(post("/v1/streams/a/truncate").json(r#"{"before":5}"#)).await;
    assert_eq!(plain.json()["retired"], 0, "without a key it is done again, and there is nothing to do");
    assert_eq!(versions(&node, "a").await, [5, 6, 7, 8, 9, 10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_tombstone_is_answered_as_the_first_time() {
    let node = node().await;
    node.fill("a", 1, 2).await;
    let tombstone = || post("/v1/streams/a/tombstone").header("idempotency-key", "k").header("if-match", "\"3\"");
    assert_eq!(node.send(tombstone()).await.code(), "version-conflict");
    node.fill("a", 3, 3).await;
    let again = node.send(tombstone()).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (412, Some("true")));
    let done = node.send(post("/v1/streams/a/tombstone").header("if-match", "\"3\"")).await;
    assert_eq!((done.status, &done.json()["retired"]), (200, &json!(3)));
    assert_eq!(node.send(post("/v1/streams/a/events").event(event("x", ""))).await.code(), "stream-tombstoned");
    assert_eq!(node.send(put("{}")).await.code(), "stream-tombstoned");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archived_event_says_where_it_went() {
    let node = node().await;
    node.fill("a", 1, 10).await;
    let order = || post("/v1/streams/a/archive").json(r#"{"to":"old.qa","before":"6"}"#);
    let made = node.send(order()).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let archive = made.json();
    let path = node.folder.path().join("data/archives/old.qa");
    assert_eq!(archive["path"], path.to_str().unwrap());
    assert_eq!((&archive["archiveid"], &archive["first"], &archive["last"]), (&json!("1"), &json!("1"), &json!("5")));
    assert_eq!(node.send(order()).await.json(), archive, "repeated, it answers as the first time");
    let gone = node.get("/v1/streams/a/events/3").await;
    assert_eq!((gone.status, gone.code().as_str()), (410, "event-archived"));
    assert_eq!((&gone.json()["archive"], &gone.json()["archiveid"]), (&json!("old.qa"), &json!("1")));
    let stub = &node.get("/v1/events?limit=1").await.events()[0];
    assert_eq!((&stub["stub"], &stub["archiveid"], stub.get("data")), (&json!("archived"), &json!("1"), None));
    assert_eq!(versions(&node, "a").await, [6, 7, 8, 9, 10]);
    assert_eq!(node.get("/v1/streams/a/archive").await.json(), json!({ "archives": [archive] }));
    assert_eq!(node.get("/v1/streams/b/archive").await.code(), "stream-not-found");
    let verified = node.send(post("/v1/store/verify")).await.text();
    assert!(verified.lines().last().unwrap().contains("\"sound\":true"), "{verified}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_goes_nowhere_but_into_its_folder_and_overwrites_nothing() {
    let node = node().await;
    node.fill("a", 1, 10).await;
    let order = |to: &str, rest: &str| post("/v1/streams/a/archive").json(format!(r#"{{"to":"{to}"{rest}}}"#));
    for name in ["..", "../quorate.db", "/tmp/x", "a/b", ".x", "", "a\\\\b"] {
        let refused = node.send(order(name, "")).await;
        assert_eq!((refused.status, refused.code().as_str()), (400, "invalid-name"), "{name}");
    }
    assert_eq!(node.send(order("a", ",\"before\":0")).await.code(), "invalid-parameter");
    assert_eq!(node.send(order("a", ",\"before\":1")).await.code(), "nothing-to-archive");
    let nowhere = node.send(post("/v1/streams/nowhere/archive").json(r#"{"to":"nowhere.qa"}"#)).await;
    assert_eq!((nowhere.status, nowhere.code().as_str()), (404, "stream-not-found"), "{}", nowhere.text());
    assert_eq!(node.send(order("a", ",\"before\":3")).await.status, 201);
    let refused = node.send(order("a", ",\"before\":5")).await;
    assert_eq!((refused.status, refused.code().as_str()), (409, "archive-exists"));
    assert_eq!(versions(&node, "a").await.len(), 8);
    assert_eq!(node.send(get("/livez")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_were_read_can_be_changed_and_sent_back_and_are_refused_once_they_are_old() {
    let node = node().await;
    let set = put(r#"{"max-count":3,"max-age":"30days","values":{"owner":"billing"}}"#);
    assert_eq!(node.send(set.header("if-none-match", "*")).await.status, 200);
    let mut read = node.get(METADATA).await.json();
    read["values"]["owner"] = json!("ops");
    let back = node.send(put(&read.to_string())).await;
    assert_eq!((back.status, back.header("etag")), (200, Some("\"2\"")), "{}", back.text());
    let stale = node.send(put(&read.to_string())).await;
    assert_eq!((stale.status, stale.code().as_str()), (412, "metadata-conflict"), "it was read at version 1");
    read["metadataversion"] = json!("2");
    assert_eq!(node.get(METADATA).await.json(), read, "and what is there is what was sent");
    let same = node.send(put(&read.to_string()).header("if-match", "\"2\"")).await;
    assert_eq!(same.status, 200, "{}", same.text());
    let torn = node.send(put(&read.to_string()).header("if-match", "\"3\"")).await;
    assert_eq!((torn.status, torn.code().as_str()), (400, "invalid-precondition"), "{}", torn.text());
    let elsewhere = node.send(put(r#"{"stream":"b","max-count":1}"#)).await;
    assert_eq!((elsewhere.status, elsewhere.code().as_str()), (400, "invalid-parameter"), "{}", elsewhere.text());
    node.fill("b", 1, 1).await;
    let none = node.get("/v1/streams/b/metadata").await.json();
    let first = node.send(request("PUT", "/v1/streams/b/metadata").json(none.to_string())).await;
    assert_eq!((first.status, first.header("etag")), (200, Some("\"1\"")), "{}", first.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_precondition_says_what_was_expected_what_is_there_and_what_to_do() {
    let node = node().await;
    node.fill("a", 1, 3).await;
    assert_eq!(node.send(put("{}")).await.status, 200);
    let append = |stream: &str| post(format!("/v1/streams/{stream}/events")).event(event("x", ""));
    let tombstone = post("/v1/streams/a/tombstone");
    for (request, header, tag, parts) in [
        (
            append("a"),
            "if-none-match",
            "*",
            ["stream `a` was expected not to exist, and is at version 3", "another name"],
        ),
        (
            append("a"),
            "if-match",
            "\"2\"",
            ["stream `a` was expected at version 2, and is at version 3", "decide anew"],
        ),
        (append("a"), "if-match", "\"7\"", ["stream `a` was expected at version 7, and is at version 3", "never had"]),
        (append("b"), "if-match", "*", ["stream `b` was expected to exist, and does not exist", "check the name"]),
        (
            append("b"),
            "if-match",
            "\"2\"",
            ["stream `b` was expected at version 2, and does not exist", "check the name"],
        ),
        (tombstone, "if-match", "\"2\"", ["stream `a` was expected at version 2, and is at version 3", "decide anew"]),
        (
            put("{}"),
            "if-none-match",
            "*",
            ["metadata of stream `a` was expected not to be set, and is at version 1", "read it"],
        ),
        (
            put("{}"),
            "if-match",
            "\"2\"",
            ["metadata of stream `a` was expected at version 2, and is at version 1", "read it"],
        ),
    ] {
        let refused = node.send(request.header(header, tag)).await;
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert_eq!(refused.status, 412, "{detail}");
        assert!(parts.iter().all(|part| detail.contains(part)), "{header}: {tag}: {detail}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_is_done_only_at_the_version_that_is_expected() {
    let node = node().await;
    node.fill("a", 1, 6).await;
    let truncate = |stream: &str| post(format!("/v1/streams/{stream}/truncate")).json(r#"{"before":4}"#);
    let keyed = || truncate("a").header("if-match", "\"7\"").header("idempotency-key", "k");
    for stale in
        [truncate("a").header("if-match", "\"5\""), truncate("a").header("if-none-match", "*"), keyed(), keyed()]
    {
        let refused = node.send(stale).await;
        assert_eq!((refused.status, refused.code().as_str()), (412, "version-conflict"));
        assert_eq!((refused.header("etag"), &refused.json()["outcome"]), (Some("\"6\""), &json!("unchanged")));
    }
    assert_eq!(versions(&node, "a").await, [1, 2, 3, 4, 5, 6], "nothing was destroyed");
    assert_eq!(node.send(truncate("b").header("if-match", "*")).await.code(), "version-conflict");
    let weak = node.send(truncate("a").header("if-match", "W/\"6\"")).await;
    assert_eq!((weak.status, weak.code().as_str()), (400, "invalid-precondition"));
    for _ in 0..2 {
        let done = node.send(truncate("a").header("if-match", "\"6\"")).await;
        assert_eq!(done.status, 200, "{}", done.text());
        assert_eq!(versions(&node, "a").await, [4, 5, 6]);
    }
    node.fill("a", 7, 7).await;
    let replayed = node.send(keyed()).await;
    assert_eq!((replayed.status, replayed.header("idempotency-replayed")), (412, Some("true")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_precondition_that_nobody_looks_at_is_refused_before_anything_is_done() {
    let node = node().await;
    node.fill("a", 1, 3).await;
    let subscription = || request("PUT", "/v1/subscriptions/s").json(r#"{"key":"unordered"}"#);
    let made = node.send(subscription()).await;
    assert_eq!(made.status, 200, "{}", made.text());
    assert_eq!(node.send(request("PUT", "/v1/queues/q").json("{}")).await.status, 200);
    for unsafe_ in [
        request("DELETE", "/v1/subscriptions/s"),
        subscription(),
        request("DELETE", "/v1/queues/q"),
        request("DELETE", "/v1/views/v"),
        post("/v1/subscriptions/s/pull").json("{}"),
        post("/v1/streams/a/archive").json(r#"{"to":"a.qa"}"#),
        post("/v1/subjects/s/erase"),
        post("/v1/store/scavenge"),
        post("/v1/events").json(r#"{"streams":[]}"#),
    ] {
        for header in ["if-match", "if-none-match"] {
            let refused = node.send(unsafe_.clone().header(header, "\"99\"")).await;
            let document = refused.json();
            assert_eq!((refused.status, refused.code().as_str()), (400, "invalid-precondition"), "{document}");
            assert_eq!((&document["header"], &document["outcome"]), (&json!(header), &json!("unchanged")));
        }
    }
    assert_eq!(node.get("/v1/subscriptions/s").await.status, 200, "it was not deleted");
    assert_eq!(node.get("/v1/queues/q").await.status, 200, "it was not deleted");
    assert_eq!(node.get("/v1/streams/a/archive").await.json()["archives"], json!([]));
}
