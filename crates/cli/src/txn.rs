//! `quorate txn`: transactions of two-phase commit, what is in doubt of them, and ending one by hand.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::{
    client::{Call, Client, JSON, Target},
    exit::Failure,
    output::{Column, Format, Out, cell, note, print},
    pages::{HowMany, Pages},
};

/// Verbs on transactions.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// List what is in doubt: what participants hold and were not told the end of
    ///
    /// A node sees the promises in its own store, and the participants of coordinators that run in its process. On PostgreSQL
    /// `quorate doctor` names what is prepared there.
    List {
        #[command(flatten)]
        how_many: HowMany,
    },
    /// What the log says of a transaction, what people did, and who holds something of it
    Show {
        /// The transaction's name, as `quorate:0197f2a0-…:3-17`
        transaction: String,
    },
    /// End a transaction at one participant by hand
    ///
    /// Whatever was decided, and at the others: what is ended otherwise than decided is not atomic any more, and its record says so.
    /// Who orders it and why is recorded first. Needed only where a participant or the coordinator's log will not come back.
    Resolve(Order),
}

/// How a transaction is to end at a participant.
#[derive(Args, Debug)]
pub(crate) struct Order {
    /// The transaction's name, as `quorate:0197f2a0-…:3-17`
    transaction: String,
    /// The participant, by its coordinator's name for it
    participant: String,
    /// How it ends there
    #[arg(value_enum)]
    ending: Ending,
    /// Who orders it
    #[arg(long)]
    by: String,
    /// Why
    #[arg(long)]
    why: String,
}

/// How a transaction ends.
#[derive(ValueEnum, Clone, Copy, Debug)]
enum Ending {
    /// What was promised is done
    Commit,
    /// Nothing of it is left
    Abort,
}

impl Command {
    /// Does what was asked.
    pub(crate) async fn run(self, client: &Client, format: Format) -> Result<(), Failure> {
        match self {
            Self::List { how_many } => all(client, how_many, format).await,
            Self::Show { transaction } => one(client, &transaction, format).await,
            Self::Resolve(order) => resolve(client, order, format).await,
        }
    }
}

async fn all(client: &Client, how_many: HowMany, format: Format) -> Result<(), Failure> {
    let target = Target::path(&["v1", "transactions"]);
    let mut pages = Pages::new(client, target, how_many.page());
    let (mut all, mut silent) = (Vec::<Value>::new(), Value::Null);
    while all.len() < how_many.max()
        && let Some(page) = pages.next("transactions").await?
    {
        all.extend(page.items()?.iter().filter_map(|item| serde_json::from_str(item.get()).ok()));
        silent = page.beside("silent");
    }
    for one in silent.as_array().map(Vec::as_slice).unwrap_or_default() {
        note(&format!("participant `{}` does not say what it holds: {}", cell(&one["participant"]), cell(&one["why"])));
    }
    if pages.has_next() || all.len() > how_many.max() {
        note("there may be more: see --limit and --all");
    }
    all.truncate(how_many.max());
    let rows: Vec<Value> = all
        .iter()
        .flat_map(|one| {
            let of = |branch: &Value| {
                let mut row = branch.clone();
                row["transaction"] = one["transaction"].clone();
                row["decision"] = one["decision"].clone();
                row
            };
            one["branches"].as_array().map(Vec::as_slice).unwrap_or_default().iter().map(of).collect::<Vec<_>>()
        })
        .collect();
    let columns = ["TRANSACTION", "DECISION", "PARTICIPANT", "STANDING", "AGE", "HELD"].map(Column::Left);
    let cells = |row: &Value| {
        let [transaction, decision] = ["transaction", "decision"].map(|member| cell(&row[member]));
        let [participant, standing, age, held] = branch(row);
        [transaction, decision, participant, standing, age, held]
    };
    print(&rows, &json!({ "transactions": all, "silent": silent }), (columns, cells), format)
}

fn branch(row: &Value) -> [String; 4] {
    let age =
        row["age-ms"].as_u64().map(|age| humantime_serde::re::humantime::format_duration(Duration::from_millis(age)));
    let held = row["held"].as_array().map(Vec::as_slice).unwrap_or_default();
    [
        cell(&row["participant"]),
        cell(&row["standing"]),
        age.map(|age| age.to_string()).unwrap_or_default(),
        held.iter().map(cell).collect::<Vec<_>>().join(", "),
    ]
}

async fn one(client: &Client, transaction: &str, format: Format) -> Result<(), Failure> {
    let target = Target::path(&["v1", "transactions", transaction]);
    let told = client.call(&Call::get(target)).await?.json(client.server())?;
    let of = |member: &str| told[member].as_array().cloned().unwrap_or_default();
    if format == Format::Table {
        let mut out = Out::new();
        let participants: Vec<String> = of("participants").iter().map(cell).collect();
        let among =
            if participants.is_empty() { String::new() } else { format!(", among {}", participants.join(", ")) };
        out.line(&format!("{transaction}: decision {}{among}", cell(&told["decision"])))?;
        for done in of("heuristics") {
            let [participant, ending, by, why] =
                ["participant", "ending", "by", "why"].map(|member| cell(&done[member]));
            let contradicts = if done["contradicts"] == true { ", against what was decided" } else { "" };
            out.line(&format!("{ending} at {participant} by {by}{contradicts}: {why}"))?;
        }
        out.flush()?;
    }
    let columns = ["PARTICIPANT", "STANDING", "AGE", "HELD"].map(Column::Left);
    print(&of("branches"), &told, (columns, branch), format)
}

async fn resolve(client: &Client, order: Order, format: Format) -> Result<(), Failure> {
    let Order { transaction, participant, ending, by, why } = order;
    let ending = match ending {
        Ending::Commit => "commit",
        Ending::Abort => "abort",
    };
    let target = Target::path(&["v1", "transactions", &transaction, "resolve"]);
    let body = json!({ "participant": participant, "ending": ending, "by": by, "why": why });
    let told = client.call(&Call::post(target, JSON, body.to_string())).await?.json(client.server())?;
    if let Some(waits) = told["waits"].as_str() {
        note(&format!("it is recorded, and waits: {waits}"));
    }
    let columns = ["TRANSACTION", "PARTICIPANT", "ENDING", "DONE", "CONTRADICTS"].map(Column::Left);
    let cells =
        |one: &Value| ["transaction", "participant", "ending", "done", "contradicts"].map(|member| cell(&one[member]));
    print(std::slice::from_ref(&told), &told, (columns, cells), format)
}
