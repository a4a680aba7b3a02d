//! Policies that are in force in a node: declared, shown, deleted.

use quorate_foundations::document::{Fault, Format as Form};
use quorate_resilience::policy::Document;
use serde_json::{Value, json};

use crate::{
    client::{Call, Client, JSON, Problem, Target},
    declarations,
    exit::{Exit, Failure},
    output::{Column, Format, Out, cell, print},
    pages::{HowMany, list},
};

/// The media types of TOML and YAML.
const TOML: &str = "application/toml";
const YAML: &str = "application/yaml";

fn route(name: &str, action: Option<&str>) -> Target {
    match action {
        None => Target::path(&["v1", "policies", name]),
        Some(action) => Target::path(&["v1", "policies", name, action]),
    }
}

/// Declares the policy in `file`, or only says what is wrong with it.
pub(super) async fn declare(client: &Client, file: &str, check: bool, format: Format) -> Result<(), Failure> {
    let (text, form) = declarations::read(file, client.env()).await?;
    let documents = Document::read_all(&text, form).map_err(|faults| {
        let line = |fault: &Fault| format!("{file}:{}:{}: `{}`: {}", fault.line, fault.column, fault.field, fault.what);
        let lines: Vec<String> = faults.list.iter().map(line).collect();
        Failure::new(Exit::BadInput, lines.join("\n"))
    })?;
    let [document] = documents.as_slice() else {
        let what = format!("{file} holds {} policies, and one is declared at a time", documents.len());
        return Err(Failure::new(Exit::BadInput, what).advise("a folder of them is the setting `policies.folder`"));
    };
    let name = document.policy().name.as_str();
    let media = match form {
        Form::Json => JSON,
        Form::Toml => TOML,
        Form::Yaml => YAML,
    };
    let call = Call::post(route(name, Some(if check { "check" } else { "document" })), media, text.clone());
    let call = if check { call } else { call.put() };
    let told = client.call(&call).await.map_err(|failure| with_file(file, failure))?.json(client.server())?;
    if check {
        let columns = [Column::Left("POLICY"), Column::Left("VALID")];
        return print(
            std::slice::from_ref(&told),
            &told,
            (columns, |one: &Value| ["policy", "valid"].map(|member| cell(&one[member]))),
            format,
        );
    }
    changed(&told, format)
}

/// The faults that the node found, with the file they are in.
fn with_file(file: &str, failure: Failure) -> Failure {
    let Failure::Problem(problem) = &failure else { return failure };
    let lines = lines(file, problem);
    if lines.is_empty() { failure } else { Failure::new(Exit::BadInput, lines.join("\n")) }
}

fn lines(file: &str, problem: &Problem) -> Vec<String> {
    let list = problem.members.get("faults").and_then(Value::as_array);
    let one = |fault: &Value| {
        let place = fault["file"].as_str().unwrap_or(file);
        let text = |member: &str| fault[member].as_str().unwrap_or_default();
        let (line, column) = (&fault["line"], &fault["column"]);
        format!("{place}:{line}:{column}: `{}`: {}", text("field"), text("message"))
    };
    list.map(|list| list.iter().map(one).collect()).unwrap_or_default()
}

/// Deletes a policy that was declared.
pub(super) async fn delete(client: &Client, name: &str, format: Format) -> Result<(), Failure> {
    let told = client.call(&Call::delete(route(name, None))).await?.json(client.server())?;
    changed(&told, format)
}

fn changed(told: &Value, format: Format) -> Result<(), Failure> {
    let columns = ["POLICY", "NEW", "ADDED", "CHANGED", "REMOVED"].map(Column::Left);
    let cells = |told: &Value| {
        let names = |member: &str| {
            let names = told["changes"][member].as_array().map(Vec::as_slice).unwrap_or_default();
            names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
        };
        [cell(&told["policy"]), cell(&told["new"]), names("added"), names("changed"), names("removed")]
    };
    print(std::slice::from_ref(told), told, (columns, cells), format)
}

/// Prints a document as it was declared.
pub(super) async fn document(client: &Client, name: &str) -> Result<(), Failure> {
    let reply = client.call(&Call::get(route(name, Some("document")))).await?;
    let mut out = Out::new();
    out.write(&reply.body)?;
    out.flush()
}

/// Lists policies, one line for each dependency.
pub(super) async fn all(client: &Client, how_many: HowMany, format: Format) -> Result<(), Failure> {
    let all = list(client, Target::path(&["v1", "policies"]), "policies", how_many).await?;
    show(&all, &json!({ "policies": all }), format)
}

/// How the calls stand that pass a policy.
pub(super) async fn one(client: &Client, name: &str, format: Format) -> Result<(), Failure> {
    let policy = client.call(&Call::get(route(name, None))).await?.json(client.server())?;
    show(std::slice::from_ref(&policy), &policy, format)
}

fn show(all: &[Value], whole: &Value, format: Format) -> Result<(), Failure> {
    let columns = [
        Column::Left("POLICY"),
        Column::Left("DEPENDENCY"),
        Column::Left("BREAKER"),
        Column::Right("IN FLIGHT"),
        Column::Right("WAITING"),
        Column::Right("RETRIES"),
        Column::Right("LIMIT LEFT"),
        Column::Right("SUCCESS"),
        Column::Right("FAILED"),
    ];
    let rows: Vec<Value> = all.iter().flat_map(rows).collect();
    let cells = |row: &Value| {
        ["policy", "name", "breaker", "in-flight", "waiting", "retries", "left", "success", "failed"]
            .map(|member| cell(&row[member]))
    };
    print(&rows, whole, (columns, cells), format)
}

/// How a dependency's circuit stands, or how many of those of its endpoints and operations let nothing through.
fn breaker(dependency: &Value) -> Value {
    let own = &dependency["breaker"]["state"];
    let Some(circuits) = dependency["circuits"].as_object() else { return own.clone() };
    let number = |member: &str| circuits.get(member).and_then(Value::as_u64).unwrap_or_default();
    // Its own is one of them: for what has none.
    let open = number("open") + number("half-open") + u64::from(own != "closed");
    format!("{open} of {} open", number("known") + 1).into()
}

/// A policy's dependencies, flat.
fn rows(policy: &Value) -> Vec<Value> {
    let dependencies = policy["dependencies"].as_array().map(Vec::as_slice).unwrap_or_default();
    let one = |dependency: &Value| {
        let calls = dependency["calls"].as_object();
        let count = |value: &Value| value.as_str().and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        let failed = calls.into_iter().flatten().filter(|(word, _)| *word != "success" && *word != "cancelled");
        let failed: u64 = failed.map(|(_, value)| count(value)).sum();
        json!({
            "policy": policy["name"],
            "name": dependency["name"],
            "breaker": breaker(dependency),
            "in-flight": dependency["concurrency"]["in-flight"],
            "waiting": dependency["concurrency"]["waiting"],
            "retries": dependency["retries"]["retries"],
            "left": dependency["limit"]["remaining"],
            "success": dependency["calls"]["success"],
            "failed": failed,
        })
    };
    dependencies.iter().map(one).collect()
}
