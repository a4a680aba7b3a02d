//! The handle: looking on, and asking.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use quorate_data::{
    event::{Position, Recorded},
    store::{Query, ReadLog, Retry, SqlError, Store, StoreError, TransactError},
};
use quorate_foundations::time::Wall;
use tokio::sync::{Mutex, OnceCell};

use super::{
    rows::{self, State},
    tally::{Card, Count, tally},
};

/// Events that one transaction counts at most.
const PAGE: usize = 512;
/// Pages that one question reads at most.
const PAGES: usize = 128;
/// How long one question reads on at most.
const PATIENCE: Duration = Duration::from_secs(1);

/// The catalogue of a store's events. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct Catalogue {
    room: Arc<Room>,
}

struct Room {
    store: Store,
    tables: OnceCell<()>,
    /// One reads on at a time; whoever asks meanwhile is told how far that one has come.
    looking: Mutex<()>,
}

/// How far the catalogue has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Everything up to here is counted.
    pub scanned: Position,
    /// The last position of the log.
    pub head: Position,
    /// Types that have a card of their own.
    pub types: u64,
    /// Events of types beyond [`MAX_TYPES`](Catalogue::MAX_TYPES) or longer than [`MAX_NAME_BYTES`](Catalogue::MAX_NAME_BYTES), which
    /// have none.
    pub others: u64,
}

/// A type of which the log holds events, or held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The type.
    pub event_type: String,
    /// How many events there are or were.
    pub events: u64,
    /// The first of them.
    pub first: Position,
    /// The last of them.
    pub last: Position,
    /// When that was recorded, by the wall clock.
    pub recorded: Wall,
    /// Who sent them, in order of their names.
    pub producers: Vec<Producer>,
    /// How many more there are that this listing does not name.
    pub more_producers: usize,
    /// What they say they follow, in order of its address.
    pub schemas: Vec<Followed>,
    /// How many more there are that this listing does not name.
    pub more_schemas: usize,
    /// Events whose producer and schema have no card, since there are too many or they are too long.
    pub others: u64,
}

/// Who sends events of a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    /// The events' `source`.
    pub source: String,
    /// How many.
    pub events: u64,
    /// The last of them.
    pub last: Position,
    /// When that was recorded, by the wall clock.
    pub recorded: Wall,
}

/// What events of a type say they follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// The events' `dataschema`; `None`: they say nothing.
    pub dataschema: Option<String>,
    /// How many.
    pub events: u64,
    /// The last of them.
    pub last: Position,
}

/// What can go wrong with the catalogue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogueError {
    /// A page of none, or of more than there may be.
    #[error("`limit` is 1 to {max}, {limit} was asked for", max = Catalogue::MAX_PAGE)]
    Limit {
        /// What was asked for.
        limit: u32,
    },
    /// The store failed. What was counted before is kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its tables cannot be used.
    #[error("the tables of the catalogue cannot be used")]
    Tables(#[source] SqlError),
}

impl CatalogueError {
    /// Whether repeating can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Store(cause) | Self::Tables(SqlError::Store(cause)) => cause.retry(),
            Self::Limit { .. } | Self::Tables(_) => Retry::Never,
        }
    }
}

impl From<SqlError> for CatalogueError {
    fn from(failed: SqlError) -> Self {
        match failed {
            SqlError::Store(cause) => Self::Store(cause),
            other => Self::Tables(other),
        }
    }
}

impl Reach {
    /// Whether nothing is left to be read.
    pub fn is_all(&self) -> bool {
        self.scanned >= self.head
    }

    /// Whether every event of the log is counted under its type: of a type that has no card there is none.
    pub fn knows_all(&self) -> bool {
        self.is_all() && self.others == 0
    }
}

impl Catalogue {
    /// Types that have a card of their own.
    pub const MAX_TYPES: u64 = 10_000;
    /// Pairs of schema and source that have a card of their own, for each type.
    pub const MAX_CARDS: u64 = 256;
    /// A type, a source or an address of a schema that is longer has no card.
    pub const MAX_NAME_BYTES: usize = 512;
    /// Producers, and schemas, that a listing names of each type.
    pub const MAX_LISTED: usize = 16;
    /// The most types of a page.
    pub const MAX_PAGE: u32 = 100;
    /// The most events that one question reads on.
    pub const MAX_LOOK: usize = PAGE * PAGES;

    /// The catalogue of `store`. Its tables are made when somebody asks for the first time.
    pub fn new(store: &Store) -> Self {
        let (store, tables, looking) = (store.clone(), OnceCell::new(), Mutex::new(()));
        Self { room: Arc::new(Room { store, tables, looking }) }
    }

    /// Reads the log on from where it stopped, for at most a second and [`MAX_LOOK`](Self::MAX_LOOK) events, and says how far it has come:
    /// ask again where that is not all.
    ///
    /// Where the disk is full, or the store too busy to write, it stops there: what was counted before can be asked for all the same.
    ///
    /// # Errors
    /// What was counted before the error is kept.
    ///
    /// # Cancel safety
    /// Dropping the future leaves what was counted so far.
    pub async fn look(&self) -> Result<Reach, CatalogueError> {
        if !self.open().await? {
            return self.reach().await;
        }
        let store = &self.room.store;
        let Ok(_turn) = self.room.looking.try_lock() else {
            // Somebody is at it: what he has come to is as good, and whoever waits behind him waits no second second.
            drop(self.room.looking.lock().await);
            return self.reach().await;
        };
        let deadline = store.env().mono() + PATIENCE;
        for _ in 0..PAGES {
            let state = rows::state(store).await?;
            if state.scanned >= store.head() || store.env().mono() >= deadline {
                break;
            }
            if !self.page(state).await? {
                break;
            }
        }
        self.reach().await
    }

