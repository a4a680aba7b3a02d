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
async fn whoever_accepts_lines_is_told_how_far_a_backup_is_and_at_last_what_others_are_told() {
    let node = node().await;
    node.fill("a", 1, 100).await;
    let backup = |body: &'static str| post("/v1/store/backup").json(body).header("accept", "application/x-ndjson");
    let reply = node.send(backup(r#"{"to":"monday"}"#).header("idempotency-key", "k")).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/x-ndjson")));
    let mut told = lines(&reply.text());
    let last = told.pop().unwrap();
    assert!(told.iter().all(|line| line["done"].as_u64() <= line["of"].as_u64()), "{told:?}");
    let path = node.folder.path().join("data/backups/monday");
    let size = quorate_runtime::Env::real().disk().size(&path).unwrap();
    assert_eq!(last, json!({ "to": "monday", "path": path.to_str().unwrap(), "bytes": size }));
    // The same request again, in either form.
    let plain = post("/v1/store/backup").json(r#"{"to":"monday"}"#);
    for again in [backup(r#"{"to":"monday"}"#), plain] {
        let again = node.send(again.header("idempotency-key", "k")).await;
        assert_eq!(lines(&again.text()).pop().unwrap(), last);
    }
    let refused = lines(&node.send(backup(r#"{"to":"monday"}"#)).await.text()).pop().unwrap();
    assert_eq!((&refused["status"], &refused["type"]), (&json!(409), &json!("/errors/backup-exists")), "{refused}");
    // What is no order is refused as such.
    let wrong = node.send(backup("{}")).await;
    assert_eq!((wrong.status, wrong.code().as_str()), (400, "invalid-json"));
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

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "a test damages files from outside")]
async fn verifying_reads_the_archives_and_tells_which_are_missing_and_which_are_damaged() {
    let node = node().await;
    for stream in ["kept", "moved", "rotten", "mixed-up"] {
        node.fill(stream, 1, 3).await;
        let order = format!(r#"{{"to":"{stream}.qa"}}"#);
        let made = node.send(post(format!("/v1/streams/{stream}/archive")).json(order)).await;
        assert_eq!(made.status, 201, "{}", made.text());
    }
    let verify = || async { lines(&node.send(post("/v1/store/verify")).await.text()).pop().unwrap() };
    let sound = verify().await;
    assert_eq!((&sound["sound"], &sound["archives"]["sound"]), (&json!(true), &json!(4)), "{sound}");
    let file = |name: &str| node.folder.path().join("data/archives").join(name);
    let mut bytes = std::fs::read(file("rotten.qa")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(file("rotten.qa"), bytes).unwrap();
    std::fs::copy(file("kept.qa"), file("mixed-up.qa")).unwrap();
    std::fs::rename(file("moved.qa"), node.folder.path().join("moved.qa")).unwrap();

    let found = verify().await;
    assert_eq!((&found["sound"], &found["archives"]["sound"]), (&json!(false), &json!(1)), "{found}");
    let missing = found["archives"]["missing"].as_array().unwrap();
    assert_eq!((missing.len(), &missing[0]["to"], &missing[0]["stream"]), (1, &json!("moved.qa"), &json!("moved")));
    let findings = found["findings"].as_array().unwrap();
    let named = |name: &str, what: &str| {
        let holds = |finding: &Value, member: &str, text: &str| finding[member].as_str().unwrap().contains(text);
        findings
            .iter()
            .any(|one| holds(one, "place", name) && holds(one, "what", what) && holds(one, "what", "put a copy"))
    };
    assert_eq!(findings.len(), 2, "{found}");
    assert!(named("rotten.qa", "") && named("mixed-up.qa", "versions 1 to 3 of stream `kept`"), "{found}");

    // One that is where it was again is sound; one that was moved is no damage.
    std::fs::remove_file(file("rotten.qa")).unwrap();
    std::fs::remove_file(file("mixed-up.qa")).unwrap();
    std::fs::rename(node.folder.path().join("moved.qa"), file("moved.qa")).unwrap();
    let found = verify().await;
    assert_eq!((&found["sound"], &found["archives"]["sound"]), (&json!(true), &json!(2)), "{found}");
    assert_eq!(found["archives"]["missing"].as_array().unwrap().len(), 2, "{found}");
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "a test looks into folders from outside")]
async fn copies_that_a_crash_left_half_written_are_gone_after_the_start() {
    let node = node().await;
    node.fill("a", 1, 3).await;
    assert_eq!(node.send(post("/v1/store/backup").json(r#"{"to":"monday"}"#)).await.status, 201);
    let data = node.folder.path().join("data");
    let (mut left, mut kept) = (Vec::new(), vec![data.join("backups/monday")]);
    for folder in ["backups", "key-backups", "archives"].map(|name| data.join(name)) {
        std::fs::create_dir_all(&folder).unwrap();
        left.extend([folder.join(".tuesday.quorate-partial"), folder.join(".tuesday.quorate-partial-journal")]);
        kept.extend([folder.join("tuesday.partial"), folder.join(".tuesday")]);
    }
    left.iter().chain(&kept[1..]).for_each(|path| std::fs::write(path, b"half").unwrap());
    let _node = node.restart().await;
    assert!(left.iter().all(|path| !path.exists()) && kept.iter().all(|path| path.exists()));
}
