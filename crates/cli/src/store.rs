//! `quorate store`: care for the store itself.

use std::{io::IsTerminal as _, path::PathBuf, sync::Arc, time::Duration};

use clap::Subcommand;
use http::header;
use quorate_data::store::{
    OpenError, Progress,
    erasure::Ledger,
    sqlite::{self, VerifiedFile},
};
use quorate_runtime::Env;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    client::{Call, Client, ClientError, JSON, Problem},
    configuration::Configuration,
    exit::{Exit, Failure, chain},
    output::{Column, Format, Out, Reach, Table, note, working, working_towards},
};

/// The least time that work on the whole store is given.
pub(crate) const LONG: Duration = Duration::from_secs(24 * 3_600);

/// Verbs on the store.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Check every stored byte: positions dense, hash chains intact, every index in agreement, archives whole
    Verify {
        /// Check a backup instead, or the store of a node that is not running; nothing is changed
        ///
        /// Keys of data subjects are not looked at, and neither are archives.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Write a consistent copy, while the node is in use, to the folder `backups` of its data directory
    Backup {
        /// The copy's name
        #[arg(default_value = "backup.db")]
        name: String,
    },
    /// Forget now what streams' rules no longer keep; the node does it by itself now and then
    Scavenge,
    /// Write a consistent copy of data subjects' keys to the folder `key-backups` of the data directory
    ///
    /// Right after each backup: a backup is not opened without keys as new as it is. Keep these copies apart from the
    /// backups, and not for long: an old one can read what was erased since.
    BackupKeys {
        /// The copy's name
        #[arg(default_value = "keys.db")]
        name: String,
    },
    /// Make a copy the store of a node that is not running; nothing is overwritten
    ///
    /// Put the keys of data subjects, if it has any, beside it as `quorate.db.keys` before the node starts.
    Restore {
        /// The copy
        backup: PathBuf,
        /// The newest exported erasure ledger: who was erased according to it stays erased
        #[arg(long, value_name = "FILE")]
        ledger: Option<PathBuf>,
        #[command(flatten)]
        configuration: Box<Configuration>,
    },
    /// Have everything encrypted count as erased, where the keys of data subjects are lost for good
    ///
    /// The node, which is not running, can then start without them. There is no way back: look for the file
    /// `quorate.db.keys`, or a copy of it, first.
    GiveUpKeys {
        /// Do not ask: there is no way back
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        configuration: Box<Configuration>,
    },
}

impl Command {
    /// Does what was asked.
    pub(crate) async fn run(self, client: &Client, format: Format) -> Result<(), Failure> {
        match self {
            Self::Verify { file: None } => verify(client, format).await,
            Self::Verify { file: Some(file) } => verify_file(client.env(), file, format).await,
            Self::Backup { name } => backup(client, &name, format).await,
            Self::BackupKeys { name } => backup_keys(client, &name, format).await,
            Self::Scavenge => scavenge(client, format).await,
            Self::Restore { backup, ledger, configuration } => {
                restore(client, backup, ledger, &configuration, format).await
            }
            Self::GiveUpKeys { yes, configuration } => give_up_keys(client.env(), yes, &configuration, format).await,
        }
    }
}

/// How a finding ends that is about a missing key, and not about the store's file.
const KEYLESS: &str = "is not there, and nobody erased it";

/// How the place of a finding begins that is about an archive's file.
const ARCHIVE: &str = "archive ";

/// Checks the store and prints what was found; damage is a failure.
pub(crate) async fn verify(client: &Client, format: Format) -> Result<(), Failure> {
    let client = client.clone().with_deadline(LONG);
    let call = Call::post("/v1/store/verify", JSON, "");
    let found = step_by_step(&client, &call, "checking every stored byte").await?;
    let mut out = Out::new();
    match format {
        Format::Json => out.json(&found)?,
        Format::Table => print_findings(&found, &mut out)?,
    }
    out.flush()?;
    if found["archives"]["missing"].as_array().is_some_and(|missing| !missing.is_empty()) {
        note(
            "archives are missing where they were written to: that is right if they were moved elsewhere; if not, put copies \
             back, since the store and its backups don't have their events",
        );
    }
    if found["sound"] == true {
        return Ok(());
    }
    let findings = found["findings"].as_array().map_or(&[] as &[Value], Vec::as_slice);
    let keyless = |finding: &Value| finding["what"].as_str().is_some_and(|what| what.ends_with(KEYLESS));
    let archive = |finding: &Value| finding["place"].as_str().is_some_and(|place| place.starts_with(ARCHIVE));
    let advice = if !findings.is_empty() && findings.iter().all(archive) {
        "the store itself is sound: put a sound copy of each archive in its place"
    } else if !findings.is_empty() && findings.iter().all(keyless) {
        "stop the node and put the right file of keys back at `<store>.keys`; a backup of the store has no keys"
    } else {
        "restore a backup with `quorate store restore`"
    };
    Err(Failure::new(Exit::Damaged, "the store is damaged").advise(advice))
}

