//! `quorate saga`: documents of sagas, read here without a node, and the sagas of a node.

mod node;

use clap::Subcommand;
use quorate_consistency::saga::declared::Document;
use quorate_foundations::document::{Fault, Format as Form};
use quorate_runtime::Env;
use serde_json::{Value, json};

use crate::{
    client::Client,
    exit::{Exit, Failure},
    input,
    output::{Column, Format, Out, Table},
};

/// Verbs on sagas.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Read documents of sagas strictly
    ///
    /// Says with file, line and field what cannot be read and what cannot be run. `quorate sim saga` tries what they do.
    Check {
        /// The files, in YAML, TOML or JSON by their names; `-` is YAML on standard input
        #[arg(required = true)]
        files: Vec<String>,
    },
    /// Declare a version of a saga in a node: it can be started, now and after every restart
    Declare {
        /// The document, `*.yaml`, `*.toml` or `*.json`; `-` is YAML on standard input
        #[arg(value_name = "FILE|-")]
        file: String,
    },
    /// List the sagas that can be started, with their versions
    Definitions,
    /// Print a saga's document as it was declared
    Document {
        /// The saga's name
        name: String,
        /// Which version; without it the newest one
        #[arg(long, value_name = "N")]
        document_version: Option<u32>,
    },
    /// Start a saga
    Start(node::Start),
    /// List sagas, of one name or all, by key and by how they stand
    List(node::Which),
    /// How a saga stands, step by step
    Show {
        /// The saga's name
        name: String,
        /// Its id
        id: String,
        /// Wait so many seconds until it has ended or is stuck
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3_600))]
        wait: Option<u64>,
    },
    /// Tell a saga something
    Signal(node::Signal),
    /// Try a stuck step again, with as many attempts as it had
    Retry(node::Decision),
    /// Go on as if a stuck step were done; it is not compensated later
    Skip(node::Decision),
    /// Say that a stuck compensation was done by other means
    MarkCompensated(node::Decision),
    /// Say that a stuck step was certainly not done: a saga whose pivot it is turns back
    MarkRefused(node::Decision),
    /// Turn a saga back, unless its pivot is done or may be
    Abort(node::Decision),
    /// End a stuck saga as it is
    Force(node::Decision),
}

/// JSON on the command line.
pub(crate) fn value(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|cause| format!("this is no JSON: {cause}"))
}

impl Command {
    /// Does what was asked.
    pub(crate) async fn run(self, client: &Client, format: Format) -> Result<(), Failure> {
        match self {
            Self::Check { files } => check(&files, client.env(), format).await,
            Self::Declare { file } => node::declare(client, &file, format).await,
            Self::Definitions => node::definitions(client, format).await,
            Self::Document { name, document_version } => node::document(client, &name, document_version).await,
            Self::Start(start) => node::start(client, start, format).await,
            Self::List(which) => node::all(client, which, format).await,
            Self::Show { name, id, wait } => node::one(client, &name, &id, wait, format).await,
            Self::Signal(signal) => node::signal(client, signal, format).await,
            Self::Retry(decision) => node::decide(client, "retry", decision, format).await,
            Self::Skip(decision) => node::decide(client, "skip", decision, format).await,
            Self::MarkCompensated(decision) => node::decide(client, "mark-compensated", decision, format).await,
            Self::MarkRefused(decision) => node::decide(client, "mark-refused", decision, format).await,
            Self::Abort(decision) => node::decide(client, "abort", decision, format).await,
            Self::Force(decision) => node::decide(client, "force", decision, format).await,
        }
    }
}

/// Something that is wrong, and the file that it stands in.
struct Found {
    file: String,
    fault: Fault,
}

async fn check(files: &[String], env: &Env, format: Format) -> Result<(), Failure> {
    let (mut documents, mut found) = (Vec::new(), Vec::new());
    for file in files {
        let (text, form) = read(file, env).await?;
        match Document::read(&text, form) {
            Ok(document) => documents.push(document),
            Err(faults) => {
                found.extend(faults.list.into_iter().map(|fault| Found { file: file.clone(), fault }));
            }
        }
    }
    let mut out = Out::new();
    if format == Format::Json {
        let sagas: Vec<Value> = documents
            .iter()
            .map(|one| json!({ "saga": one.name().as_str(), "version": one.version(), "steps": one.steps() }))
            .collect();
        let found: Vec<Value> = found.iter().map(Found::to_json).collect();
        out.json(&json!({ "sagas": sagas, "found": found }))?;
        out.flush()?;
    } else if found.is_empty() {
        out.line(&format!("{} sagas, and nothing is wrong with them", documents.len()))?;
        out.flush()?;
    } else {
        table(&found).print(&mut out)?;
    }
    match found.len() {
        0 => Ok(()),
        n => Err(Failure::new(Exit::BadInput, format!("what is wrong with these sagas: {n}"))),
    }
}

/// The document in a file.
pub(crate) async fn document(file: &str, env: &Env) -> Result<Document, Failure> {
    let (text, form) = read(file, env).await?;
    match Document::read(&text, form) {
        Ok(document) => Ok(document),
        Err(faults) => {
            let found: Vec<_> = faults.list.into_iter().map(|fault| Found { file: file.to_owned(), fault }).collect();
            let all: Vec<String> = found.iter().map(|one| format!("{}:{}", one.file, one.fault)).collect();
            Err(Failure::new(Exit::BadInput, format!("the saga cannot be read:\n{}", all.join("\n"))))
        }
    }
}

async fn read(file: &str, env: &Env) -> Result<(String, Form), Failure> {
    let form = if file == "-" { Some(Form::Yaml) } else { Form::of_file(file) };
    let form = form.ok_or_else(|| {
        Failure::new(Exit::Usage, format!("{file}: what it is written in isn't told by its name"))
            .advise("call it .yaml, .yml, .toml or .json")
    })?;
    let text = String::from_utf8(input::read(file, env).await?)
        .map_err(|wrong| Failure::new(Exit::BadInput, format!("{file} is not UTF-8: {}", wrong.utf8_error())))?;
    Ok((text, form))
}

fn table(found: &[Found]) -> Table {
    let mut table = Table::new([Column::Left("PLACE"), Column::Left("FIELD"), Column::Left("WHAT")]);
    for Found { file, fault } in found {
        table.row([&format!("{file}:{}:{}", fault.line, fault.column), &fault.field, &fault.what]);
    }
    table
}

impl Found {
    fn to_json(&self) -> Value {
        let Self { file, fault: Fault { line, column, field, what } } = self;
        json!({ "file": file, "line": line, "column": column, "field": field, "what": what })
    }
}
