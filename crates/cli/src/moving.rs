//! `quorate move`: a store goes to another engine.

use std::{path::PathBuf, str::FromStr, sync::Arc};

use clap::Args;
use quorate_data::store::{
    OpenError, StoreError,
    moving::{MoveError, Moved, Order, Place, Told, relocate},
    postgres,
};
use quorate_runtime::Env;
use serde_json::{Value, json};

use crate::{
    exit::{Exit, Failure},
    output::{Column, Format, Out, Reach, Table, note, working_towards},
};

/// The file of a store in a data directory.
const FILE: &str = "quorate.db";

/// Which store, and where it goes.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The store: the data directory of a node that is not running, or `postgres://user:password@host:port/database`
    #[arg(value_name = "SRC")]
    from: Where,
    /// Where it goes: the other of the two, with no store in it
    #[arg(value_name = "DST")]
    to: Where,
    /// Check every stored byte as well: of the store before anything is begun, of where it goes before the store is left
    #[arg(long)]
    verify: bool,
    /// The schema of the store's tables in the database
    #[arg(long, value_name = "NAME", default_value = "quorate")]
    schema: String,
    /// The schema of the application's own tables in the database, and their role
    #[arg(long, value_name = "NAME", default_value = "quorate_app")]
    application: String,
}

/// A data directory, or a database. Its `Debug` form hides the password.
#[derive(Clone, Debug)]
enum Where {
    Folder(PathBuf),
    Database(Box<postgres::Config>),
}

impl FromStr for Where {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            let config = postgres::Config::at(text).map_err(|wrong: OpenError| wrong.to_string())?;
            return Ok(Self::Database(Box::new(config)));
        }
        Ok(Self::Folder(text.into()))
    }
}

impl Where {
    /// The place, as it is called from anywhere: what is left says where it went for as long as it is there.
    async fn place(&self, env: &Env, options: &Options) -> Result<Place, Failure> {
        match self {
            Self::Folder(folder) => {
                let (disk, file) = (env.disk().clone(), folder.join(FILE));
                let whole = env.run_blocking(move || disk.canonical(&file)).await;
                let whole = whole.map_err(|cause| match cause.kind() {
                    std::io::ErrorKind::NotFound => {
                        Failure::new(Exit::NotFound, format!("there is no store in {}: {cause}", folder.display()))
                    }
                    _ => Failure::io(folder.display(), &cause),
                })?;
                Ok(Place::Embedded(whole))
            }
            Self::Database(config) => Ok(Place::Postgres(Box::new(postgres::Config {
                schema: options.schema.clone(),
                application: options.application.clone(),
                ..(**config).clone()
            }))),
        }
    }

    /// How a node is started there.
    fn flag(&self) -> String {
        match self {
            Self::Folder(folder) => format!("--data {}", folder.display()),
            Self::Database(config) => format!("--store postgres://…{}", config.address),
        }
    }
}

/// Moves it, and says what went over.
pub(crate) async fn run(env: &Env, options: &Options, format: Format) -> Result<(), Failure> {
    if let Where::Folder(folder) = &options.to {
        let (disk, made) = (env.disk().clone(), folder.clone());
        let made = env.run_blocking(move || disk.create_dir_all(&made)).await;
        made.map_err(|cause| Failure::io(folder.display(), &cause))?;
    }
    let from = options.from.place(env, options).await?;
    let to = options.to.place(env, options).await?;
    let order = Order { from, to, rooms: quorate_node::rooms(), verify: options.verify };
    let reach = Arc::new(Reach::default());
    let of_told = reach.clone();
    let told: Told = Arc::new(move |_, done, whole| of_told.tell(done, whole));
    let moving = relocate(env, &order, told);
    let moved = working_towards(env, "moving the store", &reach, moving).await.map_err(|cause| failed(&cause))?;
    if options.verify && !moved.verified {
        note(
            "an earlier call had left the store: only a call that leaves it checks every byte; `quorate store verify` does where it is",
        );
    }
    let to = options.to.flag();
    note(&format!(
        "start the node with {to}, and back it up there; what was left opens no more, and may then be removed"
    ));
    let from = order.from.to_string();
    let mut out = Out::new();
    match format {
        Format::Json => out.json(&document(&from, &moved))?,
        Format::Table => {
            let mut table = Table::new([
                Column::Left("FROM"),
                Column::Left("TO"),
                Column::Right("EVENTS"),
                Column::Right("TABLES"),
                Column::Right("ROWS"),
            ]);
            let rows: u64 = moved.tables.iter().map(|(_, sum)| sum.rows).sum();
            table.row([
                from,
                moved.to.clone(),
                moved.events.to_string(),
                moved.tables.len().to_string(),
                rows.to_string(),
            ]);
            table.print(&mut out)?;
        }
    }
    out.flush()
}

fn document(from: &str, moved: &Moved) -> Value {
    let table = |(name, sum): &(String, quorate_data::store::moving::TableSum)| json!({ "table": name, "rows": sum.rows, "sum": sum.to_string() });
    json!({
        "from": from,
        "to": moved.to,
        "events": moved.events,
        "tables": moved.tables.iter().map(table).collect::<Vec<Value>>(),
        "verified": moved.verified,
    })
}

fn failed(cause: &MoveError) -> Failure {
    let exit = match cause {
        MoveError::SameEngine { .. } | MoveError::Open(OpenError::Address { .. }) => Exit::Usage,
        MoveError::Absent { .. } => Exit::NotFound,
        MoveError::Open(OpenError::Io { cause, .. }) if cause.kind() == std::io::ErrorKind::NotFound => Exit::NotFound,
        MoveError::Damaged { .. }
        | MoveError::Open(OpenError::Corrupt { .. })
        | MoveError::Store(StoreError::Corrupt { .. }) => Exit::Damaged,
        MoveError::Unfinished { .. } | MoveError::Store(StoreError::OutcomeUnknown) => Exit::Unknown,
        MoveError::Open(OpenError::Locked { .. } | OpenError::NoRoom { .. })
        | MoveError::Store(
            StoreError::Unreachable { .. }
            | StoreError::TimedOut { .. }
            | StoreError::Busy
            | StoreError::ReadOnly
            | StoreError::DiskFull,
        ) => Exit::Unavailable,
        MoveError::Open(OpenError::Io { .. }) => Exit::Io,
        MoveError::Store(_) => Exit::Failed,
        _ => Exit::Refused,
    };
    let failure = Failure::of(exit, cause);
    match cause {
        MoveError::Open(OpenError::Locked { .. }) => {
            failure.advise("stop the node that has it open, and repeat the same command")
        }
        MoveError::Occupied { .. } => failure.advise("name an empty place, or another --schema"),
        MoveError::Diverged { .. } => {
            failure.advise("remove what earlier calls put there, if nothing else is in it, and repeat the same command")
        }
        MoveError::Damaged { .. } => failure.advise("`quorate store verify` names all that is damaged"),
        _ => failure,
    }
}
