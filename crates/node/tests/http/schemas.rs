//! Schemas: registered, served, and held against every append, also by hostile hands.

use quorate_data::schema::UnknownType;
use serde_json::{Value, json};

use crate::{
    client::{Reply, get, post, request},
    node::{Node, node, node_with},
};

const TYPE: &str = "/v1/schemas/order.placed";

fn order(member: &str) -> Value {
    json!({ "type": "object", "required": [member], "properties": { member: { "type": "integer" } } })
}

async fn register(node: &Node, query: &str, schema: &Value) -> Reply {
    let body = schema.to_string();
    node.send(post(format!("{TYPE}/versions{query}")).header("content-type", "application/schema+json").body(body))
        .await
}

fn placed(id: &str, data: &str) -> String {
    format!(r#"{{"specversion":"1.0","id":"{id}","source":"/shop","type":"order.placed","data":{data}}}"#)
}

/// A node on which orders have a whole number `n`.
async fn with_orders() -> Node {
    let node = node().await;
    assert_eq!(register(&node, "", &order("n")).await.status, 201);
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_is_registered_once_listed_served_and_there_after_a_restart() {
    let node = node().await;
    let first = register(&node, "?mode=full", &order("n")).await;
    assert_eq!(first.status, 201, "{}", first.text());
    let address = "/v1/schemas/order.placed/versions/1";
    assert_eq!(first.header("location"), Some(address));
    let expected = json!({ "type": "order.placed", "version": 1, "mode": "full", "new": true, "schema": address });
    assert_eq!(first.json(), expected);
    let again = register(&node, "", &order("n")).await;
    assert_eq!((again.status, &again.json()["new"], &again.json()["version"]), (200, &json!(false), &json!(1)));
    assert_eq!(register(&node, "?mode=none", &order("m")).await.json()["version"], 2);

    let node = node.restart().await;
    let served = node.get(address).await;
    assert_eq!((served.status, served.header("content-type")), (200, Some("application/schema+json")));
    assert_eq!(served.json(), order("n"));
    let shown = node.get(TYPE).await.json();
    assert_eq!((&shown["mode"], &shown["latest"]), (&json!("full"), &json!(2)), "the first registration says the mode");
    assert_eq!(shown["versions"][1]["mode"], "none");
    let listed = node.get("/v1/schemas").await.json();
    assert_eq!(listed, json!({ "schemas": [{ "type": "order.placed", "mode": "full", "latest": 2 }] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn types_are_listed_page_by_page_and_may_be_called_anything() {
    let node = node().await;
    for name in ["a", "com.example%2Fb", "c%20%C3%A9", "versions"] {
        let reply = node.send(post(format!("/v1/schemas/{name}/versions")).json("true")).await;
        assert_eq!(reply.status, 201, "{name}: {}", reply.text());
        let address = reply.json()["schema"].as_str().unwrap().to_owned();
        assert_eq!(node.get(&address).await.text(), "true");
    }
    let (mut path, mut seen) = ("/v1/schemas?limit=3".to_owned(), Vec::new());
    loop {
        let page = node.get(&path).await;
        let types = page.json()["schemas"].as_array().unwrap().clone();
        seen.extend(types.iter().map(|one| one["type"].as_str().unwrap().to_owned()));
        let Some(link) = page.header("link") else { break };
        path = link.trim_start_matches('<').split('>').next().unwrap().to_owned();
    }
    assert_eq!(seen, ["a", "c é", "com.example/b", "versions"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_with_its_path_on_every_road() {
    let node = with_orders().await;
    let (good, bad) = (placed("1", r#"{"n":1}"#), placed("2", r#"{"n":"one"}"#));
    let to_stream = || post("/v1/streams/o-1/events");
    let several = json!({ "streams": [
        { "stream": "a", "events": [serde_json::from_str::<Value>(&good).unwrap()] },
        { "stream": "o-1", "events": [serde_json::from_str::<Value>(&good).unwrap(), serde_json::from_str::<Value>(&bad).unwrap()] },
    ] });
    let binary = [("ce-specversion", "1.0"), ("ce-id", "2"), ("ce-source", "/shop"), ("ce-type", "order.placed")];
    let binary = |content_type: &str, body: &'static str| {
        let request = binary.iter().fold(to_stream(), |request, (name, value)| request.header(name, *value));
        request.header("content-type", content_type).body(body)
    };
    let about_anna = bad.replace("\"source\"", "\"datasubject\":\"anna\",\"source\"");
    let sealed = || ("sealed", 0, to_stream().event(about_anna));
    for (road, index, request) in [
        ("structured", 0, to_stream().event(bad.clone())),
        ("batch", 1, to_stream().batch(format!("[{good},{bad}]"))),
        ("several streams", 1, post("/v1/events").json(several.to_string())),
        ("binary", 0, binary("application/json", r#"{"n":"one"}"#)),
        ("with a key", 0, to_stream().header("idempotency-key", "k1").event(bad.clone())),
    ]
    .into_iter()
    .chain(node.store.capabilities().erasure.then(sealed))
    {
        let refused = node.send(request).await;
        assert_eq!((refused.status, refused.code().as_str()), (400, "schema-violation"), "{road}: {}", refused.text());
        let problem = refused.json();
        let place = (&problem["stream"], &problem["index"], &problem["path"], &problem["violations"][0]["rule"]);
        assert_eq!(place, (&json!("o-1"), &json!(index), &json!("/n"), &json!("/properties/n/type")), "{road}");
        assert_eq!((&problem["schemaversion"], &problem["outcome"]), (&json!(1), &json!("unchanged")));
        assert!(!refused.text().contains("one\""), "{road} quotes no data: {}", refused.text());
    }
    for (what, body) in [("text/plain", r#"{"n":1}"#), ("application/octet-stream", "x")] {
        let refused = node.send(binary(what, body)).await;
        assert_eq!(refused.code(), "schema-violation", "{what} {body}: {}", refused.text());
    }
    assert_eq!(node.get("/v1/events").await.events(), Vec::<Value>::new(), "nothing was written");
    assert_eq!(node.send(to_stream().batch(format!("[{good}]"))).await.status, 201);
    assert_eq!(node.send(to_stream().batch(format!("[{good}]"))).await.status, 201, "and known");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_held_against_the_version_it_names_and_else_the_first() {
    let node = with_orders().await;
    register(&node, "?mode=none", &order("m")).await;
    let append = async |id: &str, data: &str, dataschema: &str| {
        let event = placed(id, data).replace("\"source\"", &format!("\"dataschema\":\"{dataschema}\",\"source\""));
        let reply = node.send(post("/v1/streams/o/events").event(event)).await;
        (reply.status, reply.text())
    };
    assert_eq!(append("1", r#"{"n":1}"#, "/v1/schemas/order.placed/versions/1").await.0, 201);
    assert_eq!(append("2", r#"{"n":1}"#, "https://n.example/v1/schemas/order.placed/versions/1").await.0, 201);
    assert_eq!(append("3", r#"{"n":1}"#, "urn:else").await.0, 400);
    let (status, text) = append("4", r#"{"m":1}"#, "urn:else").await;
    assert!(status == 400 && text.contains("schema-violation") && text.contains("names no version"), "{text}");
    let unnamed = node.send(post("/v1/streams/o/events").event(placed("4", r#"{"n":1}"#))).await;
    assert_eq!(unnamed.status, 201, "{}", unnamed.text());
    let unnamed = node.send(post("/v1/streams/o/events").event(placed("5", r#"{"m":1}"#))).await;
    assert!(unnamed.status == 400 && unnamed.text().contains("the newest is 2"), "{}", unnamed.text());
    assert_eq!(append("6", r#"{"m":1}"#, "/v1/schemas/order.placed/versions/2").await.0, 201);
    let (status, text) = append("5", r#"{"m":1}"#, "/v1/schemas/order.placed/versions/3").await;
    assert!(status == 400 && text.contains("no version 3; its latest is 2"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_node_refuses_types_it_does_not_know() {
    let node = node_with(|config| config.schemas.unknown_type = UnknownType::Closed).await;
    let refused = node.send(post("/v1/streams/o/events").event(placed("1", "1"))).await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "unknown-type"), "{}", refused.text());
    assert_eq!(register(&node, "", &json!(true)).await.status, 201);
    assert_eq!(node.send(post("/v1/streams/o/events").event(placed("1", "1"))).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incompatible_schema_is_refused_with_its_path_and_a_check_says_so_beforehand() {
    let node = with_orders().await;
    let check = async |query: &str, schema: &Value| {
        let reply = node.send(post(format!("{TYPE}/check{query}")).json(schema.to_string())).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    };
    let foreseen = check("", &order("m")).await;
    assert_eq!((&foreseen["compatible"], &foreseen["version"]), (&json!(false), &Value::Null));
    let finding = foreseen["incompatible"][0]["findings"][0].clone();
    assert_eq!((&finding["path"], &finding["direction"]), (&json!("/properties/m"), &json!("backward")));
    let refused = register(&node, "", &order("m")).await;
    assert_eq!((refused.status, refused.code().as_str()), (409, "schema-incompatible"), "{}", refused.text());
    assert_eq!(refused.json()["path"], "/properties/m");
    assert_eq!(refused.json()["incompatible"], foreseen["incompatible"]);
    assert_eq!(check("", &order("n")).await["new"], false);
    assert_eq!(check("?mode=none", &order("m")).await["version"], 2);
    assert_eq!(node.get(TYPE).await.json()["latest"], 1, "a check changes nothing");

    let set = |mode: &str| request("PUT", format!("{TYPE}/mode")).json(json!({ "mode": mode }).to_string());
    assert_eq!(node.send(set("none")).await.json(), json!({ "type": "order.placed", "mode": "none" }));
    assert_eq!(register(&node, "", &order("m")).await.json()["version"], 2);
    assert_eq!(node.send(set("sideways")).await.code(), "invalid-json");
    let nobody = node.send(request("PUT", "/v1/schemas/x/mode").json(r#"{"mode":"none"}"#)).await;
    assert_eq!((nobody.status, nobody.code().as_str()), (404, "schema-not-found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_registrations_at_once_each_version_is_given_once() {
    let node = node().await;
    let wide = |n: usize| json!({ "title": n.to_string() });
    let replies = futures_util::future::join_all((0..12).map(|n| {
        let (node, schema) = (&node, wide(n / 2));
        async move { register(node, "", &schema).await }
    }));
    let mut new = Vec::new();
    for reply in replies.await {
        match reply.status {
            201 => new.push(reply.json()["version"].as_u64().unwrap()),
            status => assert_eq!(status, 200, "{}", reply.text()),
        }
    }
    new.sort_unstable();
    assert_eq!(new, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_schemas_are_refused_and_the_node_goes_on() {
    let node = node_with(|config| config.schemas.limits.types = 2).await;
    let deep = format!("{}true{}", r#"{"not":"#.repeat(120), "}".repeat(120));
    let deeper = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let huge = format!(r#"{{"title":"{}"}}"#, "x".repeat(300 << 10));
    let many = json!({ "anyOf": (0..3_000).map(|n| json!({ "const": n })).collect::<Vec<_>>() }).to_string();
    let bomb: Value = (0..24).fold(json!({}), |mut defs, n| {
        let next = if n == 23 {
            json!(true)
        } else {
            json!({ "properties": {
            "a": { "$ref": format!("#/$defs/d{}", n + 1) }, "b": { "$ref": format!("#/$defs/d{}", n + 1) },
        } })
        };
        defs[format!("d{n}")] = next;
        defs
    });
    let bomb = json!({ "$defs": bomb, "$ref": "#/$defs/d0" }).to_string();
    let cases = [
        ("deep", deep.as_str(), 400, "invalid-schema"),
        ("too deep to parse", deeper.as_str(), 400, "invalid-json"),
        ("huge", huge.as_str(), 413, "too-large"),
        ("many subschemas", many.as_str(), 400, "invalid-schema"),
        ("an exponential reference", bomb.as_str(), 400, "invalid-schema"),
        ("an endless reference", r##"{"allOf":[{"$ref":"#"}]}"##, 400, "invalid-schema"),
        ("a remote reference", r#"{"$ref":"http://169.254.169.254/latest"}"#, 400, "invalid-schema"),
        ("a file", r#"{"properties":{"a":{"$ref":"file:///etc/passwd"}}}"#, 400, "invalid-schema"),
        ("a reference to nothing", r##"{"$ref":"#/$defs/x"}"##, 400, "invalid-schema"),
        ("look-around", r#"{"pattern":"(?=a)b"}"#, 400, "invalid-schema"),
        ("a back-reference", r#"{"pattern":"(a+)\\1"}"#, 400, "invalid-schema"),
        ("a heavy pattern", r#"{"pattern":"(((a{99}){99}){99}){99}"}"#, 400, "invalid-schema"),
        ("another dialect", r#"{"$schema":"http://json-schema.org/draft-04/schema#"}"#, 400, "invalid-schema"),
        ("no schema", r#"{"type":"whatever"}"#, 400, "invalid-schema"),
        ("a number", "17", 400, "invalid-schema"),
        ("no JSON", "{", 400, "invalid-json"),
        ("nothing", "", 400, "invalid-json"),
    ];
    for (what, body, status, code) in cases {
        for road in ["versions", "check"] {
            let refused = node.send(post(format!("{TYPE}/{road}")).json(body)).await;
            assert_eq!((refused.status, refused.code().as_str()), (status, code), "{what}: {}", refused.text());
            assert!(refused.body.len() < 4_096, "{what} is not sent back");
        }
    }
    let media = node.send(post(format!("{TYPE}/versions")).header("content-type", "text/plain").body("true")).await;
    assert_eq!(media.code(), "unsupported-media-type");
    assert_eq!(register(&node, "?mode=sideways", &json!(true)).await.code(), "invalid-parameter");
    assert_eq!(register(&node, "?made=full", &json!(true)).await.code(), "invalid-parameter");
    let name = "x".repeat(513);
    assert_eq!(node.send(post(format!("/v1/schemas/{name}/versions")).json("true")).await.code(), "invalid-name");
    for version in ["0", "-1", "01", "latest", "99999999999"] {
        assert_eq!(node.get(&format!("{TYPE}/versions/{version}")).await.code(), "invalid-parameter", "{version}");
    }
    assert_eq!(node.get(TYPE).await.code(), "schema-not-found");
    for (name, status) in [("a", 201), ("b", 201), ("c", 409), ("a", 200)] {
        assert_eq!(node.send(post(format!("/v1/schemas/{name}/versions")).json("true")).await.status, status, "{name}");
    }
    assert_eq!(node.get("/v1/schemas/a/versions/2").await.code(), "schema-not-found");
    let wrong = node.send(get("/v1/schemas/a/check")).await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("POST")));
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_that_explode_elsewhere_are_linear_here() {
    let node = node().await;
    let schema = json!({ "properties": { "n": { "pattern": "^(a+)+$" } } });
    assert_eq!(register(&node, "", &schema).await.status, 201);
    let data = format!(r#"{{"n":"{}!"}}"#, "a".repeat(200_000));
    let refused = node.send(post("/v1/streams/o/events").event(placed("1", &data))).await;
    assert_eq!(refused.code(), "schema-violation");
    assert!(refused.body.len() < 4_096, "the data is not sent back");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_was_answered_is_known_whatever_was_registered_since() {
    let node = node().await;
    let append = || post("/v1/streams/o/events").event(placed("1", "17"));
    let first = node.send(append()).await;
    assert_eq!(first.status, 201);
    assert_eq!(register(&node, "", &order("n")).await.status, 201);
    assert_eq!(node.send(append()).await.body, first.body);
    assert_eq!(node.send(append().header("idempotency-key", "k")).await.body, first.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_in_which_a_member_stands_twice_is_refused_with_its_path() {
    let node = node().await;
    let twice = r#"{"type":"object","properties":{"n":{"type":"integer","minimum":1,"type":"string"}}}"#;
    for route in ["versions", "check"] {
        let refused = node.send(post(format!("{TYPE}/{route}")).json(twice)).await;
        assert_eq!((refused.status, refused.code().as_str()), (400, "invalid-json"), "{}", refused.text());
        assert_eq!(refused.json()["path"], "/properties/n/type");
    }
    assert_eq!(node.get(TYPE).await.status, 404, "nothing was registered");
}
