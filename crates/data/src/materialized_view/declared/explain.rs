//! Why a row is as it is: the events that made it.

use std::{collections::BTreeSet, collections::VecDeque, sync::Arc, time::Duration};

use serde_json::Value as Json;

use super::{
    document::{Document, TableShape},
    kind::Kind,
    projection::Declared,
    replica::{Replica, ReplicaError},
};
use crate::{
    event::{Position, Recorded, Version},
    materialized_view::{Build, BuildDescription, Fingerprint, ViewError, ViewName, Views, rows},
    store::{ReadLog, Row, Value},
};

/// How long an explanation may take, in the time of the process.
const TIME: Duration = Duration::from_secs(30);
/// The memory that the view's tables may take meanwhile, in bytes.
const BYTES: usize = 256 << 20;
/// The most events that are listed.
pub(super) const MAX_CHANGES: usize = 1_000;

/// The row that is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The table.
    pub table: String,
    /// The values of its key's columns, in order, as texts.
    pub key: Vec<String>,
}

/// The events that made a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The build: the one readers have.
    pub build: Build,
    /// Its version.
    pub version: u32,
    /// It holds every event up to here.
    pub position: Position,
    /// The row as those events leave it; `None`: there is none.
    pub row: Option<Json>,
    /// What changed the row, oldest first; the newest 1,000 where there are more.
    pub changes: Vec<Change>,
    /// How many events changed it.
    pub total: u64,
}

/// An event that changed a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Where the event stands in the log.
    pub position: Position,
    /// Its stream.
    pub stream: String,
    /// Its place in the stream.
    pub stream_version: Version,
    /// Its type.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// The row before it; `None`: there was none.
    pub before: Option<Json>,
    /// The row after it; `None`: there was none.
    pub after: Option<Json>,
}

impl Views {
    /// Says which events made a row of a declared view, by applying the log to an empty copy of the view in memory, up to
    /// where the build is that readers have. Events that the build parked or skipped are left out here, too.
    ///
    /// It reads every event of the view, and takes as long; one runs at a time.
    ///
    /// # Errors
    /// [`ViewError::NoCode`] for a view that was not declared. [`ViewError::Unexplained`] where it takes more time or memory
    /// than it may, and where its build was dropped or somebody was erased meanwhile.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is changed.
    pub async fn explain(&self, view: &ViewName, asked: &Asked) -> Result<Explanation, ViewError> {
        let forgotten = self.shared.forgotten.subscribe();
        let described = self.get(view).await?.describe().await?;
        let live = described.builds.into_iter().find(|build| build.live);
        let live =
            live.ok_or(ViewError::NotBuilt { view: view.clone(), applied: Position::ZERO, head: described.head })?;
        let document = self.made_by(view, &live).await?;
        let table = document.tables.iter().position(|table| table.name == asked.table).ok_or_else(|| {
            let all: Vec<&str> = document.tables().iter().map(|table| table.name.as_str()).collect();
            ViewError::invalid(format!("view `{view}` has no table `{}`; it has {}", asked.table, all.join(", ")))
        })?;
        let key = key(&document.tables[table], &asked.key)?;
        let Ok(_one_at_a_time) = self.shared.explaining.try_lock() else {
            return Err(ViewError::Explaining);
        };
        let explanation = self.made(&document, &live, table, key).await?;
        // What was parked is known of builds that are there, and rows of before an erasure go to nobody.
        let is_there = rows::build(&mut &self.shared.store, live.build).await?.is_some();
        if !is_there || forgotten.has_changed().unwrap_or(true) {
            let why = "its build was dropped, or somebody was erased, meanwhile: ask once more".to_owned();
            return Err(ViewError::Unexplained { why });
        }
        Ok(explanation)
    }

    /// The document that a build was made by.
    async fn made_by(&self, view: &ViewName, live: &BuildDescription) -> Result<Arc<Document>, ViewError> {
        let known = || {
            let document = self.declared(view, live.version)?;
            (Fingerprint::of(&Declared(document.clone())) == live.fingerprint).then_some(document)
        };
        if let Some(document) = known() {
            return Ok(document);
        }
        // Somebody else may have declared it.
        self.start_known().await?;
        known().ok_or_else(|| ViewError::NoCode { view: view.clone() })
    }

