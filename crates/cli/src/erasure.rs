//! `quorate erasure`: data subjects, whose data is forgotten on demand.

use std::io::{BufRead as _, IsTerminal as _};

use clap::{Args, Subcommand};
use quorate_data::store::erasure::Ledger;
use quorate_runtime::Env;
use serde_json::{Value, json};

use crate::{
    client::{Call, Client, ClientError, JSON, Target},
    exit::{Exit, Failure},
    output::{Column, Format, Out, Table, note},
    pages::{HowMany, Pages},
};

/// Verbs on data subjects.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Destroy a data subject's keys: what its events said can never be read again, here or from a backup
    ///
    /// Repeating it is harmless. Export the ledger afterwards, to where the backups are: a restore needs it.
    Erase(Erase),
    /// Whether a data subject was erased, and whether there is data about it since
    Show {
        /// The data subject, as events name it in `datasubject`
        subject: String,
    },
    /// List the erasure ledger, oldest first; it names nobody
    List {
        /// Begin behind this entry
        #[arg(long, value_name = "ENTRY", default_value_t = 0)]
        after: u64,
        #[command(flatten)]
        how_many: HowMany,
    },
    /// Print the whole ledger as JSON, for `quorate store restore --ledger`
    Export,
}

/// Whom to erase.
#[derive(Args, Debug)]
pub(crate) struct Erase {
    /// The data subject, as events name it in `datasubject`
    subject: String,
    /// Do not ask: there is no way back
    #[arg(long)]
    yes: bool,
}

impl Command {
    /// Does what was asked.
    pub(crate) async fn run(self, client: &Client, format: Format) -> Result<(), Failure> {
        match self {
            Self::Erase(erase) => erase.run(client, format).await,
            Self::Show { subject } => show(&client.answer(&Call::get(route(&subject))).await?, format),
            Self::List { after, how_many } => list(client, after, how_many, format).await,
            Self::Export => export(client).await,
        }
    }
}

impl Erase {
    async fn run(self, client: &Client, format: Format) -> Result<(), Failure> {
        if !self.yes {
            confirm(client.env(), &self.subject).await?;
        }
        let target = Target::path(&["v1", "subjects", &self.subject, "erase"]);
        let erased = client.answer(&Call::post(target, JSON, "")).await?;
        let mut out = Out::new();
        match format {
            Format::Json => out.json(&erased)?,
            Format::Table => {
                let columns = [
                    Column::Left("SUBJECT"),
                    Column::Right("EVENTS"),
                    Column::Right("KEYS"),
                    Column::Left("ERASED AT"),
                    Column::Right("ENTRY"),
                ];
                let mut table = Table::new(columns);
                let (events, keys) = (erased["events"].to_string(), erased["keys"].to_string());
                table.row([
                    text(&erased, "subject"),
                    &events,
                    &keys,
                    text(&erased, "erased_at"),
                    text(&erased, "entry"),
                ]);
                table.print(&mut out)?;
            }
        }
        out.flush()?;
        if erased["entry"].is_null() {
            note("nothing was ever encrypted for this data subject: there was nothing to erase");
        } else {
            note("export the ledger to where the backups are: `quorate erasure export`");
        }
        Ok(())
    }
}

/// Has a person say it twice. A script says `--yes`.
async fn confirm(env: &Env, subject: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        let what = format!("erasing `{subject}` is for good, and nobody is here to confirm it");
        return Err(Failure::new(Exit::Usage, what).advise("add --yes"));
    }
    note(&format!(
        "Everything encrypted for `{subject}` becomes unreadable for good. Type its name again to erase it:"
    ));
    let read = env.run_blocking(|| {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|_| line)
    });
    let line = read.await.map_err(|cause| Failure::io("standard input", &cause))?;
    if line.trim_end_matches(['\r', '\n']) == subject {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, "that is another name: nothing was erased"))
}

fn show(known: &Value, format: Format) -> Result<(), Failure> {
    let mut out = Out::new();
    if format == Format::Json {
        out.json(known)?;
        return out.flush();
    }
    let state = match (known["erased"] == true, known["live"] == true, known["erasure"].is_null()) {
        _ if known["incomplete"] == true => "erased in part: repeat it",
        _ if known["key-missing"] == true => "key-missing",
        (true, ..) => "erased",
        (_, true, true) => "readable",
        (_, true, false) => "readable since it was erased",
        (_, false, _) => "nothing encrypted",
    };
    let columns = [Column::Left("SUBJECT"), Column::Left("STATE"), Column::Left("ERASED AT"), Column::Right("ENTRY")];
    let mut table = Table::new(columns);
    let erasure = &known["erasure"];
    table.row([text(known, "subject"), state, text(erasure, "erased_at"), text(erasure, "entry")]);
    table.print(&mut out)
}

async fn list(client: &Client, after: u64, how_many: HowMany, format: Format) -> Result<(), Failure> {
    let target = Target::path(&["v1", "erasures"]).with("after", after);
    let mut pages = Pages::new(client, target, how_many.page());
    let mut entries: Vec<Value> = Vec::new();
    while entries.len() < how_many.max()
        && let Some(page) = pages.next("erasures").await?
    {
        entries.extend(page.items()?.iter().filter_map(|item| serde_json::from_str(item.get()).ok()));
    }
    let more = pages.has_next() || entries.len() > how_many.max();
    entries.truncate(how_many.max());
    let mut out = Out::new();
    match format {
        Format::Json => out.json(&json!({ "erasures": entries }))?,
        Format::Table => {
            let columns = [
                Column::Right("ENTRY"),
                Column::Left("SUBJECT (HASH)"),
                Column::Right("GENERATION"),
                Column::Left("ERASED AT"),
            ];
            let mut table = Table::new(columns);
            for entry in &entries {
                let generation = entry["generation"].to_string();
                table.row([text(entry, "entry"), text(entry, "subject"), &generation, text(entry, "erased_at")]);
            }
            table.print(&mut out)?;
        }
    }
    out.flush()?;
    if more {
        note("there may be more: see --limit and --all");
    }
    Ok(())
}

async fn export(client: &Client) -> Result<(), Failure> {
    let reply = client.call(&Call::get(Target::path(&["v1", "erasures", "export"]))).await?;
    let ledger = Ledger::from_json(&String::from_utf8_lossy(&reply.body));
    // What is printed here is looked at again on somebody's worst day: better to find out now.
    ledger.map_err(|wrong| ClientError::Strange { server: client.server().clone(), what: wrong.to_string() })?;
    let mut out = Out::new();
    out.write(&reply.body)?;
    out.flush()
}

fn route(subject: &str) -> Target {
    Target::path(&["v1", "subjects", subject])
}

fn text<'v>(value: &'v Value, member: &str) -> &'v str {
    value[member].as_str().unwrap_or("-")
}