/// Checks a file that no node has open.
async fn verify_file(env: &Env, file: PathBuf, format: Format) -> Result<(), Failure> {
    let reach = Arc::new(Reach::default());
    let told = reach.clone();
    let progress: Progress = Arc::new(move |done, of| told.tell(done, of));
    let checking = sqlite::verify_file(env, file.clone(), progress);
    let found = working_towards(env, "checking every stored byte", &reach, checking).await;
    let VerifiedFile { verified, sealed, .. } = found.map_err(|error| match &error {
        OpenError::Locked { .. } => Failure::of(Exit::Unavailable, &error)
            .advise("ask the node that has it open: `quorate store verify` without --file"),
        _ => not_restored(&error),
    })?;
    let findings: Vec<Value> =
        verified.findings.iter().map(|one| json!({ "place": one.place, "what": one.what })).collect();
    let found = json!({
        "file": file.to_string_lossy(),
        "sound": verified.is_sound(),
        "events": verified.events,
        "streams": verified.streams,
        "rows": verified.rows,
        "sealed": sealed,
        "findings": findings,
    });
    let mut out = Out::new();
    match format {
        Format::Json => out.json(&found)?,
        Format::Table => print_findings(&found, &mut out)?,
    }
    out.flush()?;
    if sealed > 0 {
        note(&format!("{sealed} events are encrypted; whether their keys are there is what a running node can tell"));
    }
    if verified.is_sound() {
        return Ok(());
    }
    let what = format!("{} is damaged", file.display());
    Err(Failure::new(Exit::Damaged, what).advise("restore another backup with `quorate store restore`"))
}

/// Progress, as the lines before the last one tell it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    done: u64,
    of: u64,
}

/// Makes a call that is told step by step, shows how far it is, and returns what the last line tells.
async fn step_by_step(client: &Client, call: &Call, what: &str) -> Result<Value, Failure> {
    let reach = Reach::default();
    let told = |line: &[u8]| {
        if let Ok(Told { done, of }) = serde_json::from_slice(line) {
            reach.tell(done, of);
        }
    };
    let line = working_towards(client.env(), what, &reach, client.last_line(call, told)).await?;
    let strange = |what: String| ClientError::Strange { server: client.server().clone(), what };
    let last: Value = serde_json::from_slice(&line).map_err(|wrong| strange(format!("no JSON: {wrong}")))?;
    if let Some(status) = last["status"].as_u64() {
        let status = u16::try_from(status).ok().and_then(|status| http::StatusCode::from_u16(status).ok());
        let status = status.unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        return Err(client.connection().advise(Problem::parse(client.server(), status, &line)).await.into());
    }
    if last["done"].is_null() { Ok(last) } else { Err(strange("work that did not end".to_owned()).into()) }
}

fn print_findings(found: &Value, out: &mut Out) -> Result<(), Failure> {
    let findings = found["findings"].as_array().map_or(&[] as &[Value], Vec::as_slice);
    if !findings.is_empty() {
        let mut table = Table::new([Column::Left("PLACE"), Column::Left("WHAT IS WRONG")]);
        for finding in findings {
            table.row([finding["place"].as_str().unwrap_or_default(), finding["what"].as_str().unwrap_or_default()]);
        }
        table.print(out)?;
    }
    let missing = found["archives"]["missing"].as_array().map_or(&[] as &[Value], Vec::as_slice);
    if !missing.is_empty() {
        let columns = ["MISSING ARCHIVE", "STREAM", "FIRST", "LAST", "WRITTEN TO"].map(Column::Left);
        let mut table = Table::new(columns);
        for archive in missing {
            let text = |member: &str| archive[member].as_str().unwrap_or_default();
            table.row([text("archiveid"), text("stream"), text("first"), text("last"), text("path")]);
        }
        table.print(out)?;
        if let Some(more) = found["archives"]["more"].as_u64().filter(|more| *more > 0) {
            out.line(&format!("and {more} more archives"))?;
        }
    }
    let verdict = if findings.is_empty() { "sound" } else { "damaged" };
    out.line(&format!(
        "{verdict}: {} events, {} streams, {} rows checked",
        found["events"], found["streams"], found["rows"]
    ))
}

