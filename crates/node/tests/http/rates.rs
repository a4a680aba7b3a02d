//! How often clients and tenants may ask, from outside.

use std::{num::NonZeroU32, time::Duration};

use quorate_node::config::{Config, RateCount};
use quorate_resilience::rate_limit::Rate;

use crate::{
    client::{get, post},
    node::{Node, event, node_with},
};

/// So many in most of a year: while a test runs, none comes back.
fn rate(requests: u32) -> Option<Rate> {
    Some(Rate::new(NonZeroU32::new(requests).unwrap(), Duration::from_secs(300 * 24 * 3_600)))
}

/// A node on which a client may ask `client` times, and a tenant `tenant` times.
async fn limited(client: Option<Rate>, tenant: Option<Rate>, count: RateCount) -> Node {
    node_with(|config: &mut Config| {
        config.rates.client = client;
        config.rates.tenant = tenant;
        config.rates.count = count;
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_too_often_is_told_when_to_come_back_and_nothing_is_done() {
    let node = limited(rate(2), None, RateCount::Process).await;
    let first = node.get("/v1/events").await;
    assert_eq!(first.header("ratelimit-policy"), Some(r#""http/clients";q=2;w=25920000"#));
    assert!(first.header("ratelimit").unwrap().starts_with(r#""http/clients";r=1;t="#));
    assert_eq!(node.get("/v1/streams").await.status, 200);
    // Another connection, the same client.
    let refused = node.send(post("/v1/streams/a/events").event(event("1", ""))).await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "rate-limited"));
    let document = refused.json();
    assert_eq!((&document["limit"], &document["outcome"]), (&"http/clients".into(), &"unchanged".into()));
    assert!(refused.header("ratelimit").unwrap().starts_with(r#""http/clients";r=0;t="#));
    // At least the wait, half a window, and up to half a burst later.
    let after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    let wait = 150 * 24 * 3_600;
    assert!((wait - 600..=2 * wait + 600).contains(&after), "{after}");
    assert_eq!(node.store.head().get(), 0);
    // Probes are not limited, and count what was refused.
    let metrics = node.get("/metrics").await;
    assert!(
        metrics.text().contains(r#"quorate_http_rate_limited_total{limit="http/clients"} 1"#),
        "{}",
        metrics.text()
    );
    assert_eq!(node.get("/readyz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_has_its_rate_whatever_others_ask_and_one_that_is_not_named_is_only_a_client() {
    let node = limited(None, rate(2), RateCount::Process).await;
    let ask = async |tenant: &str| node.send(get("/v1/streams").header("quorate-tenant", tenant)).await.status;
    assert_eq!([ask("a").await, ask("a").await, ask("a").await], [200, 200, 429]);
    assert_eq!(ask("b").await, 200);
    assert_eq!(node.get("/v1/streams").await.status, 200);
    assert_eq!(ask(&"x".repeat(257)).await, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_that_the_store_counts_survives_a_restart_and_a_reset_gives_it_back() {
    let change = |config: &mut Config| {
        config.rates.tenant = rate(3);
        config.rates.count = RateCount::StoreOrDeny;
    };
    let ask = async |node: &Node| node.send(get("/v1/streams").header("quorate-tenant", "a")).await.status;
    let node = node_with(change).await;
    assert_eq!([ask(&node).await, ask(&node).await, ask(&node).await, ask(&node).await], [200, 200, 200, 429]);
    let node = crate::node::start(node.end().await, change).await;
    assert_eq!(ask(&node).await, 429, "another process of the same store");
    let reset = node.send(post("/v1/limits/http%2Ftenants/reset").json("{}")).await;
    assert_eq!((reset.status, &reset.json()["count"]), (200, &"store".into()), "{}", reset.text());
    assert_eq!(ask(&node).await, 200);
    let listed = node.get("/v1/limits").await.json();
    assert_eq!((&listed["limits"][0]["name"], &listed["limits"][0]["refused"]), (&"http/tenants".into(), &"1".into()));
    let missing = node.get("/v1/limits/none").await;
    assert_eq!((missing.status, missing.code().as_str()), (404, "limit-not-found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_by_the_stores_count_is_repeated_without_asking_it() {
    let node = limited(rate(1), None, RateCount::StoreOrDeny).await;
    assert_eq!([node.get("/v1/streams").await.status, node.get("/v1/streams").await.status], [200, 429]);
    // A store that can't be asked any more would be answered with 503.
    node.store.close().await.unwrap();
    let refused = node.get("/v1/streams").await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "rate-limited"));
    assert!(refused.header("retry-after").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_cannot_count_what_was_chosen_holds() {
    for (count, expected) in [
        (RateCount::StoreOrAllow, [200, 200, 200]),
        (RateCount::StoreOrDeny, [503, 503, 503]),
        (RateCount::StoreOrProcess, [200, 200, 429]),
    ] {
        let node = limited(rate(2), None, count).await;
        node.store.close().await.unwrap();
        for status in expected {
            let reply = node.get("/v1/limits").await;
            assert_eq!(reply.status, status, "{count:?}: {}", reply.text());
            if status == 503 {
                assert_eq!(
                    (reply.code().as_str(), &reply.json()["outcome"]),
                    ("limit-unavailable", &"unchanged".into())
                );
                assert!(reply.header("retry-after").is_some());
            }
        }
        let metrics = node.get("/metrics").await.text();
        assert!(metrics.contains(r#"quorate_http_rate_uncounted_total{limit="http/clients"} 3"#), "{metrics}");
    }
}
