use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::TokioIo;
use quorate_runtime::Env;

use crate::node::{Node, event, node, node_with};

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
    let told = text(deaf).await;
    assert!(
        told.ends_with("event: closing\ndata: {\"reason\":\"too-slow\"}\n\n"),
        "it learns why when it reads at last"
    );
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
