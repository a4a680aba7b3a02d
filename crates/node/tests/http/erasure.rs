//! Data subjects: erased over HTTP, and then nowhere to be read.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use quorate_data::store::{
    StoreError,
    erasure::{Erasure, Ledger, SubjectHash},
    sqlite,
};
use quorate_foundations::time::Wall;
use quorate_runtime::{BoxFuture, Env};
use serde_json::{Value, json};

use crate::{
    client::{Client, Reply, get, post, request},
    node::{Node, event, node, node_with, start},
};

const ERASE: &str = "/v1/subjects/patient%2F4/erase";

/// An event about `subject` that says `word`.
fn about(subject: &str, id: &str, word: &str) -> String {
    event(id, &format!(r#","datasubject":"{subject}","data":{{"said":"{word}"}}"#))
}

async fn append(node: &Node, stream: &str, event: String) -> Reply {
    let reply = node.send(post(format!("/v1/streams/{stream}/events")).event(event)).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    reply
}

async fn pull(node: &Node, max: usize) -> Vec<Value> {
    let body = json!({ "max": max }).to_string();
    let reply = node.send(post("/v1/subscriptions/workers/pull").json(body)).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["deliveries"].as_array().unwrap().clone()
}

/// The files under `folder` in which `needle` stands.
fn holding(folder: &Path, needle: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, needle));
        } else {
            let bytes = Env::real().disk().read(&path).unwrap();
            found.extend(bytes.windows(needle.len()).any(|window| window == needle.as_bytes()).then_some(path));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_subject_is_unreadable_everywhere_and_the_chain_still_verifies() {
    let node = node().await;
    let workers = request("PUT", "/v1/subscriptions/workers").json(r#"{"key":"unordered"}"#);
    assert_eq!(node.send(workers).await.status, 200);
    for n in 1..=20 {
        append(&node, "file-1", about("patient/4", &format!("hers-{n}"), "word-of-hers")).await;
        append(&node, "file-1", about("patient/5", &format!("his-{n}"), "word-of-his")).await;
    }
    let keyed = post("/v1/streams/file-1/events").header("idempotency-key", "k");
    let keyed = keyed.event(about("patient/4", "keyed", "word-of-hers"));
    assert_eq!(node.send(keyed.clone()).await.status, 201);
    // Her first event is parked with her words, and the rest is read ahead.
    let first = pull(&node, 1).await.remove(0);
    assert_eq!(first["event"]["data"]["said"], "word-of-hers");
    let backup = node.send(post("/v1/store/backup").json(r#"{"to":"before"}"#)).await;
    assert_eq!(backup.status, 201);
    let park = json!({ "leases": [first["lease"]], "reason": "cannot do word-of-hers" }).to_string();
    assert_eq!(node.send(post("/v1/subscriptions/workers/park").json(park)).await.status, 200);

    let erased = node.send(post(ERASE)).await;
    assert_eq!(erased.status, 200, "{}", erased.text());
    assert_eq!(erased.json()["events"], 21);

    for path in ["/v1/events?limit=100", "/v1/events?limit=100&category=file", "/v1/streams/file-1/events?limit=100"] {
        let reply = node.get(path).await;
        assert_eq!(reply.events().len(), 41, "{path}: attributes stay");
        assert!(!reply.text().contains("word-of-hers") && reply.text().contains("word-of-his"), "{path}");
    }
    let one = node.get("/v1/streams/file-1/events/1").await;
    assert_eq!((&one.json()["stub"], &one.json()["datasubject"]), (&json!("erased"), &json!("patient/4")));
    let rest = pull(&node, 100).await;
    assert_eq!(rest.len(), 40);
    assert!(!json!(rest).to_string().contains("word-of-hers"));
    let parked = node.get("/v1/subscriptions/workers/parked").await.text();
    assert!(parked.contains("\"reason\":\"\"") && !parked.contains("word-of-hers"), "{parked}");
    let again = node.send(keyed).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (201, None), "the event itself is known");
    assert_eq!(node.store.head().get(), 41);

    let verified = node.send(post("/v1/store/verify")).await.text();
    assert!(verified.lines().last().unwrap().contains("\"sound\":true"), "{verified}");
    assert_eq!(holding(node.folder.path(), "word-of-hers"), [] as [PathBuf; 0], "no file, log, backup or copy of keys");
    assert!(!holding(node.folder.path(), "file-1").is_empty(), "looking finds something");
}

#[tokio::test(flavor = "multi_thread")]
async fn erasing_again_answers_the_same_and_the_ledger_names_nobody() {
    let node = node().await;
    let path = "/v1/subjects/patient%2F4";
    let known = async || node.get(path).await.json();
    let nobody = node.send(post(ERASE)).await.json();
    assert_eq!(
        nobody,
        json!({ "subject": "patient/4", "events": 0, "keys": 0, "generation": 0, "erased_at": null, "entry": null })
    );
    assert_eq!((&known().await["erased"], &known().await["live"]), (&json!(false), &json!(false)));
    append(&node, "a", about("patient/4", "1", "x")).await;
    assert_eq!((&known().await["erased"], &known().await["live"]), (&json!(false), &json!(true)));
    let keyed = post(ERASE).header("idempotency-key", "k");
    let first = node.send(keyed.clone()).await;
    assert_eq!(
        (&first.json()["events"], &first.json()["keys"], &first.json()["entry"]),
        (&json!(1), &json!(1), &json!("1"))
    );
    let replayed = node.send(keyed).await;
    assert_eq!((replayed.header("idempotency-replayed"), &replayed.body), (Some("true"), &first.body));
    let again = node.send(post(ERASE)).await.json();
    assert_eq!(
        (&again["events"], &again["keys"], &again["erased_at"]),
        (&json!(0), &json!(0), &first.json()["erased_at"])
    );
    let node = node.restart().await;
    let known = node.get(path).await.json();
    assert_eq!(
        (&known["erased"], &known["live"], &known["erasure"]["entry"]),
        (&json!(true), &json!(false), &json!("1"))
    );
    let ledger = node.get("/v1/erasures").await;
    assert_eq!(ledger.json()["erasures"], json!([known["erasure"]]));
    assert_eq!(
        (ledger.json()["erasures"][0]["subject"].clone(), ledger.text().contains("patient")),
        (known["name"].clone(), false)
    );
    append(&node, "a", about("patient/4", "2", "y")).await;
    let known = node.get(path).await.json();
    assert_eq!((&known["erased"], &known["live"]), (&json!(false), &json!(true)), "erasing is no ban");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_is_paged_and_exported_in_the_form_that_a_restore_takes() {
    let node = node().await;
    let empty = node.get("/v1/erasures/export").await;
    assert_eq!(Ledger::from_json(&empty.text()).unwrap(), node.store.erasures().await.unwrap());
    // A restore brings a longer one in, more quickly than its erasures could be made.
    let folder = node.end().await;
    let (path, backup) = (folder.path().join("data/quorate.db"), folder.path().join("backup.db"));
    Env::real().disk().rename(&path, &backup).unwrap();
    sqlite::restore_with(
        &Env::real(),
        backup,
        path,
        ledger(empty.json()["store"].as_str().unwrap().parse().unwrap()),
        std::sync::Arc::new(|_, _| {}),
    )
    .await
    .unwrap();
    let node = start(folder, |_| {}).await;
    let mut path = Some("/v1/erasures?limit=400".to_owned());
    let mut seen = Vec::new();
    while let Some(page) = path {
        let reply = node.get(&page).await;
        seen.extend(reply.json()["erasures"].as_array().unwrap().iter().map(|entry| entry["entry"].clone()));
        path = reply.header("link").map(|link| link.trim_start_matches('<').split('>').next().unwrap().to_owned());
    }
    assert_eq!(seen, (1..=2_100).map(|n| json!(n.to_string())).collect::<Vec<_>>());
    let exported = node.get("/v1/erasures/export").await;
    assert_eq!(exported.header("content-type"), Some("application/json"));
    assert_eq!(Ledger::from_json(&exported.text()).unwrap(), node.store.erasures().await.unwrap());
    let many = node.get("/v1/erasures?limit=1001").await;
    assert_eq!((many.code().as_str(), &many.json()["limit"]), ("limit-exceeded", &json!(1_000)));
}

/// A ledger of 2,100 entries.
fn ledger(store: u64) -> Ledger {
    let erasure = |n: i64| Erasure {
        subject: SubjectHash::of(store, &format!("p-{n}")),
        generation: 1,
        erased_at: Wall::from_unix_nanos(1_700_000_000_000_000_000 + n),
    };
    Ledger { store, erasures: (0..2_100).map(erasure).collect() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_names_no_data_subject_is_refused() {
    let node = node().await;
    for name in ["a%0Ab", "%ff", "%zz", &"x".repeat(513)] {
        for refused in [
            node.send(post(format!("/v1/subjects/{name}/erase"))).await,
            node.get(&format!("/v1/subjects/{name}")).await,
        ] {
            assert_eq!((refused.status, refused.code().as_str()), (400, "invalid-name"), "{name}");
        }
    }
    assert_eq!(node.send(post(ERASE).json("{}")).await.code(), "invalid-json");
    assert_eq!(node.send(post(format!("{ERASE}?force=1"))).await.code(), "invalid-parameter");
    assert_eq!(node.get(ERASE).await.status, 405);
    assert_eq!(node.get("/v1/erasures/export?after=1").await.code(), "invalid-parameter");
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_could_not_be_forgotten_are_told_and_a_repeat_finishes() {
    let node = node().await;
    append(&node, "a", about("patient/4", "1", "x")).await;
    let broken = Arc::new(AtomicBool::new(true));
    let of_hook = broken.clone();
    let forget = move |_, _| -> BoxFuture<'static, Result<(), StoreError>> {
        let broken = of_hook.load(Ordering::SeqCst);
        Box::pin(async move { if broken { Err(StoreError::DiskFull) } else { Ok(()) } })
    };
    node.store.on_erase("attic", Arc::new(forget));
    let refused = node.send(post(ERASE)).await;
    assert_eq!((refused.status, refused.code().as_str()), (500, "erasure-incomplete"));
    let told = refused.json();
    assert_eq!((&told["outcome"], &told["retry"], &told["room"]), (&json!("partial"), &json!("now"), &json!("attic")));
    let known = async || {
        let known = node.get("/v1/subjects/patient%2F4").await.json();
        (known["erased"] == true, known["live"] == true, known["incomplete"] == true)
    };
    assert_eq!(known().await, (false, false, true), "the log has forgotten, the attic has not");
    broken.store(false, Ordering::SeqCst);
    let repeated = node.send(post(ERASE)).await;
    assert_eq!((repeated.status, &repeated.json()["events"]), (200, &json!(0)));
    assert_eq!(known().await, (true, false, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_backed_up_apart_from_the_store_and_by_the_same_rules() {
    let node = node().await;
    append(&node, "a", about("patient/4", "1", "x")).await;
    let copy =
        async |name: &str| node.send(post("/v1/store/backup-keys").json(json!({ "to": name }).to_string())).await;
    let made = copy("monday.keys").await;
    assert_eq!(made.status, 201, "{}", made.text());
    let path = node.folder.path().join("data/key-backups/monday.keys");
    assert_eq!(made.json()["path"], path.to_str().unwrap());
    assert_eq!(Env::real().disk().size(&path).unwrap(), made.json()["bytes"].as_u64().unwrap());
    assert_eq!(copy("monday.keys").await.code(), "backup-exists");
    for name in ["..", "../quorate.db.keys", "/tmp/x", "a/b", ".x", ""] {
        assert_eq!(copy(name).await.code(), "invalid-name", "{name}");
    }
    assert_eq!(node.send(post("/v1/store/backup-keys").json("{}")).await.code(), "invalid-json");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_whose_key_is_missing_is_not_told_as_one_of_whom_nothing_is_encrypted() {
    let node = node().await;
    append(&node, "a", about("patient/4", "1", "x")).await;
    let made = node.send(post("/v1/store/backup-keys").json(r#"{"to":"old.keys"}"#)).await;
    assert_eq!(made.status, 201, "{}", made.text());
    append(&node, "b", about("z-2", "2", "y")).await;
    let folder = node.end().await;
    let (disk, data) = (Env::real(), folder.path().join("data"));
    disk.disk().rename(&data.join("key-backups/old.keys"), &data.join("quorate.db.keys")).unwrap();
    let node = start(folder, |_| {}).await;
    let known = node.get("/v1/subjects/z-2").await.json();
    assert_eq!((&known["key-missing"], &known["erased"]), (&json!(true), &json!(false)), "{known}");
    assert_eq!(node.get("/v1/streams/b/events").await.code(), "key-missing");
    let known = node.get("/v1/subjects/patient%2F4").await.json();
    assert_eq!((&known["key-missing"], &known["live"]), (&json!(false), &json!(true)), "{known}");
}

/// How many bytes of data each event of the next test has: 400 of them are far more than all sockets hold.
const LARGE: usize = 60_000;
/// Events that may have left before the erasure: what sockets and the connection's own buffers can hold.
const UNDER_WAY: usize = 200;

/// A reply's body from now on, which has come to `until` at its end.
async fn body(client: &mut Client, until: &str) -> String {
    let mut text = String::new();
    let mut looked = 0;
    while !text[looked..].contains(until) {
        looked = text.floor_char_boundary(text.len().saturating_sub(until.len()));
        let Some(chunk) = client.chunk().await.expect("it does not break off") else { return text };
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_is_sent_nothing_after_it_was_erased_although_it_was_read_before() {
    // Pages so large that a reader holds far more than has left.
    let node = node_with(|config| {
        config.limits.page_bytes = 16 << 20;
        config.http.reply_memory = 256 << 20;
    })
    .await;
    let word = "x".repeat(LARGE);
    let mut writer = node.client().await;
    for batch in 0..20 {
        let events: Vec<String> =
            (0..20).map(|n| about(["patient/4", "patient/5"][n % 2], &format!("{batch}-{n}"), &word)).collect();
        let sent = writer.send(post("/v1/streams/a/events").batch(format!("[{}]", events.join(",")))).await;
        assert_eq!(sent.status, 201);
    }
    let ways = [
        ("/v1/events/subscribe", "event: caught-up"),
        ("/v1/streams/a/subscribe", "event: caught-up"),
        ("/v1/events?limit=250&type=test.happened", "\"scanned\""),
        ("/v1/streams/a/events?limit=250", "\"streamversion\":\"400\"}"),
    ];
    let mut clients = Vec::new();
    for (path, _) in ways {
        let mut client = node.client().await;
        client.begin(&get(path)).await;
        assert_eq!(client.head().await.unwrap().status, 200);
        clients.push(client);
    }
    // Each has read its first batch by the time its first piece is here.
    let mut texts = Vec::new();
    for client in &mut clients {
        texts.push(body(client, "\"id\":\"0-0\"").await);
    }
    assert_eq!(node.send(post(ERASE)).await.status, 200);
    for ((client, (path, end)), mut text) in clients.iter_mut().zip(ways).zip(texts) {
        text.push_str(&body(client, end).await);
        let hers: Vec<&str> = text.split("\"datasubject\":\"patient/4\"").skip(1).collect();
        let told: Vec<bool> =
            hers.iter().map(|rest| rest.split("datasubject").next().unwrap().contains("xxxx")).collect();
        assert!(told.len() >= 120 && told[0], "{path}: {} events of hers, the first of which had left", told.len());
        let last = told.iter().rposition(|told| *told).unwrap();
        assert!(2 * last < UNDER_WAY, "{path}: the event at {} was sent after it was erased", 2 * last);
        assert!(told.is_sorted_by(|a, b| a >= b), "{path}");
        let his = text.matches("\"datasubject\":\"patient/5\"").count();
        assert_eq!(his, told.len(), "{path}: no gap and no repetition");
    }
}