    async fn made(
        &self,
        document: &Arc<Document>,
        live: &BuildDescription,
        table: usize,
        key: Vec<Value>,
    ) -> Result<Explanation, ViewError> {
        let store = &self.shared.store;
        let replica = Replica::new(store.env(), document, store.limits(), BYTES, TIME).map_err(unexplained)?;
        let mut search =
            Search { document: document.clone(), replica, table, key, row: None, changes: VecDeque::new(), total: 0 };
        let mut after = Position::ZERO;
        while after < live.position {
            let limit = store.limits().page_events.min(1_000);
            let read = ReadLog { query: document.query().clone(), after, limit };
            let page = store.read_log(read).await?;
            let aside = aside(self, live.build, after, page.scanned).await?;
            let is_in = |event: &Recorded| event.position() <= live.position && !aside.contains(&event.position());
            let events: Vec<Recorded> = page.events.into_iter().filter(is_in).collect();
            search = store.env().run_blocking(move || search.through(&events)).await.map_err(unexplained)?;
            after = page.scanned.max(after);
            if page.scanned >= page.head {
                break;
            }
        }
        let shape = &document.tables[table];
        Ok(Explanation {
            build: live.build,
            version: live.version,
            position: live.position,
            row: search.row.as_ref().map(|row| shown(shape, row)),
            changes: search.changes.into(),
            total: search.total,
        })
    }
}

/// A replay under way.
struct Search {
    document: Arc<Document>,
    replica: Replica,
    table: usize,
    key: Vec<Value>,
    row: Option<Row>,
    changes: VecDeque<Change>,
    total: u64,
}

impl Search {
    fn through(mut self, events: &[Recorded]) -> Result<Self, ReplicaError> {
        let document = self.document.clone();
        let shape = &document.tables[self.table];
        for event in events {
            self.replica.apply(&document, event)?;
            let row = self.replica.row(shape, &self.key)?;
            if row == self.row {
                continue;
            }
            let before = std::mem::replace(&mut self.row, row);
            if self.changes.len() == MAX_CHANGES {
                self.changes.pop_front();
            }
            self.total += 1;
            self.changes.push_back(Change {
                position: event.position(),
                stream: event.stream().to_owned(),
                stream_version: event.version(),
                kind: event.kind().to_owned(),
                id: event.id().to_owned(),
                before: before.as_ref().map(|row| shown(shape, row)),
                after: self.row.as_ref().map(|row| shown(shape, row)),
            });
        }
        Ok(self)
    }
}

/// Positions of events that a build parked or skipped.
async fn aside(views: &Views, build: Build, after: Position, to: Position) -> Result<BTreeSet<Position>, ViewError> {
    let sql = "SELECT position FROM quorate_view_parked WHERE build = $1 AND position > $2 AND position <= $3
        UNION SELECT position FROM quorate_view_skipped WHERE build = $1 AND position > $2 AND position <= $3";
    let params = vec![rows::of(build), rows::position(after), rows::position(to)];
    let found = views.shared.store.room_query(sql, params).await?;
    found.iter().map(|row| rows::unsigned(row.at(0), "position").map(Position::new)).collect()
}

/// The key's values, from texts.
fn key(table: &TableShape, given: &[String]) -> Result<Vec<Value>, ViewError> {
    if given.len() != table.key.len() {
        let (wanted, given) = (table.key.join(", "), given.len());
        let what = format!("the key of `{}` has the columns {wanted}, and {given} values were given", table.name);
        return Err(ViewError::invalid(what));
    }
    let one = |(column, text): (&String, &String)| {
        let kind = table.column(column).map_or(Kind::Text, |column| column.kind);
        let read = match (kind, text.as_str()) {
            (Kind::Boolean, "true") => Ok(true.into()),
            (Kind::Boolean, "false") => Ok(false.into()),
            _ => kind.of_text(text),
        };
        read.map_err(|why| ViewError::invalid(format!("`{column}`: {why}")))
    };
    table.key.iter().zip(given).map(one).collect()
}

/// A row as it is shown: without the position that wrote it, which is the event's.
fn shown(table: &TableShape, row: &Row) -> Json {
    let columns = table.columns.iter().zip(&row.values);
    columns
        .map(|(column, value)| (column.name.clone(), column.kind.show(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn unexplained(failed: ReplicaError) -> ViewError {
    match failed {
        ReplicaError::Refused(why) => ViewError::Unexplained { why },
        ReplicaError::TooLong => ViewError::Unexplained { why: format!("it takes longer than {TIME:?}") },
        ReplicaError::Store(cause) => cause.into(),
    }
}
