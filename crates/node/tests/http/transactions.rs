//! Transactions over HTTP: what is in doubt, what became of one, ending one by hand, and who may not write in a coordinator's place.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use quorate_consistency::two_phase_commit::{
    Answer, Config, Coordinator, CoordinatorId, Embedded, Ended, Gid, Participant, ParticipantError, Prepared,
    SqlResource, SqlWork, Statement, Transaction, Vote, Work,
};
use quorate_foundations::name::Name;
use quorate_runtime::BoxFuture;
use serde_json::{Value, json};

use crate::{
    client::{Reply, post, request},
    node::{Node, event, node, node_with},
};

const STRANGER: &str = "quorate:0197f2a0-0000-7000-8000-000000000001";

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A participant that can be away.
struct Switch {
    inner: Embedded,
    is_away: AtomicBool,
}

impl Switch {
    fn there(&self) -> Result<(), ParticipantError> {
        match self.is_away.load(Ordering::SeqCst) {
            true => Err(ParticipantError::Unanswered { what: "nobody is there".to_owned() }),
            false => Ok(()),
        }
    }
}

impl Participant for Switch {
    fn prepare<'a>(&'a self, gid: &'a Gid, work: &'a Work) -> BoxFuture<'a, Result<Vote, ParticipantError>> {
        self.inner.prepare(gid, work)
    }

    fn commit<'a>(&'a self, gid: &'a Gid) -> BoxFuture<'a, Result<(), ParticipantError>> {
        Box::pin(async move {
            self.there()?;
            self.inner.commit(gid).await
        })
    }

    fn abort<'a>(&'a self, gid: &'a Gid) -> BoxFuture<'a, Result<(), ParticipantError>> {
        Box::pin(async move {
            self.there()?;
            self.inner.abort(gid).await
        })
    }

    fn in_doubt(&self, coordinator: CoordinatorId) -> BoxFuture<'_, Result<Vec<Prepared>, ParticipantError>> {
        self.inner.in_doubt(coordinator)
    }
}

async fn participant(node: &Node, called: &str) -> Embedded {
    Embedded::open(&node.store, &name(called), Arc::new(SqlResource)).await.unwrap()
}

/// A coordinator with its log in the node's store, two participants in there, of which the right one is away, and a transaction that is
/// decided.
async fn in_doubt(node: &Node) -> (Coordinator, Arc<Switch>, Gid) {
    for sql in ["CREATE TABLE note (id BIGINT)", "INSERT INTO note VALUES (1)"] {
        node.store.transact(move |tx| Box::pin(tx.execute(sql, &[]))).await.unwrap();
    }
    let config = Config { sweep: Duration::from_millis(50), pause: Duration::from_millis(20), ..Config::default() };
    let coordinator = Coordinator::open(&node.store, config).await.unwrap();
    let right = Arc::new(Switch { inner: participant(node, "their-own").await, is_away: AtomicBool::new(true) });
    coordinator.register(name("left"), Arc::new(participant(node, "ours").await)).unwrap();
    coordinator.register(name("right"), right.clone()).unwrap();
    let work = |claim: &str| {
        let noted = Statement::of("INSERT INTO note VALUES (2)");
        SqlWork::default().claiming(claim).commit(noted).work().unwrap()
    };
    let both = Transaction::new().with(name("left"), work("a desk")).with(name("right"), work("a chair"));
    let receipt = coordinator.run(both.answered(Answer::Decided)).await.unwrap();
    assert_eq!(receipt.ended, Ended::Committed);
    (coordinator, right, receipt.gid)
}

async fn notes(node: &Node) -> i64 {
    let rows = node.store.query("SELECT count(*) FROM note", vec![]).await.unwrap();
    rows[0].at(0).as_i64().unwrap()
}

async fn listed(node: &Node) -> Vec<Value> {
    let told = node.get("/v1/transactions").await;
    assert_eq!(told.status, 200, "{}", told.text());
    told.json()["transactions"].as_array().unwrap().clone()
}

async fn resolve(node: &Node, gid: impl std::fmt::Display, body: Value) -> Reply {
    node.send(post(format!("/v1/transactions/{gid}/resolve")).json(body.to_string())).await
}

