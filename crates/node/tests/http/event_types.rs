//! Event types: counted as they are asked for, and described so that others' tools understand it.

use serde_json::{Value, json};

use crate::{
    client::{post, request},
    node::{Node, node},
};

/// Asks until the log was read to its end.
async fn listed(node: &Node, query: &str) -> Value {
    loop {
        let reply = node.get(&format!("/v1/event-types{query}")).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        if reply.json()["complete"] == true {
            return reply.json();
        }
    }
}

async fn append(node: &Node, stream: &str, event: Value) {
    let mut whole = json!({ "specversion": "1.0", "source": "/shop", "data": { "n": 1 } });
    whole.as_object_mut().unwrap().extend(event.as_object().unwrap().clone());
    let sent = post(format!("/v1/streams/{stream}/events")).header("content-type", "application/cloudevents+json");
    let reply = node.send(sent.body(whole.to_string())).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
}

async fn register(node: &Node, event_type: &str, schema: Value) {
    let path = format!("/v1/schemas/{event_type}/versions?mode=none");
    let reply = node.send(post(path).header("content-type", "application/schema+json").body(schema.to_string())).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
}

/// A schema that refers to a part of itself.
fn order() -> Value {
    json!({
        "type": "object",
        "required": ["n"],
        "properties": { "n": { "$ref": "#/$defs/whole" } },
        "$defs": { "whole": { "type": "integer" } },
    })
}

/// A node with two types that were sent, one of them with two versions, and one that was not sent yet.
async fn shop() -> Node {
    let node = node().await;
    register(&node, "order.placed", order()).await;
    let mut second = order();
    second["properties"]["m"] = json!({ "type": "string" });
    register(&node, "order.placed", second).await;
    register(&node, "order.sent", json!({ "type": "object" })).await;
    append(&node, "order-1", json!({ "id": "1", "type": "order.placed" })).await;
    let second = "/v1/schemas/order.placed/versions/2";
    append(&node, "order-1", json!({ "id": "2", "type": "order.placed", "source": "/app", "dataschema": second }))
        .await;
    append(&node, "order-1", json!({ "id": "3", "type": "note/left", "dataschema": "urn:note" })).await;
    node
}

