//! Processes in a node: declared, listed, looked at, drawn, and had go on.

use clap::{Args, ValueEnum};
use quorate_foundations::document::Format as Written;
use serde_json::{Value, json};

use crate::{
    client::{Call, Client, JSON, Target},
    exit::Failure,
    output::{Column, Format, Out, cell, plain, print},
    pages::{HowMany, list},
};

/// The media types of TOML and YAML.
const TOML: &str = "application/toml";
const YAML: &str = "application/yaml";

/// How many processes to list.
#[derive(Args, Debug)]
pub(crate) struct All {
    #[command(flatten)]
    how_many: HowMany,
}

/// Which courses to list.
#[derive(Args, Debug)]
pub(crate) struct Which {
    /// The process's name
    name: String,
    /// Only those that stand so
    #[arg(long)]
    state: Option<State>,
    #[command(flatten)]
    how_many: HowMany,
}

/// How a course stands.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub(crate) enum State {
    /// Events came, and not yet the one that begins it
    Unbegun,
    /// Nothing is overdue
    OnTime,
    /// Something expected did not come in time, and has not come since
    Overdue,
    /// It has come to its end
    Ended,
    /// It was undone
    Undone,
    /// It was stopped, and waits for somebody
    Stopped,
}

/// As what a graph is drawn.
#[derive(ValueEnum, Clone, Copy, Debug, Default)]
pub(crate) enum Form {
    /// An event under the one that caused it
    #[default]
    Tree,
    /// For Mermaid
    Mermaid,
    /// For Graphviz
    Dot,
}

