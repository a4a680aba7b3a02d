//! cqrs-es on SQLite (sqlite-es), at the level of its event repository: rows in, rows out, no aggregate above.
//!
//! One transaction per append. There are no tags, no ids of events and no order across aggregates: ids and tags travel in
//! the metadata, where nothing finds or compares them, and reading everything is in the order of the versions within
//! each aggregate. The version of each event is the appender's business; the primary key refuses one that is taken.

use std::path::Path;

use cqrs_es::{
    Aggregate, DomainEvent,
    event_sink::EventSink,
    persist::{PersistedEventRepository as _, SerializedEvent},
};
use peer::{Context as _, Event, Happened, Log, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlite_es::SqliteEventRepository;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

/// The table that sqlite-es documents for its events.
const TABLE: &str = "
CREATE TABLE events
(
  aggregate_type text                          NOT NULL,
  aggregate_id   text                          NOT NULL,
  sequence       integer CHECK (sequence >= 0) NOT NULL,
  event_type     text                          NOT NULL,
  event_version  text                          NOT NULL,
  payload        text                          NOT NULL,
  metadata       text                          NOT NULL,
  PRIMARY KEY (aggregate_type, aggregate_id, sequence)
) STRICT;
";

/// Connections, as many as sqlite-es opens by itself.
const CONNECTIONS: u32 = 10;

fn main() -> Result<()> {
    peer::main::<CqrsEs>()
}

#[derive(Clone)]
struct CqrsEs(std::sync::Arc<SqliteEventRepository>);

impl Log for CqrsEs {
    async fn open(folder: &Path) -> Result<Self> {
        // As `sqlite_es::default_sqlite_pool`, which is `NORMAL`: it would acknowledge before syncing.
        let options = SqliteConnectOptions::new()
            .filename(folder.join("events.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true);
        let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS).connect_with(options).await?;
        sqlx::raw_sql(TABLE).execute(&pool).await?;
        Ok(Self(std::sync::Arc::new(SqliteEventRepository::new(pool))))
    }

    async fn append(&self, events: Vec<Event>) -> Result<()> {
        let rows = events.into_iter().map(row).collect::<Result<Vec<_>>>()?;
        Ok(self.0.persist::<Account>(&rows, None).await?)
    }

    async fn load_and_append(&self, mut event: Event) -> Result<usize> {
        let loaded = self.0.get_events::<Account>(&event.stream).await?;
        event.version = loaded.last().context("nothing was loaded")?.sequence + 1;
        self.append(vec![event]).await?;
        Ok(loaded.len())
    }

    async fn read_everything(&self) -> Result<u64> {
        let mut events = self.0.stream_all_events::<Account>().await?;
        let mut read = 0;
        while let Some(event) = events.next::<Account>(&[]).await {
            event?;
            read += 1;
        }
        Ok(read)
    }
}

fn row(event: Event) -> Result<SerializedEvent> {
    let payload = Posted(event.data);
    Ok(SerializedEvent::new(
        event.stream,
        event.version,
        Account::TYPE.to_owned(),
        payload.event_type(),
        payload.event_version(),
        serde_json::to_value(&payload)?,
        json!({ "id": event.id.to_string(), "tags": event.tags.join(" ") }),
    ))
}

/// The aggregate that types speak of; it is never asked anything.
#[derive(Default, Serialize, Deserialize)]
struct Account;

impl Aggregate for Account {
    const TYPE: &'static str = "account";
    type Command = ();
    type Event = Posted;
    type Error = std::convert::Infallible;
    type Services = ();

    async fn handle(&mut self, (): (), (): &(), _: &EventSink<Self>) -> Result<(), Self::Error> {
        Ok(())
    }

    fn apply(&mut self, _: Posted) {}
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Posted(Happened);

impl DomainEvent for Posted {
    fn event_type(&self) -> String {
        peer::TYPE.to_owned()
    }

    fn event_version(&self) -> String {
        "1.0".to_owned()
    }
}
