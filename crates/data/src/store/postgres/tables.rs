//! The tables, and how they come to their newest version.
//!
//! Versions go forward only. Whoever opens a store takes a lock, so that of several nodes that start together one makes the
//! tables; a version that this code does not know is refused.

use std::time::Duration;

use quorate_runtime::Env;
use tokio_postgres::{Client, types::Type};

use super::{application, fault::Fault, words};
use crate::store::{
    OpenError, StoreError, Timeline,
    moving::{Gone, Mark},
};

/// What leads from each version to the next.
const VERSIONS: &[&str] = &[
    "
    CREATE TABLE {s}.meta (
        one boolean PRIMARY KEY DEFAULT TRUE CHECK (one),
        version integer NOT NULL,
        store bigint NOT NULL,
        epoch integer NOT NULL);
    CREATE TABLE {s}.stream (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        name text COLLATE \"C\" NOT NULL UNIQUE,
        version bigint NOT NULL DEFAULT 0,
        hash bytea NOT NULL DEFAULT '\\x0000000000000000000000000000000000000000000000000000000000000000')
        WITH (fillfactor = 70);
    CREATE TABLE {s}.event (
        id bigint GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY,
        stream bigint NOT NULL,
        version bigint NOT NULL,
        key bytea NOT NULL UNIQUE,
        kind text COLLATE \"C\" NOT NULL,
        category text COLLATE \"C\" NOT NULL,
        tags text[] COLLATE \"C\",
        body bytea NOT NULL,
        UNIQUE (stream, version));
    ALTER TABLE {s}.event ALTER COLUMN body SET STORAGE EXTERNAL;
    CREATE INDEX event_tags ON {s}.event USING gin (tags) WHERE tags IS NOT NULL;
    CREATE TABLE {s}.pending (event bigint NOT NULL)
        WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
    CREATE TABLE {s}.log (position bigint PRIMARY KEY, event bigint NOT NULL UNIQUE)
",
    "
    ALTER TABLE {s}.meta ADD COLUMN schemas bigint NOT NULL DEFAULT 0;
    CREATE TABLE {s}.quorate_room (
        room text COLLATE \"C\" PRIMARY KEY,
        version bigint NOT NULL,
        sum bigint NOT NULL)
",
    // A store that is being moved into: from which timeline, and as which destination. One that has moved: where, and as which.
    "
    ALTER TABLE {s}.meta ADD COLUMN arriving bigint, ADD COLUMN arrival bigint, ADD COLUMN moved_to text,
        ADD COLUMN moved_arrival bigint
",
    FUNCTIONS,
    // What is written together stands together, also where somebody else drew ids in between: each event that waits for its
    // position says which was the first that was written with it. All of their streams were locked before that one's id was drawn.
    "
    ALTER TABLE {s}.pending ADD COLUMN first bigint;
    ALTER TABLE {s}.stream ADD COLUMN metadata bigint NOT NULL DEFAULT 0;
    CREATE TABLE {s}.metadata (stream bigint PRIMARY KEY, body text NOT NULL, sum bigint NOT NULL)
",
];

/// From this one on a store can be on its way.
const MOVES: usize = 3;

/// How often tables are brought to a new version where somebody was in the way, how long each try waits, and how long others go on
/// in between.
const UPGRADES: usize = 20;
const WAITS: &str = "200ms";
const PAUSE: Duration = Duration::from_millis(500);

/// Why tables are looked at.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// To open the store, or to make one with this number.
    Open(u64),
    /// To leave the store that is there.
    Leave,
    /// To move into it: a new one draws this number as a destination.
    Arrive(Mark, u64),
}

/// What the tables say of the store.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) timeline: Timeline,
    /// From which timeline it is being moved into; `None` for one that is open.
    pub(super) arriving: Option<u32>,
    /// The number that it drew as a destination, if it was one.
    pub(super) arrival: Option<u64>,
    /// Where it went.
    pub(super) gone: Option<Gone>,
}

/// They are the same in all tables of one version: an other text is another version.
const FUNCTIONS: &str = include_str!("functions.sql");

