//! `quorate txn`: transactions of two-phase commit: beginning one, what is in doubt of them, and ending one by hand.

use std::{collections::BTreeMap, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use quorate_foundations::document::Format as Form;
use serde_json::{Value, json, value::RawValue};

use crate::{
    client::{Call, Client, JSON, Target},
    declarations,
    exit::{Exit, Failure},
    output::{Column, Format, Out, cell, note, print},
    pages::{HowMany, Pages},
};

/// How long to wait before it is asked again how a transaction stands.
const AGAIN: Duration = Duration::from_millis(200);

/// Verbs on transactions.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Carry out a transaction once: every participant does its work and the events are in the log, or none of it
    ///
    /// The document says its `id`, its `participants` (each a `url` of a service, or `participant`, a database of the node's settings, with its
    /// `work`) and `events` for the node's own log, as `POST /v1/transactions` has it. The same again is told what became of the first. Exits
    /// with 0 if it is committed, 1 if it is aborted, 5 while it may be either.
    Begin(Begin),
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
        /// The id that it was begun under, or its own name, as `quorate:0197f2a0-…:3-17`
        transaction: String,
        /// Wait so many seconds at most until one that was begun under an id has ended
        #[arg(long, value_name = "SECONDS")]
        wait: Option<u64>,
    },
    /// End a transaction at one participant by hand
    ///
    /// Whatever was decided, and at the others: what is ended otherwise than decided is not atomic any more, and its record says so.
    /// Who orders it and why is recorded first. Needed only where a participant or the coordinator's log will not come back.
    Resolve(Order),
    /// List who may take part in transactions that the node coordinates
    Participants,
    /// Take a service away that will not come back: it is not asked any more what it holds
    ///
    /// Nothing may be open with it.
    Remove {
        /// The service's address
        participant: String,
        /// Who orders it
        #[arg(long)]
        by: String,
        /// Why
        #[arg(long)]
        why: String,
    },
}

/// A transaction that is to be.
#[derive(Args, Debug)]
pub(crate) struct Begin {
    /// The document: .json, .yaml or .toml; `-` is YAML on standard input
    file: String,
    /// Its id, instead of the one in the document
    #[arg(long)]
    id: Option<String>,
    /// Wait so many seconds at most until it has ended, also where it may be either at first
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait: u64,
}

