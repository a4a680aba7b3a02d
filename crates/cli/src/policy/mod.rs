//! `quorate policy`: documents of resilience policies, read here without a node or brought into force in one.

mod node;

use clap::Subcommand;
use quorate_resilience::policy::{Document, SCHEMA, prove};
use quorate_runtime::Env;

use crate::{
    client::Client,
    declarations::{self, Found},
    exit::{Exit, Failure},
    output::{Format, Out},
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

async fn check(files: &[String], env: &Env, format: Format) -> Result<(), Failure> {
    let (mut documents, mut homes, mut found) = (Vec::new(), Vec::new(), Vec::new());
    for file in files {
        let (text, form) = declarations::read(file, env).await?;
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
    let fine = format!("{} policies, and nothing in them is impossible", documents.len());
    let names = documents.iter().map(|document| document.policy().name.as_str().into()).collect();
    declarations::show("policies", names, &found, &fine, format)?;
    match found.len() {
        0 => Ok(()),
        n if unreadable => Err(Failure::new(Exit::BadInput, format!("what is wrong with these policies: {n}"))),
        n => Err(Failure::new(Exit::Refused, format!("what cannot work in these policies: {n}"))),
    }
}