/// The functions in `schema`: their names, and what is between their quotes.
pub(super) fn functions(schema: &str) -> impl Iterator<Item = (&'static str, String)> {
    FUNCTIONS.split("CREATE FUNCTION {s}.").skip(1).filter_map(move |made| {
        let (name, _) = made.split_once('(')?;
        let body = made.split("$$").nth(1)?;
        Some((name, body.replace("{s}", &format!("\"{schema}\""))))
    })
}

/// The newest version there is.
pub(super) fn newest() -> usize {
    VERSIONS.len()
}

/// Brings the tables in `schema` to this code's version, sees that the schema `application` is there, and tells which store it
/// is. `None` where there is no store, and none is to be made.
///
/// # Errors
/// [`OpenError::Moved`] and [`OpenError::Arriving`], where it is to be opened.
pub(super) async fn prepare(
    env: &Env,
    client: &Client,
    schema: &str,
    application: &str,
    purpose: Purpose,
) -> Result<Option<Told>, OpenError> {
    // Whoever leaves makes nothing.
    let is_to_be = !matches!(purpose, Purpose::Leave);
    if is_to_be {
        application::prepare_role(client, application).await?;
    }
    let mut tried = 0;
    loop {
        tried += 1;
        client.batch_execute("BEGIN; SET LOCAL statement_timeout = '60s'").await.map_err(refused)?;
        let prepared = async {
            let told = upgrade(client, schema, purpose).await?;
            if is_to_be && told.is_some() {
                application::prepare_schema(client, application, schema).await?;
            }
            Ok::<_, OpenError>(told)
        };
        let prepared = prepared.await;
        let end = if prepared.is_ok() { "COMMIT" } else { "ROLLBACK" };
        let ended = client.batch_execute(end).await.map_err(refused);
        match prepared {
            Err(OpenError::Store(StoreError::Busy)) if tried < UPGRADES && ended.is_ok() => env.sleep(PAUSE).await,
            Err(cause) => return Err(cause),
            Ok(told) => return ended.map(|()| told),
        }
    }
}

async fn upgrade(client: &Client, schema: &str, purpose: Purpose) -> Result<Option<Told>, OpenError> {
    let s = format!("\"{schema}\"");
    let lock = words::tables(schema);
    client.query_typed("SELECT pg_advisory_xact_lock($1)", &[(&lock, Type::INT8)]).await.map_err(refused)?;
    let found = found(client, schema, &s).await?;
    let known = VERSIONS.len();
    if found > known {
        let number = |n| u32::try_from(n).unwrap_or(u32::MAX);
        return Err(OpenError::Newer { path: schema.into(), found: number(found), known: number(known) });
    }
    if found == 0 {
        if matches!(purpose, Purpose::Leave | Purpose::Arrive(Mark { arrival: Some(_), .. }, _)) {
            return Ok(None);
        }
        client.batch_execute(&format!("CREATE SCHEMA IF NOT EXISTS {s}")).await.map_err(refused)?;
    }
    // Nodes of the version before may be at work. Everybody who comes waits behind whoever waits for a table, so that is for
    // moments; and all of them are had before any is changed.
    if (1..known).contains(&found) {
        // Nodes open what is on its way no more, or not yet: nobody else would ever bring it to this version.
        let is_on_its_way = async || {
            let told = told(client, &s).await.map_err(refused)?;
            Ok::<_, OpenError>(told.arriving.is_some() || told.gone.is_some())
        };
        if !matches!(purpose, Purpose::Open(_)) && (found < MOVES || !is_on_its_way().await?) {
            let what = format!(
                "the tables in schema `{schema}` have version {found}, and a move needs version {known}: start a node of this \
                 version there once"
            );
            return Err(OpenError::Unsuitable { what });
        }
        let lock = format!(
            "SET LOCAL lock_timeout = '{WAITS}';
             LOCK TABLE {s}.stream, {s}.event, {s}.pending, {s}.meta IN ACCESS EXCLUSIVE MODE"
        );
        client.batch_execute(&lock).await.map_err(refused)?;
    }
    for version in &VERSIONS[found..] {
        client.batch_execute(&version.replace("{s}", &s)).await.map_err(refused)?;
    }
    if found > 0 {
        renew_functions(client, schema, &s).await?;
    }
    let version = i32::try_from(known).unwrap_or(i32::MAX);
    let (store, epoch, arrival) = match purpose {
        Purpose::Arrive(mark, drawn) => (mark.from.store, mark.from.epoch, Some(drawn.cast_signed())),
        Purpose::Open(store) => (store, 1, None),
        Purpose::Leave => (0, 0, None),
    };
    let upsert = format!(
        "INSERT INTO {s}.meta (version, store, epoch, arrival, arriving) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (one) DO UPDATE SET version = $1 WHERE meta.version <> $1"
    );
    let arriving = arrival.map(|_| i64::from(epoch));
    let params: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 5] = [
        (&version, Type::INT4),
        (&store.cast_signed(), Type::INT8),
        (&epoch.cast_signed(), Type::INT4),
        (&arrival, Type::INT8),
        (&arriving, Type::INT8),
    ];
    client.query_typed(&upsert, &params).await.map_err(refused)?;
    let told = told(client, &s).await.map_err(refused)?;
    if matches!(purpose, Purpose::Open(_)) {
        if let Some(gone) = told.gone {
            return Err(OpenError::Moved { path: schema.into(), to: gone.to });
        }
        if told.arriving.is_some() {
            return Err(OpenError::Arriving { path: schema.into() });
        }
    }
    Ok(Some(told))
}

