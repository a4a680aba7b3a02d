use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::TokioIo;
use quorate_runtime::Env;

use crate::{
    frames::{agreed, body, head, opening},
    node::{Node, event, node, node_with},
};

#[derive(Clone)]
struct Spawner(Env);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, task: F) {
        self.0.tasks().spawn("http2", task);
    }
}

/// A client that speaks HTTP/2 from the first byte.
async fn connect(node: &Node) -> http2::SendRequest<Full<Bytes>> {
    let env = Env::real();
    let io = TokioIo::new(env.net().connect(node.address).await.unwrap());
    let (sender, connection) = http2::handshake(Spawner(env.clone()), io).await.unwrap();
    env.tasks().spawn("connection", async move { drop(connection.await) });
    sender
}

fn request(node: &Node, method: &str, path: &str, body: String) -> Request<Full<Bytes>> {
    let uri = format!("http://{}{path}", node.address);
    let request = Request::builder().method(method).uri(uri).header("content-type", "application/cloudevents+json");
    request.version(Version::HTTP_2).body(Full::from(body)).unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_carries_many_requests_at_once() {
    let node = node().await;
    let sender = connect(&node).await;
    let append = |n: u32| {
        let (mut sender, event) = (sender.clone(), event(&n.to_string(), ""));
        let request = request(&node, "POST", &format!("/v1/streams/s-{n}/events"), event);
        async move { sender.send_request(request).await.unwrap().status() }
    };
    let statuses = futures_util::future::join_all((0..100).map(append)).await;
    assert!(statuses.iter().all(|status| *status == 201), "{statuses:?}");
    let page =
        sender.clone().send_request(request(&node, "GET", "/v1/events?limit=1000", String::new())).await.unwrap();
    let page: serde_json::Value = serde_json::from_str(&text(page).await).unwrap();
    assert_eq!(page["events"].as_array().unwrap().len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_authority_is_refused() {
    let node = node().await;
    let mut foreign = request(&node, "GET", "/v1/events", String::new());
    *foreign.uri_mut() = "http://evil.example/v1/events".parse().unwrap();
    let response = connect(&node).await.send_request(foreign).await.unwrap();
    assert_eq!(response.status(), 403);
    assert!(text(response).await.contains("/errors/foreign-request"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_nobody_reads_is_given_up_and_the_connection_goes_on() {
    let node = node_with(|config| config.http.write_timeout = Duration::from_millis(300)).await;
    let data = format!(r#","data":"{}""#, "x".repeat(50_000));
    let mut sender = connect(&node).await;
    for n in 0..100 {
        let append = request(&node, "POST", "/v1/streams/a/events", event(&n.to_string(), &data));
        assert_eq!(sender.send_request(append).await.unwrap().status(), 201);
    }
    // Its window takes a part of the five megabytes; the rest waits for a reader that never comes.
    let deaf = sender.send_request(request(&node, "GET", "/v1/events/subscribe", String::new())).await.unwrap();
    assert_eq!(deaf.status(), 200);
    let env = Env::real();
    let given_up = env.timeout(crate::client::PATIENCE, async {
        while node.metric("quorate_http_subscribers").await > 0 {
            env.sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(given_up.await.is_some(), "the subscriber is still being served");
    let live = sender.send_request(request(&node, "GET", "/livez", String::new())).await.unwrap();
    assert_eq!(live.status(), 200);
    assert!(deaf.into_body().collect().await.is_err(), "its stream was reset, and does not look like one that ended");
}

/// Says what a client with these settings says first, and asks for `paths` on streams 1, 3, 5, …
pub(crate) async fn raw(node: &Node, window: u32, paths: &[&str]) -> crate::client::Client {
    let mut client = node.client().await;
    client.write(&opening(node.address, window, paths)).await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn a_megabyte_may_be_under_way_before_the_node_says_anything() {
    let node = node().await;
    let event = event("1", &format!(r#","data":"{}""#, "x".repeat(1_000_000)));
    // All of it is sent without a look at what the node allows: beyond its window the connection ends.
    let mut eager = node.client().await;
    eager.write(&opening(node.address, 65_535, &[])).await;
    assert!(!eager.is_closed_within(Duration::from_millis(100)).await);
    let sent = [agreed(), head(node.address, "POST", "/v1/streams/a/events"), body(event.as_bytes(), true)];
    eager.write(&sent.concat()).await;
    let env = Env::real();
    let waited = env.timeout(crate::client::PATIENCE, async {
        while node.get("/v1/streams/a/events").await.status != 200 {
            assert!(!eager.is_closed_within(Duration::from_millis(20)).await, "the connection ended");
        }
    });
    assert!(waited.await.is_some(), "it was not appended");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_open_no_window_take_no_place_for_long_and_probes_are_answered_meanwhile() {
    let node = node_with(|config| {
        config.http.max_requests = 200;
        config.http.write_timeout = Duration::from_secs(5);
    })
    .await;
    node.fill("a", 1, 10).await;
    let mut held = Vec::new();
    for path in ["/v1/events", "/v1/events/subscribe", "/openapi.json"] {
        for _ in 0..2 {
            held.push(raw(&node, 0, &[path; 100]).await);
        }
    }
    let env = Env::real();
    let eventually = async |status: u16| {
        let waited = env.timeout(crate::client::PATIENCE, async {
            while node.get("/v1/streams/a/events").await.status != status {
                env.sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(waited.await.is_some(), "no {status}");
    };
    eventually(503).await;
    for probe in ["/livez", "/readyz", "/startupz", "/metrics"] {
        assert_eq!(node.get(probe).await.status, 200, "{probe}");
    }
    eventually(200).await;
    while node.metric("quorate_http_subscribers").await > 0 {
        env.sleep(Duration::from_millis(20)).await;
    }
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_opens_by_a_byte_now_and_then_does_not_keep_a_reply_alive() {
    let node = node_with(|config| config.http.write_timeout = Duration::from_millis(600)).await;
    let data = format!(r#","data":"{}""#, "x".repeat(50_000));
    assert_eq!(node.send(crate::client::post("/v1/streams/a/events").event(event("1", &data))).await.status, 201);
    // The last piece is in the connection's hands when it stalls: nothing but the connection can be ended then.
    let mut slow = raw(&node, 1, &["/v1/events"]).await;
    let env = Env::real();
    let ended = env.timeout(crate::client::PATIENCE, async {
        while !slow.is_closed_within(Duration::from_millis(50)).await {
            slow.write(&[0, 0, 4, 8, 0, 0, 0, 0, 1, 0, 0, 0, 1]).await;
        }
    });
    assert!(ended.await.is_some(), "it still holds its reply");
    assert_eq!(node.get("/v1/events").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_reset_as_soon_as_they_are_opened_end_their_connection() {
    let node = node().await;
    let mut rapid = raw(&node, 65_535, &[]).await;
    let host = node.address.to_string();
    let path = "/v1/events";
    let block =
        [&[0x82, 0x86, 0x04, 10][..], path.as_bytes(), &[0x01, u8::try_from(host.len()).unwrap()], host.as_bytes()];
    let block = block.concat();
    let mut bytes = Vec::new();
    for n in 0..20_000_u32 {
        let stream = (2 * n + 1).to_be_bytes();
        let length = u32::try_from(block.len()).unwrap().to_be_bytes();
        bytes.extend([&length[1..], &[1, 5], &stream, &block].concat());
        bytes.extend([&[0, 0, 4, 3, 0][..], &stream, &[0, 0, 0, 8]].concat());
    }
    rapid.write(&bytes).await;
    assert!(rapid.is_closed_within(crate::client::PATIENCE).await);
    assert_eq!(node.get("/v1/events").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_lets_a_connection_finish() {
    let node = node().await;
    let mut sender = connect(&node).await;
    let first = sender.send_request(request(&node, "GET", "/livez", String::new())).await.unwrap();
    assert_eq!(first.status(), 200);
    let subscribed = sender.send_request(request(&node, "GET", "/v1/events/subscribe", String::new())).await.unwrap();
    node.stop();
    assert!(text(subscribed).await.ends_with("event: closing\ndata: {\"reason\":\"shutting-down\"}\n\n"));
    node.stopped().await;
}
