//! Opening a store: refuse what would lose something, then make the tables.

use std::sync::Arc;

use quorate_runtime::Env;
use tokio_postgres::Client;

use super::{
    Address, Config,
    backend::{PostgresBackend, Shared},
    connect::{Connector, Pool},
    schemas,
    sequencer::{End, Orders, Sequencer},
    statements::Statements,
    tables::{self, Purpose, refused},
    words,
};
use crate::{
    schema::SchemaRegistry,
    store::{OpenError, Store},
};

/// The oldest server that has what is used here.
const OLDEST: i32 = 130_000;

/// Opens the store in the database of `config`, making its tables if they are not there.
///
/// Several processes may have it open at once.
///
/// # Errors
/// [`OpenError::Unsuitable`] for a server that would lose commits (`fsync` or `full_page_writes` off), is too old, keeps texts
/// in another encoding than UTF-8, or is a standby. Others as in [`OpenError`]; nothing was changed.
pub async fn open(env: &Env, config: Config) -> Result<Store, OpenError> {
    let Config { address: Address(server), schema, application, connections, notifications, patience, limits, schemas } =
        config;
    check_names(&schema, &application)?;
    let connector = || Connector::new(env, server.clone());
    let client = connector().connect().await.map_err(|fault| OpenError::Store(fault.into_store("connecting")))?;
    let flush = check_server(&client).await?;
    // Ids stay below 2^63, so that they are the same number in every language.
    let purpose = Purpose::Open(env.random("store/open").u64() >> 1);
    let told = tables::prepare(env, &client, &schema, &application, purpose).await?;
    let timeline = told.unwrap_or_else(|| unreachable!("invariant: a store that is opened is made")).timeline;
    let sql = Statements::new(&schema, &application, words::sequencing(timeline.store), flush, limits.unit_time);
    let (stored, count) = schemas::load(&client, &sql.schema, schemas).await?;
    let end = client.query_typed_opt(&sql.end, &[]).await.map_err(refused)?;
    let end = end.map_or_else(End::default, |row| End {
        position: row.get::<_, i64>(0).cast_unsigned(),
        event: row.get::<_, i64>(1).cast_unsigned(),
    });
    drop(client);
    let orders = Orders {
        run: sql.sequence.clone(),
        silent: sql.sequence_silently.clone(),
        listen: notifications.then(|| sql.listen.clone()),
        end: sql.end.clone(),
    };
    let tasks = env.tasks().child("store");
    let shared = Arc::new(Shared::new(
        env.clone(),
        sql,
        timeline,
        limits,
        SchemaRegistry::with(stored),
        count,
        patience,
        Arc::new(Sequencer::new(end)),
        Pool::new(connector(), connections.max(1)),
        Pool::new(connector(), (connections / 4).max(1)),
        tasks.clone(),
    ));
    let sequencer = shared.sequencer.clone();
    tasks.spawn("store/sequencer", sequencer.run(env.clone(), connector(), orders, tasks.clone()));
    Ok(Store::new(env, Arc::new(PostgresBackend::new(shared))))
}

/// Refuses names of schemas that are none, or the same.
pub(super) fn check_names(schema: &str, application: &str) -> Result<(), OpenError> {
    check_name(schema)?;
    check_name(application)?;
    if schema == application {
        let what = format!("schema `{schema}` cannot be both the store's and the application's: name another one");
        return Err(OpenError::Unsuitable { what });
    }
    Ok(())
}

fn check_name(schema: &str) -> Result<(), OpenError> {
    let spelled = schema.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if spelled && (1..=48).contains(&schema.len()) && !schema.starts_with("pg_") {
        return Ok(());
    }
    let what = format!("`{schema}` is no name of a schema: 1 to 48 of a-z, 0-9 and _, not beginning with pg_");
    Err(OpenError::Unsuitable { what })
}

/// Refuses a server that would lose something. Whether commits have to be told to flush.
pub(super) async fn check_server(client: &Client) -> Result<bool, OpenError> {
    const SETTINGS: &str = "SELECT current_setting('server_version_num')::int, current_setting('server_encoding'),
        pg_is_in_recovery(), current_setting('fsync'), current_setting('full_page_writes'),
        current_setting('synchronous_commit'), current_setting('transaction_read_only')";
    let row = client.query_typed_one(SETTINGS, &[]).await.map_err(refused)?;
    let text = |n: usize| row.get::<_, &str>(n);
    let unsuitable = |what: String| Err(OpenError::Unsuitable { what });
    if row.get::<_, i32>(0) < OLDEST {
        return unsuitable(format!("the server has version {}, 13 or newer is needed", row.get::<_, i32>(0) / 10_000));
    }
    if text(1) != "UTF8" {
        return unsuitable(format!("its encoding is {}: make a database with ENCODING 'UTF8'", text(1)));
    }
    if row.get(2) || text(6) == "on" {
        return unsuitable("it is read-only, or a standby: name the primary".to_owned());
    }
    for (n, setting) in [(3, "fsync"), (4, "full_page_writes")] {
        if text(n) != "on" {
            return unsuitable(format!(
                "{setting} is off, so that a crash may lose or damage what was committed: set it on"
            ));
        }
    }
    Ok(text(5) == "off")
}
