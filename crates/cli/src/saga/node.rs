//! Sagas in a node: declared, started, looked at, told, decided about.

use clap::{Args, ValueEnum};
use quorate_foundations::document::Format as Form;
use serde_json::{Value, json};

use crate::{
    client::{Call, Client, JSON, Target},
    exit::Failure,
    output::{Column, Format, Out, cell, print},
    pages::{HowMany, list},
};

/// The media types of TOML and YAML.
const TOML: &str = "application/toml";
const YAML: &str = "application/yaml";

/// A saga to start.
#[derive(Args, Debug)]
pub(crate) struct Start {
    /// The saga's name
    name: String,
    /// Its id, unique among the sagas of the name; the same again is the same saga
    id: String,
    /// What it is started with
    #[arg(long, value_name = "JSON", default_value = "null", value_parser = super::value)]
    input: Value,
    /// What people look for it by; without it, as the document says
    #[arg(long)]
    key: Option<String>,
}

/// Which sagas to list.
#[derive(Args, Debug)]
pub(crate) struct Which {
    /// Only those of this name
    name: Option<String>,
    /// Only those with this business key
    #[arg(long)]
    key: Option<String>,
    /// Only those that stand so
    #[arg(long)]
    status: Option<Status>,
    /// Only those that steps of this saga started
    #[arg(long, value_name = "NAME/ID")]
    parent: Option<String>,
    #[command(flatten)]
    how_many: HowMany,
}

/// How a saga stands.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub(crate) enum Status {
    /// It goes ahead, or waits for something
    Running,
    /// It turned back
    Compensating,
    /// It waits for an operator
    Stuck,
    /// Everything was done
    Completed,
    /// What was done was made up for
    Compensated,
    /// An operator ended it as it was
    Forced,
}

/// A saga, and what to tell it.
#[derive(Args, Debug)]
pub(crate) struct Signal {
    /// The saga's name
    name: String,
    /// Its id
    id: String,
    /// What it is told
    signal: String,
    /// The signal's own id: told again under it, nothing happens
    #[arg(long, value_name = "ID")]
    signal_id: String,
    /// What the signal says
    #[arg(long, value_name = "JSON", default_value = "null", value_parser = super::value)]
    data: Value,
}

/// What is decided about a saga, and by whom.
#[derive(Args, Debug)]
pub(crate) struct Decision {
    /// The saga's name
    name: String,
    /// Its id
    id: String,
    /// Who decides
    #[arg(long)]
    by: String,
    /// Why, for whoever looks at it later
    #[arg(long, default_value = "")]
    note: String,
    /// Which step, where several are stuck
    #[arg(long)]
    step: Option<String>,
    /// What a skipped step is to have answered
    #[arg(long, value_name = "JSON", default_value = "null", value_parser = super::value)]
    answer: Value,
}

fn saga(name: &str, id: &str) -> Target {
    Target::path(&["v1", "sagas", name, id])
}

fn post(target: Target, body: &Value) -> Call {
    Call::post(target, JSON, body.to_string())
}

/// Declares the saga in `file`.
pub(super) async fn declare(client: &Client, file: &str, format: Format) -> Result<(), Failure> {
    let document = super::document(file, client.env()).await?;
    let media = match document.format() {
        Form::Json => JSON,
        Form::Toml => TOML,
        Form::Yaml => YAML,
    };
    let target = Target::path(&["v1", "saga-definitions", document.name().as_str()]);
    let call = Call::post(target, media, document.text().to_string()).put();
    let told = client.call(&call).await?.json(client.server())?;
    show(&told, ["saga", "version", "new"], format)
}

/// Prints a document as it was declared.
pub(super) async fn document(client: &Client, name: &str, version: Option<u32>) -> Result<(), Failure> {
    let target = Target::path(&["v1", "saga-definitions", name]).with_some("version", version);
    let reply = client.call(&Call::get(target)).await?;
    let mut out = Out::new();
    out.write(&reply.body)?;
    out.flush()
}

