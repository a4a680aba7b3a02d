//! Live queries: what a follower is told is what the view holds, whatever happens to rows and to the follower.

use std::collections::BTreeMap;

use quorate_runtime::BoxFuture;

use super::{super::*, world::*};
use crate::{
    event::{NewEvent, Recorded},
    store::{AppendBatch, ExpectedVersion, Query, Store},
};

/// A row for each name that was given and not taken; `renamed` moves a row to the name in its data.
struct Names;

impl Projection for Names {
    fn name(&self) -> &ViewName {
        static NAME: std::sync::LazyLock<ViewName> = std::sync::LazyLock::new(|| view("names"));
        &NAME
    }

    fn version(&self) -> u32 {
        1
    }

    fn query(&self) -> Query {
        Query::EVERYTHING
    }

    fn schema(&self) -> Schema {
        Schema::new().table("name", "CREATE TABLE {name} (name TEXT PRIMARY KEY, n BIGINT NOT NULL) WITHOUT ROWID")
    }

    fn apply<'t, 'x: 't>(
        &'t self,
        tx: &'t mut ViewTx<'x>,
        events: &'t [Recorded],
    ) -> BoxFuture<'t, Result<(), ApplyError>> {
        Box::pin(async move {
            for event in events {
                let name = event.stream().into();
                let to = event.data().map(|data| String::from_utf8_lossy(data).trim_matches('"').to_owned());
                match (event.kind(), to) {
                    ("taken", _) => tx.execute("DELETE FROM {name} WHERE name = $1", &[name]).await?,
                    ("cleared", _) => tx.execute("DELETE FROM {name}", &[]).await?,
                    ("replaced", _) => tx.execute("INSERT OR REPLACE INTO {name} VALUES ($1, 100)", &[name]).await?,
                    ("renamed", Some(to)) => {
                        tx.execute("UPDATE OR REPLACE {name} SET name = $2 WHERE name = $1", &[name, to.into()]).await?
                    }
                    _ => {
                        let sql = "INSERT INTO {name} VALUES ($1, 1) ON CONFLICT (name) DO UPDATE SET n = n + 1";
                        tx.execute(sql, &[name]).await?
                    }
                };
            }
            Ok(())
        })
    }

    fn forget<'t, 'x: 't>(
        &'t self,
        tx: &'t mut ViewTx<'x>,
        subject: &'t str,
    ) -> BoxFuture<'t, Result<Forgotten, ApplyError>> {
        Box::pin(async move {
            tx.execute("DELETE FROM {name} WHERE name = $1", &[subject.into()]).await?;
            Ok(Forgotten::Rows)
        })
    }
}

/// A follower that keeps the rows it is told.
struct Keeper {
    follower: Follower,
    rows: BTreeMap<String, i64>,
    cursor: Option<String>,
    resets: Vec<Reset>,
    told: Vec<(ChangeKind, String)>,
}

impl Keeper {
    async fn open(view: &View, cursor: Option<&str>) -> Self {
        let query = FollowQuery { table: "name".to_owned(), ..FollowQuery::default() };
        let follower = view.follow(query, cursor).await.unwrap();
        Self { follower, rows: BTreeMap::new(), cursor: None, resets: Vec::new(), told: Vec::new() }
    }

    /// Goes on with what it has, on another follower.
    async fn again(self, view: &View) -> Self {
        let next = Self::open(view, self.cursor.as_deref()).await;
        Self { rows: self.rows, ..next }
    }

    /// Takes batches until it has caught up with all that was appended.
    async fn catch_up(&mut self, store: &Store) -> Vec<(String, i64)> {
        let head = store.head();
        let env = store.env().clone();
        let reading = async {
            loop {
                let batch = self.follower.next_batch().await.unwrap();
                if let Some(reset) = batch.reset {
                    self.resets.push(reset);
                    self.rows.clear();
                }
                for change in &batch.changes {
                    let key = change.key.at(0).as_str().unwrap().to_owned();
                    match change.kind {
                        ChangeKind::Deleted => drop(self.rows.remove(&key)),
                        _ => drop(self.rows.insert(key.clone(), change.row.at(1).as_i64().unwrap())),
                    }
                    self.told.push((change.kind, key));
                }
                self.cursor = batch.cursor.clone().or(self.cursor.take());
                if batch.caught_up.is_some_and(|as_of| as_of.position >= head) {
                    return;
                }
            }
        };
        env.timeout(LONG, reading).await.expect("it catches up");
        self.rows.clone().into_iter().collect()
    }
}

