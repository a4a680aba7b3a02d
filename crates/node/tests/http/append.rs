use serde_json::{Value, json};

use crate::{
    client::{get, post},
    node::{event, node, node_with},
};

const PATH: &str = "/v1/streams/order-1/events";

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_created_at_a_version_and_served_as_it_was_given() {
    let node = node().await;
    let given = event(
        "e1",
        r#","subject":"s/1","time":"2026-01-01T01:00:00.5+01:00","dataschema":"urn:x:1","correlationid":"c","causationid":"k",
        "tags":"b:2 a:1","flag":true,"n":-7,"data":{ "b" : 1.50,
        "a":"é\u0041" }"#,
    );
    let reply = node.send(post(PATH).event(given)).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    assert_eq!(reply.header("etag"), Some("\"1\""));
    let token = reply.header("quorate-token").unwrap();
    assert_eq!(reply.json(), json!({ "stream": "order-1", "streamversion": "1", "token": token }));
    let page = node.get(PATH).await;
    assert!(page.text().contains("{ \"b\" : 1.50,\n        \"a\":\"é\\u0041\" }"), "byte for byte: {}", page.text());
    let mut served = page.events().remove(0);
    assert!(served["recordedtime"].as_str().unwrap().ends_with('Z'));
    served.as_object_mut().unwrap().remove("recordedtime");
    let expected = json!({
        "specversion": "1.0", "id": "e1", "source": "/test", "type": "test.happened", "subject": "s/1",
        "time": "2026-01-01T01:00:00.5+01:00", "datacontenttype": "application/json", "dataschema": "urn:x:1",
        "stream": "order-1", "streamversion": "1", "logposition": "1", "correlationid": "c", "causationid": "k",
        "tags": "a:1 b:2", "flag": true, "n": -7, "data": { "b": 1.50, "a": "éA" },
    });
    assert_eq!(served, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_is_no_json_survives_in_text_and_base64() {
    let node = node().await;
    let text = event("t", r#","datacontenttype":"text/plain","data":"a\nb""#);
    let bytes = event("b", r#","datacontenttype":"image/png","data_base64":"AAH/""#);
    let lie = post(PATH).header("ce-specversion", "1.0").header("ce-id", "x").header("ce-source", "/s");
    let untyped = lie.header("ce-type", "t").body([0xff, 0]);
    for request in [post(PATH).event(text), post(PATH).event(bytes), untyped] {
        assert_eq!(node.send(request).await.status, 201);
    }
    let events = node.get(PATH).await.events();
    assert_eq!((&events[0]["data"], &events[1]["data_base64"]), (&json!("a\nb"), &json!("AAH/")));
    assert_eq!(events[2]["data_base64"], "/wA=");
    assert_eq!(events[2]["datacontenttype"], "application/octet-stream");
}

#[tokio::test(flavor = "multi_thread")]
async fn binary_mode_goes_in_and_comes_out() {
    let node = node().await;
    let given = post(PATH)
        .header("ce-specversion", "1.0")
        .header("ce-id", "e1")
        .header("ce-source", "/s")
        .header("ce-type", "t")
        .header("ce-subject", "Euro%20%E2%82%AC")
        .header("ce-priority", "high")
        .header("content-type", "text/csv; charset=latin-1")
        .body("a;b\n");
    let reply = node.send(given).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    let one = format!("{PATH}/1");
    let event = node.get(&one).await;
    assert_eq!(event.header("content-type"), Some("application/cloudevents+json"));
    assert_eq!(event.json()["subject"], "Euro €");
    let binary = node.send(get(&one).header("accept", "text/csv")).await;
    assert_eq!(binary.text(), "a;b\n");
    for (name, value) in [
        ("ce-id", "e1"),
        ("ce-subject", "Euro%20%E2%82%AC"),
        ("ce-priority", "high"),
        ("ce-stream", "order-1"),
        ("ce-streamversion", "1"),
        ("ce-logposition", "1"),
        ("content-type", "text/csv; charset=latin-1"),
    ] {
        assert_eq!(binary.header(name), Some(value), "{name}");
    }
    assert_eq!(node.send(get(&one).header("accept", "image/png")).await.code(), "not-acceptable");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_written_whole_or_not_at_all() {
    let node = node().await;
    let good = format!("[{},{}]", event("1", ""), event("2", ""));
    let reply = node.send(post(PATH).batch(good)).await;
    assert_eq!((reply.status, reply.header("etag")), (201, Some("\"2\"")));
    let bad = format!("[{},{}]", event("3", ""), event("4", r#","time":"then""#));
    let reply = node.send(post(PATH).batch(bad)).await;
    assert_eq!(
        (reply.code().as_str(), &reply.json()["index"], &reply.json()["attribute"]),
        ("invalid-event", &json!(1), &json!("time"))
    );
    assert_eq!(node.send(post(PATH).batch("[]")).await.code(), "invalid-batch");
    assert_eq!(node.get(PATH).await.events().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn preconditions_decide_who_was_first() {
    let node = node().await;
    let append = |id: &str, name: &str, value: &str| post(PATH).header(name, value).event(event(id, ""));
    let exists = node.send(append("0", "if-match", "*")).await;
    assert_eq!((exists.code().as_str(), exists.status), ("version-conflict", 412));
    assert_eq!(node.send(append("1", "if-none-match", "*")).await.status, 201);
    assert_eq!(node.send(append("2", "if-none-match", "*")).await.code(), "version-conflict");
    assert_eq!(node.send(append("3", "if-match", "\"1\"")).await.status, 201);
    assert_eq!(node.send(append("4", "if-match", "*")).await.header("etag"), Some("\"3\""));
    let late = node.send(append("5", "if-match", "\"1\"")).await;
    assert_eq!((late.code().as_str(), late.header("etag")), ("version-conflict", Some("\"3\"")));
    assert_eq!((&late.json()["streamversion"], &late.json()["outcome"]), (&json!("3"), &json!("unchanged")));
    for (name, value) in [
        ("if-match", "\"0\""),
        ("if-match", "W/\"3\""),
        ("if-match", "\"2\", \"3\""),
        ("if-match", "3"),
        ("if-none-match", "\"3\""),
    ] {
        assert_eq!(node.send(append("6", name, value)).await.code(), "invalid-precondition", "{name}: {value}");
    }
    assert_eq!(node.get(PATH).await.events().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_writers_that_expect_the_same_version_one_wins() {
    let node = node().await;
    node.fill("race", 1, 1).await;
    let env = quorate_runtime::Env::real();
    let (tell, mut told) = tokio::sync::mpsc::channel(16);
    for n in 0..16 {
        let (address, tell) = (node.address, tell.clone());
        env.tasks().spawn("writer", async move {
            let mut client = crate::client::Client::connect(address).await;
            let request =
                post("/v1/streams/race/events").header("if-match", "\"1\"").event(event(&format!("w{n}"), ""));
            tell.send(client.send(request).await.status).await.unwrap();
        });
    }
    drop(tell);
    let mut statuses: Vec<u16> = Vec::new();
    while let Some(status) = told.recv().await {
        statuses.push(status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses[0], 201);
    assert!(statuses[1..].iter().all(|status| *status == 412), "{statuses:?}");
    assert_eq!(node.get("/v1/streams/race/events").await.events().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_batch_is_answered_as_the_first_time_whatever_it_expects() {
    let node = node().await;
    let batch = || post(PATH).header("if-none-match", "*").batch(format!("[{},{}]", event("1", ""), event("2", "")));
    let first = node.send(batch()).await;
    node.fill("order-1", 3, 5).await;
    let second = node.send(batch()).await;
    assert_eq!((second.status, second.json()["streamversion"].clone()), (201, json!("2")));
    assert_eq!(first.header("etag"), second.header("etag"));
    let other = node.send(post(PATH).event(event("1", r#","data":1"#))).await;
    assert_eq!((other.status, other.code().as_str(), &other.json()["streamversion"]), (409, "id-reused", &json!("1")));
    let partly = node.send(post(PATH).batch(format!("[{},{}]", event("2", ""), event("9", "")))).await;
    assert_eq!((partly.status, partly.code().as_str()), (409, "batch-partly-known"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_told_with_its_limit() {
    let node = node_with(|config| {
        config.limits.event_bytes = 1000;
        config.limits.batch_bytes = 4000;
        config.limits.batch_events = 5;
        config.http.max_body = 20_000;
    })
    .await;
    let data = |bytes: usize| format!(r#","data":"{}""#, "x".repeat(bytes - 2));
    assert_eq!(node.send(post(PATH).event(event("1", &data(1000)))).await.status, 201);
    let one = node.send(post(PATH).event(event("2", &data(1001)))).await;
    assert_eq!((one.status, one.code().as_str(), &one.json()["limit"]), (413, "too-large", &json!(1000)));
    let many: Vec<String> = (0..6).map(|n| event(&format!("m{n}"), "")).collect();
    let many = node.send(post(PATH).batch(format!("[{}]", many.join(",")))).await;
    assert_eq!((many.status, many.code().as_str()), (413, "too-large"));
    let heavy: Vec<String> = (0..5).map(|n| event(&format!("h{n}"), &data(900))).collect();
    let heavy = node.send(post(PATH).batch(format!("[{}]", heavy.join(",")))).await;
    assert_eq!((heavy.status, heavy.code().as_str(), &heavy.json()["limit"]), (413, "too-large", &json!(4000)));
    let body = node.send(post(PATH).event(event("b", &data(30_000)))).await;
    assert_eq!((body.status, body.code().as_str(), &body.json()["limit"]), (413, "too-large", &json!(20_000)));
    assert_eq!(node.get(PATH).await.events().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_content_type_says_what_a_body_is() {
    let node = node().await;
    for media in ["application/json", "text/plain", "application/cloudevents", "application/cloudevents+avro", ""] {
        let reply = node.send(post(PATH).header("content-type", media).body(event("1", ""))).await;
        assert_eq!((reply.status, reply.code().as_str()), (415, "unsupported-media-type"), "{media}");
    }
    let latin = post(PATH).header("content-type", "application/cloudevents+json; charset=latin1");
    assert_eq!(node.send(latin.body(event("1", ""))).await.status, 415);
    let utf8 = post(PATH).header("content-type", "Application/CloudEvents+JSON; charset=\"UTF-8\"");
    assert_eq!(node.send(utf8.body(event("1", ""))).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_is_named_in_the_problem_it_leads_to() {
    let node = node().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let reply = node.send(get("/nowhere").header("traceparent", trace)).await;
    assert_eq!(reply.json()["trace"], "4bf92f3577b34da6a3ce929d0e0e4736");
    for bad in [
        "",
        "x",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-1-1",
        "00-zz",
    ] {
        let reply = node.send(get("/nowhere").header("traceparent", bad)).await;
        assert_eq!((reply.status, &reply.json()["trace"]), (404, &Value::Null), "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_an_event_says_is_served_as_it_was_said() {
    use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
    // No control characters in attributes: those are refused.
    let text = "\\PC{1,40}";
    let attributes = (text, text, text, prop::collection::vec("[^\\s\\p{Cc}]{1,12}", 0..4));
    let strategy = (attributes, any::<String>(), any::<Vec<u8>>(), any::<i32>(), any::<bool>());
    let mut runner = TestRunner::deterministic();
    let mut given: Vec<Value> = Vec::new();
    for n in 0..300 {
        let ((id, subject, kind, tags), data, bytes, number, as_bytes) =
            strategy.new_tree(&mut runner).unwrap().current();
        let mut tags = tags;
        tags.sort();
        tags.dedup();
        let id = format!("{n} {id}");
        let mut event = json!({
            "specversion": "1.0", "id": id, "source": "/test", "type": kind, "subject": subject, "number": number, "word": kind,
        });
        if !tags.is_empty() {
            event["tags"] = tags.join(" ").into();
        }
        if as_bytes {
            use base64::Engine as _;
            event["datacontenttype"] = "application/octet-stream".into();
            event["data_base64"] = base64::engine::general_purpose::STANDARD.encode(bytes).into();
        } else {
            event["datacontenttype"] = "application/json".into();
            event["data"] = json!({ data.clone(): [data, number, null, { "deep": as_bytes }] });
        }
        given.push(event);
    }
    let node = node().await;
    let reply = node.send(post(PATH).batch(Value::from(given.clone()).to_string())).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    let mut served = node.get(&format!("{PATH}?limit=300")).await.events();
    for event in &mut served {
        for set_by_the_store in ["stream", "streamversion", "logposition", "recordedtime"] {
            assert!(event.as_object_mut().unwrap().remove(set_by_the_store).is_some());
        }
    }
    assert_eq!(served, given);
}
