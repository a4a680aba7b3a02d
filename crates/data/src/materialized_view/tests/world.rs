//! A view for tests: how many events each stream has, and the sum of their positions.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use quorate_foundations::name::Name;
use quorate_runtime::{BoxFuture, Env};

use super::super::*;
use crate::{
    event::{NewEvent, Position, Recorded},
    store::{AppendBatch, AppendError, Appended, ExpectedVersion, Query, QueryItem, Store, sqlite},
};

/// A store in a folder of its own.
pub(in super::super) struct World(tempfile::TempDir);

impl World {
    pub(in super::super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(in super::super) async fn open(&self) -> Store {
        sqlite::open(&Env::real(), sqlite::Config::at(self.0.path().join("log.db"))).await.unwrap()
    }
}

/// Counts events per stream.
#[derive(Clone)]
pub(in super::super) struct Tally {
    pub(in super::super) name: ViewName,
    pub(in super::super) version: u32,
    pub(in super::super) query: Query,
    pub(in super::super) fold: String,
    pub(in super::super) probe: Vec<NewEvent>,
    /// How much an event counts.
    pub(in super::super) weight: i64,
    pub(in super::super) on_rebuild: OnRebuild,
    /// Whether events of type `poison` cannot be applied.
    pub(in super::super) poisonous: Arc<AtomicBool>,
}

impl Tally {
    pub(in super::super) fn new() -> Self {
        Self {
            name: view("tally"),
            version: 1,
            query: Query::EVERYTHING,
            fold: String::new(),
            probe: Vec::new(),
            weight: 1,
            on_rebuild: OnRebuild::Suppress,
            poisonous: Arc::new(AtomicBool::new(true)),
        }
    }

    pub(in super::super) fn version(version: u32) -> Self {
        Self { version, ..Self::new() }
    }

    pub(in super::super) fn of_types(types: &[&str]) -> Self {
        Self { query: Query::of([QueryItem::types(types.iter().copied())]), ..Self::new() }
    }

    async fn take(&self, tx: &mut ViewTx<'_>, event: &Recorded) -> Result<(), ApplyError> {
        if event.kind() == "poison" && self.poisonous.load(Ordering::Relaxed) {
            return Err(ApplyError::event(event, "it is poison"));
        }
        if event.kind() == "mailed" {
            tx.effect(event, "mail", format!("to {}", event.stream()));
        }
        let position = i64::try_from(event.position().get()).unwrap();
        let sql = "INSERT INTO {tally} (stream, n, places) VALUES ($1, $2, $3)
            ON CONFLICT (stream) DO UPDATE SET n = n + $2, places = places + $3";
        tx.execute(sql, &[event.stream().into(), self.weight.into(), position.into()]).await?;
        Ok(())
    }
}

impl Projection for Tally {
    fn name(&self) -> &ViewName {
        &self.name
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn query(&self) -> Query {
        self.query.clone()
    }

    fn schema(&self) -> Schema {
        Schema::new()
            .table("tally", "CREATE TABLE {tally} (stream TEXT PRIMARY KEY, n BIGINT NOT NULL, places BIGINT NOT NULL)")
            .index("tally_n", "CREATE INDEX {tally_n} ON {tally} (n)")
    }

    fn apply<'t, 'x: 't>(
        &'t self,
        tx: &'t mut ViewTx<'x>,
        events: &'t [Recorded],
    ) -> BoxFuture<'t, Result<(), ApplyError>> {
        Box::pin(async move {
            for event in events {
                self.take(tx, event).await?;
            }
            Ok(())
        })
    }

    fn key<'e>(&self, event: &'e Recorded) -> &'e str {
        let has_key = event.kind() != "unkeyed" || !self.poisonous.load(Ordering::Relaxed);
        assert!(has_key, "nobody knows whose it is");
        event.stream()
    }

    fn effects(&self) -> Vec<EffectType> {
        vec![EffectType { name: "mail", on_rebuild: self.on_rebuild }]
    }

    fn fold(&self) -> String {
        self.fold.clone()
    }

    fn probe(&self) -> Vec<NewEvent> {
        self.probe.clone()
    }
}

/// Notes what it was to carry out.
#[derive(Clone, Default)]
pub(in super::super) struct Letterbox(Arc<Mutex<Vec<String>>>);

