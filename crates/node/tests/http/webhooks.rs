use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    client::{PATIENCE, Reply, get, post, request},
    node::{Node, node, node_with},
};

const PATH: &str = "/v1/webhooks/billing";

/// A node that may call this machine.
async fn neighbourly() -> Node {
    node_with(|config| config.webhook_targets = vec!["127.0.0.0/8".parse().unwrap()]).await
}

async fn declare(node: &Node, config: Value) -> Reply {
    node.send(request("PUT", PATH).json(config.to_string())).await
}

async fn act(node: &Node, action: &str, body: Value) -> Reply {
    node.send(post(format!("{PATH}/{action}")).json(body.to_string())).await
}

/// Looks at the webhook until `holds` is true of it.
async fn until(node: &Node, holds: impl Fn(&Value) -> bool) -> Value {
    let looking = async {
        loop {
            let shown = node.get(PATH).await.json();
            if holds(&shown) {
                return shown;
            }
            node.pause(Duration::from_millis(10)).await;
        }
    };
    quorate_runtime::Env::real().timeout(PATIENCE, looking).await.expect("it comes to be so")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_declared_described_and_deleted_and_its_secret_is_told_once() {
    let node = neighbourly().await;
    let config = json!({ "url": "http://127.0.0.1:9/x", "key": { "tag": "customer" }, "timeout": "1s", "places": 2 });
    let made = declare(&node, config.clone()).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let secret = made.json()["secret"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("whsec_"));
    let again = declare(&node, config).await;
    assert_eq!((again.status, again.json().get("secret")), (200, None));
    let shown = node.get(PATH).await.json();
    assert_eq!(shown["state"], "active");
    assert!(shown["subscription"]["subscription"].as_str().is_some_and(|name| name.starts_with("webhook:billing:")));
    let fed = shown["subscription"]["subscription"].as_str().unwrap().replace(':', "%3A");
    assert_eq!(node.get(&format!("/v1/subscriptions/{fed}")).await.status, 200, "everybody may look");
    for reply in [
        node.send(request("DELETE", format!("/v1/subscriptions/{fed}"))).await,
        node.send(post(format!("/v1/subscriptions/{fed}/pull")).json("{}")).await,
        node.send(post(format!("/v1/subscriptions/{fed}/discard")).json(r#"{"all":true}"#)).await,
    ] {
        assert_eq!((reply.status, reply.code().as_str()), (409, "subscription-of-webhook"), "{}", reply.text());
    }
    let sent_again = declare(&node, shown["config"].clone()).await;
    assert_eq!(
        (sent_again.status, sent_again.json()["config"].clone()),
        (200, shown["config"].clone()),
        "what is shown can be sent"
    );
    let all = node.get("/v1/webhooks").await;
    assert_eq!(all.json()["webhooks"][0]["webhook"], "billing");
    for text in [all.text(), node.get(PATH).await.text()] {
        assert!(!text.contains(&secret), "{text}");
    }

    let rotated = act(&node, "secrets", json!({ "overlap": "1h" })).await;
    assert!(rotated.json()["secret"].as_str().is_some_and(|new| new != secret), "{}", rotated.text());
    let secrets = node.get(PATH).await.json()["secrets"].as_array().unwrap().len();
    assert_eq!(secrets, 2);

    let deleted = node.send(request("DELETE", PATH)).await;
    assert_eq!((deleted.status, deleted.json()), (200, json!({ "webhook": "billing", "deleted": true })));
    assert_eq!((node.get(PATH).await.status, node.get(PATH).await.code()), (404, "webhook-not-found".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_with_its_reason() {
    let node = node().await;
    for url in ["http://127.0.0.1/", "http://[::1]:80/", "http://localhost/", "http://10.0.0.1/"] {
        let refused = declare(&node, json!({ "url": url })).await;
        assert_eq!((refused.status, refused.code().as_str()), (400, "forbidden-target"), "{url}");
        assert_eq!(refused.json()["setting"], "webhooks.allow");
    }
    for config in [
        json!({ "url": "ftp://a.example/" }),
        json!({ "url": "https://a.example/", "timeout": "2m" }),
        json!({ "url": "https://a.example/", "secret": "whsec_short" }),
        json!({ "url": "https://a.example/", "max-attempts": 0 }),
    ] {
        let refused = declare(&node, config.clone()).await;
        assert_eq!((refused.status, refused.code().as_str()), (400, "invalid-parameter"), "{config}");
    }
    assert_eq!(declare(&node, json!({ "url": "https://a.example/", "unknown": 1 })).await.code(), "invalid-json");
    assert_eq!(declare(&node, json!({})).await.code(), "invalid-json");
    assert_eq!(declare(&node, json!({ "url": "https://a.example/" })).await.status, 201);
    let fixed = declare(&node, json!({ "url": "https://a.example/", "start": "beginning" })).await;
    assert_eq!(
        (fixed.status, fixed.code().as_str(), &fixed.json()["parameter"]),
        (409, "webhook-fixed", &json!("start"))
    );
    let keyed = request("PUT", PATH).header("idempotency-key", "k").json(r#"{"url":"https://a.example/"}"#);
    assert_eq!(node.send(keyed).await.code(), "invalid-parameter", "no secret is kept in an answer");
    for (action, body) in
        [("enable", json!({})), ("test", json!({})), ("disable", json!({})), ("replay", json!({ "all": true }))]
    {
        let reply = node.send(post(format!("/v1/webhooks/none/{action}")).json(body.to_string())).await;
        assert_eq!((reply.status, reply.code().as_str()), (404, "webhook-not-found"), "{action}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_seen_in_attempts_in_what_is_parked_and_in_metrics() {
    let node = neighbourly().await;
    // Nobody listens there.
    let config = json!({ "url": "http://127.0.0.1:9/x", "max-attempts": 1, "timeout": "1s" });
    assert_eq!(declare(&node, config).await.status, 201);
    node.fill("a", 1, 2).await;
    until(&node, |shown| shown["subscription"]["parked"] == 2 && shown["state"] == "failing").await;
    let attempts = node.get(&format!("{PATH}/attempts?limit=1")).await.json();
    let attempt = &attempts["attempts"][0];
    assert_eq!(
        (&attempt["logposition"], &attempt["attempt"], &attempt["status"]),
        (&json!("1"), &json!(1), &Value::Null)
    );
    assert!(attempt["outcome"].as_str().unwrap().contains("cannot be reached"), "{attempt}");
    let parked = node.get(&format!("{PATH}/parked")).await.json();
    assert_eq!(
        (&parked["parked"][0]["key"], &parked["parked"][1]["failures"][0]["cause"]),
        (&json!("a"), &json!("behind"))
    );
    let tested = act(&node, "test", json!({})).await;
    assert_eq!((tested.status, &tested.json()["delivered"]), (200, &json!(false)));
    let metrics = node.send(get("/metrics")).await.text();
    for line in [
        r#"quorate_webhook_parked{webhook="billing"} 2"#,
        r#"quorate_webhook_failing{webhook="billing"} 1"#,
        r#"quorate_webhook_passed_over{webhook="billing"} 0"#,
        r#"quorate_webhook_attempts_total{webhook="billing",outcome="failed"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} is missing of {metrics}");
    }
    assert_eq!(act(&node, "discard", json!({ "key": "a" })).await.json(), json!({ "events": 2 }));

    let disabled = act(&node, "disable", json!({ "reason": "they move" })).await;
    assert_eq!(
        (&disabled.json()["state"], &disabled.json()["disabled"]["reason"]),
        (&json!("disabled"), &json!("they move"))
    );
    assert_eq!(disabled.json()["disabled"]["automatic"], false);
    let node = node.restart().await;
    assert_eq!(node.get(PATH).await.json()["disabled"]["reason"], "they move");
    assert_eq!(act(&node, "enable", json!({})).await.json()["state"], "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_were_gone_before_their_turn_are_counted() {
    let node = neighbourly().await;
    let config = json!({ "url": "http://127.0.0.1:9/x", "start": "beginning", "max-attempts": 1, "timeout": "1s" });
    assert_eq!(declare(&node, config.clone()).await.status, 201);
    assert_eq!(act(&node, "disable", json!({})).await.status, 200);
    node.fill("a", 1, 4).await;
    let truncated = node.send(post("/v1/streams/a/truncate").json(r#"{"before":"4"}"#)).await;
    assert_eq!(truncated.status, 200, "{}", truncated.text());
    assert_eq!(act(&node, "enable", json!({})).await.status, 200);
    let shown = until(&node, |shown| shown["subscription"]["parked"] == 1).await;
    assert_eq!(shown["subscription"]["passed-over"], 3);
    assert!(node.send(get("/metrics")).await.text().contains(r#"quorate_webhook_passed_over{webhook="billing"} 3"#));
}