fn word(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// Declares the process in `file`.
pub(super) async fn declare(client: &Client, file: &str, format: Format) -> Result<(), Failure> {
    let document = super::document(file, client.env()).await?;
    let media = match document.format() {
        Written::Json => JSON,
        Written::Toml => TOML,
        Written::Yaml => YAML,
    };
    let target = Target::path(&["v1", "processes", document.process().name().as_str()]);
    let told = client.answer(&Call::post(target, media, document.text().to_string()).put()).await?;
    one(&told, [("process", "PROCESS"), ("new", "NEW"), ("changed", "CHANGED")], format)
}

/// Lists processes.
pub(super) async fn list_all(client: &Client, All { how_many }: All, format: Format) -> Result<(), Failure> {
    let all = list(client, Target::path(&["v1", "processes"]), "processes", how_many).await?;
    let columns = [
        Column::Left("PROCESS"),
        Column::Right("ON-TIME"),
        Column::Right("OVERDUE"),
        Column::Right("STOPPED"),
        Column::Right("LAG"),
        Column::Left("TROUBLE"),
    ];
    let cells = |one: &Value| {
        // What cannot be counted right now is not none.
        let count = |state: &str| match one["courses"].is_null() {
            true => "?".to_owned(),
            false => counted(one, state),
        };
        let (name, lag, trouble) = (cell(&one["process"]), cell(&one["lag-events"]), cell(&one["trouble"]));
        [name, count("on-time"), count("overdue"), count("stopped"), lag, trouble]
    };
    print(&all, &json!({ "processes": all }), (columns, cells), format)
}

/// How many courses of a process are in a state; `+`: there are more.
fn counted(process: &Value, state: &str) -> String {
    let has_more = process["more"].as_array().into_iter().flatten().any(|more| more == state);
    format!("{}{}", process["courses"][state].as_u64().unwrap_or_default(), if has_more { "+" } else { "" })
}

/// How a process stands: a line for each thing that is expected.
pub(super) async fn show(client: &Client, name: &str, format: Format) -> Result<(), Failure> {
    let told = client.answer(&Call::get(Target::path(&["v1", "processes", name]))).await?;
    if format == Format::Table {
        let mut out = Out::new();
        let counts = told["courses"].as_object().into_iter().flatten();
        let counts: Vec<String> = counts.map(|(state, _)| format!("{} {state}", counted(&told, state))).collect();
        let counts = if counts.is_empty() { "no courses".to_owned() } else { counts.join(", ") };
        let (by, lag) = (cell(&told["declared-by"]), cell(&told["lag-events"]));
        out.line(&plain(&format!("{name}, declared by a {by}: {counts}; {lag} events of the log to look at")))?;
        if let Some(trouble) = told["trouble"].as_str() {
            out.line(&plain(&format!("it does not go on right now: {trouble}")))?;
        }
        out.flush()?;
    }
    let expected = told["rules"]["expect"].as_array().cloned().unwrap_or_default();
    let columns = ["BEHIND", "EXPECTED", "WITHIN"].map(Column::Left);
    let cells = |one: &Value| [cell(&one["after"]), either(&one["events"]), cell(&one["within"])];
    print(&expected, &told, (columns, cells), format)
}

/// How a course stands: a line for each of its events, and what is expected.
pub(super) async fn course(client: &Client, name: &str, key: &str, format: Format) -> Result<(), Failure> {
    let told = client.answer(&Call::get(target(name, key, &[]))).await?;
    if format == Format::Table {
        let mut out = Out::new();
        let reason = told["reason"].as_str().map(|why| format!(": {why}")).unwrap_or_default();
        out.line(&plain(&format!("{name} {key}: {}{reason}", cell(&told["state"]))))?;
        for one in told["expected"].as_array().into_iter().flatten() {
            let (events, after) = (either(&one["events"]), cell(&one["after"]["type"]));
            let line = match (one["overdue"].as_bool(), one["until"].as_str()) {
                (Some(true), until) => {
                    format!("{events} is overdue since {}, behind {after}", until.unwrap_or_default())
                }
                (_, Some(until)) => format!("{events} is expected until {until}, behind {after}"),
                (_, None) => format!("{events} is expected behind {after}, once it has begun"),
            };
            out.line(&plain(&line))?;
        }
        out.flush()?;
    }
    let events = told["events"].as_array().cloned().unwrap_or_default();
    let columns = ["POSITION", "TYPE", "STREAM", "ID", "CAUSE", "RECORDED"].map(Column::Left);
    let members = ["logposition", "type", "stream", "id", "causationid", "recordedtime"];
    let cells = |one: &Value| members.map(|member| cell(&one[member]));
    print(&events, &told, (columns, cells), format)
}

fn either(events: &Value) -> String {
    let types = events.as_array().map(Vec::as_slice).unwrap_or_default();
    types.iter().map(cell).collect::<Vec<_>>().join(" or ")
}

/// Prints a document as it was declared.
pub(super) async fn document(client: &Client, name: &str) -> Result<(), Failure> {
    write(client, &Call::get(Target::path(&["v1", "processes", name, "document"]))).await
}

/// Lists courses.
pub(super) async fn courses(client: &Client, which: Which, format: Format) -> Result<(), Failure> {
    let Which { name, state, how_many } = which;
    let target = Target::path(&["v1", "processes", &name, "courses"]);
    let target = target.with_some("state", state.as_ref().map(word));
    let all = list(client, target, "courses", how_many).await?;
    let columns = ["COURSE", "STATE", "DUE", "STARTED", "UPDATED"].map(Column::Left);
    let cells = |one: &Value| ["course", "state", "due", "started", "updated"].map(|member| cell(&one[member]));
    print(&all, &json!({ "courses": all }), (columns, cells), format)
}

/// Draws a course.
pub(super) async fn graph(client: &Client, name: &str, key: &str, form: Form, format: Format) -> Result<(), Failure> {
    if format == Format::Json {
        let told = client.answer(&Call::get(target(name, key, &["graph"]).with("format", "json"))).await?;
        let mut out = Out::new();
        out.json(&told)?;
        return out.flush();
    }
    write(client, &Call::get(target(name, key, &["graph"]).with("format", word(&form)))).await
}

/// Has a stopped course go on.
pub(super) async fn resume(
    client: &Client,
    (name, key): (&str, &str),
    by: &str,
    note: &str,
    format: Format,
) -> Result<(), Failure> {
    let body = json!({ "by": by, "note": note }).to_string();
    let told = client.answer(&Call::post(target(name, key, &["resume"]), JSON, body)).await?;
    one(&told, [("process", "PROCESS"), ("course", "COURSE"), ("state", "STATE")], format)
}

/// Takes a process back.
pub(super) async fn remove(client: &Client, name: &str, format: Format) -> Result<(), Failure> {
    let told = client.answer(&Call::delete(Target::path(&["v1", "processes", name]))).await?;
    one(&told, [("process", "PROCESS"), ("deleted", "DELETED")], format)
}

fn target(name: &str, key: &str, behind: &[&str]) -> Target {
    Target::path(&[&["v1", "processes", name, "courses", key], behind].concat())
}

/// Prints an answer as it came.
async fn write(client: &Client, call: &Call) -> Result<(), Failure> {
    let reply = client.call(call).await?;
    let mut out = Out::new();
    out.write(&reply.body)?;
    out.flush()
}

fn one<const N: usize>(told: &Value, members: [(&str, &'static str); N], format: Format) -> Result<(), Failure> {
    let columns = members.map(|(_, heading)| Column::Left(heading));
    let cells = |one: &Value| members.map(|(member, _)| cell(&one[member]));
    print(std::slice::from_ref(told), told, (columns, cells), format)
}
