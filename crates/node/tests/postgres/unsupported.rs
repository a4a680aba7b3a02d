//! What this store cannot do is said to be so, everywhere, and nothing else is.

use crate::{
    client::{post, request},
    node::{event, node},
};

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_cannot_do_is_refused_by_name_and_changes_nothing() {
    let node = node().await;
    node.fill("a", 1, 3).await;
    let view = "view = \"v\"\nversion = 1\n[tables.t]\nkey = \"stream\"\ncolumns = { stream = \"text\" }\n[[on]]\n\
                bind = { stream = \"$.stream\" }\nsql = \"INSERT INTO t (stream) VALUES (:stream)\"\n";
    let asked = [
        post("/v1/transactions").json(r#"{"id":"1","participants":[{"url":"http://stock/x","work":{}}]}"#),
        post("/v1/participants/http:%2F%2Fstock/remove").json(r#"{"by":"carol","why":"gone"}"#),
        request("PUT", "/v1/streams/a/metadata").json(r#"{"max-count":3}"#),
        post("/v1/streams/a/truncate").json(r#"{"before":2}"#),
        post("/v1/streams/a/tombstone"),
        request("GET", "/v1/streams/a/archive"),
        post("/v1/streams/a/archive").json(r#"{"to":"x.qa"}"#),
        post("/v1/store/scavenge"),
        post("/v1/store/backup").json(r#"{"to":"x"}"#),
        post("/v1/store/backup-keys").json(r#"{"to":"x"}"#),
        request("GET", "/v1/erasures"),
        request("GET", "/v1/subjects/anna"),
        post("/v1/subjects/anna/erase"),
        post("/v1/streams/a/events").event(event("4", r#","datasubject":"anna","data":1"#)),
        request("GET", "/v1/views"),
        request("GET", "/v1/views/v"),
        request("PUT", "/v1/views/v/document").header("content-type", "application/toml").body(view),
        request("GET", "/v1/processes"),
        request("GET", "/v1/processes/p/courses"),
        request("PUT", "/v1/processes/p").header("content-type", "application/yaml").body("process: p\nbegins: [a]\n"),
    ];
    for request in asked {
        let reply = node.send(request.clone()).await;
        assert_eq!((reply.status, reply.code().as_str()), (501, "unsupported"), "{request:?}: {}", reply.text());
        let document = reply.json();
        assert_eq!((&document["retry"], &document["outcome"]), (&"never".into(), &"unchanged".into()));
        assert!(document["detail"].as_str().unwrap().starts_with("the postgres store cannot "), "{document}");
    }
    assert_eq!(node.get("/v1/streams/a/events").await.events().len(), 3);
    assert!(!node.folder.path().join("data").exists(), "nothing is kept beside the database");
    assert_eq!(node.get("/readyz").await.status, 200);
    assert!(node.get("/metrics").await.text().contains("quorate_"));
    assert_eq!(node.get("/errors/unsupported").await.status, 200);
}