/// How a transaction is to end at a participant.
#[derive(Args, Debug)]
pub(crate) struct Order {
    /// The id that it was begun under, or its own name, as `quorate:0197f2a0-…:3-17`
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
            Self::Begin(begin) => begun(client, begin, format).await,
            Self::Show { transaction, wait } => one(client, &transaction, wait, format).await,
            Self::Resolve(order) => resolve(client, order, format).await,
            Self::Participants => participants(client, format).await,
            Self::Remove { participant, by, why } => remove(client, &participant, (&by, &why), format).await,
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

async fn begun(client: &Client, begin: Begin, format: Format) -> Result<(), Failure> {
    let Begin { file, id, wait } = begin;
    let (text, form) = declarations::read(&file, client.env()).await?;
    let wrong = |what: String| Failure::new(Exit::BadInput, format!("{file}: {what}"));
    // Numbers as they are written, and members that stand twice, are for the node to judge.
    let mut text = match form {
        Form::Json => text,
        form => {
            let node = quorate_foundations::document::parse(&text, form).map_err(|fault| wrong(fault.to_string()))?;
            node.value.to_json()
        }
    };
    let mut members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(&text)
        .map_err(|cause| wrong(format!("it is no object with an `id` and `participants`: {cause}")))?;
    if let Some(id) = id {
        let id = serde_json::value::to_raw_value(&id).map_err(|cause| wrong(cause.to_string()))?;
        members.insert("id".to_owned(), id);
        text = serde_json::to_string(&members).map_err(|cause| wrong(cause.to_string()))?;
    }
    let call = Call::post(Target::path(&["v1", "transactions"]), JSON, text).known_again();
    let mut told = client.call(&call).await?.json(client.server())?;
    if told["status"] == "in-doubt" && wait > 0 {
        told = shown(client, &cell(&told["id"]), Some(wait)).await?;
    }
    let columns = ["ID", "TRANSACTION", "STATUS", "BY", "WHY"].map(Column::Left);
    let cells = |one: &Value| ["id", "transaction", "status", "by", "why"].map(|member| cell(&one[member]));
    print(std::slice::from_ref(&told), &told, (columns, cells), format)?;
    match told["status"].as_str() {
        Some("committed") => {
            for name in told["unconfirmed"].as_array().map(Vec::as_slice).unwrap_or_default() {
                note(&format!("participant `{}` has not confirmed it yet, and is told until it does", cell(name)));
            }
            Ok(())
        }
        Some("aborted") => Err(Failure::new(Exit::Refused, "it is aborted: nothing of it is left, or will be")),
        _ => Err(Failure::new(Exit::Unknown, "it may be either, and will be one of them")
            .advise(format!("ask again: quorate txn show {} --wait 30", cell(&told["id"])))),
    }
}

async fn shown(client: &Client, transaction: &str, wait: Option<u64>) -> Result<Value, Failure> {
    let Some(seconds) = wait else { return looked(client, transaction, None).await };
    let until = client.env().mono() + Duration::from_secs(seconds);
    loop {
        let rest = until.saturating_since(client.env().mono());
        let told = looked(client, transaction, Some(rest)).await?;
        // The node waits only so long for one request.
        if told["ended"] != false || until.saturating_since(client.env().mono()) < AGAIN {
            return Ok(told);
        }
        client.env().sleep(AGAIN).await;
    }
}

async fn looked(client: &Client, transaction: &str, wait: Option<Duration>) -> Result<Value, Failure> {
    let (mut call, mut client) = (Call::get(Target::path(&["v1", "transactions", transaction])), client.clone());
    if let Some(wait) = wait {
        call = call.header(http::HeaderName::from_static("prefer"), &format!("wait={}", wait.as_secs()))?;
        client = client.waiting(wait);
    }
    Ok(client.call(&call).await?.json(client.server())?)
}

async fn participants(client: &Client, format: Format) -> Result<(), Failure> {
    let told = client.call(&Call::get(Target::path(&["v1", "participants"]))).await?.json(client.server())?;
    let all = told["participants"].as_array().cloned().unwrap_or_default();
    let columns = ["PARTICIPANT", "KIND"].map(Column::Left);
    print(&all, &told, (columns, |one: &Value| ["participant", "kind"].map(|member| cell(&one[member]))), format)
}

async fn remove(client: &Client, participant: &str, (by, why): (&str, &str), format: Format) -> Result<(), Failure> {
    let target = Target::path(&["v1", "participants", participant, "remove"]);
    let call = Call::post(target, JSON, json!({ "by": by, "why": why }).to_string());
    let told = client.call(&call).await?.json(client.server())?;
    let columns = ["PARTICIPANT", "REMOVED"].map(Column::Left);
    let cells = |one: &Value| ["participant", "removed"].map(|member| cell(&one[member]));
    print(std::slice::from_ref(&told), &told, (columns, cells), format)
}

async fn one(client: &Client, transaction: &str, wait: Option<u64>, format: Format) -> Result<(), Failure> {
    let told = shown(client, transaction, wait).await?;
    let of = |member: &str| told[member].as_array().cloned().unwrap_or_default();
    if format == Format::Table {
        let mut out = Out::new();
        let participants: Vec<String> = of("participants").iter().map(cell).collect();
        let among =
            if participants.is_empty() { String::new() } else { format!(", among {}", participants.join(", ")) };
        out.line(&format!("{transaction}: decision {}{among}", cell(&told["decision"])))?;
        if let Some(status) = told["status"].as_str() {
            let why = told["why"].as_str().map(|why| format!(": {why}")).unwrap_or_default();
            out.line(&format!("begun as {}, {status}{why}", cell(&told["transaction"])))?;
        }
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
