//! Transactions that a node coordinates: begun under a name among services and the node's own log.

use std::time::Duration;

use quorate_consistency::two_phase_commit::PostgresConfig;
use serde_json::{Value, json};

use crate::{
    client::{Reply, get, post},
    node::{Node, event, node, node_with, start},
    participant::{Mood, Participant},
};

/// A node that may call this machine.
async fn neighbourly() -> Node {
    node_with(friendly).await
}

pub(crate) fn friendly(config: &mut quorate_node::config::Config) {
    config.transactions.targets = vec!["127.0.0.0/8".parse().unwrap()];
    config.transactions.prepare_timeout = Duration::from_secs(3_600);
}

fn hasty(config: &mut quorate_node::config::Config) {
    friendly(config);
    // What is good answers within that on a busy machine too.
    config.transactions.prepare_timeout = Duration::from_secs(3);
}

/// With a database at a server that is not there.
fn with_books(config: &mut quorate_node::config::Config) {
    friendly(config);
    let database = PostgresConfig::at("postgres://ada@127.0.0.1:1/books".parse().unwrap(), "books");
    config.transactions.databases = vec![("books".parse().unwrap(), database)];
}

/// A transaction among `participants`, with an event for the stream `moved`.
pub(crate) fn document(id: &str, participants: &[&Participant]) -> Value {
    let participants: Vec<Value> = participants.iter().map(|one| one.asked_for(json!({ "amount": 30 }))).collect();
    let noted: Value = serde_json::from_str(&event(id, "")).unwrap();
    json!({ "id": id, "participants": participants, "events": [{ "stream": "moved", "events": [noted] }] })
}

pub(crate) async fn begin(node: &Node, document: &Value) -> Reply {
    node.send(post("/v1/transactions").json(document.to_string())).await
}

pub(crate) async fn shown(node: &Node, id: &str) -> Value {
    let told = node.send(get(format!("/v1/transactions/{id}")).header("prefer", "wait=10")).await;
    assert_eq!(told.status, 200, "{}", told.text());
    told.json()
}

