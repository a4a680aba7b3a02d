use serde_json::{Value, json};

use crate::{
    client::{get, post},
    node::node,
};

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_store_is_verified_line_by_line() {
    let node = node().await;
    node.fill("a", 1, 50).await;
    let reply = node.send(post("/v1/store/verify")).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/x-ndjson")));
    let last = lines(&reply.text()).pop().unwrap();
    assert_eq!(
        (&last["sound"], &last["events"], &last["streams"], &last["findings"]),
        (&json!(true), &json!(50), &json!(1), &json!([])),
        "{last}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_taken_while_writing_can_be_served() {
    let node = node().await;
    node.fill("a", 1, 100).await;
    let reply = node.send(post("/v1/store/backup").json(r#"{"to":"monday"}"#)).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    let path = node.folder.path().join("data/backups/monday");
    assert_eq!(reply.json()["path"], path.to_str().unwrap());
    let env = quorate_runtime::Env::real();
    assert_eq!(env.disk().size(&path).unwrap(), reply.json()["bytes"].as_u64().unwrap());
    let again = node.send(post("/v1/store/backup").json(r#"{"to":"monday"}"#)).await;
    assert_eq!((again.status, again.code().as_str()), (409, "backup-exists"));

    let restored = node.folder.path().join("restored");
    env.disk().create_dir_all(&restored).unwrap();
    env.disk().rename(&path, &restored.join("quorate.db")).unwrap();
    let server =
        quorate_node::Server::bind(quorate_node::config::Config::in_folder(restored), env.clone()).await.unwrap();
    assert_eq!(server.store().head().get(), 100);
    server.store().close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_goes_nowhere_but_into_its_folder() {
    let node = node().await;
    for name in ["..", "../quorate.db", "/tmp/x", "a/b", ".x", "", "a\\\\b", "a\\u0000"] {
        let reply = node.send(post("/v1/store/backup").json(format!(r#"{{"to":"{name}"}}"#))).await;
        assert_eq!((reply.status, reply.code().as_str()), (400, "invalid-name"), "{name}");
    }
    for (body, code) in
        [("{}", "invalid-json"), (r#"{"to":1}"#, "invalid-json"), (r#"{"to":"a","x":1}"#, "invalid-json")]
    {
        assert_eq!(node.send(post("/v1/store/backup").json(body)).await.code(), code, "{body}");
    }
    assert_eq!(node.send(get("/livez")).await.status, 200);
}
