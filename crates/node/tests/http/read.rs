use serde_json::{Value, json};

use crate::{
    client::{get, post},
    node::{Node, event, node, node_with},
};

pub(crate) fn versions(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["streamversion"].as_str().unwrap().parse().unwrap()).collect()
}

pub(crate) fn positions(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["logposition"].as_str().unwrap().parse().unwrap()).collect()
}

/// Follows the links from `path` to the end and returns all events.
pub(crate) async fn all(node: &Node, path: &str) -> Vec<Value> {
    let (mut client, mut events, mut next) = (node.client().await, Vec::new(), Some(path.to_owned()));
    while let Some(path) = next {
        let reply = client.send(get(path)).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        events.extend(reply.events());
        next = reply.next();
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_read_forward_and_backward_page_by_page() {
    let node = node().await;
    node.fill("a", 1, 10).await;
    let forward = node.get("/v1/streams/a/events?limit=4").await;
    assert_eq!((versions(&forward.events()), forward.header("etag")), (vec![1, 2, 3, 4], Some("\"10\"")));
    assert_eq!(forward.next().unwrap(), "/v1/streams/a/events?limit=4&from=5");
    assert_eq!(versions(&all(&node, "/v1/streams/a/events?limit=4").await), (1..=10).collect::<Vec<_>>());
    assert_eq!(versions(&all(&node, "/v1/streams/a/events?limit=5").await), (1..=10).collect::<Vec<_>>());
    let backward = all(&node, "/v1/streams/a/events?direction=backward&limit=3").await;
    assert_eq!(versions(&backward), (1..=10).rev().collect::<Vec<_>>());
    let middle = node.get("/v1/streams/a/events?from=7&direction=backward&limit=2").await;
    assert_eq!(versions(&middle.events()), [7, 6]);
    let beyond = node.get("/v1/streams/a/events?from=11").await;
    assert_eq!((beyond.status, beyond.events().len(), beyond.next()), (200, 0, None));
    assert_eq!(versions(&node.get("/v1/streams/a/events?from=99&direction=backward&limit=1").await.events()), [10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_thousands_comes_whole_and_in_order() {
    let node = node().await;
    for n in 0..6 {
        node.fill("a", n * 500 + 1, n * 500 + 500).await;
    }
    let numbers: Vec<u64> = (1..=3000).collect();
    let log = node.get("/v1/events?limit=10000").await;
    assert_eq!((positions(&log.events()), log.next()), (numbers.clone(), None));
    assert_eq!((&log.json()["scanned"], &log.json()["head"]), (&json!("3000"), &json!("3000")));
    assert_eq!(versions(&node.get("/v1/streams/a/events?limit=3000").await.events()), numbers);
    let filtered = node.get("/v1/events?type=test.happened&limit=2999").await;
    assert_eq!((filtered.events().len(), filtered.json()["scanned"].clone()), (2999, json!("2999")));
    let backward = node.get("/v1/streams/a/events?limit=3000&direction=backward").await;
    assert_eq!(versions(&backward.events()), numbers.iter().rev().copied().collect::<Vec<_>>());
    let part = node.get("/v1/streams/a/events?from=100&limit=1000").await;
    assert_eq!((versions(&part.events()), part.next().is_some()), ((100..1100).collect::<Vec<_>>(), true));
    let array = node.send(get("/v1/events?limit=600").header("accept", "application/cloudevents-batch+json")).await;
    assert_eq!(array.header("content-type"), Some("application/cloudevents-batch+json"));
    assert_eq!(array.json().as_array().unwrap().len(), 600);
}

/// Two days in turn, day by day backwards: times do not follow the order of the stream.
async fn days(node: &Node, stream: &str, count: u64) {
    let time = |n| format!(r#","time":"2026-03-{:02}T12:00:00+02:00""#, 31 - n % 2);
    let events: Vec<String> = (0..count).map(|n| event(&format!("{stream}-{n}"), &time(n))).collect();
    let reply = node.send(post(format!("/v1/streams/{stream}/events")).batch(format!("[{}]", events.join(",")))).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_read_as_it_was_at_a_moment_in_both_directions_and_page_by_page() {
    let node = node().await;
    days(&node, "a", 2_000).await;
    let even: Vec<u64> = (2..=2_000).step_by(2).collect();
    for limit in [1, 7, 300, 999, 1_000] {
        let path = format!("/v1/streams/a/events?limit={limit}&at=2026-03-30T10:00:00Z");
        if limit > 1 {
            assert_eq!(versions(&all(&node, &path).await), even, "{limit} at a time");
        }
        let first = node.get(&path).await;
        assert_eq!((first.events().len(), first.header("etag")), (limit, Some("\"2000\"")));
        let backward = node.get(&format!("{path}&direction=backward&from=11")).await;
        assert_eq!(versions(&backward.events()), even.iter().take(5).rev().take(limit).copied().collect::<Vec<_>>());
    }
    let whole = node.get("/v1/streams/a/events?limit=2000&at=2026-03-31T10%3A00%3A00Z").await;
    assert_eq!((whole.events().len(), whole.next()), (2_000, None));
    let before = all(&node, "/v1/streams/a/events?limit=10&at=2026-03-30T11:59:59%2B02:00").await;
    assert!(before.is_empty(), "a second before the first of them");
    assert_eq!(node.get("/v1/streams/none/events?at=2026-03-30T10:00:00Z").await.code(), "stream-not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_read_as_it_was_or_as_it_was_known_at_a_moment() {
    let node = node().await;
    days(&node, "a-1", 600).await;
    days(&node, "b-1", 600).await;
    let recorded = node.get("/v1/events?after=599&limit=1").await.events()[0]["recordedtime"].clone();
    let happened = "at=2026-03-30T10:00:00Z";
    let of_a: Vec<u64> = (2..=600).step_by(2).collect();
    let of_both: Vec<u64> = (2..=1_200).step_by(2).collect();
    assert_eq!(positions(&all(&node, &format!("/v1/events?limit=70&{happened}")).await), of_both);
    assert_eq!(positions(&all(&node, &format!("/v1/events?limit=70&{happened}&category=a")).await), of_a);
    let known = format!("recordedat={}", recorded.as_str().unwrap());
    let then = all(&node, &format!("/v1/events?limit=1000&{known}")).await;
    assert_eq!(positions(&then), (1..=600).collect::<Vec<_>>());
    assert_eq!(positions(&all(&node, &format!("/v1/events?limit=100&{known}&{happened}")).await), of_a);
    let cut = node.get(&format!("/v1/events?limit=5&{happened}")).await;
    assert_eq!(cut.json()["scanned"], "10", "what had no more room is not passed over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moment_that_is_none_is_refused_and_named() {
    let node = node().await;
    node.fill("a", 1, 1).await;
    for path in ["/v1/events", "/v1/streams/a/events"] {
        for (parameter, value) in [("at", "yesterday"), ("recordedat", "2026-03-30"), ("at", "")] {
            let reply = node.get(&format!("{path}?{parameter}={value}")).await;
            assert_eq!((reply.status, reply.code().as_str()), (400, "invalid-parameter"), "{path} {parameter}={value}");
            assert_eq!(reply.json()["parameter"], parameter);
        }
        let plus = node.get(&format!("{path}?at=2026-03-30T10:00:00+02:00")).await;
        assert!(plus.text().contains("%2B"), "{}", plus.text());
        let twice = node.get(&format!("{path}?at=2026-03-30T10:00:00Z&at=2026-03-30T10:00:00Z")).await;
        assert_eq!(twice.code(), "invalid-parameter");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sparse_filter_still_advances() {
    let node = node().await;
    node.fill("noise-1", 1, 700).await;
    let rare = post("/v1/streams/order-7/events").event(event("rare", r#","tags":"a:1 b:2""#));
    assert_eq!(node.send(rare).await.status, 201);
    node.fill("noise-1", 701, 1300).await;
    for filter in
        ["category=order", "tag=a:1&tag=b:2", "tag=b%3A2", "category=order&category=nothing&type=test.happened"]
    {
        let found = all(&node, &format!("/v1/events?limit=2&{filter}")).await;
        assert_eq!(positions(&found), [701], "{filter}");
    }
    for filter in ["category=nothing", "type=nothing", "tag=a:1&tag=c:3"] {
        let none = node.get(&format!("/v1/events?{filter}")).await;
        assert_eq!(
            (none.events().len(), none.json()["scanned"].clone(), none.next()),
            (0, json!("1301"), None),
            "{filter}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_at_the_end_learns_where_to_go_on() {
    let node = node().await;
    let empty = node.get("/v1/events").await;
    assert_eq!((empty.json(), empty.next()), (json!({ "events": [], "scanned": "0", "head": "0" }), None));
    node.fill("a", 1, 3).await;
    let rest = node.get("/v1/events?after=1&limit=1").await;
    assert_eq!((positions(&rest.events()), rest.next().unwrap()), (vec![2], "/v1/events?limit=1&after=2".to_owned()));
    let end = node.get("/v1/events?after=3").await;
    assert_eq!((end.events().len(), end.json()["scanned"].clone(), end.next()), (0, json!("3"), None));
    for beyond in ["after=4", "after=18446744073709551615&limit=10000", "after=4&type=x"] {
        let reply = node.get(&format!("/v1/events?{beyond}")).await;
        assert_eq!((reply.status, reply.code().as_str()), (409, "position-ahead"), "{beyond}");
        assert_eq!(reply.json()["logposition"], "3");
    }
    // What was acknowledged is never ahead, however soon one asks.
    let mut client = node.client().await;
    for n in 4..54 {
        let reply = client.send(post("/v1/streams/a/events").event(event(&format!("a-{n}"), ""))).await;
        assert_eq!(reply.status, 201);
        assert_eq!(client.send(get(format!("/v1/events?after={n}"))).await.status, 200, "{n}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_clamped_or_ignored_silently() {
    let node = node().await;
    node.fill("a", 1, 1).await;
    for path in [
        "/v1/events?limit=10001",
        "/v1/streams/a/events?limit=10001",
        "/v1/streams?limit=10001",
        "/v1/events?limit=18446744073709551615",
    ] {
        let reply = node.get(path).await;
        assert_eq!(
            (reply.status, reply.code().as_str(), &reply.json()["limit"]),
            (400, "limit-exceeded", &json!(10_000)),
            "{path}"
        );
    }
    for path in [
        "/v1/events?limit=0",
        "/v1/events?limit=-1",
        "/v1/events?limit=1e3",
        "/v1/events?aftr=1",
        "/v1/events?after=1&after=2",
        "/v1/events?after=18446744073709551616",
        "/v1/events?tag=a%20b",
        "/v1/events?type=%ff",
        "/v1/streams/a/events?from=0",
        "/v1/streams/a/events?direction=sideways",
        "/v1/streams/a/events/0",
        "/v1/streams/a/events/01",
        "/v1/streams/a/events/one",
        "/v1/streams/a?x=1",
    ] {
        let reply = node.get(path).await;
        assert_eq!((reply.status, reply.code().as_str()), (400, "invalid-parameter"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_says_so() {
    let node = node().await;
    for path in ["/v1/streams/no", "/v1/streams/no/events", "/v1/streams/no/events/1"] {
        assert_eq!(node.get(path).await.code(), "stream-not-found", "{path}");
    }
    node.fill("a", 1, 4).await;
    assert_eq!(node.get("/v1/streams/a/events/5").await.code(), "event-not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_any_kind_find_their_stream() {
    let node = node().await;
    for (n, name) in
        ["a%2Fb", "%E2%98%82%20%F0%9F%A7%BE", "%252F", "a+b", "a%3Fb%23c", "x'%22%3C%3E"].into_iter().enumerate()
    {
        let path = format!("/v1/streams/{name}/events");
        let reply = node.send(post(&path).event(event(&n.to_string(), ""))).await;
        assert_eq!(reply.status, 201, "{name}: {}", reply.text());
        assert_eq!(node.get(&path).await.events()[0]["id"], n.to_string(), "{name}");
    }
    let list = node.get("/v1/streams").await.json();
    let names: Vec<&str> =
        list["streams"].as_array().unwrap().iter().map(|one| one["stream"].as_str().unwrap()).collect();
    let mut expected = ["a/b", "☂ 🧾", "%2F", "a+b", "a?b#c", "x'\"<>"];
    expected.sort_unstable();
    assert_eq!(names, expected);
    let long = "x".repeat(513);
    for name in ["%2e", "..%2f..", "%00", "%C2%85", "%ff", "%", "%0g", &long] {
        let path = format!("/v1/streams/{name}/events");
        let reply = node.send(post(&path).event(event("x", ""))).await;
        if name == "..%2f.." {
            assert_eq!(reply.status, 201, "a slash inside a name is part of the name");
        } else {
            assert_eq!((reply.status, reply.code().as_str()), (400, "invalid-name"), "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_listed_by_prefix_and_page_by_page() {
    let node = node().await;
    for name in ["b-2", "a-1", "b-1", "b-3", "c"] {
        node.fill(name, 1, 1).await;
    }
    let first = node.get("/v1/streams?prefix=b-&limit=2").await;
    let names = |reply: &crate::client::Reply| -> Vec<String> {
        let list = reply.json();
        list["streams"].as_array().unwrap().iter().map(|one| one["stream"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&first), ["b-1", "b-2"]);
    let second = node.get(&first.next().unwrap()).await;
    assert_eq!((names(&second), second.next()), (vec!["b-3".to_owned()], None));
    assert_eq!(names(&node.get("/v1/streams").await).len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_form_that_is_liked_best_is_sent_and_caches_are_told_what_chose_it() {
    let (json, batch, structured) = FORMS;
    let node = node().await;
    let note = post("/v1/streams/a/events")
        .header("ce-specversion", "1.0")
        .header("ce-id", "1")
        .header("ce-source", "/s")
        .header("ce-type", "t")
        .header("content-type", "text/plain")
        .body("hello");
    assert_eq!(node.send(note).await.status, 201);
    for (path, accept, media) in [
        ("/v1/streams/a/events", format!("{json}, {batch};q=0.1"), json),
        ("/v1/streams/a/events", format!("{json};q=0.1, {batch}"), batch),
        ("/v1/events", format!("{batch};q=0"), json),
        ("/v1/events", batch.to_owned(), batch),
        ("/v1/streams/a/events/1", "*/*".to_owned(), structured),
        ("/v1/streams/a/events/1", "text/*".to_owned(), "text/plain"),
        ("/v1/streams/a/events/1", "text/plain;q=0.2, application/*;q=0.1".to_owned(), "text/plain"),
        ("/v1/streams/a/events/1", "text/plain;q=0, */*;q=0.1".to_owned(), structured),
    ] {
        let reply = node.send(get(path).header("accept", accept.clone())).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, Some(media)), "{path}: {accept}");
        assert_eq!(reply.header("vary"), Some("accept"), "{path}: {accept}");
        if media == "text/plain" {
            let policy = reply.header("content-security-policy").unwrap();
            assert!(policy.starts_with("sandbox; default-src 'none'"), "it is nobody's page: {policy}");
            assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        }
    }
    for none in ["text/plain;q=0", "text/html", "image/*"] {
        let refused = node.send(get("/v1/streams/a/events/1").header("accept", none)).await;
        assert_eq!((refused.status, refused.code().as_str()), (406, "not-acceptable"), "{none}");
    }
}

const FORMS: (&str, &str, &str) =
    ("application/json", "application/cloudevents-batch+json", "application/cloudevents+json");

#[tokio::test(flavor = "multi_thread")]
async fn a_token_makes_a_read_include_its_write_or_say_why_not() {
    let node = node().await;
    let written = node.send(post("/v1/streams/a/events").event(event("1", ""))).await;
    let token = written.header("quorate-token").unwrap().to_owned();
    let read = node.send(get("/v1/events").header("quorate-token", &token)).await;
    assert_eq!((read.status, read.header("quorate-token")), (200, Some(token.as_str())));
    let typo = node.send(get("/v1/events").header("quorate-token", format!("{token}x"))).await;
    assert_eq!((typo.status, typo.code().as_str()), (400, "invalid-token"));

    use quorate_data::store::{Timeline, Token};
    let known: Token = token.parse().unwrap();
    let ahead = Token::new(known.timeline(), 2).to_string();
    let behind = node.send(get("/v1/events").header("quorate-token", &ahead)).await;
    assert_eq!((behind.status, behind.code().as_str(), &behind.json()["logposition"]), (503, "behind", &json!("1")));
    assert!(behind.header("retry-after").is_some());
    let restored = Timeline { epoch: known.timeline().epoch + 1, ..known.timeline() };
    let other = node.send(get("/v1/events").header("quorate-token", Token::new(restored, 1).to_string())).await;
    assert_eq!((other.status, other.code().as_str()), (409, "other-timeline"));

    let mut waiting = node.client().await;
    waiting.begin(&get("/v1/events").header("quorate-token", &ahead).header("prefer", "wait=20")).await;
    node.fill("b", 1, 1).await;
    assert_eq!(waiting.reply().await.unwrap().events().len(), 2);
    let impatient = node.send(get("/v1/events").header("quorate-token", &ahead).header("prefer", "wait=x")).await;
    assert_eq!(impatient.code(), "invalid-parameter");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_that_lied_about_its_json_cannot_spoil_a_page() {
    use quorate_data::{
        event::NewEvent,
        store::{AppendBatch, ExpectedVersion},
    };
    let node = node().await;
    let lies = ["{", "", "nul", "\u{feff}1", "1 2", "\"\u{1}\"", "NaN"];
    let events = lies.iter().map(|lie| NewEvent::new(*lie, "/s", "t").json(lie.as_bytes().to_vec()));
    let events = events.map(|mut event| {
        event.id = format!("id{}", event.id.len()).into();
        event
    });
    let events: Vec<NewEvent> = events
        .enumerate()
        .map(|(n, mut event)| {
            event.id = n.to_string().into();
            event
        })
        .collect();
    node.store.append(AppendBatch::to("s".parse().unwrap(), ExpectedVersion::Any, events)).await.unwrap();
    let reply = node.get("/v1/events").await;
    assert_eq!(reply.events().len(), lies.len());
    assert!(reply.events().iter().all(|event| event.get("data").is_none() && event["data_base64"].is_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_larger_than_the_memory_for_pages_is_refused_not_swallowed() {
    let node = node_with(|config| config.http.reply_memory = 1 << 20).await;
    for n in 0..8 {
        let data = format!(r#","data":"{}""#, "x".repeat(200_000));
        let reply = node.send(post("/v1/streams/a/events").event(event(&n.to_string(), &data))).await;
        assert_eq!(reply.status, 201, "{}", reply.text());
    }
    let filtered = node.get("/v1/events?type=test.happened").await;
    assert_eq!((filtered.status, filtered.code().as_str()), (503, "overloaded"));
    assert_eq!(node.get("/v1/events").await.events().len(), 8, "an unfiltered page is sent piece by piece");
}

#[tokio::test]
async fn a_page_shows_the_stream_as_it_was_when_the_page_was_begun() {
    let node = node().await;
    let data = format!(r#","data":"{}""#, "x".repeat(50_000));
    for batch in 0..15 {
        let events: Vec<String> = (0..20).map(|n| event(&format!("{batch}-{n}"), &data)).collect();
        let reply = node.send(post("/v1/streams/long/events").batch(format!("[{}]", events.join(",")))).await;
        assert_eq!(reply.status, 201, "{}", reply.text());
    }
    let mut client = node.client().await;
    client.begin(&get("/v1/streams/long/events?limit=1000")).await;
    let head = client.head().await.unwrap();
    // More than the sockets hold is still to be read from the store.
    let late = node.send(post("/v1/streams/long/events").event(event("late", ""))).await;
    assert_eq!(late.header("etag"), Some("\"301\""));
    let mut body = Vec::new();
    while let Some(Some(chunk)) = client.chunk().await {
        body.extend(chunk);
    }
    let page: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((head.header("etag"), &page["streamversion"]), (Some("\"300\""), &json!("300")));
    let events = page["events"].as_array().unwrap();
    assert_eq!((events.len(), &events.last().unwrap()["streamversion"]), (300, &json!("300")));
    node.end().await;
}
