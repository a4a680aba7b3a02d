//! Nobody takes all places alone.

use std::{net::IpAddr, time::Duration};

use quorate_runtime::Env;

use crate::{
    client::{Client, PATIENCE, Reply, get, post},
    frames::opening,
    node::{Node, event, node_with},
};

const GREEDY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));
const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 3));

async fn ask(node: &Node, from: IpAddr, path: &str) -> Reply {
    Client::connect_from(from, node.address).await.send(get(path)).await
}

/// Asks until the answer has this status.
async fn eventually(node: &Node, from: IpAddr, path: &str, status: u16) -> Reply {
    let env = Env::real();
    let asking = async {
        loop {
            let reply = ask(node, from, path).await;
            if reply.status == status {
                return reply;
            }
            env.sleep(Duration::from_millis(20)).await;
        }
    };
    env.timeout(PATIENCE, asking).await.unwrap_or_else(|| panic!("no {status} from {path}"))
}

/// A connection over HTTP/2 that asks for `paths` and takes nothing of the answers.
async fn deaf(node: &Node, from: IpAddr, paths: &[&str]) -> Client {
    let mut client = Client::connect_from(from, node.address).await;
    client.write(&opening(node.address, 0, paths)).await;
    client
}

/// Asks for `taking` over and over, and takes nothing of the answers, until `path` is refused to `from` with this status. One such
/// question may itself hold the place that one of those was refused for: then more of them come.
async fn crowded(node: &Node, from: IpAddr, taking: &str, (path, status): (&str, u16)) -> (Vec<Client>, Reply) {
    let (env, mut held) = (Env::real(), Vec::new());
    let crowding = async {
        loop {
            held.push(deaf(node, from, &[taking; 100]).await);
            for _ in 0..10 {
                let reply = ask(node, from, path).await;
                if reply.status == status {
                    return reply;
                }
                env.sleep(Duration::from_millis(20)).await;
            }
        }
    };
    let refused = env.timeout(PATIENCE, crowding).await.unwrap_or_else(|| panic!("no {status} from {path}"));
    (held, refused)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_fills_its_share_leaves_the_rest_to_others() {
    let node = node_with(|config| {
        config.http.trusted_peers = Vec::new();
        (config.http.max_requests, config.http.max_peer_requests) = (300, 150);
    })
    .await;
    let (held, refused) = crowded(&node, GREEDY, "/v1/events/subscribe", ("/v1/events", 429)).await;
    assert_eq!(refused.code(), "too-many-requests");
    assert_eq!(refused.header("retry-after"), Some("1"));
    let document = refused.json();
    assert_eq!((&document["limit"], &document["retry"]), (&150.into(), &"after".into()), "{document}");
    assert_eq!((&document["setting"], &document["outcome"]), (&"http.max-peer-requests".into(), &"unchanged".into()));
    // Others, and whoever asks how the node is, find it as it was.
    let append = post("/v1/streams/a/events").event(event("1", ""));
    assert_eq!(Client::connect_from(OTHER, node.address).await.send(append).await.status, 201);
    assert_eq!(ask(&node, OTHER, "/v1/events").await.events().len(), 1);
    assert_eq!(ask(&node, GREEDY, "/livez").await.status, 200);
    drop(held);
    eventually(&node, GREEDY, "/v1/events", 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_fills_its_share_of_the_probes_keeps_none_from_others() {
    let node = node_with(|config| {
        config.http.trusted_peers = Vec::new();
        config.http.max_probes = 10;
    })
    .await;
    let (held, refused) = crowded(&node, GREEDY, "/metrics", ("/readyz", 429)).await;
    assert_eq!(refused.code(), "too-many-requests");
    assert_eq!(ask(&node, OTHER, "/readyz").await.status, 200);
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stands_for_many_has_no_share() {
    let node = node_with(|config| {
        config.http.trusted_peers = vec!["127.0.0.2".parse().unwrap()];
        (config.http.max_requests, config.http.max_peer_requests) = (20, 10);
    })
    .await;
    let (_held, refused) = crowded(&node, GREEDY, "/v1/events/subscribe", ("/v1/events", 503)).await;
    assert_eq!(refused.code(), "overloaded");
    assert_eq!(ask(&node, OTHER, "/v1/events").await.status, 503, "all places are taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_has_a_share_of_the_connections() {
    let node = node_with(|config| {
        config.http.trusted_peers = Vec::new();
        config.http.max_peer_connections = 3;
    })
    .await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect_from(GREEDY, node.address).await;
        assert_eq!(client.send(get("/livez")).await.status, 200);
        held.push(client);
    }
    let mut refused = Client::connect_from(GREEDY, node.address).await;
    let reply = refused.reply().await.expect("told why before the connection closes");
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
    assert_eq!(ask(&node, OTHER, "/livez").await.status, 200);
    held.pop();
    eventually(&node, GREEDY, "/livez", 200).await;
}