    /// Counts a page; false if nothing can be written for the moment. Where another process was first it changes nothing, and the next
    /// one begins where that has come to.
    async fn page(&self, state: State) -> Result<bool, CatalogueError> {
        let (events, scanned) = self.read(state.scanned).await?;
        let tally = Arc::new(tally(&events));
        let added = self.room.store.transact(move |tx| {
            let tally = tally.clone();
            Box::pin(async move { rows::add(tx, state, scanned, &tally).await })
        });
        match added.await {
            Ok(_was_first) => Ok(true),
            Err(TransactError::Aborted(CatalogueError::Store(cause)) | TransactError::Store(cause)) => not_now(cause),
            Err(TransactError::Aborted(own)) => Err(own),
            Err(other) => Err(CatalogueError::Tables(SqlError::Failed { what: other.to_string() })),
        }
    }

    /// The events behind `after`, and how far was read. One whose key is lost can be read by nobody: it is passed over.
    async fn read(&self, after: Position) -> Result<(Vec<Recorded>, Position), CatalogueError> {
        let most = PAGE.min(self.room.store.limits().page_events);
        for limit in [most, 1] {
            match self.room.store.read_log(ReadLog { query: Query::EVERYTHING, after, limit }).await {
                Ok(page) => return Ok((page.events, page.scanned)),
                Err(StoreError::KeyMissing { .. }) => {}
                Err(cause) => return Err(cause.into()),
            }
        }
        Ok((Vec::new(), after.next()))
    }

    async fn reach(&self) -> Result<Reach, CatalogueError> {
        let store = &self.room.store;
        if !self.room.tables.initialized() {
            return Ok(Reach { scanned: Position::ZERO, head: store.head(), types: 0, others: 0 });
        }
        let State { scanned, types } = rows::state(store).await?;
        let others = rows::cards(store, "").await?.iter().map(|(_, count)| count.events).sum();
        Ok(Reach { scanned, head: store.head(), types, others })
    }

    /// Types in order of their names: `limit` (1 to [`MAX_PAGE`](Self::MAX_PAGE)) of those behind `after`, each with at most
    /// [`MAX_LISTED`](Self::MAX_LISTED) producers and schemas.
    pub async fn list(&self, after: Option<&str>, limit: u32) -> Result<Vec<Seen>, CatalogueError> {
        if !(1..=Self::MAX_PAGE).contains(&limit) {
            return Err(CatalogueError::Limit { limit });
        }
        if !self.open().await? {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for event_type in rows::types(&self.room.store, after.unwrap_or_default(), limit).await? {
            found.extend(seen(&event_type, &rows::cards(&self.room.store, &event_type).await?, Self::MAX_LISTED));
        }
        Ok(found)
    }

    /// What is known of a type; `None` if it was not seen, or has no card.
    pub async fn get(&self, event_type: &str) -> Result<Option<Seen>, CatalogueError> {
        if event_type.is_empty() || !self.open().await? {
            return Ok(None);
        }
        Ok(seen(event_type, &rows::cards(&self.room.store, event_type).await?, usize::MAX))
    }

    /// Sees to it that the tables are there; false if they are not and cannot be made for the moment: then nothing is counted yet.
    async fn open(&self) -> Result<bool, CatalogueError> {
        match self.room.tables.get_or_try_init(|| self.room.store.declare(rows::TABLES)).await {
            Ok(()) => Ok(true),
            Err(SqlError::Store(cause)) => not_now(cause),
            Err(cause) => Err(cause.into()),
        }
    }
}

/// False where nothing was written and the store goes on by itself, which keeps nobody from reading; anything else is an error.
fn not_now(cause: StoreError) -> Result<bool, CatalogueError> {
    match cause {
        StoreError::DiskFull | StoreError::Busy | StoreError::Overloaded { .. } => {
            tracing::debug!(%cause, "the catalogue of events is not read on for the moment");
            Ok(false)
        }
        cause => Err(cause.into()),
    }
}

/// What the cards of a type say together, with at most so many producers and schemas.
fn seen(event_type: &str, cards: &[(Card, Count)], most: usize) -> Option<Seen> {
    let all = cards.iter().map(|(_, count)| *count).reduce(Count::and)?;
    let others = cards.iter().filter(|(card, _)| card.is_of_others()).map(|(_, count)| count.events).sum();
    let (mut by_source, mut by_schema) = (BTreeMap::<&str, Count>::new(), BTreeMap::<&str, Count>::new());
    for (card, count) in cards.iter().filter(|(card, _)| !card.is_of_others()) {
        for (all, name) in [(&mut by_source, &card.source), (&mut by_schema, &card.dataschema)] {
            all.entry(name).and_modify(|sum| *sum = sum.and(*count)).or_insert(*count);
        }
    }
    let producer = |(source, count): (&str, Count)| Producer {
        source: source.to_owned(),
        events: count.events,
        last: count.last,
        recorded: count.recorded,
    };
    let followed = |(dataschema, count): (&str, Count)| Followed {
        dataschema: (!dataschema.is_empty()).then(|| dataschema.to_owned()),
        events: count.events,
        last: count.last,
    };
    Some(Seen {
        event_type: event_type.to_owned(),
        events: all.events,
        first: all.first,
        last: all.last,
        recorded: all.recorded,
        more_producers: by_source.len().saturating_sub(most),
        more_schemas: by_schema.len().saturating_sub(most),
        producers: by_source.into_iter().take(most).map(producer).collect(),
        schemas: by_schema.into_iter().take(most).map(followed).collect(),
        others,
    })
}