/// Lists what can be started.
pub(super) async fn definitions(client: &Client, format: Format) -> Result<(), Failure> {
    let told = client.call(&Call::get(Target::path(&["v1", "saga-definitions"]))).await?.json(client.server())?;
    let all = told["definitions"].as_array().cloned().unwrap_or_default();
    let columns = [Column::Left("SAGA"), Column::Left("VERSIONS")];
    let cells = |one: &Value| {
        let versions = one["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
        [cell(&one["saga"]), versions.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")]
    };
    print(&all, &told, (columns, cells), format)
}

/// Starts a saga.
pub(super) async fn start(client: &Client, start: Start, format: Format) -> Result<(), Failure> {
    let Start { name, id, input, key } = start;
    let body = json!({ "id": id, "input": input, "key": key });
    let call = post(Target::path(&["v1", "sagas", &name]), &body);
    let told = client.call(&call).await?.json(client.server())?;
    show(&told, ["saga", "id", "version", "status", "repeated"], format)
}

/// Lists sagas.
pub(super) async fn all(client: &Client, which: Which, format: Format) -> Result<(), Failure> {
    let Which { name, key, status, parent, how_many } = which;
    let target = match &name {
        Some(name) => Target::path(&["v1", "sagas", name]),
        None => Target::path(&["v1", "sagas"]),
    };
    let status = status.and_then(|status| status.to_possible_value().map(|value| value.get_name().to_owned()));
    let target = target.with_some("key", key).with_some("status", status).with_some("parent", parent);
    let all = list(client, target, "sagas", how_many).await?;
    let columns = ["SAGA", "ID", "VERSION", "STATUS", "STALLED", "KEY", "PARENT", "STARTED", "UPDATED", "TROUBLE"];
    let columns = columns.map(Column::Left);
    let members = ["saga", "id", "version", "status", "stalled", "key", "parent", "started", "updated", "trouble"];
    let cells = |one: &Value| {
        members.map(|member| match member {
            "parent" => parent_of(&one["parent"]),
            member => cell(&one[member]),
        })
    };
    print(&all, &json!({ "sagas": all }), (columns, cells), format)
}

/// How a saga stands: a line for each way of a step.
pub(super) async fn one(
    client: &Client,
    name: &str,
    id: &str,
    wait: Option<u64>,
    format: Format,
) -> Result<(), Failure> {
    let mut call = Call::get(saga(name, id));
    let mut client = client.clone();
    if let Some(seconds) = wait {
        call = call.header(http::HeaderName::from_static("prefer"), &format!("wait={seconds}"))?;
        client = client.waiting(std::time::Duration::from_secs(seconds));
    }
    let told = client.call(&call).await?.json(client.server())?;
    if format == Format::Table {
        let mut out = Out::new();
        let why = [&told["stuck"], &told["abort"]].into_iter().find_map(Value::as_str).unwrap_or_default();
        let stalled = if told["stalled"] == true { ", stalled" } else { "" };
        let colon = if why.is_empty() { "" } else { ": " };
        out.line(&format!("{name} {id}, version {}: {}{stalled}{colon}{why}", told["version"], cell(&told["status"])))?;
        if told["parent"].is_object() {
            out.line(&format!(
                "started by step `{}` of {}",
                cell(&told["parent"]["step"]),
                parent_of(&told["parent"])
            ))?;
        }
        if let Some(trouble) = told["trouble"].as_str() {
            out.line(&format!("it cannot go on until somebody helps: {trouble}"))?;
        }
        for one in told["waiting"].as_array().map(Vec::as_slice).unwrap_or_default() {
            out.line(&format!("waits for {}", awaited(one)))?;
        }
        for child in told["children"].as_array().map(Vec::as_slice).unwrap_or_default() {
            let [saga, id, status, step] =
                [&child["saga"], &child["id"], &child["status"], &child["parent"]["step"]].map(cell);
            out.line(&format!("`{step}` is {saga} {id}: {status}"))?;
        }
        out.flush()?;
    }
    let steps = told["steps"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rows: Vec<Value> = steps.iter().flat_map(ways).collect();
    let columns = ["STEP", "WAY", "STATE", "ATTEMPTS", "LAST FAILURE"].map(Column::Left);
    let cells = |row: &Value| ["step", "way", "state", "attempts", "failure"].map(|member| cell(&row[member]));
    print(&rows, &told, (columns, cells), format)
}

/// Whose step started a saga, as it is looked for.
fn parent_of(parent: &Value) -> String {
    if parent.is_object() { format!("{}/{}", cell(&parent["saga"]), cell(&parent["id"])) } else { String::new() }
}

/// What a saga waits for, in words.
fn awaited(one: &Value) -> String {
    let (name, step, way) = (cell(&one["name"]), cell(&one["step"]), cell(&one["way"]));
    let what = match one["for"].as_str().unwrap_or_default() {
        "decision" if one["step"].is_null() => "somebody's decision about its plan".to_owned(),
        "decision" => format!("somebody's decision about `{step}`, {way}"),
        "answer" => format!("the answer of `{step}`, {way}"),
        "child" => {
            let (saga, id) = (cell(&one["child"]["saga"]), cell(&one["child"]["id"]));
            format!("the end of saga {saga} {id}, which `{step}` is, {way}")
        }
        "rest" => format!("the next attempt of `{step}`, {way}"),
        "quiet" => format!("the end of what `{step}` may still do"),
        "signal" => format!("signal `{name}`"),
        "timer" => format!("timer `{name}`"),
        "deadline" => "its deadline, at which it is given up".to_owned(),
        other => other.to_owned(),
    };
    match one["until"].as_str() {
        Some(until) => format!("{what}, until {until}"),
        None => what,
    }
}

fn ways(step: &Value) -> Vec<Value> {
    let way = |word: &str| {
        let way = &step[word];
        let failure =
            way["failure"]["reason"].as_str().map(|reason| format!("{}: {reason}", cell(&way["failure"]["kind"])));
        let state = if way["unkept"] == true { json!("done, answer not kept") } else { way["state"].clone() };
        json!({ "step": step["step"], "way": word, "state": state, "attempts": way["attempts"], "failure": failure })
    };
    let all = ["forward", "compensation"].map(way);
    all.into_iter().filter(|way| way["state"] != "idle").collect()
}

/// Tells a saga something.
pub(super) async fn signal(client: &Client, signal: Signal, format: Format) -> Result<(), Failure> {
    let Signal { name, id, signal, signal_id, data } = signal;
    let target = Target::path(&["v1", "sagas", &name, &id, "signal"]);
    let call = post(target, &json!({ "id": signal_id, "signal": signal, "data": data }));
    let told = client.call(&call).await?.json(client.server())?;
    show(&told, ["saga", "id", "signal"], format)
}

/// Decides about a saga.
pub(super) async fn decide(client: &Client, verb: &str, decision: Decision, format: Format) -> Result<(), Failure> {
    let Decision { name, id, by, note, step, answer } = decision;
    let target = Target::path(&["v1", "sagas", &name, &id, verb]);
    let call = post(target, &json!({ "by": by, "note": note, "step": step, "output": answer }));
    let told = client.call(&call).await?.json(client.server())?;
    show(&told, ["saga", "id", "verb"], format)
}

fn show<const N: usize>(told: &Value, members: [&'static str; N], format: Format) -> Result<(), Failure> {
    let columns = members.map(|member| Column::Left(heading(member)));
    let cells = |one: &Value| members.map(|member| cell(&one[member]));
    print(std::slice::from_ref(told), told, (columns, cells), format)
}

fn heading(member: &'static str) -> &'static str {
    match member {
        "saga" => "SAGA",
        "id" => "ID",
        "version" => "VERSION",
        "status" => "STATUS",
        "repeated" => "REPEATED",
        "new" => "NEW",
        "signal" => "SIGNAL",
        "verb" => "VERB",
        other => other,
    }
}