async fn backup(client: &Client, name: &str, format: Format) -> Result<(), Failure> {
    let client = client.clone().with_deadline(LONG);
    let body = json!({ "to": name }).to_string();
    let call = Call::post("/v1/store/backup", JSON, body).header(header::ACCEPT, "application/x-ndjson")?;
    print_copy(&step_by_step(&client, &call, "writing a copy").await?, format)
}

async fn backup_keys(client: &Client, name: &str, format: Format) -> Result<(), Failure> {
    let client = client.clone().with_deadline(LONG);
    let call = Call::post("/v1/store/backup-keys", JSON, json!({ "to": name }).to_string());
    let written = working(client.env(), "writing a copy", client.call(&call)).await?.json(client.server())?;
    print_copy(&written, format)
}

fn print_copy(written: &Value, format: Format) -> Result<(), Failure> {
    let mut out = Out::new();
    match format {
        Format::Json => out.json(written)?,
        Format::Table => {
            let mut table = Table::new([Column::Left("BACKUP"), Column::Right("BYTES")]);
            table.row([written["path"].as_str().unwrap_or_default(), &written["bytes"].to_string()]);
            table.print(&mut out)?;
        }
    }
    out.flush()
}

async fn scavenge(client: &Client, format: Format) -> Result<(), Failure> {
    let client = client.clone().with_deadline(LONG);
    let call = Call::post("/v1/store/scavenge", JSON, "");
    let done = working(client.env(), "forgetting what expired", client.call(&call)).await?.json(client.server())?;
    let mut out = Out::new();
    match format {
        Format::Json => out.json(&done)?,
        Format::Table => {
            let mut table = Table::new([Column::Right("STREAMS"), Column::Right("EVENTS FORGOTTEN")]);
            table.row([done["streams"].to_string(), done["retired"].to_string()]);
            table.print(&mut out)?;
        }
    }
    out.flush()
}

async fn restore(
    client: &Client,
    backup: PathBuf,
    ledger: Option<PathBuf>,
    configuration: &Configuration,
    format: Format,
) -> Result<(), Failure> {
    let env = client.env();
    let config = configuration.load(env).await?;
    embedded(&config)?;
    let erased = match ledger {
        Some(path) => Some(read_ledger(env, path).await?),
        None => None,
    };
    let erasures = erased.as_ref().map(|ledger| ledger.erasures.len());
    let (disk, data) = (env.disk().clone(), config.data.clone());
    let made = env.run_blocking(move || disk.create_dir_all(&data)).await;
    made.map_err(|cause| Failure::io(config.data.display(), &cause))?;
    let path = config.store().path;
    let reach = Arc::new(Reach::default());
    let told = reach.clone();
    let progress: Progress = Arc::new(move |done, whole| told.tell(done, whole));
    let restoring = async {
        match erased {
            Some(ledger) => sqlite::restore_with(env, backup.clone(), path.clone(), ledger, progress).await,
            None => sqlite::restore(env, backup.clone(), path.clone(), progress).await,
        }
    };
    working_towards(env, "restoring", &reach, restoring).await.map_err(|error| not_restored(&error))?;
    note("tokens and subscriptions of before name another timeline now; positions stay");
    let mut out = Out::new();
    let (from, to) = (backup.to_string_lossy(), path.to_string_lossy());
    match format {
        Format::Json => out.json(&json!({ "backup": from, "store": to, "erasures": erasures }))?,
        Format::Table => {
            let mut table = Table::new([Column::Left("BACKUP"), Column::Left("STORE")]);
            table.row([from, to]);
            table.print(&mut out)?;
        }
    }
    out.flush()
}

/// The longest exported ledger, in bytes: some seven million erasures.
const MAX_LEDGER: u64 = 1 << 30;

