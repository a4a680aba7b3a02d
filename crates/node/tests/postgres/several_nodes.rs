//! Several nodes over one database.

use std::{collections::BTreeSet, num::NonZeroU32, sync::Arc, time::Duration};

use futures_util::future::join;
use quorate_foundations::time::{Boot, Mono, Wall};
use quorate_node::quota::StoreQuota;
use quorate_resilience::rate_limit::{Portion, Quota as _, Rate};
use quorate_runtime::{BoxFuture, Env, clock::Clocks};
use serde_json::{Value, json};

use crate::{
    client::{Reply, get, post, request},
    node::{Node, event, node, start, start_in_world},
    stranger::stranger,
    subscribe::Subscriber,
};

/// Two nodes over one store.
pub(crate) async fn two() -> [Node; 2] {
    let one = node().await;
    let of = one.folder.path().to_owned();
    let other = start(tempfile::tempdir().unwrap(), |config| crate::choose_store(config, &of)).await;
    [one, other]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_one_node_makes_a_read_of_another_include_its_write() {
    let [one, other] = two().await;
    for n in 0..20 {
        let stream = format!("s-{n}");
        let written = one.send(post(format!("/v1/streams/{stream}/events")).event(event("1", ""))).await;
        let token = written.header("quorate-token").unwrap().to_owned();
        let read = get(format!("/v1/events?category=s&after={n}")).header("quorate-token", &token);
        let read = other.send(read.header("prefer", "wait=20")).await;
        assert_eq!(read.events()[0]["stream"], json!(stream));
        let back = one.send(get("/v1/streams").header("quorate-token", read.header("quorate-token").unwrap())).await;
        assert_eq!(back.status, 200, "a token of a read is good on either: {}", back.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_one_node_hears_what_is_appended_on_another_in_the_order_of_the_log() {
    let [one, other] = two().await;
    let mut subscriber = Subscriber::start(&other, get("/v1/events/subscribe")).await;
    assert!(subscriber.until_caught_up().await.is_empty());
    join(one.fill("a", 1, 50), other.fill("b", 1, 50)).await;
    assert_eq!(subscriber.positions(100).await, (1..=100).collect::<Vec<u64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_requests_with_one_key_to_two_nodes_at_once_are_done_once() {
    let [one, other] = two().await;
    for n in 0..10 {
        let request =
            post("/v1/streams/a/events").header("idempotency-key", format!("k{n}")).event(event(&n.to_string(), ""));
        let (first, second) = join(one.send(request.clone()), other.send(request)).await;
        assert_eq!((first.status, second.status), (201, 201), "{} {}", first.text(), second.text());
        assert_eq!(first.body, second.body);
    }
    assert_eq!(one.get("/v1/streams/a/events").await.events().len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_told_to_stop_gives_positions_as_long_as_it_serves() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder, |config| config.http.drain_delay = std::time::Duration::from_secs(3)).await;
    node.fill("a", 1, 1).await;
    node.stop();
    // No other node is there to give any.
    for n in 2..=4 {
        let written = node.send(post("/v1/streams/a/events").event(event(&n.to_string(), ""))).await;
        assert_eq!(written.status, 201, "{}", written.text());
        let token = written.header("quorate-token").expect("it could be read").to_owned();
        let read = node.send(get(format!("/v1/events?after={}", n - 1)).header("quorate-token", &token)).await;
        assert_eq!(read.events()[0]["logposition"], json!(n.to_string()), "{}", read.text());
        let listed = node.send(get("/v1/streams").header("quorate-token", &token)).await;
        assert_eq!(listed.status, 200, "{}", listed.text());
    }
    node.stopped().await;
}

/// Declares a policy for calls of `target`.
async fn declare(node: &Node, name: &str, target: &str) -> Reply {
    node.send(request("PUT", format!("/v1/policies/{name}/document")).json(policy(name, target))).await
}

fn policy(name: &str, target: &str) -> String {
    let spec = json!({ "targetRefs": [{ "name": target }], "timeouts": { "request": "3s" } });
    json!({ "kind": "ResiliencePolicy", "metadata": { "name": name }, "spec": spec }).to_string()
}

/// Whether the policy is known, and in force.
async fn holds(node: &Node, name: &str) -> (u16, bool) {
    let shown = node.get(&format!("/v1/policies/{name}")).await;
    (shown.status, shown.json()["dependencies"].as_array().is_some_and(|all| !all.is_empty()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_judged_beside_what_other_nodes_have_declared_and_each_can_delete_it() {
    let [one, other] = two().await;
    assert_eq!(declare(&one, "p1", "bank").await.status, 201);
    let taken = declare(&other, "p2", "bank").await;
    assert_eq!((taken.status, taken.code().as_str()), (409, "policy-taken"), "{}", taken.text());
    assert_eq!(holds(&other, "p1").await, (200, true), "what it was judged beside is in force here as well");
    assert_eq!(declare(&other, "p3", "shop").await.status, 201);
    assert_eq!(declare(&one, "p3", "shop").await.status, 200, "it is there already");
    assert_eq!(other.send(request("DELETE", "/v1/policies/p1")).await.status, 200);
    assert_eq!(declare(&other, "p2", "bank").await.status, 201);
    assert_eq!(one.send(request("DELETE", "/v1/policies/p2")).await.status, 200, "declared on the other one");
    assert_eq!(one.send(request("DELETE", "/v1/policies/p2")).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_policies_for_one_dependency_that_are_declared_on_two_nodes_at_once_one_is_accepted_and_holds_after_a_restart()
 {
    let [one, other] = two().await;
    for round in 0..5 {
        let target = format!("bank-{round}");
        let names = [format!("a-{round}"), format!("b-{round}")];
        let (first, second) = join(declare(&one, &names[0], &target), declare(&other, &names[1], &target)).await;
        let mut statuses = [first.status, second.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 409], "{} {}", first.text(), second.text());
    }
    let one = one.restart().await;
    assert_eq!(one.metric("quorate_policies_refused").await, 0);
    let listed = one.get("/v1/policies").await.json();
    let listed = listed["policies"].as_array().unwrap();
    assert_eq!(listed.len(), 5);
    assert!(listed.iter().all(|policy| policy["dependencies"] != json!([])), "{listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_policy_that_does_not_fit_is_left_out_alone_until_what_it_contradicts_is_deleted() {
    let node = node().await;
    for n in 1..=5 {
        assert_eq!(declare(&node, &format!("p{n}"), &format!("bank-{n}")).await.status, 201);
    }
    let address = crate::server::address().unwrap();
    let table = format!("{}.quorate_policy", crate::database(&address, node.folder.path()).schema);
    // As older versions let several nodes do.
    let sql = format!(
        "INSERT INTO {table} (name, format, document) VALUES ('p2-rival', 'json', '{}')",
        policy("p2-rival", "bank-2")
    );
    stranger(&address).await.batch_execute(&sql).await.unwrap();
    let node = node.restart().await;
    assert_eq!(node.metric("quorate_policies_refused").await, 1);
    for n in 1..=5 {
        assert_eq!(holds(&node, &format!("p{n}")).await, (200, true));
    }
    assert_eq!(holds(&node, "p2-rival").await, (200, false));
    assert_eq!(declare(&node, "p6", "bank-6").await.status, 201, "it is in nobody's way");
    assert_eq!((holds(&node, "p6").await, holds(&node, "p2-rival").await), ((200, true), (200, false)));
    assert_eq!(node.metric("quorate_policies_refused").await, 1);
    assert_eq!(node.send(request("DELETE", "/v1/policies/p2")).await.status, 200);
    assert_eq!(holds(&node, "p2-rival").await, (200, true));
    assert_eq!(node.metric("quorate_policies_refused").await, 0);
}

const SHARED: &str = "/v1/subscriptions/shared";

/// What one pull hands out; none where the nodes were in each other's way.
async fn pull(node: &Node, max: usize) -> Vec<Value> {
    let pulled = node.send(post(format!("{SHARED}/pull")).json(json!({ "max": max }).to_string())).await;
    match pulled.status {
        200 => pulled.json()["deliveries"].as_array().unwrap().clone(),
        503 => Vec::new(),
        other => panic!("{other}: {}", pulled.text()),
    }
}

/// Acknowledges, again while the nodes are in each other's way.
async fn ack(node: &Node, deliveries: &[Value]) -> u16 {
    let leases: Vec<&Value> = deliveries.iter().map(|delivery| &delivery["lease"]).collect();
    loop {
        let acked = node.send(post(format!("{SHARED}/ack")).json(json!({ "leases": leases }).to_string())).await;
        if acked.status != 503 {
            return acked.status;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_on_two_nodes_share_a_subscription_and_each_event_comes_to_one_of_them() {
    let nodes = two().await;
    assert_eq!(nodes[0].send(request("PUT", SHARED).json("{}")).await.status, 200);
    for stream in ["a", "b", "c", "d"] {
        nodes[1].fill(stream, 1, 10).await;
    }
    let works = async |node: &Node| {
        let mut seen = Vec::new();
        while node.get(SHARED).await.json()["checkpoint"] != "40" {
            let handed = pull(node, 3).await;
            for delivery in &handed {
                assert_eq!(delivery["attempt"], 1, "{delivery}");
                seen.push(delivery["event"]["id"].as_str().unwrap().to_owned());
            }
            if !handed.is_empty() {
                assert_eq!(ack(node, &handed).await, 200);
            }
        }
        seen
    };
    let (one, other) = join(works(&nodes[0]), works(&nodes[1])).await;
    let all: BTreeSet<&String> = one.iter().chain(&other).collect();
    assert_eq!((one.len() + other.len(), all.len()), (40, 40));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_ran_out_is_given_to_a_worker_on_another_node_and_the_first_one_is_refused() {
    let [one, other] = two().await;
    assert_eq!(one.send(request("PUT", SHARED).json(r#"{"lease-ttl":"1s"}"#)).await.status, 200);
    one.fill("a", 1, 1).await;
    let held = pull(&one, 1).await;
    assert_eq!(held[0]["attempt"], 1);
    let taken = loop {
        let taken = pull(&other, 1).await;
        if !taken.is_empty() {
            break taken;
        }
        other.pause(std::time::Duration::from_millis(50)).await;
    };
    assert_eq!((&taken[0]["attempt"], &taken[0]["event"]), (&json!(2), &held[0]["event"]));
    assert_eq!(ack(&one, &held).await, 409, "its lease is lost");
    assert_eq!(ack(&other, &taken).await, 200);
    assert_eq!(one.get(SHARED).await.json()["checkpoint"], "1");
}

/// Clocks whose wall is an hour ahead.
struct Ahead(Arc<dyn Clocks>);

impl Clocks for Ahead {
    fn wall(&self) -> Wall {
        Wall::from_unix_nanos(self.0.wall().unix_nanos() + 3_600_000_000_000)
    }

    fn mono(&self) -> Mono {
        self.0.mono()
    }

    fn boot(&self) -> Boot {
        self.0.boot()
    }

    fn sleep_until(&self, due: Mono) -> BoxFuture<'static, ()> {
        self.0.sleep_until(due)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_clock_is_ahead_takes_nothing_of_a_shared_rate_from_the_others_and_gets_no_more() {
    let one = node().await;
    let (of, mut parts) = (one.folder.path().to_owned(), Env::real().into_parts());
    parts.clocks = Arc::new(Ahead(parts.clocks));
    let env = Env::from_parts(parts);
    let ahead = start_in_world(env, tempfile::tempdir().unwrap(), |config| crate::choose_store(config, &of)).await;
    let number = |number| NonZeroU32::new(number).unwrap();
    // One comes in five minutes, and the clocks are an hour apart.
    let rate = Rate::new(number(20), Duration::from_secs(6_000));
    let [ahead, one] =
        [&ahead, &one].map(|node| StoreQuota::of(&node.store, "calls".parse().unwrap(), 16.try_into().unwrap()));
    let key = "bank".parse().unwrap();
    let take = async |quota: &StoreQuota, units| match quota.take(&key, rate, number(1), number(units)).await.unwrap() {
        Portion::Given { units, .. } => units.get(),
        Portion::Refused(_) => 0,
    };
    assert_eq!((take(&ahead, 10).await, take(&one, 7).await), (10, 7));
    assert_eq!((take(&ahead, 10).await, take(&one, 10).await, take(&ahead, 10).await), (3, 0, 0));
}
