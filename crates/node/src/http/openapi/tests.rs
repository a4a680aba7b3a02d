use std::collections::BTreeSet;

use serde_json::Value;

use super::build;
use crate::http::routes;

const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

fn operations(document: &Value) -> Vec<(String, String, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    let of_path = |(path, item): (&String, &'_ Value)| -> Vec<(String, String)> {
        let methods = item.as_object().unwrap().keys().filter(|key| METHODS.contains(&key.as_str()));
        methods.map(|method| (path.clone(), method.clone())).collect()
    };
    let pairs: Vec<(String, String)> = paths.iter().flat_map(of_path).collect();
    pairs
        .into_iter()
        .map(|(path, method)| {
            let operation = &document["paths"][&path][&method];
            (path, method, operation)
        })
        .collect()
}

fn references<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|member| references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn the_document_describes_the_routes_and_nothing_else() {
    let document = build();
    let described: BTreeSet<(String, String)> =
        operations(&document).into_iter().map(|(path, method, _)| (path, method.to_uppercase())).collect();
    let routed = routes::table()
        .into_iter()
        .flat_map(|route| route.methods.iter().map(move |method| (route.path.to_owned(), (*method).to_owned())));
    assert_eq!(described, routed.collect());
}

#[test]
fn every_reference_leads_somewhere_and_everything_named_is_used() {
    let document = build();
    let mut found = Vec::new();
    references(&document, &mut found);
    for reference in &found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    for (kind, named) in document["components"].as_object().unwrap() {
        for name in named.as_object().unwrap().keys() {
            let reference = format!("#/components/{kind}/{name}");
            assert!(found.contains(&reference.as_str()), "{reference} is never used");
        }
    }
}

#[test]
fn every_operation_is_complete() {
    let document = build();
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        let place = format!("{method} {path}");
        assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{place} repeats an operationId");
        assert!(operation["summary"].as_str().is_some_and(|summary| summary.len() > 5), "{place}");
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.len() >= 2 && responses.contains_key("default"), "{place}");
        for (status, response) in responses {
            let described = response.get("$ref").is_some() || response["description"].is_string();
            assert!(described && (status == "default" || status.parse::<u16>().is_ok()), "{place} {status}");
        }
    }
}

#[test]
fn every_name_in_a_path_is_a_parameter() {
    let document = build();
    for (path, item) in document["paths"].as_object().unwrap() {
        let in_path: BTreeSet<&str> =
            path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        let no_parameters = Vec::new();
        let given = item["parameters"].as_array().unwrap_or(&no_parameters).iter();
        let declared: BTreeSet<&str> = given
            .map(|parameter| document.pointer(&parameter["$ref"].as_str().unwrap()[1..]).unwrap())
            .filter(|parameter| parameter["in"] == "path" && parameter["required"] == true)
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        assert_eq!(in_path, declared, "{path}");
    }
}

#[test]
fn an_operation_names_the_headers_that_its_route_heeds() {
    let document = build();
    for route in routes::table() {
        for method in route.methods.iter().filter(|method| **method != "GET") {
            let operation = &document["paths"][route.path][method.to_lowercase()];
            let names = |name: &str| {
                let reference = format!("#/components/parameters/{name}");
                operation["parameters"].as_array().unwrap().iter().any(|one| one["$ref"] == reference)
            };
            assert_eq!(names("ifMatch"), route.heeds.preconditions.is_ok(), "{method} {}", route.path);
            // A key says nothing where nothing changes.
            let keeps =
                route.heeds.keys.is_ok() && !["check", "query", "verify"].iter().any(|verb| route.path.ends_with(verb));
            assert_eq!(names("idempotencyKey"), keeps, "{method} {}", route.path);
        }
    }
}
