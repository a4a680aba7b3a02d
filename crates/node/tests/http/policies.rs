//! Resilience policies over HTTP and from a folder, and what they remember when they change.

use std::{io::Write as _, path::Path, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use quorate_node::{Server, config::Config};
use quorate_resilience::{
    CallError, Rejection,
    client::{self, Client},
    http::{Http, Operation},
    kit::{Reply as Does, Upstream},
    stack::Plain,
};
use quorate_runtime::Env;
use serde_json::{Value, json};
use tower::{Layer as _, Service as _};

use crate::{
    client::{PATIENCE, Reply, Request, get, post, request},
    node::{Node, node, node_with},
};

const FRAGILE: &str = "breaker: {consecutive: 1, open: {min: 60s, max: 60s}}";

fn text(name: &str, spec: &str) -> String {
    format!("kind: ResiliencePolicy\nmetadata: {{name: {name}}}\nspec:\n  {spec}\n")
}

fn put(name: &str, text: impl Into<Vec<u8>>) -> Request {
    let request = request("PUT", format!("/v1/policies/{name}/document"));
    request.header("content-type", "application/yaml").body(text)
}

async fn declare(node: &Node, name: &str, spec: &str) -> Reply {
    node.send(put(name, text(name, spec))).await
}

fn write(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    Env::real().disk().create(&beside).unwrap().write_all(text.as_bytes()).unwrap();
    Env::real().disk().rename(&beside, path).unwrap();
}

/// Looks at a policy until it is as it should be.
async fn until(node: &Node, name: &str, holds: impl Fn(&Reply) -> bool) -> Reply {
    let env = Env::real();
    let looking = async {
        loop {
            let reply = node.get(&format!("/v1/policies/{name}")).await;
            if holds(&reply) {
                return reply;
            }
            node.pause(Duration::from_millis(10)).await;
        }
    };
    env.timeout(PATIENCE, looking).await.expect("it comes to be so")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_circuit_that_is_open_stays_open_when_its_policy_is_declared_anew_and_across_a_restart_the_policy_stays() {
    let node = node().await;
    let first = declare(&node, "bank", FRAGILE).await;
    assert_eq!(first.status, 201, "{}", first.text());
    assert_eq!(first.json()["changes"], json!({ "added": ["bank"], "changed": [], "removed": [] }));
    let upstream = Upstream::new(&Env::real());
    upstream.script([Does::Fail]);
    let stack = node.policies.registry().stack(&"bank".parse().unwrap(), Plain::new().judged_by(Upstream::judge));
    let mut bank = stack.unwrap().layer(upstream.clone());
    bank.call(1).await.unwrap_err();

    let again = declare(&node, "bank", &format!("{FRAGILE}\n  timeouts: {{request: 3s}}")).await;
    assert_eq!((again.status, &again.json()["changes"]["changed"]), (200, &json!(["bank"])), "{}", again.text());
    assert!(matches!(bank.call(1).await, Err(CallError::Rejected(_))));
    let shown = node.get("/v1/policies/bank").await.json();
    assert_eq!(shown["dependencies"][0]["breaker"]["state"], "open");
    assert_eq!(shown["dependencies"][0]["calls"]["fault"], "1");
    assert_eq!(node.get("/v1/breakers/bank").await.json()["state"], "open");

    let node = node.restart().await;
    let document = node.get("/v1/policies/bank/document").await;
    assert_eq!(document.header("content-type"), Some("application/yaml"));
    assert!(document.text().contains("request: 3s"));
    assert_eq!(node.get("/v1/breakers/bank").await.json()["state"], "closed", "what a process remembers ends with it");
    let deleted = node.send(request("DELETE", "/v1/policies/bank")).await;
    assert_eq!((deleted.status, &deleted.json()["changes"]["removed"]), (200, &json!(["bank"])));
    let gone = node.send(request("DELETE", "/v1/policies/bank")).await;
    assert_eq!((gone.status, gone.code().as_str()), (404, "policy-not-found"));
    let node = node.restart().await;
    assert_eq!(node.get("/v1/policies").await.json(), json!({ "policies": [] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_operation_of_each_endpoint_has_a_circuit_that_is_listed_and_steered_by_its_name() {
    let node = node().await;
    let spec = "breaker: {per: endpointAndOperation, most: 8, consecutive: 1, open: {min: 60s, max: 60s}}";
    let declared = declare(&node, "payments", spec).await;
    assert_eq!(declared.status, 201, "{}", declared.text());
    let stack = node.policies.registry().stack(&"payments".parse().unwrap(), Http::default().failing_as(Client::judge));
    let mut payments = stack.unwrap().layer(Client::new(&Env::real(), client::Config::default()));
    // Nobody listens at the one, and the other is the node itself.
    let (nobody, well) = ("127.0.0.1:1".to_owned(), node.address.to_string());
    let mut ask = async |endpoint: &str, operation: &str| {
        let request = http::Request::get(format!("http://{endpoint}/livez"));
        let request = request.extension(Operation(operation.parse().unwrap())).body(Full::<Bytes>::default()).unwrap();
        match payments.call(request).await {
            Ok(_) => "answered",
            Err(CallError::Rejected(Rejection::Breaker(_))) => "refused",
            Err(_) => "failed",
        }
    };
    assert_eq!([ask(&nobody, "charge").await, ask(&nobody, "charge").await], ["failed", "refused"]);
    assert_eq!([ask(&nobody, "refund").await, ask(&well, "charge").await], ["failed", "answered"]);
    let listed = node.get("/v1/breakers").await.json();
    let listed: Vec<(&str, &str)> = listed["breakers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["name"].as_str().unwrap(), one["state"].as_str().unwrap()))
        .collect();
    let names =
        [format!("payments/{well}/charge"), format!("payments/{nobody}/charge"), format!("payments/{nobody}/refund")];
    let mut expected = vec![("payments", "closed"), (&*names[0], "closed"), (&*names[1], "open"), (&*names[2], "open")];
    expected.sort_unstable();
    assert_eq!(listed, expected);
    let shown = node.get("/v1/policies/payments").await.json();
    let circuits = json!({ "known": 3, "open": 2, "half-open": 0, "crowded": "0" });
    assert_eq!(shown["dependencies"][0]["circuits"], circuits);

    // One of them, and then all.
    let path = |name: &str, action: &str| format!("/v1/breakers/{}/{action}", name.replace('/', "%2F"));
    let mode = |name: &str, mode: &str| request("PUT", path(name, "mode")).json(json!({ "mode": mode }).to_string());
    assert_eq!(node.send(mode(&names[0], "forced-open")).await.status, 200);
    assert_eq!([ask(&well, "charge").await, ask(&well, "refund").await], ["refused", "answered"]);
    assert_eq!(node.send(mode(&names[0], "automatic")).await.status, 200);
    assert_eq!(node.send(mode("payments", "forced-open")).await.status, 200);
    assert_eq!([ask(&well, "charge").await, ask(&well, "refund").await], ["refused", "refused"]);
    assert_eq!(node.send(mode("payments", "automatic")).await.status, 200);
    assert_eq!([ask(&well, "charge").await, ask(&well, "refund").await], ["answered", "answered"]);
    assert_eq!(node.send(post(path(&names[1], "reset")).json("{}")).await.status, 200);
    assert_eq!(ask(&nobody, "charge").await, "failed", "it may try again");
    assert_eq!(ask(&nobody, "refund").await, "refused");
    assert_eq!(node.send(post(path("payments", "reset")).json("{}")).await.status, 200);
    assert_eq!([ask(&nobody, "charge").await, ask(&nobody, "refund").await], ["failed", "failed"], "each may");

    // Declared anew with something else in it, and what is open stays open.
    let again = declare(&node, "payments", &format!("{spec}\n  timeouts: {{request: 3s}}")).await;
    assert_eq!(again.status, 200, "{}", again.text());
    assert_eq!(ask(&nobody, "charge").await, "refused");
    let inner = text("inner", &format!("targetRefs: [{{name: payments/inner}}]\n  {FRAGILE}"));
    let taken = node.send(put("inner", inner)).await;
    assert_eq!((taken.status, taken.code().as_str()), (409, "policy-taken"), "{}", taken.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_that_the_store_counts_is_spent_after_a_restart_and_holds_as_declared_while_it_cannot_count() {
    // So many in most of a year: while the test runs, none comes.
    let spec = |mode: &str| format!("rateLimit: {{requests: 3, per: 7200h, count: store, onStoreUnavailable: {mode}}}");
    let calls = async |node: &Node, name: &str| {
        let (upstream, mut made) = (Upstream::new(&Env::real()), Vec::new());
        let plain = Plain::new().judged_by(Upstream::judge);
        let stack = node.policies.registry().stack(&name.parse().unwrap(), plain).unwrap();
        let mut service = stack.layer(upstream);
        for call in 0..4 {
            made.push(service.call(call).await.is_ok());
        }
        made
    };
    let node = node().await;
    assert_eq!(declare(&node, "bank", &spec("deny")).await.status, 201);
    assert_eq!(calls(&node, "bank").await, [true, true, true, false]);
    let node = node.restart().await;
    assert_eq!(calls(&node, "bank").await, [false; 4], "another process of the same store");
    let reset = node.send(post("/v1/limits/bank/reset").json("{}")).await;
    assert_eq!((reset.status, &reset.json()["count"]), (200, &json!("store")), "{}", reset.text());
    assert_eq!(calls(&node, "bank").await, [true, true, true, false]);
    for (name, mode) in [("lenient", "allow"), ("alone", "local")] {
        assert_eq!(declare(&node, name, &spec(mode)).await.status, 201);
    }
    let without = declare(&node, "vague", "rateLimit: {requests: 3, count: store}").await;
    assert_eq!((without.status, without.code().as_str()), (400, "invalid-policy"));

    node.store.close().await.unwrap();
    assert_eq!(calls(&node, "lenient").await, [true; 4]);
    assert_eq!(calls(&node, "alone").await, [true, true, true, false]);
    let shown = node.get("/v1/limits/lenient").await.json();
    assert_eq!((&shown["count"], &shown["uncounted"]), (&json!("store"), &json!("4")), "{shown}");
    let metrics = node.get("/metrics").await.text();
    let line = r#"quorate_rate_limit_uncounted_total{dependency="alone",decided="local"} 4"#;
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_policy_is_told_with_line_and_field_and_changes_nothing() {
    let node = node().await;
    declare(&node, "edge", "from: web\n  targetRefs: [{name: shop}]\n  retry: {attempts: 2, ownership: ignored}").await;
    let unreadable = declare(&node, "bank", "timeouts: {requst: 3s}").await;
    assert_eq!((unreadable.status, unreadable.code().as_str()), (400, "invalid-policy"));
    let fault = &unreadable.json()["faults"][0];
    assert_eq!((&fault["line"], &fault["field"]), (&json!(4), &json!("spec.timeouts.requst")), "{fault}");
    let impossible =
        declare(&node, "bank", "timeouts: {request: 2s, backendRequest: 1s}\n  retry: {attempts: 2}").await;
    assert_eq!((impossible.status, impossible.code().as_str()), (400, "impossible-policy"));
    let fault = &impossible.json()["faults"][0];
    assert_eq!((&fault["line"], &fault["policy"]), (&json!(5), &json!("bank")), "{fault}");
    // Together with the one that is declared it would multiply.
    let chain = "from: shop\n  targetRefs: [{name: stock}]\n  retry: {attempts: 2, ownership: ignored}";
    let checked = node
        .send(post("/v1/policies/stock/check").header("content-type", "application/yaml").body(text("stock", chain)))
        .await;
    assert_eq!(checked.code(), "impossible-policy");
    let other = node
        .send(post("/v1/policies/a/check").header("content-type", "application/yaml").body(text("b", FRAGILE)))
        .await;
    assert_eq!(other.code(), "invalid-policy");
    let taken = declare(&node, "rival", "targetRefs: [{name: shop}]").await;
    assert_eq!((taken.status, taken.code().as_str()), (409, "policy-taken"), "{}", taken.text());
    let media = node.send(post("/v1/policies/a/check").header("content-type", "text/plain").body("a")).await;
    assert_eq!(media.code(), "unsupported-media-type");
    let listed = node.get("/v1/policies").await.json();
    assert_eq!(listed["policies"].as_array().unwrap().len(), 1);
    assert_eq!(node.get("/policy.schema.json").await.json()["title"], "ResiliencePolicy");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_in_force_from_the_start_watched_and_kept_as_it_was_while_something_in_it_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    write(&path.join("bank.yaml"), &text("bank", &format!("{FRAGILE}\n  rateLimit: {{requests: 5, per: 1h}}")));
    write(&path.join("readme.md"), "no policy");
    let watched = path.clone();
    let node = node_with(|config| config.policy_folder = Some((watched, Duration::from_millis(10)))).await;
    let shown = node.get("/v1/policies/bank").await.json();
    assert_eq!(shown["file"], path.join("bank.yaml").display().to_string());
    node.breakers
        .registry()
        .get(&"bank".parse().unwrap())
        .unwrap()
        .operate(quorate_resilience::circuit_breaker::Mode::ForcedOpen, Env::real().mono());
    let in_file = declare(&node, "bank", FRAGILE).await;
    assert_eq!((in_file.status, in_file.code().as_str()), (409, "policy-in-file"));

    write(&path.join("bank.yaml"), &text("bank", &format!("{FRAGILE}\n  rateLimit: {{requests: 9, per: 1h}}")));
    until(&node, "bank", |reply| reply.json()["dependencies"][0]["limit"]["burst"] == 9).await;
    assert_eq!(node.get("/v1/breakers/bank").await.json()["mode"], "forced-open", "what an operator asked for stays");
    let limit = node.get("/v1/limits/bank").await.json();
    assert_eq!((&limit["of"], &limit["requests"], &limit["remaining"]), (&json!("calls"), &json!(9), &json!(9)));

    write(&path.join("shop.yaml"), "kind: ResiliencePolicy\nmetadata: {name: shop}\nspec: {timeouts: 3}\n");
    let env = Env::real();
    let refused = async { while node.metric("quorate_policies_refused").await != 1 {} };
    env.timeout(PATIENCE, refused).await.expect("a metric says so");
    assert_eq!(node.get("/v1/policies/bank").await.status, 200, "what was in force still is");
    write(&path.join("shop.yaml"), &text("shop", FRAGILE));
    until(&node, "shop", |reply| reply.status == 200).await;
    assert_eq!(node.metric("quorate_policies_refused").await, 0);
    Env::real().disk().remove(&path.join("shop.yaml")).unwrap();
    until(&node, "shop", |reply| reply.status == 404).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_folder_holds_what_cannot_work_does_not_start_and_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policies");
    Env::real().disk().create_dir_all(&path).unwrap();
    write(&path.join("bank.yaml"), &text("bank", "retry: {attempts: many}"));
    let mut config = Config::in_folder(folder.path().join("data"));
    config.policy_folder = Some((path.clone(), Duration::from_secs(1)));
    let refused = Server::bind(config, Env::real()).await.err().unwrap().to_string();
    let place = format!("{}:4:", path.join("bank.yaml").display());
    assert!(refused.contains(&place) && refused.contains("`spec.retry.attempts`"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_listed_page_by_page() {
    let node = node().await;
    for name in ["a", "b/c", "d"] {
        let path = name.replace('/', "%2F");
        assert_eq!(node.send(put(&path, text(&format!("\"{name}\""), FRAGILE))).await.status, 201);
    }
    let first = node.send(get("/v1/policies?limit=2")).await;
    let names = |reply: &Reply| -> Vec<Value> {
        reply.json()["policies"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect()
    };
    assert_eq!(names(&first), ["a", "b/c"]);
    assert_eq!(names(&node.get(&first.next().unwrap()).await), ["d"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_comes_up_on_a_full_disk_and_policies_are_declared_once_there_is_space() {
    use crate::{faulty, node::node_in};
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    faulty::mend(&data);
    let older = node_in(folder).await;
    // As a node without policies left it.
    let forgotten = older.store.transact(|tx| {
        Box::pin(async move {
            tx.room_execute("DROP TABLE quorate_policy", &[]).await?;
            tx.room_execute("DELETE FROM quorate_room WHERE room = 'policy'", &[]).await
        })
    });
    forgotten.await.unwrap();
    let folder = older.end().await;
    faulty::on(&data, |what, _| (what == faulty::What::Write).then_some(rusqlite::ffi::SQLITE_FULL));
    let node = node_in(folder).await;
    let refused = declare(&node, "bank", FRAGILE).await;
    assert_eq!((refused.status, refused.code().as_str()), (507, "disk-full"), "{}", refused.text());
    assert_eq!(node.get("/v1/breakers/bank").await.status, 404, "what could not be kept is not in force");
    faulty::mend(&data);
    assert_eq!(declare(&node, "bank", FRAGILE).await.status, 201);
    assert_eq!(node.get("/v1/breakers/bank").await.status, 200);
}

/// Polls `work` so often and drops it.
async fn cut_off<T>(polls: u32, work: impl Future<Output = T>) {
    let (mut work, mut left) = (Box::pin(work), polls);
    std::future::poll_fn(|context| {
        left -= 1;
        let ready = work.as_mut().poll(context).is_ready();
        if ready || left == 0 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_asker_goes_away_is_made_or_not_and_everybody_says_the_same() {
    use quorate_foundations::document::Format;
    let mut node = node().await;
    for polls in 1..=3 {
        let name: quorate_foundations::name::Name = format!("bank-{polls}").parse().unwrap();
        cut_off(polls, node.policies.declare(&name, &text(name.as_str(), FRAGILE), Format::Yaml)).await;
        // Behind it, whatever became of it.
        assert_eq!(declare(&node, "other", FRAGILE).await.status / 100, 2);
        let path = format!("/v1/policies/{name}");
        let told = node.get(&path).await.status;
        assert_eq!(node.get(&format!("/v1/breakers/{name}")).await.status, told, "in force and known, or neither");
        node = node.restart().await;
        assert_eq!(node.get(&path).await.status, told, "after a restart as before");
        if told == 200 {
            cut_off(polls, node.policies.delete(&name)).await;
            assert_eq!(declare(&node, "other", FRAGILE).await.status / 100, 2);
            let gone = node.get(&path).await.status;
            assert_eq!(node.get(&format!("/v1/breakers/{name}")).await.status, gone);
            node = node.restart().await;
            assert_eq!(node.get(&path).await.status, gone);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_contradicts_what_is_declared_keeps_no_node_from_starting_and_holds_once_that_is_deleted() {
    use crate::node::start;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let older = node().await;
    assert_eq!(declare(&older, "bank", FRAGILE).await.status, 201);
    write(&path.join("bank.yaml"), &text("bank", &format!("{FRAGILE}\n  rateLimit: {{requests: 5, per: 1h}}")));
    let node = start(older.end().await, |config| config.policy_folder = Some((path, Duration::from_millis(10)))).await;
    assert_eq!(node.get("/v1/policies/bank").await.json()["file"], Value::Null, "what was declared holds");
    assert_eq!(node.metric("quorate_policies_refused").await, 1);
    assert_eq!(node.send(request("DELETE", "/v1/policies/bank")).await.status, 200);
    until(&node, "bank", |reply| reply.json()["dependencies"][0]["limit"]["burst"] == 5).await;
    assert_eq!(node.metric("quorate_policies_refused").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_declared_has_a_bound_together() {
    let node = node().await;
    let padding = format!("# {}\n", "x".repeat(250 << 10));
    for n in 0..33 {
        let name = format!("p-{n}");
        let reply = node.send(put(&name, text(&name, FRAGILE) + &padding)).await;
        if n < 32 {
            assert_eq!(reply.status, 201, "{n}: {}", reply.text());
        } else {
            assert_eq!((reply.status, reply.code().as_str()), (409, "too-many-policies"), "{}", reply.text());
        }
    }
}