/// Makes the functions anew where one is not as it is to be: the schema was renamed, whose name is in them, or somebody changed it.
async fn renew_functions(client: &Client, schema: &str, s: &str) -> Result<(), OpenError> {
    const THERE: &str = "SELECT p.proname::text, p.prosrc FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname = $1 AND p.provolatile = 'v' AND NOT p.prosecdef AND p.proconfig = '{enable_seqscan=off,jit=off}'";
    let there = client.query_typed(THERE, &[(&schema, Type::TEXT)]).await.map_err(refused)?;
    let is_there =
        |name: &str, body: &str| there.iter().any(|row| row.get::<_, &str>(0) == name && row.get::<_, &str>(1) == body);
    if functions(schema).all(|(name, body)| is_there(name, &body)) {
        return Ok(());
    }
    let made = FUNCTIONS.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION").replace("{s}", s);
    client.batch_execute(&made).await.map_err(refused)
}

/// What the tables say of the store.
pub(super) async fn told(client: &Client, s: &str) -> Result<Told, tokio_postgres::Error> {
    let select = format!("SELECT store, epoch, arriving, arrival, moved_to, moved_arrival FROM {s}.meta");
    let row = client.query_typed_one(&select, &[]).await?;
    let (store, epoch): (i64, i32) = (row.try_get(0)?, row.try_get(1)?);
    let (arriving, arrival): (Option<i64>, Option<i64>) = (row.try_get(2)?, row.try_get(3)?);
    let (to, as_which): (Option<String>, Option<i64>) = (row.try_get(4)?, row.try_get(5)?);
    Ok(Told {
        timeline: Timeline { store: store.cast_unsigned(), epoch: epoch.cast_unsigned() },
        // It was written as such a number.
        arriving: arriving.map(|epoch| u32::try_from(epoch).unwrap_or(u32::MAX)),
        arrival: arrival.map(i64::cast_unsigned),
        gone: to.zip(as_which).map(|(to, arrival)| Gone { to, arrival: arrival.cast_unsigned() }),
    })
}

/// The version that is there; 0 without tables. A schema with other things in it is somebody else's.
async fn found(client: &Client, schema: &str, s: &str) -> Result<usize, OpenError> {
    let sql = "SELECT count(*), count(*) FILTER (WHERE c.relname = 'meta') FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')";
    let row = client.query_typed_one(sql, &[(&schema, Type::TEXT)]).await.map_err(refused)?;
    match (row.get::<_, i64>(0), row.get::<_, i64>(1)) {
        (0, _) => Ok(0),
        (_, 0) => {
            let what = format!("schema `{schema}` has tables that quorate did not make: name another one");
            Err(OpenError::Unsuitable { what })
        }
        _ => {
            let row = client.query_typed_opt(&format!("SELECT version FROM {s}.meta"), &[]).await.map_err(refused)?;
            Ok(row.map_or(0, |row| usize::try_from(row.get::<_, i32>(0)).unwrap_or(0)))
        }
    }
}

pub(super) fn refused(failed: tokio_postgres::Error) -> OpenError {
    OpenError::Store(Fault::from(failed).into_store("opening the store"))
}
