//! eventcore on SQLite, at the level of its event store: no command, no snapshot above.
//!
//! One transaction per append, all through one connection. An id is given to each event by the store, time-ordered, and
//! orders the log; one cannot be brought along, so a repeated append is a second event. There are no tags: ours travel
//! in the data, where nothing finds them. The appender names the version that it expects; there is no "any".

use std::{path::Path, sync::Arc};

use eventcore_sqlite::{SqliteEventStore, rusqlite::Connection};
use eventcore_types::{
    BatchSize, EventFilter, EventPage, EventReader as _, EventStore as _, StreamId, StreamVersion, StreamWrites,
};
use futures::TryStreamExt as _;
use peer::{Event, Happened, Log, Result, ensure};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Events of one page of catch-up, as many as quorate's own bench asks for.
const PAGE: usize = 4_096;

fn main() -> Result<()> {
    peer::main::<EventCore>()
}

#[derive(Clone)]
struct EventCore(Arc<SqliteEventStore>);

impl Log for EventCore {
    async fn open(folder: &Path) -> Result<Self> {
        let connection = Connection::open(folder.join("events.db"))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        let store = SqliteEventStore::from_connection(connection);
        store.migrate().await?;
        Ok(Self(Arc::new(store)))
    }

    async fn append(&self, events: Vec<Event>) -> Result<()> {
        let mut writes = StreamWrites::new();
        for event in events {
            let expected = StreamVersion::new(event.version - 1);
            let event = Posted::of(event)?;
            writes = writes.register_stream(event.stream.clone(), expected)?.append(event)?;
        }
        self.0.append_events(writes).await?;
        Ok(())
    }

    async fn load_and_append(&self, mut event: Event) -> Result<usize> {
        let stream = StreamId::try_new(event.stream.clone())?;
        let loaded: Vec<Posted> = self.0.read_stream(stream).await?.try_collect().await?;
        event.version = loaded.len() + 1;
        self.append(vec![event]).await?;
        Ok(loaded.len())
    }

    async fn read_everything(&self) -> Result<u64> {
        let limit = BatchSize::new(PAGE);
        let (mut page, mut read) = (EventPage::first(limit), 0);
        loop {
            let events: Vec<(Posted, _)> = self.0.read_events(EventFilter::all(), page).await?;
            let Some((_, last)) = events.last() else { return Ok(read) };
            page = EventPage::after(*last, limit);
            read += events.len() as u64;
        }
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct Posted {
    stream: StreamId,
    id: Uuid,
    tags: [String; 2],
    happened: Happened,
}

impl Posted {
    fn of(event: Event) -> Result<Self> {
        ensure!(event.version > 0, "versions count from 1");
        Ok(Self { stream: StreamId::try_new(event.stream)?, id: event.id, tags: event.tags, happened: event.data })
    }
}

impl eventcore_types::Event for Posted {
    fn stream_id(&self) -> &StreamId {
        &self.stream
    }

    fn event_type_name() -> &'static str {
        peer::TYPE
    }
}
