//! What hostile clients cost in memory. A process of its own, one test at a time: others' memory is not to blame.

#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

#[path = "../http/client.rs"]
#[expect(dead_code, reason = "shared with the other tests of the surface")]
mod client;
#[path = "../http/frames.rs"]
mod frames;
#[path = "../http/node.rs"]
#[expect(dead_code, reason = "shared with the other tests of the surface")]
mod node;

use std::{path::Path, time::Duration};

use quorate_node::config::Config;

use crate::{
    client::{Client, get, post},
    node::{event, node, node_with},
};

/// What is measured is the embedded store's node.
fn choose_store(_: &mut Config, _: &Path) {}

const PATH: &str = "/v1/streams/order-1/events";

/// One at a time.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_a_hundred_megabytes_is_refused_and_not_kept() {
    let _turn = TURN.lock().await;
    let node = node().await;
    let before = resident();
    let mut client = node.client().await;
    let head =
        "POST /v1/streams/a/events HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/cloudevents+json\r\n";
    client.write(format!("{head}content-length: 104857600\r\n\r\n").as_bytes()).await;
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..100 {
        client.write(&chunk).await;
    }
    let reply = client.reply().await.expect("told why before the connection closes");
    assert_eq!((reply.status, reply.code().as_str()), (413, "too-large"));

    let mut chunked = node.client().await;
    chunked.write(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes()).await;
    for _ in 0..100 {
        chunked.write(b"100000\r\n").await;
        chunked.write(&chunk).await;
        chunked.write(b"\r\n").await;
    }
    chunked.write(b"0\r\n\r\n").await;
    assert_eq!(chunked.reply().await.expect("a reply").status, 413);

    let mut polite = node.client().await;
    polite.write(format!("{head}content-length: 104857600\r\nexpect: 100-continue\r\n\r\n").as_bytes()).await;
    assert_eq!(polite.reply().await.expect("a reply without the body").status, 413);
    assert!(resident() < before + 100_000_000, "{before} became {}", resident());
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_stalled_clients_cost_little_and_are_let_go() {
    let _turn = TURN.lock().await;
    let node = node_with(|config| {
        config.http.header_timeout = Duration::from_millis(1500);
        config.http.body_timeout = Duration::from_millis(1500);
    })
    .await;
    let before = resident();
    let beginnings = [
        "".to_owned(),
        "G".to_owned(),
        "PRI * HT".to_owned(),
        "GET /v1/events HTTP/1.1\r\nhost: 127.0.0.1\r\nx: ".to_owned(),
        format!(
            "POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/cloudevents+json\r\ncontent-length: 30000000\r\n\r\n{}",
            "[".repeat(10_000)
        ),
    ];
    let mut stalled = Vec::new();
    for n in 0..300 {
        let mut client = node.client().await;
        client.write(beginnings[n % beginnings.len()].as_bytes()).await;
        stalled.push(client);
    }
    assert_eq!(node.get("/readyz").await.status, 200, "others are served meanwhile");
    assert!(resident() < before + 100_000_000, "{before} became {}", resident());
    for client in &mut stalled {
        assert!(client.is_closed_within(crate::client::PATIENCE).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_do_not_read_cost_little_and_are_let_go() {
    let _turn = TURN.lock().await;
    let node = node_with(|config| {
        config.http.write_timeout = Duration::from_millis(500);
        config.http.idle_timeout = Duration::from_secs(1); // for those that are told at once that it is too much
    })
    .await;
    let data = format!(r#","data":"{}""#, "x".repeat(10_000));
    let mut client = node.client().await;
    for batch in 0..10 {
        let events: Vec<String> = (0..100).map(|n| event(&format!("{batch}-{n}"), &data)).collect();
        assert_eq!(client.send(post(PATH).batch(format!("[{}]", events.join(",")))).await.status, 201);
    }
    drop(client);
    let before = resident();
    let mut deaf: Vec<Client> = Vec::new();
    for n in 0..60 {
        let mut client = node.client().await;
        let path = [
            "/v1/events?limit=10000",
            "/v1/events?limit=10000&category=order",
            "/v1/streams/order-1/events?limit=10000",
        ][n % 3];
        client.begin(&get(path)).await;
        deaf.push(client);
    }
    let env = quorate_runtime::Env::real();
    let gone = env.timeout(crate::client::PATIENCE, async {
        while node.metric("quorate_http_connections").await > 5 {
            assert!(resident() < before + 100_000_000, "{before} became {}", resident());
            env.sleep(Duration::from_millis(50)).await;
        }
    });
    assert!(gone.await.is_some(), "they still hold their connections");
    assert_eq!(node.get("/v1/events?limit=10000").await.events().len(), 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_readers_of_the_largest_events_that_never_read_cost_little() {
    let _turn = TURN.lock().await;
    let node = node_with(|config| config.http.write_timeout = Duration::from_secs(3)).await;
    // Each is near the limit; as JSON the text becomes larger still.
    let data = format!(r#","datacontenttype":"text/plain","data":"{}""#, "\\n".repeat(1_000_000));
    let mut client = node.client().await;
    for n in 0..16 {
        assert_eq!(client.send(post(PATH).event(event(&n.to_string(), &data))).await.status, 201);
    }
    // What every reader has in common is in memory before: the store's cache.
    client.send(get("/v1/events?limit=16")).await;
    drop(client);
    let before = resident();
    let mut deaf: Vec<Client> = Vec::new();
    for n in 0..300 {
        let mut client = node.client().await;
        let path = [
            "/v1/events/subscribe",
            "/v1/events?limit=10000",
            "/v1/streams/order-1/events?limit=10000",
            "/v1/streams/order-1/subscribe",
            "/v1/events?limit=10000&category=order",
        ][n % 5];
        client.begin(&get(path)).await;
        deaf.push(client);
        assert!(resident() < before + 100_000_000, "{before} became {}", resident());
    }
    let env = quorate_runtime::Env::real();
    let let_go = env.timeout(crate::client::PATIENCE, async {
        while node.metric("quorate_http_subscribers").await > 0 {
            assert!(resident() < before + 100_000_000, "{before} became {}", resident());
            env.sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(let_go.await.is_some(), "they are still being served");
    let served = env.timeout(crate::client::PATIENCE, async {
        while node.get("/v1/events?limit=1").await.status != 200 {
            env.sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(served.await.is_some(), "their memory was not given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_uploads_over_http2_that_never_end_cost_little() {
    let _turn = TURN.lock().await;
    let node = node_with(|config| config.http.body_timeout = Duration::from_secs(60)).await;
    let before = resident();
    let body = [b"{\"data\":\"".to_vec(), vec![b'x'; 1_000_000]].concat();
    let frames = frames::body(&body, false);
    let mut stalled = Vec::new();
    for n in 0..200 {
        // A body that is waited for, or one that nobody reads: half of each.
        let (method, path) = [("POST", PATH), ("GET", "/v1/events/subscribe")][n % 2];
        let mut client = node.client().await;
        client.write(&frames::opening(node.address, 65_535, &[])).await;
        assert!(!client.is_closed_within(Duration::from_millis(10)).await);
        client.write(&frames::agreed()).await;
        client.write(&frames::head(node.address, method, path)).await;
        client.write(&frames).await;
        stalled.push(client);
        assert!(resident() < before + 100_000_000, "{before} became {}", resident());
    }
    assert_eq!(node.get("/readyz").await.status, 200, "others are served meanwhile");
    let env = quorate_runtime::Env::real();
    env.sleep(Duration::from_millis(500)).await;
    assert!(resident() < before + 100_000_000, "{before} became {}", resident());
}

/// Bytes this process holds in memory: node and clients together.
fn resident() -> usize {
    let env = quorate_runtime::Env::real();
    let status = env.disk().read(std::path::Path::new("/proc/self/statm")).unwrap();
    let pages: usize = String::from_utf8(status).unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