async fn read_ledger(env: &Env, path: PathBuf) -> Result<Ledger, Failure> {
    let (disk, of_disk) = (env.disk().clone(), path.clone());
    let read = env.run_blocking(move || {
        if disk.size(&of_disk)? > MAX_LEDGER {
            return Err(std::io::Error::other(format!("a ledger has at most {MAX_LEDGER} bytes")));
        }
        disk.read(&of_disk)
    });
    let bytes = read.await.map_err(|cause| match cause.kind() {
        std::io::ErrorKind::NotFound => Failure::new(Exit::NotFound, format!("{}: {cause}", path.display())),
        _ => Failure::io(path.display(), &cause),
    })?;
    Ledger::from_json(&String::from_utf8_lossy(&bytes)).map_err(|wrong| {
        let what = format!("{}: {}", path.display(), chain(&wrong));
        Failure::new(Exit::BadInput, what).advise("name a file that `quorate erasure export` wrote")
    })
}

/// Refuses what is done to the file of the embedded store where the configuration names a database.
fn embedded(config: &quorate_node::config::Config) -> Result<(), Failure> {
    let Some(database) = &config.database else { return Ok(()) };
    let what =
        format!("`store.address` names the database {}, and this is done to the embedded store", database.address);
    Err(Failure::new(Exit::Refused, what).advise("use the database's own tools, or leave `store.address` empty"))
}

async fn give_up_keys(env: &Env, yes: bool, configuration: &Configuration, format: Format) -> Result<(), Failure> {
    let config = configuration.load(env).await?;
    embedded(&config)?;
    let path = config.store().path;
    if !yes {
        confirm(env, &path).await?;
    }
    let given_up = sqlite::give_up_keys(env, path.clone()).await;
    given_up.map_err(|error| match &error {
        OpenError::Io { path, cause }
            if cause.kind() == std::io::ErrorKind::AlreadyExists
                && path.as_os_str().to_string_lossy().ends_with("-wal") =>
        {
            let what =
                format!("{} is there, which holds keys of the file that is not: nothing was given up", path.display());
            Failure::new(Exit::Refused, what)
                .advise("put the file of keys back beside it; remove it only to lose what it holds")
        }
        OpenError::Io { path, cause } if cause.kind() == std::io::ErrorKind::AlreadyExists => {
            let what = format!("{} is there: the keys are not lost, and nothing was given up", path.display());
            Failure::new(Exit::Refused, what)
                .advise("start the node, and erase data subjects with `quorate erasure erase`")
        }
        _ => not_restored(&error),
    })?;
    note(
        "everything encrypted so far counts as erased; export the ledger once the node runs: `quorate erasure export`",
    );
    let mut out = Out::new();
    let store = path.to_string_lossy();
    match format {
        Format::Json => out.json(&json!({ "store": store, "given-up": true }))?,
        Format::Table => {
            let mut table = Table::new([Column::Left("STORE"), Column::Left("KEYS")]);
            table.row([&*store, "given up"]);
            table.print(&mut out)?;
        }
    }
    out.flush()
}

/// Has a person say it twice. A script says `--yes`.
async fn confirm(env: &Env, store: &std::path::Path) -> Result<(), Failure> {
    let store = store.display();
    if !std::io::stdin().is_terminal() {
        let what = format!("giving up the keys of {store} is for good, and nobody is here to confirm it");
        return Err(Failure::new(Exit::Usage, what).advise("add --yes"));
    }
    note(&format!("Everything encrypted in {store} becomes unreadable for good. Type `give up` to confirm it:"));
    let read = env.run_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    });
    let line = read.await.map_err(|cause| Failure::io("standard input", &cause))?;
    if line.trim() == "give up" {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, "that is something else: nothing was given up"))
}

fn not_restored(error: &OpenError) -> Failure {
    match error {
        OpenError::Io { path, cause } if cause.kind() == std::io::ErrorKind::AlreadyExists => {
            let what = format!("{} exists already, and a restore never overwrites", path.display());
            Failure::new(Exit::Refused, what).advise("move it away, or name another data directory with --data")
        }
        OpenError::Io { cause, .. } if cause.kind() == std::io::ErrorKind::NotFound => {
            Failure::of(Exit::NotFound, error)
        }
        OpenError::Locked { .. } => Failure::of(Exit::Unavailable, error),
        OpenError::Corrupt { .. } => Failure::of(Exit::Damaged, error),
        OpenError::Foreign { .. }
        | OpenError::Newer { .. }
        | OpenError::Older { .. }
        | OpenError::NotABackup { .. }
        | OpenError::Moved { .. }
        | OpenError::Lost { .. }
        | OpenError::LedgerOfAnotherStore { .. } => Failure::of(Exit::Refused, error),
        _ => Failure::of(Exit::Io, error),
    }
}
