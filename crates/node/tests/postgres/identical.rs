//! The same requests leave the same bytes on either store.

use std::sync::Arc;

use quorate_foundations::time::{Boot, Mono, Wall};
use quorate_runtime::{BoxFuture, Env, clock::Clocks};

use crate::{
    client::{Request, get, post},
    node::{Node, event, start_in_world},
};

/// Clocks whose wall stands still, so that two stores record at the same time.
struct Frozen(Arc<dyn Clocks>);

impl Clocks for Frozen {
    fn wall(&self) -> Wall {
        Wall::from_unix_nanos(1_700_000_000_123_456_789)
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

async fn node_at_rest(embedded: bool) -> Node {
    let mut parts = Env::real().into_parts();
    parts.clocks = Arc::new(Frozen(parts.clocks));
    start_in_world(Env::from_parts(parts), tempfile::tempdir().unwrap(), |config| {
        if embedded {
            config.database = None;
        }
    })
    .await
}

fn writes() -> Vec<Request> {
    let tagged =
        r#","tags":"course:1 student:2","time":"2020-02-02T02:02:02.020Z","correlationid":"c","data":{"a":[1, 2.50]}"#;
    let binary = post("/v1/streams/order-1/events").body(vec![0, 255, 10, 13]);
    let binary = [("id", "b"), ("source", "/test"), ("type", "test.bytes"), ("specversion", "1.0"), ("subject", "s")]
        .into_iter()
        .fold(binary, |request, (name, value)| request.header(&format!("ce-{name}"), value))
        .header("content-type", "application/octet-stream");
    let several = format!(
        r#"{{"streams":[{{"stream":"a/b","events":[{}]}},{{"stream":"☂","events":[{}]}}]}}"#,
        event("1", r#","data":"text""#),
        event("1", "")
    );
    let large = format!(r#","data":"{}""#, "x".repeat(300_000));
    vec![
        post("/v1/streams/order-1/events").header("if-none-match", "*").event(event("1", tagged)),
        post("/v1/streams/order-1/events").header("if-none-match", "*").event(event("2", "")),
        post("/v1/streams/order-1/events").header("if-match", "\"1\"").event(event("2", &large)),
        binary,
        post("/v1/streams/order-1/events").event(event("1", tagged)),
        post("/v1/streams/order-1/events").event(event("1", r#","data":"other""#)),
        post("/v1/events").json(several),
        post("/v1/streams/order-1/events").event(r#"{"specversion":"1.0","id":"3","source":"/test"}"#),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_requests_are_answered_with_the_same_bytes_over_either_store() {
    let (there, here) = (node_at_rest(false).await, node_at_rest(true).await);
    for request in writes() {
        let (there, here) = (there.send(request.clone()).await, here.send(request).await);
        assert_eq!((there.status, there.header("etag")), (here.status, here.header("etag")), "{}", there.text());
        if there.status == 201 {
            // What differs is the token alone, which is opaque.
            let without = |reply: &crate::client::Reply| {
                let mut body = reply.json();
                body["token"].take();
                body
            };
            assert_eq!(without(&there), without(&here));
        } else {
            assert_eq!(there.text(), here.text());
        }
    }
    for path in [
        "/v1/events",
        "/v1/events?tag=course:1",
        "/v1/events?type=test.bytes",
        "/v1/events?category=order&limit=2",
        "/v1/events?after=2",
        "/v1/streams/order-1/events",
        "/v1/streams/order-1/events?direction=backward&limit=2",
        "/v1/streams/order-1/events/1",
        "/v1/streams/order-1/events/3",
        "/v1/streams/a%2Fb/events",
        "/v1/streams/order-1",
        "/v1/streams",
    ] {
        let (there, here) = (there.get(path).await, here.get(path).await);
        assert_eq!((there.status, there.text()), (200, here.text()), "{path}");
        for header in ["etag", "link", "content-type"] {
            assert_eq!(there.header(header), here.header(header), "{path}");
        }
    }
    let path = get("/v1/streams/order-1/events/3").header("accept", "application/octet-stream");
    let (bytes, same) = (there.send(path.clone()).await, here.send(path).await);
    assert_eq!((bytes.body.as_slice(), bytes.body.len()), (same.body.as_slice(), 4));
    assert_eq!(there.get("/v1/events?after=9").await.text(), here.get("/v1/events?after=9").await.text());
}
