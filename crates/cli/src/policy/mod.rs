//! `quorate policy`: documents of resilience policies, read here without a node or brought into force in one.

mod node;

use clap::Subcommand;
use quorate_foundations::document::{Fault, Format as Form};
use quorate_resilience::policy::{Document, SCHEMA, prove};
use quorate_runtime::Env;
use serde_json::{Value, json};

use crate::{
    client::Client,
    exit::{Exit, Failure},
    input,
    output::{Column, Format, Out, Table},
    pages::HowMany,
};

/// Verbs on documents of policies.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Read policies strictly, and prove that nothing in them is impossible
    ///
    /// Says with file, line and field what can't be read and what can't work: attempts that don't fit into their call, rates
    /// that never say anything, retries that multiply over hops. All files together are one system: chains of calls are
    /// followed from file to file.
    Check {
        /// The files, in YAML, TOML or JSON by their names; `-` is standard input, in YAML or JSON
        #[arg(required = true)]
        files: Vec<String>,
    },
    /// Print the JSON Schema of a policy
    Schema,
    /// List the policies in force in a node, and how the calls stand that pass them
    List {
        #[command(flatten)]
        how_many: HowMany,
    },
    /// How the calls stand that pass a policy
    Show {
        /// The policy
        name: String,
    },
    /// Bring a policy into force in a node, now and after every restart
    Declare {
        /// The document, `*.yaml`, `*.toml` or `*.json`; `-` is YAML on standard input
        #[arg(value_name = "FILE|-")]
        file: String,
        /// Only say what is wrong with it beside the policies in force; nothing is declared
        #[arg(long)]
        check: bool,
    },
    /// Print a policy's document as it was declared
    Document {
        /// The policy
        name: String,
    },
    /// Take a policy out of force that was declared
    Delete {
        /// The policy
        name: String,
    },
}

impl Command {
    /// Does what was asked.
    pub(crate) async fn run(self, client: &Client, format: Format) -> Result<(), Failure> {
        match self {
            Self::Check { files } => check(&files, client.env(), format).await,
            Self::List { how_many } => node::all(client, how_many, format).await,
            Self::Show { name } => node::one(client, &name, format).await,
            Self::Declare { file, check } => node::declare(client, &file, check, format).await,
            Self::Document { name } => node::document(client, &name).await,
            Self::Delete { name } => node::delete(client, &name, format).await,
            Self::Schema => {
                let mut out = Out::new();
                out.write(SCHEMA.as_bytes())?;
                out.flush()
            }
        }
    }
}

/// Something that is wrong, and the file that it stands in.
struct Found<'a> {
    file: &'a str,
    fault: Fault,
}

async fn check(files: &[String], env: &Env, format: Format) -> Result<(), Failure> {
    let (mut documents, mut homes, mut found) = (Vec::new(), Vec::new(), Vec::new());
    for file in files {
        let text = input::read(file, env).await?;
        let text = String::from_utf8(text)
            .map_err(|wrong| Failure::new(Exit::BadInput, format!("{file} is not UTF-8: {}", wrong.utf8_error())))?;
        let form = form_of(file)?;
        match Document::read_all(&text, form) {
            Ok(read) => {
                homes.resize(homes.len() + read.len(), file.as_str());
                documents.extend(read);
            }
            Err(faults) => found.extend(faults.list.into_iter().map(|fault| Found { file, fault })),
        }
    }
    let unreadable = !found.is_empty();
    found.extend(prove(&documents).into_iter().map(|finding| Found { file: homes[finding.of], fault: finding.fault }));
    show(&documents, &found, format)?;
    match found.len() {
        0 => Ok(()),
        n if unreadable => Err(Failure::new(Exit::BadInput, format!("what is wrong with these policies: {n}"))),
        n => Err(Failure::new(Exit::Refused, format!("what cannot work in these policies: {n}"))),
    }
}

/// What a file is written in, by its name.
fn form_of(file: &str) -> Result<Form, Failure> {
    let form = if file == "-" { Some(Form::Yaml) } else { Form::of_file(file) };
    form.ok_or_else(|| {
        Failure::new(Exit::Usage, format!("{file}: what it is written in isn't told by its name"))
            .advise("call it .yaml, .yml, .toml or .json")
    })
}

fn show(documents: &[Document], found: &[Found<'_>], format: Format) -> Result<(), Failure> {
    let mut out = Out::new();
    if format == Format::Json {
        let found: Vec<Value> = found.iter().map(Found::to_json).collect();
        let names: Vec<&str> = documents.iter().map(|document| document.policy().name.as_str()).collect();
        out.json(&json!({ "policies": names, "found": found }))?;
        return out.flush();
    }
    if found.is_empty() {
        out.line(&format!("{} policies, and nothing in them is impossible", documents.len()))?;
        return out.flush();
    }
    let columns = [Column::Left("PLACE"), Column::Left("FIELD"), Column::Left("WHAT")];
    let mut table = Table::new(columns);
    for Found { file, fault } in found {
        table.row([&format!("{file}:{}:{}", fault.line, fault.column), &fault.field, &fault.what]);
    }
    table.print(&mut out)
}

impl Found<'_> {
    fn to_json(&self) -> Value {
        let Self { file, fault: Fault { line, column, field, what } } = self;
        json!({ "file": file, "line": line, "column": column, "field": field, "what": what })
    }
}