impl Letterbox {
    /// The positions of the events whose letters arrived, in order of arrival.
    pub(in super::super) fn letters(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl EffectHandler for Letterbox {
    fn carry_out<'e>(&'e self, effect: &'e Effect) -> BoxFuture<'e, Result<(), String>> {
        Box::pin(async move {
            self.0.lock().unwrap().push(effect.key());
            Ok(())
        })
    }
}

pub(in super::super) fn view(name: &str) -> ViewName {
    name.parse().unwrap()
}

/// A patience for tests.
pub(in super::super) fn config() -> Config {
    Config { max_attempts: 2, first_rest: Duration::from_millis(1), ..Config::default() }
}

pub(in super::super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(in super::super) async fn try_append(store: &Store, stream: &str, kinds: &[&str]) -> Result<Appended, AppendError> {
    let events = kinds.iter().map(|kind| NewEvent::new(store.event_id(), "/test", *kind)).collect();
    store.append(AppendBatch::to(name(stream), ExpectedVersion::Any, events)).await
}

/// Appends events of these types, and returns the position of the last one.
pub(in super::super) async fn append(store: &Store, stream: &str, kinds: &[&str]) -> Position {
    Position::new(try_append(store, stream, kinds).await.unwrap().token.append())
}

/// `count` events spread over `streams` streams.
pub(in super::super) async fn append_many(store: &Store, streams: usize, count: usize) {
    for n in 0..count {
        append(store, &format!("s-{}", n % streams), &["happened"]).await;
    }
}

/// Long enough for whatever a test waits for; nothing waits so long when all is well.
pub(in super::super) const LONG: Duration = Duration::from_secs(20);

impl View {
    /// The rows that readers have, once they hold everything that was appended so far.
    pub(in super::super) async fn rows_now(&self, store: &Store) -> Vec<(String, i64, i64)> {
        self.wait(store.token(), LONG).await.unwrap();
        self.rows_as_they_are().await
    }

    pub(in super::super) async fn rows_as_they_are(&self) -> Vec<(String, i64, i64)> {
        let reading = self.query("SELECT stream, n, places FROM {tally} ORDER BY stream", vec![]).await.unwrap();
        let int = |row: &crate::store::Row, n: usize| row.at(n).as_i64().unwrap();
        reading.rows.iter().map(|row| (row.at(0).as_str().unwrap().to_owned(), int(row, 1), int(row, 2))).collect()
    }

    pub(in super::super) async fn build(&self, build: Build) -> BuildDescription {
        let found = self.describe().await.unwrap().builds.into_iter().find(|known| known.build == build);
        found.unwrap_or_else(|| panic!("there is no build {build}"))
    }

    /// Waits until a build is as `is` says.
    pub(in super::super) async fn until(
        &self,
        number: u32,
        is: impl Fn(&BuildDescription) -> bool,
    ) -> BuildDescription {
        let env = Env::real();
        let looking = async {
            loop {
                let build = self.build(build(number)).await;
                if is(&build) {
                    return build;
                }
                env.sleep(Duration::from_millis(2)).await;
            }
        };
        match env.timeout(LONG, looking).await {
            Some(build) => build,
            None => panic!("it never came to that: {:#?}", self.describe().await),
        }
    }

    pub(in super::super) async fn is_whole(&self, number: u32) -> bool {
        let audit = self.audit(build(number)).await.unwrap();
        assert!(audit.is_whole(), "{audit:?}");
        assert_eq!(self.build(build(number)).await.unaccounted(), 0, "what is always counted agrees");
        true
    }
}

pub(in super::super) fn build(number: u32) -> Build {
    Build::new(number)
}

/// The fold of the log, made anew and by hand.
pub(in super::super) async fn fold(store: &Store) -> Vec<(String, i64, i64)> {
    let mut tally = std::collections::BTreeMap::<String, (i64, i64)>::new();
    let mut after = Position::ZERO;
    loop {
        let read = crate::store::ReadLog { query: Query::EVERYTHING, after, limit: 1_000 };
        let page = store.read_log(read).await.unwrap();
        for event in &page.events {
            let row = tally.entry(event.stream().to_owned()).or_default();
            *row = (row.0 + 1, row.1 + i64::try_from(event.position().get()).unwrap());
        }
        after = page.scanned;
        if after >= page.head {
            return tally.into_iter().map(|(stream, (n, places))| (stream, n, places)).collect();
        }
    }
}
