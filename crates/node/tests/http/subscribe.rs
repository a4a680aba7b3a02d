use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    client::{Client, Request, get, post},
    node::{Node, event, node, node_with},
};

/// One server-sent event.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sse {
    pub(crate) event: String,
    pub(crate) id: Option<u64>,
    /// What the id says of the timeline.
    pub(crate) timeline: Option<String>,
    pub(crate) data: String,
    pub(crate) comment: bool,
}

impl Sse {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|wrong| panic!("{wrong}: {self:?}"))
    }
}

/// A subscriber that reads strictly by the standard.
pub(crate) struct Subscriber {
    client: Client,
    text: String,
}

impl Subscriber {
    pub(crate) async fn start(node: &Node, request: Request) -> Self {
        let mut client = node.client().await;
        client.begin(&request).await;
        let head = client.head().await.unwrap();
        assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")), "{head:?}");
        let mut subscriber = Self { client, text: String::new() };
        assert_eq!(subscriber.block().await.unwrap(), "retry: 1000");
        subscriber
    }

    /// The next block; `None` at the end of the stream.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let block = block.to_owned();
                self.text = rest.to_owned();
                return Some(block);
            }
            let chunk = self.client.chunk().await.expect("the stream ends, it does not break off")?;
            self.text += std::str::from_utf8(&chunk).unwrap();
        }
    }

    pub(crate) async fn next(&mut self) -> Option<Sse> {
        let block = self.block().await?;
        let mut sse = Sse::default();
        for line in block.split('\n') {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" => sse.comment = true,
                "id" => {
                    let (position, timeline) = value.split_once('@').expect("an id names its timeline");
                    (sse.id, sse.timeline) = (Some(position.parse().unwrap()), Some(timeline.to_owned()));
                }
                "event" => sse.event = value.to_owned(),
                "data" => sse.data += value,
                other => panic!("no field of the standard: {other}"),
            }
        }
        Some(sse)
    }

    /// The next event that is not a heartbeat.
    pub(crate) async fn told(&mut self) -> Sse {
        loop {
            let sse = self.next().await.expect("the stream goes on");
            if !sse.comment {
                return sse;
            }
        }
    }

    /// Positions up to the next `caught-up`.
    pub(crate) async fn until_caught_up(&mut self) -> Vec<u64> {
        let mut positions = Vec::new();
        loop {
            let sse = self.told().await;
            if sse.event == "caught-up" {
                assert_eq!(sse.json(), json!({ "logposition": sse.id.unwrap().to_string() }));
                return positions;
            }
            assert_eq!(sse.json()["logposition"], sse.id.unwrap().to_string());
            positions.push(sse.id.unwrap());
        }
    }

    pub(crate) async fn positions(&mut self, count: usize) -> Vec<u64> {
        let mut positions = Vec::new();
        while positions.len() < count {
            let sse = self.told().await;
            if sse.event.is_empty() {
                positions.push(sse.id.unwrap());
            }
        }
        positions
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_comes_first_then_what_happens_without_a_seam() {
    let node = node().await;
    node.fill("a", 1, 600).await;
    let mut subscriber = Subscriber::start(&node, get("/v1/events/subscribe")).await;
    // Writers go on while the subscriber catches up: that is where a seam would be.
    let (address, env) = (node.address, quorate_runtime::Env::real());
    env.tasks().spawn("writer", async move {
        let mut client = Client::connect(address).await;
        for n in 601..=900 {
            let reply = client.send(post("/v1/streams/a/events").event(event(&format!("a-{n}"), ""))).await;
            assert_eq!(reply.status, 201);
        }
    });
    let positions = subscriber.positions(900).await;
    assert_eq!(positions, (1..=900).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn being_caught_up_is_said_once_and_live_events_follow() {
    let node = node().await;
    let mut empty = Subscriber::start(&node, get("/v1/events/subscribe")).await;
    assert!(empty.until_caught_up().await.is_empty());
    node.fill("a", 1, 3).await;
    let mut late = Subscriber::start(&node, get("/v1/events/subscribe?after=1")).await;
    assert_eq!(late.until_caught_up().await, [2, 3]);
    assert_eq!(empty.positions(3).await, [1, 2, 3]);
    node.fill("a", 4, 4).await;
    assert_eq!((empty.told().await.id, late.told().await.id), (Some(4), Some(4)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_comes_back_resumes_where_it_was() {
    let node = node().await;
    node.fill("a", 1, 5).await;
    let resumed = get("/v1/events/subscribe?after=1").header("last-event-id", "3");
    assert_eq!(Subscriber::start(&node, resumed).await.until_caught_up().await, [4, 5]);
    for bad in ["x", "-1", "1.5", "@", "x@y"] {
        let reply = node.send(get("/v1/events/subscribe").header("last-event-id", bad)).await;
        assert_eq!(reply.code(), "invalid-parameter", "{bad}");
    }
    let ahead = node.send(get("/v1/events/subscribe").header("last-event-id", "6")).await;
    assert_eq!(
        (ahead.status, ahead.code().as_str(), &ahead.json()["logposition"]),
        (409, "position-ahead", &json!("5"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_is_followed_among_others_and_resumed_by_position() {
    let node = node().await;
    for n in 0..100 {
        node.fill("mine", n * 2 + 1, n * 2 + 2).await;
        node.fill("other", n + 1, n + 1).await;
    }
    let path = "/v1/streams/mine/subscribe";
    let mut whole = Subscriber::start(&node, get(path)).await;
    let all = whole.until_caught_up().await;
    assert_eq!(all.len(), 200);
    for seen in [0, 1, all[56], all[57], all[57] + 1, all[199]] {
        let rest = get(path).header("last-event-id", seen.to_string());
        let expected: Vec<u64> = all.iter().copied().filter(|position| *position > seen).collect();
        assert_eq!(Subscriber::start(&node, rest).await.until_caught_up().await, expected, "behind {seen}");
    }
    let from = Subscriber::start(&node, get(format!("{path}?from=199"))).await.until_caught_up().await;
    assert_eq!(from, all[198..]);
    node.fill("other", 101, 101).await;
    node.fill("mine", 201, 201).await;
    let live = whole.told().await;
    assert_eq!((live.json()["stream"].clone(), live.json()["streamversion"].clone()), (json!("mine"), json!("201")));
    let both = node.get(&format!("{path}?from=1&after=1")).await;
    assert_eq!(both.code(), "invalid-parameter");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_does_not_exist_yet_can_be_waited_for() {
    let node = node().await;
    let mut subscriber = Subscriber::start(&node, get("/v1/streams/new/subscribe")).await;
    assert!(subscriber.until_caught_up().await.is_empty());
    node.fill("new", 1, 1).await;
    assert_eq!(subscriber.told().await.json()["id"], "new-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_broken_by_heartbeats_that_carry_a_sparse_filter_forward() {
    let node = node_with(|config| config.http.heartbeat = Duration::from_millis(50)).await;
    node.fill("noise", 1, 10).await;
    let mut subscriber = Subscriber::start(&node, get("/v1/events/subscribe?category=order")).await;
    assert!(subscriber.until_caught_up().await.is_empty());
    let quiet = subscriber.next().await.unwrap();
    assert!(quiet.comment && quiet.id.is_none(), "{quiet:?}");
    node.fill("noise", 11, 20).await;
    loop {
        let heartbeat = subscriber.next().await.unwrap();
        assert!(heartbeat.comment && heartbeat.data.is_empty(), "{heartbeat:?}");
        if heartbeat.id == Some(20) {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn line_breaks_in_data_do_not_break_a_frame() {
    let node = node().await;
    let pretty = event("1", ",\"data\":{\r\n \"a\" :\n\n\"x\\ny\",\r\"b\":\"id: 7\\n\\ndata: evil\"}");
    assert_eq!(node.send(post("/v1/streams/a/events").event(pretty)).await.status, 201);
    let text = event("2", r#","datacontenttype":"text/plain","data":"a\n\nid: 9\r\rb""#);
    assert_eq!(node.send(post("/v1/streams/a/events").event(text)).await.status, 201);
    let mut subscriber = Subscriber::start(&node, get("/v1/events/subscribe")).await;
    let first = subscriber.told().await;
    assert_eq!((first.id, first.json()["data"].clone()), (Some(1), json!({ "a": "x\ny", "b": "id: 7\n\ndata: evil" })));
    assert_eq!(subscriber.told().await.json()["data"], "a\n\nid: 9\r\rb");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_never_reads_is_let_go_and_can_come_back() {
    let node = node_with(|config| config.http.write_timeout = Duration::from_millis(300)).await;
    let data = format!(r#","data":"{}""#, "x".repeat(60_000));
    let mut client = node.client().await;
    for batch in 0..20 {
        let events: Vec<String> = (0..20).map(|n| event(&format!("{batch}-{n}"), &data)).collect();
        let reply = client.send(post("/v1/streams/a/events").batch(format!("[{}]", events.join(",")))).await;
        assert_eq!(reply.status, 201);
    }
    let mut deaf = node.client().await;
    deaf.begin(&get("/v1/events/subscribe")).await;
    // 24 MB wait for it; the sockets' buffers hold a few. It is found out while it still holds its connection.
    let env = quorate_runtime::Env::real();
    let gone = env.timeout(crate::client::PATIENCE, async {
        while node.metric("quorate_http_subscribers").await > 0 || node.metric("quorate_http_connections").await > 2 {
            env.sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(gone.await.is_some(), "the subscriber is still being served");
    let mut back = Subscriber::start(&node, get("/v1/events/subscribe?after=398")).await;
    assert_eq!(back.until_caught_up().await, [399, 400]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_leaves_is_noticed() {
    let node = node().await;
    let subscriber = Subscriber::start(&node, get("/v1/events/subscribe")).await;
    assert_eq!(node.metric("quorate_http_subscribers").await, 1);
    drop(subscriber);
    let env = quorate_runtime::Env::real();
    while node.metric("quorate_http_subscribers").await > 0 {
        env.sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_says_so_to_its_subscribers() {
    let node = node().await;
    node.fill("a", 1, 1).await;
    let mut subscriber = Subscriber::start(&node, get("/v1/events/subscribe")).await;
    assert_eq!(subscriber.until_caught_up().await, [1]);
    node.stop();
    let closing = subscriber.told().await;
    assert_eq!((closing.event.as_str(), closing.json()), ("closing", json!({ "reason": "shutting-down" })));
    assert_eq!(subscriber.next().await, None);
    node.stopped().await;
}
