use std::time::Duration;

use crate::{
    client::{get, post, request},
    node::{event, node, node_with},
};

const PATH: &str = "/v1/streams/order-1/events";

#[tokio::test(flavor = "multi_thread")]
async fn every_malformed_body_gets_a_problem_that_names_the_fault() {
    let node = node().await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let bodies: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"{".to_vec(),
        b"[]".to_vec(),
        b"null".to_vec(),
        b"5".to_vec(),
        b"\"x\"".to_vec(),
        b"\xff\xfe".to_vec(),
        b"\xef\xbb\xbf{}".to_vec(),
        b"{}".to_vec(),
        b"{\"a\":\xff}".to_vec(),
        format!("{}x", event("1", "")).into_bytes(),
        event("1", r#","id":"2""#).into_bytes(),
        event("1", r#","data":NaN"#).into_bytes(),
        event("1", r#","data":-Infinity"#).into_bytes(),
        event("1", r#","data":01"#).into_bytes(),
        event("1", r#","data":{"a":1,}"#).into_bytes(),
        event("1", &format!(",\"data\":{deep}")).into_bytes(),
        event("1", r#","subject":{}"#).into_bytes(),
        event("1", r#","subject":"\ud800""#).into_bytes(),
        event("1", ",\"subject\":\"\u{1}\"").into_bytes(),
        event("1", r#","streamversion":"9""#).into_bytes(),
        event("1", r#","specversion":"1.0""#).into_bytes(),
        event("", "").into_bytes(),
        deep.into_bytes(),
        "{\"a\":".repeat(100_000).into_bytes(),
    ];
    let mut client = node.client().await;
    for body in bodies {
        let shown = String::from_utf8_lossy(&body).chars().take(80).collect::<String>();
        let reply = client.send(post(PATH).event(body)).await;
        assert_eq!(reply.status, 400, "{shown}: {}", reply.text());
        assert!(["invalid-json", "invalid-event"].contains(&reply.code().as_str()), "{shown}");
        assert!(reply.body.len() < 1000, "{shown}: a problem is short, whatever it is about");
    }
    assert!(node.get("/v1/events").await.events().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_play_tricks_find_nothing() {
    let node = node().await;
    for path in [
        "/../../etc/passwd",
        "/v1/../v1/events",
        "/errors/../problem",
        "/errors/..%2f..%2fetc%2fpasswd",
        "/errors/",
        "//v1//events",
        "/v1/events/",
        "/V1/events",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/v1/streams/a/b/events",
    ] {
        let reply = node.get(path).await;
        assert_eq!((reply.status, reply.code().as_str()), (404, "not-found"), "{path}");
    }
    for path in ["/v1/streams//events", "/v1/streams/../events", "/v1/streams/./events", "/v1/streams/%2E%2E/events"] {
        assert_eq!(node.get(path).await.code(), "invalid-name", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_does_not_apply_is_told_which_do() {
    let node = node().await;
    for (method, path, allow) in [
        ("DELETE", PATH, "GET, POST, HEAD"),
        ("PUT", "/v1/events", "GET, POST, HEAD"),
        ("POST", "/livez", "GET, HEAD"),
        ("GET", "/v1/streams/a/truncate", "POST"),
        ("OPTIONS", "/v1/store/backup", "POST"),
        ("BREW", "/", "GET, HEAD"),
    ] {
        let reply = node.send(request(method, path)).await;
        assert_eq!((reply.status, reply.code().as_str()), (405, "method-not-allowed"), "{method} {path}");
        assert_eq!(reply.headers.iter().filter(|(name, _)| name == "allow").count(), 1, "{reply:?}");
        assert_eq!(reply.header("allow"), Some(allow), "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_site_cannot_make_a_browser_use_the_node() {
    let node = node().await;
    let own = node.address.to_string();
    let port = node.address.port();
    for host in ["evil.example", "127.0.0.1.evil.example", "", "[::ffff:10.0.0.1]"] {
        let reply = node.send(get("/v1/events").header("host", host)).await;
        assert_eq!((reply.status, reply.code().as_str()), (403, "foreign-request"), "{host}");
    }
    for origin in ["http://evil.example", "null", "http://localhost:1"] {
        let reply = node.send(post(PATH).header("origin", origin).event(event("1", ""))).await;
        assert_eq!((reply.status, reply.code().as_str()), (403, "foreign-request"), "{origin}");
    }
    let ours = post(PATH).header("origin", format!("http://{own}")).event(event("1", ""));
    assert_eq!(node.send(ours).await.status, 201);
    assert_eq!(node.send(get("/livez").header("host", format!("localhost:{port}"))).await.status, 200);
    let mut client = node.client().await;
    client.write(b"GET http://evil.example/v1/events HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").await;
    assert_eq!(client.reply().await.unwrap().code(), "foreign-request");
    let mut client = node.client().await;
    client.write(b"GET /v1/events HTTP/1.1\r\n\r\n").await;
    assert_eq!(client.reply().await.unwrap().status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_http_end_the_connection() {
    let node = node().await;
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(200_000));
    let headers: String = (0..2000).map(|n| format!("x-{n}: y\r\n")).collect();
    let many = format!("GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n{headers}\r\n");
    let smuggled = "POST /v1/events HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello";
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"[..],
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        long.as_bytes(),
        many.as_bytes(),
        smuggled.as_bytes(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ngarbage that is no frame at all",
    ] {
        let mut client = node.client().await;
        client.write(bytes).await;
        assert!(
            client.is_closed_within(crate::client::PATIENCE).await,
            "{}",
            String::from_utf8_lossy(&bytes[..20.min(bytes.len())])
        );
    }
    assert_eq!(node.get("/livez").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_a_byte_now_and_then_is_let_go_too() {
    let node = node_with(|config| config.http.header_timeout = Duration::from_millis(600)).await;
    let mut client = node.client().await;
    assert_eq!(client.send(get("/livez")).await.status, 200);
    let env = quorate_runtime::Env::real();
    client.write(b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nx: ").await;
    for _ in 0..60 {
        client.write(b"y").await;
        if client.is_closed_within(Duration::from_millis(50)).await {
            return;
        }
        env.sleep(Duration::from_millis(10)).await;
    }
    panic!("it still holds its connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_given_up_with_a_reason() {
    let node = node_with(|config| config.http.body_timeout = Duration::from_millis(200)).await;
    let mut client = node.client().await;
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/cloudevents+json\r\ncontent-length: 500\r\n\r\n{{"
    );
    client.write(head.as_bytes()).await;
    let reply = client.reply().await.unwrap();
    assert_eq!((reply.status, reply.code().as_str()), (408, "request-timeout"));
    assert_eq!((&reply.json()["retry"], reply.header("connection")), (&"now".into(), Some("close")));
    assert!(client.is_closed_within(crate::client::PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_at_rest_is_closed_in_the_end() {
    let node = node_with(|config| config.http.idle_timeout = Duration::from_millis(300)).await;
    let mut client = node.client().await;
    assert_eq!(client.send(get("/livez")).await.status, 200);
    assert!(client.is_closed_within(crate::client::PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_are_turned_away_and_the_place_is_given_back() {
    let node = node_with(|config| config.http.max_connections = 3).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut client = node.client().await;
        assert_eq!(client.send(get("/livez")).await.status, 200);
        held.push(client);
    }
    let mut fourth = node.client().await;
    assert_eq!(fourth.reply().await.map(|reply| reply.status), Some(503));
    assert!(fourth.is_closed_within(crate::client::PATIENCE).await);
    held.pop();
    let env = quorate_runtime::Env::real();
    let served = env.timeout(crate::client::PATIENCE, async {
        loop {
            let mut again = node.client().await;
            again.begin(&get("/livez")).await;
            if again.reply().await.is_some_and(|reply| reply.status == 200) {
                return;
            }
            env.sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(served.await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_one_packet_are_answered_in_order() {
    let node = node().await;
    let mut client = node.client().await;
    let one = |id: &str| {
        let body = event(id, "");
        format!(
            "POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/cloudevents+json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    client.write([one("1"), one("2"), one("3")].concat().as_bytes()).await;
    for version in ["\"1\"", "\"2\"", "\"3\""] {
        assert_eq!(client.reply().await.unwrap().header("etag"), Some(version));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_whose_chunks_are_misframed_is_no_late_one() {
    let node = node().await;
    let mut client = node.client().await;
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/cloudevents+json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{{"
    );
    client.write(head.as_bytes()).await;
    let reply = client.reply().await.unwrap();
    assert_eq!((reply.status, reply.code().as_str()), (400, "invalid-parameter"), "{}", reply.text());
    let document = reply.json();
    assert_eq!((&document["header"], &document["retry"]), (&"transfer-encoding".into(), &"never".into()));
    assert_eq!(reply.header("connection"), Some("close"));
    assert!(client.is_closed_within(crate::client::PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_in_a_coding_is_refused_and_never_kept_for_what_it_stands_for() {
    let node = node().await;
    let binary = || {
        post(PATH)
            .header("ce-specversion", "1.0")
            .header("ce-id", "1")
            .header("ce-source", "/s")
            .header("ce-type", "t")
            .header("content-type", "text/plain")
            .body("\u{1f}8b-not-really-gzip")
    };
    for coding in ["gzip", "identity, br", "zstd"] {
        let refused = node.send(binary().header("content-encoding", coding)).await;
        assert_eq!((refused.status, refused.code().as_str()), (415, "unsupported-media-type"), "{coding}");
        assert_eq!(refused.header("accept-encoding"), Some("identity"), "{coding}");
    }
    let mut client = node.client().await;
    let chunked = format!(
        "POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/cloudevents+json\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"
    );
    client.write(chunked.as_bytes()).await;
    let refused = client.reply().await.unwrap();
    assert_eq!((refused.status, refused.code().as_str()), (501, "unknown-transfer-coding"), "{}", refused.text());
    assert_eq!(node.get(PATH).await.code(), "stream-not-found", "nothing was kept");
    assert_eq!(node.send(binary().header("content-encoding", "identity")).await.status, 201);
}
