//! Values that users keep with a stream.

use serde_json::json;

use crate::{
    client::{Request, request},
    node::node,
};

const PATH: &str = "/v1/streams/a/metadata";

fn put(body: &str) -> Request {
    request("PUT", PATH).json(body)
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_a_stream_are_set_under_a_precondition_and_kept_beside_its_events() {
    let node = node().await;
    assert_eq!(node.get(PATH).await.code(), "stream-not-found");
    let set = node.send(put(r#"{"values":{"owner":"ada"}}"#).header("if-none-match", "*")).await;
    assert_eq!((set.status, set.header("etag")), (200, Some("\"1\"")), "{}", set.text());
    assert_eq!(node.get("/v1/streams").await.json()["streams"], json!([]), "that makes no stream");
    node.fill("a", 1, 2).await;
    let late = node.send(put(r#"{"values":{"owner":"bob"}}"#).header("if-none-match", "*")).await;
    assert_eq!((late.status, &late.json()["metadataversion"]), (412, &json!("1")), "{}", late.text());
    let set = node.send(put(r#"{"values":{"owner":"bob"}}"#).header("if-match", "\"1\"")).await;
    assert_eq!(set.header("etag"), Some("\"2\""), "{}", set.text());
    let node = node.restart().await;
    let found = node.get(PATH).await.json();
    assert_eq!(found, json!({ "stream": "a", "metadataversion": "2", "values": { "owner": "bob" } }));
    assert_eq!(node.get("/v1/streams/a").await.json()["metadataversion"], "2");
    assert_eq!(node.get("/v1/streams").await.json()["streams"][0]["metadataversion"], "2");
    assert_eq!(node.get("/v1/streams/a/events").await.events().len(), 2);
    assert_eq!(node.send(put("{}")).await.header("etag"), Some("\"3\""));
    assert_eq!(node.get(PATH).await.json()["values"], json!({}));
}
