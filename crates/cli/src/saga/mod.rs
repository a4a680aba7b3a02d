//! `quorate saga`: documents of sagas, read here without a node, and the sagas of a node.

mod node;

use clap::Subcommand;
use quorate_consistency::saga::declared::Document;
use quorate_runtime::Env;
use serde_json::{Value, json};

use crate::{client::Client, declarations, exit::Failure, output::Format};

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

async fn check(files: &[String], env: &Env, format: Format) -> Result<(), Failure> {
    let shown = |one: &Document| json!({ "saga": one.name().as_str(), "version": one.version(), "steps": one.steps() });
    declarations::check(files, env, "sagas", Document::read, shown, format).await
}

/// The document in a file.
pub(crate) async fn document(file: &str, env: &Env) -> Result<Document, Failure> {
    declarations::one(file, env, "saga", Document::read).await
}