async fn rename(store: &Store, from: &str, to: &'static str) {
    let event = NewEvent::new(store.event_id(), "/test", "renamed").json(to.as_bytes());
    store.append(AppendBatch::to(name(from), ExpectedVersion::Any, vec![event])).await.unwrap();
}

async fn names(view: &View, store: &Store) -> Vec<(String, i64)> {
    view.wait(store.token(), LONG).await.unwrap();
    let rows = view.query("SELECT name, n FROM {name} ORDER BY name", vec![]).await.unwrap().rows;
    rows.iter().map(|row| (row.at(0).as_str().unwrap().to_owned(), row.at(1).as_i64().unwrap())).collect()
}

async fn started(store: &Store, limits: QueryLimits, config: Config) -> (Views, View) {
    let views = Views::open_with(store, limits).await.unwrap();
    let view = views.start(Names, config).await.unwrap();
    view.wait(store.token(), LONG).await.unwrap();
    (views, view)
}

#[tokio::test]
async fn a_follower_has_the_rows_whatever_happens_to_them() {
    for config in [config(), Config::inline()] {
        let world = World::new();
        let store = world.open().await;
        append_many(&store, 300, 300).await;
        let (_views, view) = started(&store, QueryLimits::default(), config).await;
        let mut keeper = Keeper::open(&view, None).await;
        assert_eq!(keeper.catch_up(&store).await, names(&view, &store).await, "more than one page");
        assert_eq!(keeper.resets, [Reset::Begun]);
        append(&store, "s-1", &["happened", "taken", "happened"]).await;
        append(&store, "s-2", &["taken"]).await;
        append(&store, "s-3", &["replaced"]).await;
        rename(&store, "s-4", "\"s-5\"").await;
        rename(&store, "s-6", "\"moved\"").await;
        assert_eq!(keeper.catch_up(&store).await, names(&view, &store).await);
        assert!(keeper.told.contains(&(ChangeKind::Deleted, "s-6".to_owned())));
        assert!(keeper.told.contains(&(ChangeKind::Inserted, "moved".to_owned())));
        append(&store, "s-7", &["cleared", "happened"]).await;
        assert_eq!(keeper.catch_up(&store).await, [("s-7".to_owned(), 1)]);
        assert_eq!(keeper.resets, [Reset::Begun]);
    }
}

#[tokio::test]
async fn deletes_are_not_lost_on_who_was_away() {
    let world = World::new();
    let store = world.open().await;
    append_many(&store, 5, 5).await;
    let (views, view) = started(&store, QueryLimits::default(), config()).await;
    let mut keeper = Keeper::open(&view, None).await;
    keeper.catch_up(&store).await;
    append(&store, "s-1", &["taken"]).await;
    append(&store, "s-2", &["happened", "happened"]).await;
    append(&store, "s-3", &["taken", "happened"]).await;
    let mut keeper = keeper.again(&view).await;
    assert_eq!(keeper.catch_up(&store).await, names(&view, &store).await);
    let told = |kind, key: &str| (kind, key.to_owned());
    assert_eq!(keeper.resets, []);
    assert_eq!(
        keeper.told,
        [told(ChangeKind::Deleted, "s-1"), told(ChangeKind::Updated, "s-2"), told(ChangeKind::Inserted, "s-3")],
        "each key once, in order of its last change"
    );
    let cursor = keeper.cursor.clone();
    drop((keeper, view));
    views.shut_down().await;
    store.close().await.unwrap();
    let store = world.open().await;
    append(&store, "s-2", &["taken"]).await;
    let (_views, view) = started(&store, QueryLimits::default(), config()).await;
    let mut keeper = Keeper::open(&view, cursor.as_deref()).await;
    keeper.catch_up(&store).await;
    assert_eq!(
        (keeper.resets, keeper.told),
        (vec![], vec![told(ChangeKind::Deleted, "s-2")]),
        "over a restart as well"
    );
}