fn order(participant: &str, ending: &str) -> Value {
    json!({ "participant": participant, "ending": ending, "by": "carol", "why": "it burned down" })
}

/// Waits until nothing is in doubt.
async fn settled(node: &Node) {
    for _ in 0..2_000 {
        if listed(node).await.is_empty() {
            return;
        }
        node.pause(Duration::from_millis(5)).await;
    }
    panic!("something stays in doubt: {:?}", listed(node).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_doubt_is_listed_shown_and_ended_by_hand_with_who_ordered_it_and_why() {
    let mut node = node_with(|config| config.doubt_limit = Duration::from_millis(1)).await;
    assert_eq!(node.get("/readyz").await.json()["status"], "pass");
    let (coordinator, right, gid) = in_doubt(&node).await;
    node.transactions.attach(&coordinator);
    node.pause(Duration::from_millis(20)).await;
    // The left one may not have answered yet.
    let held = listed(&node).await;
    assert_eq!(
        (held.len(), &held[0]["transaction"], &held[0]["decision"]),
        (1, &json!(gid.to_string()), &json!("commit"))
    );
    let branch =
        held[0]["branches"].as_array().unwrap().iter().find(|branch| branch["participant"] == "right").unwrap();
    assert_eq!((&branch["standing"], &branch["held"]), (&json!("committing"), &json!(["a chair"])), "{branch}");
    assert!(branch["age-ms"].as_u64().is_some_and(|age| age >= 20), "{branch}");
    // A balancer goes on sending, and whoever looks is told.
    let ready = node.get("/readyz").await;
    assert_eq!((ready.status, &ready.json()["status"]), (200, &json!("warn")));
    assert!(ready.json()["checks"]["transactions"].as_str().unwrap().contains("quorate txn list"), "{}", ready.text());
    assert_eq!(node.metric("quorate_transaction_unfinished").await, 1);
    assert_eq!(node.metric("quorate_transaction_committed").await, 1);

    let ordered = resolve(&node, gid, order("right", "abort")).await;
    assert_eq!(ordered.status, 202, "{}", ordered.text());
    let told = ordered.json();
    assert_eq!((&told["done"], &told["contradicts"]), (&json!(false), &json!(true)));
    assert!(told["waits"].as_str().unwrap().contains("nobody is there"), "{told}");
    let shown = node.get(&format!("/v1/transactions/{gid}")).await.json();
    assert_eq!(shown["participants"], json!(["left", "right"]));
    let recorded = json!({
        "participant": "right", "ending": "abort", "by": "carol", "why": "it burned down", "ordered": true, "contradicts": true,
    });
    assert_eq!(shown["heuristics"], json!([recorded]));

    right.is_away.store(false, Ordering::SeqCst);
    settled(&node).await;
    assert_eq!(notes(&node).await, 2, "the left one did it, and the right one did not");
    let again = resolve(&node, gid, order("right", "abort")).await;
    assert_eq!((again.status, &again.json()["done"]), (200, &json!(true)), "{}", again.text());
    let late = resolve(&node, gid, order("right", "commit")).await;
    assert_eq!((late.status, late.code().as_str()), (409, "transaction-ended-otherwise"));
    assert_eq!(node.get("/readyz").await.json()["status"], "pass");
    coordinator.close().await;
    node = node.restart().await;
    assert_eq!(node.get(&format!("/v1/transactions/{gid}")).await.json()["decision"], "commit", "records stay");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_coordinator_an_order_waits_for_it_in_the_log() {
    let node = node().await;
    let (coordinator, right, gid) = in_doubt(&node).await;
    let held = listed(&node).await;
    let branch = held[0]["branches"].as_array().unwrap().iter().find(|branch| branch["participant"] == "their-own");
    assert_eq!(branch.unwrap()["standing"], "uncoordinated", "{held:?}");
    let keyed = || {
        let path = format!("/v1/transactions/{gid}/resolve");
        node.send(request("POST", path).header("idempotency-key", "\"k-1\"").json(order("right", "abort").to_string()))
    };
    let ordered = keyed().await;
    assert_eq!((ordered.status, &ordered.json()["contradicts"]), (202, &json!(true)), "{}", ordered.text());
    assert_eq!(keyed().await.json(), ordered.json());
    right.is_away.store(false, Ordering::SeqCst);
    settled(&node).await;
    let record = coordinator.record(&gid).await.unwrap();
    assert_eq!((record.heuristics.len(), &*record.heuristics[0].by), (1, "carol"));
    assert_eq!(notes(&node).await, 2, "the left one did it, and the right one did not");
    coordinator.close().await;
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promise_of_a_participant_that_its_coordinator_does_not_know_is_listed_and_can_be_ordered() {
    let node = node().await;
    let (first, _, gid) = in_doubt(&node).await;
    first.close().await;
    // Its successor was not given the right one.
    let second = Coordinator::open(&node.store, Config::default()).await.unwrap();
    second.register(name("left"), Arc::new(participant(&node, "ours").await)).unwrap();
    node.transactions.attach(&second);
    let held = async || -> Vec<Value> {
        let all = listed(&node).await;
        all.iter().flat_map(|one| one["branches"].as_array().unwrap().clone()).collect()
    };
    // The left one may not have been told yet; then it is the one that is told of.
    let mut branches = held().await;
    while branches.iter().all(|branch| branch["participant"] != "their-own") {
        node.pause(Duration::from_millis(5)).await;
        branches = held().await;
    }
    assert_eq!((branches.len(), &branches[0]["standing"]), (1, &json!("uncoordinated")), "{branches:?}");
    let shown = node.get(&format!("/v1/transactions/{gid}")).await.json();
    assert_eq!(shown["branches"][0]["participant"], "their-own", "{shown}");
    let ordered = resolve(&node, gid, order("right", "abort")).await;
    assert_eq!((ordered.status, &ordered.json()["contradicts"]), (202, &json!(true)), "{}", ordered.text());
    second.register(name("right"), Arc::new(participant(&node, "their-own").await)).unwrap();
    settled(&node).await;
    assert_eq!(notes(&node).await, 2, "the left one did it, and the right one did not");
    for ending in ["commit", "abort"].iter().cycle().take(63) {
        // It has ended, so that it is told of one of the two that it is too late.
        let told = resolve(&node, gid, order("right", ending)).await;
        assert_eq!(told.status, if *ending == "abort" { 200 } else { 409 }, "{}", told.text());
    }
    let often = resolve(&node, gid, order("right", "abort")).await;
    assert_eq!((often.status, often.code().as_str()), (409, "too-many-orders"), "{}", often.text());
    second.close().await;
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn promises_in_the_store_are_listed_page_by_page_whoever_coordinates_them() {
    let node = node_with(|config| config.doubt_limit = Duration::from_millis(1)).await;
    assert_eq!((listed(&node).await, node.metric("quorate_transaction_promised").await), (vec![], 0));
    let ours = participant(&node, "ours").await;
    let work = |n: u32| SqlWork::default().claiming(format!("seat {n}")).work().unwrap();
    let gid = |n: u32| format!("{STRANGER}:1-{n}").parse::<Gid>().unwrap();
    for n in 1..=3 {
        assert_eq!(ours.prepare(&gid(n), &work(n)).await, Ok(Vote::Yes));
    }
    let first = node.get("/v1/transactions?limit=2").await;
    let names = |reply: &Reply| -> Vec<String> {
        let all = reply.json()["transactions"].as_array().unwrap().clone();
        all.iter().map(|one| one["transaction"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&first), [gid(1).to_string(), gid(2).to_string()]);
    let second = node.get(&first.next().unwrap()).await;
    assert_eq!((names(&second), second.next()), (vec![gid(3).to_string()], None));
    let shown = node.get(&format!("/v1/transactions/{}", gid(2))).await.json();
    assert_eq!((&shown["decision"], &shown["branches"][0]["held"]), (&json!("none"), &json!(["seat 2"])));
    node.pause(Duration::from_millis(20)).await;
    assert_eq!(node.metric("quorate_transaction_promised").await, 3);
    let ready = node.get("/readyz").await;
    assert_eq!((ready.status, &ready.json()["status"]), (200, &json!("warn")), "{}", ready.text());
    // What its coordinator has not decided in this log is that one's to resolve.
    let refused = resolve(&node, gid(1), order("ours", "abort")).await;
    assert_eq!((refused.status, refused.code().as_str()), (404, "transaction-not-found"));
    for n in 1..=3 {
        ours.abort(&gid(n)).await.unwrap();
    }
    assert_eq!((listed(&node).await, node.get("/readyz").await.json()["status"].clone()), (vec![], json!("pass")));
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_with_what_is_wrong() {
    let node = node().await;
    let (coordinator, _, gid) = in_doubt(&node).await;
    node.transactions.attach(&coordinator);
    let unknown = format!("{STRANGER}:1-1");
    for (path, code) in [
        ("/v1/transactions/quorate:17", "invalid-name"),
        ("/v1/transactions/17", "transaction-not-found"),
        (&*format!("/v1/transactions/{unknown}"), "transaction-not-found"),
        ("/v1/transactions?limit=1001", "limit-exceeded"),
        ("/v1/transactions?after=17", "invalid-parameter"),
        ("/v1/transactions?x=17", "invalid-parameter"),
    ] {
        assert_eq!(node.get(path).await.code(), code, "{path}");
    }
    let long = "y".repeat(1_025);
    let with = |member: &str, value: Value| {
        let mut body = order("right", "abort");
        body[member] = value;
        body
    };
    for (gid, body, code) in [
        (gid.to_string(), with("ending", json!("forget")), "invalid-json"),
        (gid.to_string(), with("more", json!(1)), "invalid-json"),
        (gid.to_string(), with("by", json!(" ")), "invalid-parameter"),
        (gid.to_string(), with("why", json!(long)), "invalid-parameter"),
        (gid.to_string(), with("participant", json!("")), "invalid-name"),
        (gid.to_string(), with("participant", json!("middle")), "transaction-not-found"),
        (format!("quorate:{}:1-1000", coordinator.id()), order("right", "abort"), "transaction-not-found"),
        (unknown, order("right", "abort"), "transaction-not-found"),
    ] {
        assert_eq!(resolve(&node, &gid, body.clone()).await.code(), code, "{gid} {body}");
    }
    assert!(coordinator.record(&gid).await.unwrap().heuristics.is_empty());
    coordinator.close().await;
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_writes_in_a_coordinators_place() {
    let node = node().await;
    let (coordinator, right, gid) = in_doubt(&node).await;
    let decision = event("forged", r#","data":{"ending":"commit"}"#);
    let taken = event("forged", r#","tags":"txncoordinator:main""#).replace("test.happened", "quorate.txn.taken");
    let several = json!({ "streams": [{ "stream": gid.stream().as_str(), "events": [serde_json::from_str::<Value>(&decision).unwrap()] }] });
    let stream = |stream: &str, verb: &str| format!("/v1/streams/{stream}/{verb}");
    let later = format!("txn-{STRANGER}:1-1");
    let put = |path: String| request("PUT", path).json(r#"{"max-count":"1"}"#);
    for refused in [
        node.send(post(stream(&later, "events")).event(decision.clone())).await,
        node.send(post(stream("txncoordinator-main", "events")).event(decision.clone())).await,
        node.send(post(stream("orders-1", "events")).event(taken)).await,
        node.send(post("/v1/events").json(several.to_string())).await,
        node.send(post(stream(gid.stream().as_str(), "truncate")).json(r#"{"before":2}"#)).await,
        node.send(post(stream("txncoordinator-main", "tombstone"))).await,
        node.send(put(stream("txncoordinator-main", "metadata"))).await,
        node.send(post(stream(gid.stream().as_str(), "archive")).json(r#"{"to":"a"}"#)).await,
    ] {
        assert_eq!((refused.status, refused.code().as_str()), (409, "stream-of-transaction"), "{}", refused.text());
    }
    // Reading is free, and so are names that only resemble these.
    assert_eq!(node.get(&stream(gid.stream().as_str(), "events")).await.events().len(), 2);
    assert_eq!(node.send(post(stream("txn-17", "events")).event(event("mine", ""))).await.status, 201);
    right.is_away.store(false, Ordering::SeqCst);
    settled(&node).await;
    assert!(!coordinator.is_fenced());
    coordinator.close().await;
    node.end().await;
}
