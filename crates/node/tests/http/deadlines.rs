use crate::{
    client::{PATIENCE, get, post},
    node::{event, node},
};

const PATH: &str = "/v1/streams/order-1/events";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_time_is_over_when_it_comes_is_not_begun() {
    let node = node().await;
    let mut client = node.client().await;
    for (name, left) in [("quorate-timeout", "0m"), ("grpc-timeout", "0S")] {
        let reply = client.send(post(PATH).event(event("1", "")).header(name, left)).await;
        assert_eq!((reply.status, reply.code().as_str()), (504, "deadline-passed"), "{name}");
        assert_eq!(reply.json()["outcome"], "unchanged");
    }
    // The earlier of the two holds.
    let both = post(PATH).event(event("1", "")).header("quorate-timeout", "1H").header("grpc-timeout", "0n");
    assert_eq!(client.send(both).await.status, 504);
    assert!(node.get("/v1/events").await.events().is_empty());
    let enough = client.send(post(PATH).event(event("1", "")).header("quorate-timeout", "30S")).await;
    assert_eq!(enough.status, 201, "{}", enough.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_cannot_be_read_is_refused_rather_than_taken_for_none() {
    let node = node().await;
    let mut client = node.client().await;
    for left in ["", "soon", "5", "-1S", "1.5S", "123456789S"] {
        let reply = client.send(get("/v1/events").header("quorate-timeout", left)).await;
        assert_eq!((reply.status, reply.code().as_str()), (400, "invalid-parameter"), "{left:?}");
        assert_eq!(reply.json()["header"], "quorate-timeout");
    }
    let twice = get("/v1/events").header("quorate-timeout", "1S").header("quorate-timeout", "1S");
    assert_eq!(client.send(twice).await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_time_runs_out_is_given_up_and_says_that_it_does_not_know() {
    let node = node().await;
    let mut client = node.client().await;
    // Its body never comes, and the node would wait longer for that than the caller does.
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/cloudevents+json\r\ncontent-length: 500\r\nquorate-timeout: 100m\r\n\r\n{{"
    );
    client.write(head.as_bytes()).await;
    let reply = client.reply().await.unwrap();
    assert_eq!((reply.status, reply.code().as_str()), (504, "deadline-passed"));
    assert_eq!(reply.json()["outcome"], "unknown");
    assert!(node.get("/v1/events").await.events().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_is_under_way_breaks_off_at_the_deadline_instead_of_ending_as_if_it_were_whole() {
    let node = node().await;
    let mut client = node.client().await;
    client.begin(&get("/v1/events/subscribe").header("quorate-timeout", "300m")).await;
    assert_eq!(client.head().await.unwrap().status, 200);
    // What comes before it is no end: a chunk of length zero would be `Some(None)`.
    loop {
        match client.chunk().await {
            Some(Some(_)) => {}
            Some(None) => panic!("it ended as if it were whole"),
            None => break,
        }
    }
    assert!(client.is_closed_within(PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_a_request_asks_for_lasts_no_longer_than_its_caller_waits() {
    use quorate_data::store::Token;
    let node = node().await;
    let written = node.send(post(PATH).event(event("1", ""))).await;
    let known: Token = written.header("quorate-token").unwrap().parse().unwrap();
    let ahead = Token::new(known.timeline(), 2).to_string();
    let request = get("/v1/events").header("quorate-token", ahead).header("prefer", "wait=20");
    let reply = node.send(request.header("quorate-timeout", "100m")).await;
    assert_eq!((reply.status, reply.code().as_str()), (504, "deadline-passed"));
    assert_eq!(reply.json()["outcome"], "unchanged");
}
