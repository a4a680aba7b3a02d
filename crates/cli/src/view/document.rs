//! Documents that declare views: sent, checked, shown.

use clap::Args;
use quorate_data::materialized_view::declared::{Document, Fault, Format};
use serde_json::Value;

use super::{route, show};
use crate::{
    client::{Call, Client, JSON, Problem},
    exit::{Exit, Failure},
    input,
    output::{self, Out},
};

/// The media types of TOML and YAML.
const TOML: &str = "application/toml";
const YAML: &str = "application/yaml";

/// A document that declares a view.
#[derive(Args, Debug)]
pub(crate) struct Sent {
    /// The document, `*.toml`, `*.yaml` or `*.json`; `-` is TOML on standard input
    #[arg(value_name = "FILE|-")]
    file: String,
    /// Only say what is wrong with it; nothing is declared
    #[arg(long)]
    check: bool,
}

impl Sent {
    /// Sends it.
    pub(super) async fn run(self, client: &Client, format: output::Format) -> Result<(), Failure> {
        let name = if self.file == "-" { "standard input" } else { &self.file };
        let bytes = input::read(&self.file, client.env()).await?;
        let text = String::from_utf8(bytes)
            .map_err(|wrong| Failure::new(Exit::BadInput, format!("{name} is not UTF-8: {wrong}")))?;
        let written = written(&self.file)?;
        let document = Document::read(&text, written).map_err(|faults| {
            let lines: Vec<String> = faults.list.iter().map(|fault| line(name, fault)).collect();
            Failure::new(Exit::BadInput, lines.join("\n"))
        })?;
        let media = match written {
            Format::Json => JSON,
            Format::Toml => TOML,
            Format::Yaml => YAML,
        };
        let action = if self.check { "check" } else { "document" };
        let call = Call::post(route(document.view().as_str(), Some(action)), media, text);
        let call = if self.check { call } else { call.put() };
        let sent = client.answer(&call).await.map_err(|failure| with_file(name, failure))?;
        if self.check { show::checked(&sent, format) } else { show::declared(&sent, format) }
    }
}

fn written(file: &str) -> Result<Format, Failure> {
    if file == "-" {
        return Ok(Format::Toml);
    }
    let what = || Failure::new(Exit::Usage, format!("{file}: a document is *.toml, *.yaml or *.json"));
    Format::of_file(file).ok_or_else(what)
}

/// What is wrong, as compilers say it.
fn line(file: &str, fault: &Fault) -> String {
    let Fault { line, column, field, what } = fault;
    if field.is_empty() {
        format!("{file}:{line}:{column}: {what}")
    } else {
        format!("{file}:{line}:{column}: `{field}`: {what}")
    }
}

/// The faults that the node found, with the file they are in.
fn with_file(file: &str, failure: Failure) -> Failure {
    let Failure::Problem(problem) = &failure else { return failure };
    let lines = faults(file, problem);
    if lines.is_empty() { failure } else { Failure::new(Exit::BadInput, lines.join("\n")) }
}

fn faults(file: &str, problem: &Problem) -> Vec<String> {
    let number = |fault: &Value, member: &str| fault[member].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(1);
    let text = |fault: &Value, member: &str| fault[member].as_str().unwrap_or_default().to_owned();
    let one = |fault: &Value| {
        let (place, field, what) = (number(fault, "line"), text(fault, "field"), text(fault, "message"));
        line(file, &Fault { line: place, column: number(fault, "column"), field, what })
    };
    let list = problem.members.get("faults").and_then(Value::as_array);
    list.map(|list| list.iter().map(one).collect()).unwrap_or_default()
}

/// Prints a document as it was declared.
pub(super) async fn print(client: &Client, name: &str, version: Option<u32>) -> Result<(), Failure> {
    let target = route(name, Some("document")).with_some("version", version);
    let reply = client.call(&Call::get(target)).await?;
    let mut out = Out::new();
    out.write(&reply.body)?;
    out.flush()
}