async fn moved(node: &Node) -> usize {
    let read = node.get("/v1/streams/moved/events").await;
    if read.status == 404 { 0 } else { read.events().len() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_carried_out_once_under_its_name_and_its_events_travel_with_the_decision() {
    let node = neighbourly().await;
    let (left, right) = (Participant::new(), Participant::new());
    let transfer = document("transfer/1", &[&left, &right]);
    let done = begin(&node, &transfer).await;
    assert_eq!((done.status, &done.json()["status"]), (200, &json!("committed")), "{}", done.text());
    assert_eq!(
        (&done.json()["unconfirmed"], done.header("location")),
        (&json!([]), Some("/v1/transactions/transfer%2F1"))
    );
    let gid = done.json()["transaction"].as_str().unwrap().to_owned();
    for one in [&left, &right] {
        assert_eq!(one.ended(), [(gid.clone(), "commit")].into());
    }
    assert_eq!(moved(&node).await, 1);
    // The same again, written otherwise.
    let again = node.send(post("/v1/transactions").json(format!(" {transfer:#}\n"))).await;
    assert_eq!((&again.json()["transaction"], &again.json()["status"]), (&json!(gid), &json!("committed")));
    let mut other = transfer.clone();
    other["participants"][0]["work"]["amount"] = json!(31);
    let refused = begin(&node, &other).await;
    assert_eq!((refused.status, refused.code().as_str()), (409, "transaction-id-reused"), "{}", refused.text());
    assert_eq!((left.prepares(), right.prepares(), moved(&node).await), (1, 1, 1));
    let node = start(node.end().await, friendly).await;
    assert_eq!(begin(&node, &transfer).await.json()["transaction"], json!(gid), "also behind a restart");
    let by_id = shown(&node, "transfer%2F1").await;
    assert_eq!(
        (&by_id["status"], &by_id["decision"], &by_id["transaction"]),
        (&json!("committed"), &json!("commit"), &json!(gid))
    );
    assert_eq!(
        node.get(&format!("/v1/transactions/{gid}")).await.json()["participants"],
        json!([left.address(), right.address()])
    );
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_says_no_aborts_it_for_all_and_why_is_told_again_behind_a_restart() {
    let node = neighbourly().await;
    let (left, right) = (Participant::new(), Participant::new());
    right.be(Mood::Unwilling);
    let transfer = document("1", &[&left, &right]);
    let mut told = Vec::from([begin(&node, &transfer).await.json()]);
    assert_eq!((moved(&node).await, right.ended().len()), (0, 0), "who said no is told nothing");
    // It may have said yes only when it was over.
    left.until_ended(1);
    assert_eq!(left.ended().into_values().collect::<Vec<_>>(), ["abort"]);
    right.be(Mood::Good);
    told.push(begin(&node, &transfer).await.json());
    let node = start(node.end().await, friendly).await;
    told.push(begin(&node, &transfer).await.json());
    told.push(shown(&node, "1").await);
    for told in told {
        assert_eq!((&told["status"], &told["by"]), (&json!("aborted"), &json!(right.address())), "{told}");
        assert_eq!(told["why"], json!("nothing is left of it"), "{told}");
    }
    // And so does an expectation of the log.
    let mut late = document("2", &[&left]);
    late["events"][0]["expected"] = json!({ "version": 7 });
    let late = begin(&node, &late).await.json();
    assert_eq!((&late["status"], &late["by"], moved(&node).await), (&json!("aborted"), &json!(null), 0), "{late}");
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_either_is_told_as_neither_and_one_participant_alone_is_recorded_as_well() {
    let node = neighbourly().await;
    let left = Participant::new();
    left.be(Mood::StillAtPrepare);
    let transfer = document("1", &[&left]);
    let mut client = node.client().await;
    let (tell, told) = tokio::sync::oneshot::channel();
    quorate_runtime::Env::real().tasks().spawn("asking", async move {
        let _gone = tell.send(client.send(post("/v1/transactions").json(transfer.to_string())).await);
    });
    left.until_still();
    let open = node.get("/v1/transactions/1").await.json();
    assert_eq!(
        (&open["status"], &open["ended"], &open["decision"]),
        (&json!("in-doubt"), &json!(false), &json!("none"))
    );
    let again = begin(&node, &document("1", &[&left])).await;
    assert_eq!((again.status, &again.json()["status"]), (202, &json!("in-doubt")), "{}", again.text());
    left.be(Mood::Good);
    assert_eq!(shown(&node, "1").await["status"], json!("committed"));
    assert_eq!(told.await.unwrap().json()["status"], json!("committed"));
    assert_eq!((left.prepares(), moved(&node).await), (1, 1));
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_answers_never_too_much_or_nonsense_or_is_not_there_has_not_voted() {
    let node = node_with(hasty).await;
    let good = Participant::new();
    for (n, mood) in [Mood::StillAtPrepare, Mood::Huge, Mood::Babbling, Mood::Redirecting].into_iter().enumerate() {
        let bad = Participant::new();
        bad.be(mood);
        let told = begin(&node, &document(&n.to_string(), &[&good, &bad])).await.json();
        assert_eq!((&told["status"], &told["by"]), (&json!("aborted"), &json!(bad.address())), "{mood:?}: {told}");
        bad.be(Mood::Good);
        // Whatever it had promised is taken back.
        bad.until_held(0);
        bad.until_ended(1);
        good.until_ended(n + 1);
    }
    assert!(good.ended().values().all(|how| *how == "abort"), "{:?}", good.ended());
    let nobody = json!({ "url": "http://127.0.0.1:1/txn", "work": {} });
    let mut away = document("away", &[&good]);
    away["participants"].as_array_mut().unwrap().push(nobody);
    let told = begin(&node, &away).await.json();
    assert_eq!((&told["status"], &told["by"]), (&json!("aborted"), &json!("http://127.0.0.1:1/txn")), "{told}");
    assert!(told["why"].as_str().unwrap().contains("it was not sent"), "{told}");
    assert_eq!(moved(&node).await, 0);
    // It will not come back, and is asked no more.
    let path = "/v1/participants/http:%2F%2F127.0.0.1:1%2Ftxn/remove";
    let remove = || node.send(post(path).json(r#"{"by":"carol","why":"it was a slip of the pen"}"#));
    // The good one may not have been told yet that it is over.
    let mut removed = remove().await;
    while removed.status == 409 {
        node.pause(Duration::from_millis(10)).await;
        removed = remove().await;
    }
    assert_eq!(removed.json()["removed"], json!(true), "{}", removed.text());
    assert_eq!(remove().await.json()["removed"], json!(false));
    let listed = node.get("/v1/participants").await.json();
    assert_eq!(listed["participants"].as_array().map(Vec::len), Some(5), "{listed}");
    assert_eq!(node.get("/v1/transactions").await.json(), json!({ "transactions": [], "silent": [] }));
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_is_done_by_the_next_process_and_a_person_ends_what_stays_in_doubt() {
    let node = neighbourly().await;
    let (left, right) = (Participant::new(), Participant::new());
    right.be(Mood::Stubborn);
    for id in ["1", "2"] {
        let done = begin(&node, &document(id, &[&left, &right])).await.json();
        assert_eq!((&done["status"], &done["unconfirmed"]), (&json!("committed"), &json!([right.address()])), "{done}");
    }
    let node = start(node.end().await, |config| {
        friendly(config);
        config.doubt_limit = Duration::from_millis(1);
    })
    .await;
    // Nobody asked this process for a transaction.
    let held = async {
        loop {
            let all = node.get("/v1/transactions").await.json();
            if all["transactions"].as_array().is_some_and(|all| all.len() == 2) {
                return all;
            }
            node.pause(Duration::from_millis(20)).await;
        }
    };
    let held = quorate_runtime::Env::real().timeout(crate::client::PATIENCE, held).await.expect("it is listed");
    let branch = &held["transactions"][0]["branches"][0];
    assert_eq!(
        (&branch["participant"], &branch["standing"]),
        (&json!(right.address()), &json!("committing")),
        "{held}"
    );
    let remove = format!("/v1/participants/{}/remove", right.address().replace('/', "%2F"));
    let in_use = node.send(post(remove).json(r#"{"by":"carol","why":"?"}"#)).await;
    assert_eq!((in_use.status, in_use.code().as_str()), (409, "transaction-under-way"), "{}", in_use.text());
    let order = json!({ "participant": right.address(), "ending": "abort", "by": "carol", "why": "it burned down" });
    let ordered = node.send(post("/v1/transactions/1/resolve").json(order.to_string())).await;
    assert_eq!((ordered.status, &ordered.json()["contradicts"]), (202, &json!(true)), "{}", ordered.text());
    assert_eq!(node.get("/readyz").await.json()["status"], json!("warn"));
    right.be(Mood::Good);
    right.until_ended(2);
    let [first, second] = [shown(&node, "1").await, shown(&node, "2").await];
    assert_eq!(first["heuristics"][0]["by"], json!("carol"), "{first}");
    let ended = right.ended();
    assert_eq!(ended[first["transaction"].as_str().unwrap()], "abort");
    assert_eq!(ended[second["transaction"].as_str().unwrap()], "commit");
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_cannot_be_is_refused_with_what_is_wrong_and_nobody_is_asked() {
    let node = node().await;
    let left = Participant::new();
    let with = |member: &str, value: Value| {
        let mut body = document("1", &[&left]);
        body[member] = value;
        body
    };
    let at = |url: &str| json!([{ "url": url, "work": {} }]);
    let forged = |stream: &str, kind: &str| {
        let event: Value = serde_json::from_str(&event("e", "").replace("test.happened", kind)).unwrap();
        let mut body = with("participants", at("http://stock/x"));
        body["events"] = json!([{ "stream": stream, "events": [event] }]);
        body
    };
    let named = |name: &str| json!([{ "participant": name, "work": {} }]);
    for (body, code) in [
        (document("1", &[&left]), "forbidden-target"),
        (with("participants", at("http://[::1]:8080/x")), "forbidden-target"),
        (with("participants", at("ftp://stock/x")), "invalid-parameter"),
        (with("participants", at("http://ada:secret@stock/x")), "invalid-parameter"),
        (with("participants", at("http://stock/x?y=1")), "invalid-parameter"),
        (with("participants", at("http://stock:x/")), "invalid-parameter"),
        (with("participants", at("")), "invalid-parameter"),
        (with("participants", named("http://stock/x")), "invalid-parameter"),
        (with("participants", named("ledger")), "invalid-parameter"),
        (with("participants", json!([{ "work": {} }])), "invalid-parameter"),
        (with("participants", json!([{ "url": "http://stock/x" }])), "invalid-json"),
        (with("participants", json!([])), "limit-exceeded"),
        (with("participants", json!(vec![json!({ "url": "http://stock/x", "work": {} }); 33])), "limit-exceeded"),
        (with("participants", json!([{ "url": "http://stock/x", "work": "y".repeat(256 << 10) }])), "too-large"),
        (with("participants", json!([{ "url": "http://stock/x", "work": "y".repeat(512 << 10) }])), "too-large"),
        (with("id", json!("")), "invalid-name"),
        (with("id", json!("quorate:1")), "invalid-name"),
        (with("id", json!("y".repeat(257))), "invalid-name"),
        (with("answer", json!("soon")), "invalid-json"),
        (with("more", json!(1)), "invalid-json"),
        (forged("txnrequest-1", "test.happened"), "stream-of-transaction"),
        (forged("orders", "quorate.txn.committed"), "stream-of-transaction"),
        (forged("saga-order:1", "test.happened"), "stream-of-saga"),
    ] {
        let refused = begin(&node, &body).await;
        assert_eq!(refused.code(), code, "{} {}", refused.text(), &body.to_string()[..200.min(body.to_string().len())]);
    }
    assert_eq!(left.prepares(), 0);
    for (path, code) in
        [("/v1/transactions/1", "transaction-not-found"), ("/v1/transactions/quorate:1", "invalid-name")]
    {
        assert_eq!(node.get(path).await.code(), code, "{path}");
    }
    for stream in ["txnrequest-1", "txnparticipants"] {
        let written = node.send(post(format!("/v1/streams/{stream}/events")).event(crate::node::event("1", ""))).await;
        assert_eq!(written.code(), "stream-of-transaction", "{stream}");
    }
    let streams = node.get("/v1/streams").await.json()["streams"].as_array().unwrap().clone();
    let written: Vec<&Value> = streams.iter().map(|one| &one["stream"]).collect();
    assert_eq!(written, ["txncoordinator-node"], "the coordinator was opened, and nothing begun");
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_begun_is_told_whatever_is_allowed_or_configured_by_now() {
    let node = node_with(with_books).await;
    let left = Participant::new();
    let committed = document("1", &[&left]);
    let mut aborted = document("2", &[&left]);
    aborted["participants"].as_array_mut().unwrap().push(json!({ "participant": "books", "work": { "prepare": [] } }));
    let first = [begin(&node, &committed).await.json(), begin(&node, &aborted).await.json()];
    assert_eq!([&first[0]["status"], &first[1]["status"]], [&json!("committed"), &json!("aborted")], "{first:?}");
    // Nobody is allowed or configured any more, and the next transaction is refused.
    let node = start(node.end().await, |_| {}).await;
    assert_eq!(begin(&node, &document("3", &[&left])).await.code(), "forbidden-target");
    for (document, first) in [committed, aborted].iter().zip(&first) {
        let again = begin(&node, document).await;
        assert_eq!(again.status, 200, "{}", again.text());
        for member in ["status", "transaction", "by", "why"] {
            assert_eq!(again.json()[member], first[member]);
        }
    }
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_written_down_for_what_is_refused_and_a_database_of_the_settings_stays() {
    let node = node_with(with_books).await;
    let left = Participant::new();
    let listed = async || node.get("/v1/participants").await.json()["participants"].clone();
    let with = |id: &str, other: Value| {
        let mut document = document(id, &[&left]);
        document["participants"].as_array_mut().unwrap().push(other);
        document
    };
    let stranger = json!({ "participant": "ledger", "work": {} });
    // The same one, written otherwise.
    let twice = json!({ "url": left.address().replace("http", "HTTP") + "/", "work": {} });
    for other in [stranger, twice] {
        assert_eq!(begin(&node, &with("1", other)).await.code(), "invalid-parameter");
    }
    assert_eq!(listed().await, json!([{ "participant": "books", "kind": "database" }]));
    let order = r#"{"by":"carol","why":"a slip of the pen"}"#;
    let kept = node.send(post("/v1/participants/books/remove").json(order)).await;
    assert_eq!((kept.status, kept.code().as_str()), (400, "invalid-parameter"), "{}", kept.text());
    let books = json!({ "participant": "books", "work": { "prepare": [] } });
    let told = begin(&node, &with("1", books)).await.json();
    assert_eq!((&told["status"], &told["by"]), (&json!("aborted"), &json!("books")), "{told}");
    // What is worth more than a reader here could tell is another request.
    let precise =
        |amount: &str| document("2", &[&left]).to_string().replace(r#""amount":30"#, &format!(r#""amount":{amount}"#));
    let send = |body: String| node.send(post("/v1/transactions").json(body));
    assert_eq!(send(precise("30.0")).await.json()["status"], json!("committed"));
    assert_eq!(send(precise("30.000000000000000000001")).await.code(), "transaction-id-reused");
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_no_part_in_a_transaction_is_not_asked_what_became_of_it() {
    let node = node_with(|config| {
        friendly(config);
        config.transactions.call_timeout = Duration::from_secs(3_600);
    })
    .await;
    let (left, right) = (Participant::new(), Participant::new());
    assert_eq!(begin(&node, &document("1", &[&left, &right])).await.json()["status"], json!("committed"));
    right.be(Mood::StillAtInDoubt);
    assert_eq!(begin(&node, &document("2", &[&left])).await.json()["status"], json!("committed"));
    assert_eq!(shown(&node, "2").await["status"], json!("committed"));
    right.be(Mood::Good);
    node.end().await;
}
