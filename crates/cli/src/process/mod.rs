//! `quorate process`: documents of choreographed processes, read here without a node, and the processes of a node.

mod node;

use clap::Subcommand;
use quorate_consistency::saga::choreography::Document;
use quorate_runtime::Env;
use serde_json::json;

use crate::{client::Client, declarations, exit::Failure, output::Format};

/// Verbs on choreographed processes.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Read documents of processes strictly
    ///
    /// Says with file, line and field what cannot be read, and names reactions that lead back to themselves. Circles over several
    /// processes are found when they are declared.
    Check {
        /// The files, in YAML, TOML or JSON by their names; `-` is YAML on standard input
        #[arg(required = true)]
        files: Vec<String>,
    },
    /// Declare a process in a node: it is followed from now on, and after every restart
    ///
    /// One that was declared before goes on where it is. Its name stands in the document.
    Declare {
        /// The document, `*.yaml`, `*.toml` or `*.json`; `-` is YAML on standard input
        #[arg(value_name = "FILE|-")]
        file: String,
    },
    /// List processes: how far each has followed the log, and what is open, overdue or stopped in it
    List(node::All),
    /// How a process stands; with a course's key, what has happened in that course, and what is expected until when
    Show {
        /// The process's name
        name: String,
        /// The course's key
        key: Option<String>,
    },
    /// Print a process's document as it was declared
    Document {
        /// The process's name
        name: String,
    },
    /// List the courses of a process
    Courses(node::Which),
    /// Draw which event of a course led to which, and what is missing
    Graph {
        /// The process's name
        name: String,
        /// The course's key
        key: String,
        /// As what to draw it; `--output json` prints it as data
        #[arg(long = "as", value_enum, value_name = "FORM", default_value_t)]
        form: node::Form,
    },
    /// Have a stopped course go on: what stopped it, and what came since, is taken in now
    Resume {
        /// The process's name
        name: String,
        /// The course's key
        key: String,
        /// Who wants it
        #[arg(long)]
        by: String,
        /// Why, for whoever looks at it later
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Take a process back, with its courses; what it told stays in the log
    Remove {
        /// The process's name
        name: String,
    },
}

impl Command {
    /// Does what was asked.
    pub(crate) async fn run(self, client: &Client, format: Format) -> Result<(), Failure> {
        match self {
            Self::Check { files } => check(&files, client.env(), format).await,
            Self::Declare { file } => node::declare(client, &file, format).await,
            Self::List(all) => node::list_all(client, all, format).await,
            Self::Show { name, key: None } => node::show(client, &name, format).await,
            Self::Show { name, key: Some(key) } => node::course(client, &name, &key, format).await,
            Self::Document { name } => node::document(client, &name).await,
            Self::Courses(which) => node::courses(client, which, format).await,
            Self::Graph { name, key, form } => node::graph(client, &name, &key, form, format).await,
            Self::Resume { name, key, by, note } => node::resume(client, (&name, &key), &by, &note, format).await,
            Self::Remove { name } => node::remove(client, &name, format).await,
        }
    }
}

async fn check(files: &[String], env: &Env, format: Format) -> Result<(), Failure> {
    let shown = |one: &Document| json!({ "process": one.process().name().as_str() });
    declarations::check(files, env, "processes", Document::read, shown, format).await
}

/// The document in a file.
async fn document(file: &str, env: &Env) -> Result<Document, Failure> {
    declarations::one(file, env, "process", Document::read).await
}