#[tokio::test]
async fn who_was_away_for_too_long_starts_over() {
    let world = World::new();
    let store = world.open().await;
    append_many(&store, 5, 5).await;
    let limits = QueryLimits { changes: 10, ..QueryLimits::default() };
    let (_views, view) = started(&store, limits, config()).await;
    let mut keeper = Keeper::open(&view, None).await;
    keeper.catch_up(&store).await;
    append_many(&store, 5, 8).await;
    let mut keeper = keeper.again(&view).await;
    keeper.catch_up(&store).await;
    assert_eq!(keeper.resets, [], "what is on record is enough");
    append(&store, "s-0", &["taken"]).await;
    append_many(&store, 20, 20).await;
    let mut keeper = keeper.again(&view).await;
    assert_eq!(keeper.catch_up(&store).await, names(&view, &store).await);
    assert_eq!(keeper.resets, [Reset::Outdated]);
    let mut stranger = Keeper::open(&view, Some("0000000000000000-1")).await;
    stranger.catch_up(&store).await;
    assert_eq!(stranger.resets, [Reset::Outdated]);
}

#[tokio::test]
async fn readers_of_another_build_start_over() {
    let world = World::new();
    let store = world.open().await;
    append_many(&store, 3, 9).await;
    let (views, view) = started(&store, QueryLimits::default(), config()).await;
    let mut keeper = Keeper::open(&view, None).await;
    keeper.catch_up(&store).await;
    views.rebuild(view.name(), Switch::WhenCaughtUp).await.unwrap();
    view.until(2, |build| build.live).await;
    append(&store, "s-1", &["taken"]).await;
    assert_eq!(keeper.catch_up(&store).await, names(&view, &store).await);
    assert_eq!(keeper.resets, [Reset::Begun, Reset::Switched]);
    views.drop_build(view.name(), build(1)).await.unwrap();
    append(&store, "s-1", &["happened"]).await;
    assert_eq!(keeper.catch_up(&store).await, names(&view, &store).await, "the old build is gone with its record");
}

#[tokio::test]
async fn an_erasure_leaves_no_key_on_record() {
    let world = World::new();
    let store = world.open().await;
    let about = |person: &'static str| NewEvent::new(store.event_id(), "/test", "joined").json(&b"1"[..]).about(person);
    for person in ["ada", "bob"] {
        store.append(AppendBatch::to(name(person), ExpectedVersion::Any, vec![about(person)])).await.unwrap();
    }
    let (_views, view) = started(&store, QueryLimits::default(), config()).await;
    let mut keeper = Keeper::open(&view, None).await;
    keeper.catch_up(&store).await;
    append(&store, "ada", &["happened"]).await;
    let before = keeper.follower.next_batch().await.unwrap();
    store.erase("ada").await.unwrap();
    assert!(keeper.follower.is_stale(&before), "what was read before is not handed on");
    keeper.follower.go_back(&before);
    let rows = keeper.catch_up(&store).await;
    assert_eq!(rows, [("bob".to_owned(), 1)]);
    assert_eq!(keeper.resets.last(), Some(&Reset::Rerecorded));
    let record = "SELECT count(*) FROM \"view__names__1__name_\" WHERE k_name = 'ada'";
    let found = store.room_query(record, vec![]).await.unwrap();
    assert_eq!(found[0].at(0).as_i64(), Some(0), "no deleted key is kept");
}

#[tokio::test]
async fn a_table_without_a_key_cannot_be_followed() {
    let world = World::new();
    let store = world.open().await;
    let (_views, view) = started(&store, QueryLimits::default(), config()).await;
    let nothing = view.follow(FollowQuery { table: "none".to_owned(), ..FollowQuery::default() }, None).await;
    assert!(matches!(nothing.err(), Some(ViewError::NoTable { .. })));
    let column = "m.eq.1".parse().unwrap();
    let query = FollowQuery { table: "name".to_owned(), conditions: vec![column], ..FollowQuery::default() };
    assert!(matches!(view.follow(query, None).await.err(), Some(ViewError::InvalidQuery { .. })));
}