fn names(listed: &Value) -> Vec<&str> {
    listed["event-types"].as_array().unwrap().iter().map(|one| one["type"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn types_are_listed_with_who_sends_them_by_which_schemas_and_who_takes_them() {
    let node = shop().await;
    let filter = json!({ "filter": { "items": [{ "types": ["order.placed"] }] } });
    assert_eq!(node.send(request("PUT", "/v1/subscriptions/billing").json(filter.to_string())).await.status, 200);
    assert_eq!(node.send(request("PUT", "/v1/subscriptions/audit").json("{}")).await.status, 200);
    let hook = json!({ "url": "https://partner.example/", "filter": { "items": [{ "types": ["note/left"] }] } });
    assert_eq!(node.send(request("PUT", "/v1/webhooks/partner").json(hook.to_string())).await.status, 201);

    let all = listed(&node, "").await;
    assert_eq!(names(&all), ["note/left", "order.placed", "order.sent"]);
    assert_eq!((&all["scanned"], &all["head"]), (&json!("3"), &json!("3")));
    let placed = &all["event-types"][1];
    let address = |n: u32| format!("/v1/schemas/order.placed/versions/{n}");
    let schemas: Vec<(&Value, &Value, &Value)> = placed["schemas"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (&one["dataschema"], &one["registered"], &one["events"]))
        .collect();
    let one_each = [(json!(address(1)), json!(true), json!(1)), (json!(address(2)), json!(true), json!(1))];
    assert_eq!(schemas, one_each.iter().map(|(a, b, c)| (a, b, c)).collect::<Vec<_>>());
    assert_eq!((&placed["events"], &placed["first"], &placed["last"]), (&json!(2), &json!("1"), &json!("2")));
    let producers: Vec<&str> =
        placed["producers"].as_array().unwrap().iter().map(|one| one["source"].as_str().unwrap()).collect();
    assert_eq!(producers, ["/app", "/shop"]);
    let consumer = |kind: &str, name: &str, named: bool| json!({ "kind": kind, "name": name, "names-the-type": named });
    let told = [consumer("subscription", "billing", true), consumer("subscription", "audit", false)];
    assert_eq!(placed["consumers"], json!(told), "who names the type comes first");

    let note = node.get("/v1/event-types/note%2Fleft").await.json();
    let foreign = json!({ "dataschema": "urn:note", "version": null, "registered": false, "events": 1 });
    assert_eq!(note["schemas"], json!([foreign]));
    let told = [consumer("webhook", "partner", true), consumer("subscription", "audit", false)];
    assert_eq!(note["consumers"], json!(told), "the webhook's subscription is not told beside it");
    let unsent = node.get("/v1/event-types/order.sent").await.json();
    assert_eq!((&unsent["events"], &unsent["last"], &unsent["mode"]), (&json!(0), &Value::Null, &json!("none")));
}

#[tokio::test(flavor = "multi_thread")]
async fn types_come_page_by_page_and_what_was_counted_outlives_the_node() {
    let node = shop().await;
    listed(&node, "").await;
    let node = node.restart().await;
    append(&node, "order-2", json!({ "id": "4", "type": "order.placed" })).await;
    let first = node.get("/v1/event-types?limit=2").await;
    assert_eq!(names(&first.json()), ["note/left", "order.placed"]);
    assert_eq!(first.json()["event-types"][1]["events"], 3);
    let next = first.header("link").unwrap();
    assert_eq!(next, r#"</v1/event-types?limit=2&after=order.placed>; rel="next""#);
    assert_eq!(names(&listed(&node, "?limit=2&after=order.placed").await), ["order.sent"]);
    for (path, code) in [
        ("/v1/event-types?limit=0", "invalid-parameter"),
        ("/v1/event-types?limit=101", "limit-exceeded"),
        ("/v1/event-types?prefix=a", "invalid-parameter"),
        ("/v1/event-types/order.lost", "event-type-not-found"),
    ] {
        assert_eq!(node.get(path).await.code(), code, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_versions_that_a_page_does_not_count_the_number_is_unknown_and_never_told_as_none() {
    let node = node().await;
    for n in 1..=18 {
        register(&node, "t", json!({ "type": "object", "description": n.to_string() })).await;
        let address = format!("/v1/schemas/t/versions/{n}");
        append(&node, "s", json!({ "id": n.to_string(), "type": "t", "dataschema": address })).await;
    }
    register(&node, "t", json!({ "type": "object", "description": "unused" })).await;
    let page = listed(&node, "").await;
    let events = |one: &Value| -> Vec<Option<u64>> {
        one["schemas"].as_array().unwrap().iter().map(|schema| schema["events"].as_u64()).collect()
    };
    let listed = events(&page["event-types"][0]);
    assert_eq!((listed.len(), page["event-types"][0]["more-schemas"].as_u64()), (19, Some(2)));
    assert_eq!((listed.iter().flatten().sum::<u64>(), listed[8], listed[18]), (16, None, None), "{listed:?}");
    let all = events(&node.get("/v1/event-types/t").await.json());
    assert_eq!(all, [vec![Some(1); 18], vec![Some(0)]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_may_be_among_those_that_are_only_counted_is_not_told_to_have_no_events() {
    let node = node().await;
    register(&node, "sent.not", json!({ "type": "object" })).await;
    append(&node, "s", json!({ "id": "1", "type": "seen" })).await;
    listed(&node, "").await;
    let known = node.get("/v1/event-types/sent.not").await.json();
    assert_eq!((&known["events"], &known["schemas"][0]["events"]), (&json!(0), &json!(0)));
    let document = async || node.get("/v1/asyncapi.json").await.json()["info"]["description"].to_string();
    assert!(document().await.contains("All of them"));

    append(&node, "s", json!({ "id": "2", "type": "x".repeat(513) })).await;
    let all = listed(&node, "").await;
    assert_eq!((&all["events-of-other-types"], names(&all)), (&json!(1), vec!["seen", "sent.not"]));
    let known = node.get("/v1/event-types/sent.not").await.json();
    assert_eq!((&known["events"], &known["schemas"][0]["events"]), (&Value::Null, &Value::Null));
    let unknown = node.get("/v1/event-types/order.lost").await;
    assert_eq!(unknown.code(), "event-type-not-found");
    assert!(unknown.text().contains("only counted"), "{}", unknown.text());
    assert!(document().await.contains("A part of them"));
}

/// The official schema of AsyncAPI 3.0.0.
fn official() -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(include_str!("asyncapi/3.0.0.json")).unwrap();
    jsonschema::validator_for(&schema).unwrap()
}

fn wrong(validator: &jsonschema::Validator, document: &Value) -> Vec<String> {
    validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_asyncapi_document_is_valid_by_its_official_schema_and_every_reference_leads_somewhere() {
    let validator = official();
    assert_ne!(wrong(&validator, &json!({ "asyncapi": "3.0.0", "info": {} })), Vec::<String>::new(), "it can refuse");
    for node in [node().await, shop().await] {
        listed(&node, "").await;
        let document = node.get("/v1/asyncapi.json").await.json();
        assert_eq!(wrong(&validator, &document), Vec::<String>::new(), "{document:#}");
        let mut open = vec![&document];
        while let Some(value) = open.pop() {
            if let Some(pointer) = value.get("$ref").and_then(Value::as_str).filter(|at| !at.starts_with("#/$defs")) {
                assert!(document.pointer(&pointer[1..]).is_some(), "{pointer} leads nowhere");
            }
            open.extend(value.as_object().into_iter().flat_map(|members| members.values()));
            open.extend(value.as_array().into_iter().flatten());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_that_is_served_is_one_message_of_its_channel_and_only_one() {
    let node = shop().await;
    listed(&node, "").await;
    let document = node.get("/v1/asyncapi.json").await.json();
    assert_eq!(document["channels"]["note_2fleft"]["address"], "/v1/events/subscribe?type=note%2Fleft");
    let messages: Vec<(&String, jsonschema::Validator)> = document["components"]["messages"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, message)| (name, jsonschema::validator_for(&message["payload"]["schema"]).unwrap()))
        .collect();
    let events = node.get("/v1/events").await.json();
    let fits = |event: &Value| -> Vec<&str> {
        messages.iter().filter(|(_, schema)| schema.is_valid(event)).map(|(name, _)| name.as_str()).collect()
    };
    let told: Vec<Vec<&str>> = events["events"].as_array().unwrap().iter().map(fits).collect();
    assert_eq!(told, [["order.placed_v1"], ["order.placed_v2"], ["note_2fleft"]]);
    let mut misfit = events["events"][0].clone();
    misfit["data"]["n"] = json!("one");
    assert!(fits(&misfit).is_empty(), "what a schema refers to within itself holds here as well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_of_one_type_and_a_type_that_is_called_so_are_two_messages() {
    let node = node().await;
    register(&node, "a", json!({ "type": "object" })).await;
    for (id, event_type) in [("1", "a.v1"), ("2", "a_v1")] {
        append(&node, "s", json!({ "id": id, "type": event_type })).await;
    }
    listed(&node, "").await;
    let document = node.get("/v1/asyncapi.json").await.json();
    let messages = document["components"]["messages"].as_object().unwrap();
    let told: Vec<(&str, &Value)> = messages.iter().map(|(key, message)| (key.as_str(), &message["name"])).collect();
    let names = [json!("a"), json!("a.v1"), json!("a_v1")];
    assert_eq!(told, [("a.v1", &names[1]), ("a_5fv1", &names[2]), ("a_v1", &names[0])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_of_many_large_schemas_comes_in_parts() {
    let node = node().await;
    let filler = "x".repeat(200_000);
    for n in 0..8 {
        register(&node, &format!("large.{n}"), json!({ "type": "object", "description": filler })).await;
    }
    let mut seen = Vec::new();
    let mut next = Some("/v1/asyncapi.json".to_owned());
    while let Some(path) = next.take() {
        let reply = node.get(&path).await;
        assert!(reply.text().len() < 2_000_000, "{}", reply.text().len());
        assert_eq!(wrong(&official(), &reply.json()), Vec::<String>::new());
        let document = reply.json();
        seen.extend(document["channels"].as_object().unwrap().keys().filter(|key| *key != "append").cloned());
        next = reply.header("link").map(|link| link[1..link.find('>').unwrap()].to_owned());
    }
    assert_eq!(seen, (0..8).map(|n| format!("large.{n}")).collect::<Vec<_>>());
}
