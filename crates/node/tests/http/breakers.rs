//! Circuit breakers over HTTP.

use std::num::NonZeroU32;

use quorate_resilience::{Class, Outcome, circuit_breaker::Config};
use serde_json::json;

use crate::{
    client::{Request, get, request},
    node::{Node, node},
};

/// A node with a breaker that opened at its first failure.
async fn node_with_an_open_breaker() -> Node {
    let node = node().await;
    let config = Config { consecutive: NonZeroU32::new(1), ..Config::default() };
    let breaker = node.breakers.registry().breaker(&"bank/charge".parse().unwrap(), &config).unwrap();
    let now = quorate_foundations::time::Mono::from_nanos(1);
    breaker.permit(now).unwrap().settle(now, Outcome::Upstream(Class::Fault), None);
    node
}

fn mode(mode: &str) -> Request {
    let request = request("PUT", "/v1/breakers/bank%2Fcharge/mode").header("content-type", "application/json");
    request.body(format!(r#"{{"mode": "{mode}"}}"#))
}

#[tokio::test]
async fn an_operator_sees_an_open_circuit_closes_it_and_forces_it_open() {
    let node = node_with_an_open_breaker().await;
    let listed = node.send(get("/v1/breakers")).await.json();
    assert_eq!(listed["breakers"][0]["name"], "bank/charge");
    assert_eq!(listed["breakers"][0]["mode"], "automatic");

    let reset = node
        .send(request("POST", "/v1/breakers/bank%2Fcharge/reset").header("content-type", "application/json").body("{}"))
        .await;
    assert_eq!((reset.status, reset.json()["state"].clone()), (200, json!("closed")));

    assert_eq!(node.send(mode("forced-open")).await.json()["mode"], "forced-open");
    let breaker = node.breakers.registry().get(&"bank/charge".parse().unwrap()).unwrap();
    assert!(breaker.permit(quorate_foundations::time::Mono::from_nanos(u64::MAX / 2)).is_err());
}

#[tokio::test]
async fn a_breaker_that_is_not_there_and_a_mode_that_is_none_are_told() {
    let node = node_with_an_open_breaker().await;
    let missing = node.send(get("/v1/breakers/nobody")).await;
    assert_eq!((missing.status, missing.code().as_str()), (404, "breaker-not-found"));
    let refused = node.send(mode("ajar")).await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "invalid-json"));
}
