//! Erased data subjects, and views that were made of their data.

use std::{sync::atomic::Ordering, time::Duration};

use futures_util::FutureExt as _;
use quorate_runtime::BoxFuture;

use super::{super::*, world::*};
use crate::{
    event::{NewEvent, Position, Recorded},
    store::{AppendBatch, EraseError, ExpectedVersion, Query, Store},
};

/// Keeps the addresses of persons; `forgets` says whether it can forget one by itself.
struct Addresses {
    name: ViewName,
    forgets: bool,
}

impl Addresses {
    fn new(forgets: bool) -> Self {
        Self { name: view("addresses"), forgets }
    }
}

impl Projection for Addresses {
    fn name(&self) -> &ViewName {
        &self.name
    }

    fn version(&self) -> u32 {
        1
    }

    fn query(&self) -> Query {
        Query::EVERYTHING
    }

    fn schema(&self) -> Schema {
        Schema::new().table("address", "CREATE TABLE {address} (person TEXT PRIMARY KEY, street TEXT NOT NULL)")
    }

    fn apply<'t, 'x: 't>(
        &'t self,
        tx: &'t mut ViewTx<'x>,
        events: &'t [Recorded],
    ) -> BoxFuture<'t, Result<(), ApplyError>> {
        Box::pin(async move {
            for event in events {
                let Some(street) = event.data() else { continue };
                let street = String::from_utf8_lossy(street).into_owned();
                let sql = "INSERT INTO {address} VALUES ($1, $2) ON CONFLICT (person) DO UPDATE SET street = $2";
                tx.execute(sql, &[event.stream().into(), street.into()]).await?;
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
            if !self.forgets {
                return Ok(Forgotten::Rebuild);
            }
            tx.execute("DELETE FROM {address} WHERE person = $1", &[subject.into()]).await?;
            Ok(Forgotten::Rows)
        })
    }
}

/// Says what it cannot take, word by word.
struct Quoting(ViewName);

impl Projection for Quoting {
    fn name(&self) -> &ViewName {
        &self.0
    }

    fn version(&self) -> u32 {
        1
    }

    fn query(&self) -> Query {
        Query::EVERYTHING
    }

    fn schema(&self) -> Schema {
        Schema::new().table("nothing", "CREATE TABLE {nothing} (n BIGINT PRIMARY KEY)")
    }

    fn apply<'t, 'x: 't>(
        &'t self,
        _: &'t mut ViewTx<'x>,
        events: &'t [Recorded],
    ) -> BoxFuture<'t, Result<(), ApplyError>> {
        let quoted = events.iter().find_map(|event| Some((event, event.data()?)));
        let failed = quoted.map(|(event, data)| ApplyError::certain(event, String::from_utf8_lossy(data)));
        Box::pin(std::future::ready(failed.map_or(Ok(()), Err)))
    }
}

async fn moved(store: &Store, person: &str, street: &'static str) {
    let event = NewEvent::new(store.event_id(), "/test", "moved").json(street.as_bytes()).about(person);
    store.append(AppendBatch::to(name(person), ExpectedVersion::Any, vec![event])).await.unwrap();
}

async fn persons(view: &View, store: &Store) -> Vec<String> {
    view.wait(store.token(), LONG).await.unwrap();
    let rows = view.query("SELECT person FROM {address} ORDER BY person", vec![]).await.unwrap().rows;
    rows.iter().map(|row| row.at(0).as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_view_that_cannot_forget_is_made_anew_before_the_erasure_is_answered() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let addresses = views.start(Addresses::new(false), config()).await.unwrap();
    moved(&store, "ada", "\"Elm Street\"").await;
    moved(&store, "bob", "\"Oak Street\"").await;
    assert_eq!(persons(&addresses, &store).await, ["ada", "bob"]);
    store.erase("ada").await.unwrap();
    assert_eq!(addresses.describe().await.unwrap().live, Some(build(2)));
    assert_eq!(addresses.describe().await.unwrap().builds.len(), 1, "the old one is gone");
    assert_eq!(persons(&addresses, &store).await, ["bob"]);
    store.erase("ada").await.unwrap();
    assert_eq!(addresses.describe().await.unwrap().live, Some(build(2)), "there is nothing left to forget");
}

#[tokio::test]
async fn a_view_that_can_forget_keeps_its_build() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let addresses = views.start(Addresses::new(true), config()).await.unwrap();
    moved(&store, "ada", "\"Elm Street\"").await;
    moved(&store, "bob", "\"Oak Street\"").await;
    assert_eq!(persons(&addresses, &store).await.len(), 2);
    store.erase("ada").await.unwrap();
    assert_eq!(persons(&addresses, &store).await, ["bob"]);
    assert_eq!(addresses.describe().await.unwrap().live, Some(build(1)));
}

#[tokio::test]
async fn an_erasure_is_not_complete_where_no_code_of_a_view_runs() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let addresses = views.start(Addresses::new(true), config()).await.unwrap();
    moved(&store, "ada", "\"Elm Street\"").await;
    persons(&addresses, &store).await;
    store.close().await.unwrap();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let refused = store.erase("ada").await;
    assert!(matches!(refused, Err(EraseError::Copies { room: "materialized views", .. })), "{refused:?}");
    let addresses = views.start(Addresses::new(true), config()).await.unwrap();
    store.erase("ada").await.unwrap();
    assert_eq!(persons(&addresses, &store).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_build_in_the_making_is_begun_again_and_readers_keep_theirs() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let addresses = views.start(Addresses::new(false), config()).await.unwrap();
    moved(&store, "bob", "\"Oak Street\"").await;
    assert_eq!(persons(&addresses, &store).await, ["bob"]);
    views.rebuild(&view("addresses"), Switch::Manual).await.unwrap();
    moved(&store, "ada", "\"Elm Street\"").await;
    assert_eq!(persons(&addresses, &store).await, ["ada", "bob"]);
    store.erase("ada").await.unwrap();
    assert_eq!(persons(&addresses, &store).await, ["bob"]);
    let described = addresses.describe().await.unwrap();
    assert_eq!(described.builds.len(), 2, "the live one, and the one that somebody will switch to");
}

#[tokio::test]
async fn erasures_that_meet_leave_one_build() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let addresses = views.start(Addresses::new(false), config()).await.unwrap();
    let everybody: Vec<String> = (0..12).map(|n| format!("person-{n:02}")).collect();
    for person in &everybody {
        moved(&store, person, "\"Elm Street\"").await;
    }
    assert_eq!(persons(&addresses, &store).await, everybody);
    let erasing = everybody.iter().map(|person| store.erase(person));
    for told in futures_util::future::join_all(erasing).await {
        told.unwrap();
    }
    assert_eq!(persons(&addresses, &store).await, Vec::<String>::new());
    assert_eq!(addresses.describe().await.unwrap().builds.len(), 1);
}

#[tokio::test]
async fn what_stopped_a_view_is_quoted_no_more_once_it_was_erased() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    moved(&store, "ada", "\"Elm Street\"").await;
    let quoting = views.start(Quoting(view("quoting")), config()).await.unwrap();
    let quotes = |build: &BuildDescription| matches!(&build.shards[0].standing, Standing::Stopped { reason, .. } if reason.contains("Elm Street"));
    quoting.until(1, quotes).await;
    store.erase("ada").await.unwrap();
    assert!(!quotes(&quoting.build(build(1)).await));
    quoting.until(1, |build| build.position == Position::new(1)).await;
}

#[tokio::test]
async fn a_reason_of_before_an_erasure_is_not_written_down_behind_it() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    moved(&store, "ada", "\"Elm Street\"").await;
    let quoting = views.start(Quoting(view("quoting")), config()).await.unwrap();
    quoting.until(1, |build| matches!(build.shards[0].standing, Standing::Stopped { .. })).await;
    let shard = rows::shard(&mut &store, build(1), 0).await.unwrap().unwrap();
    let (known, trouble) = ((shard.epoch, shard.revision), shard.trouble.unwrap());
    assert!(trouble.reason.contains("Elm Street"));
    store.erase("ada").await.unwrap();
    let late = store.transact(move |tx| {
        let trouble = trouble.clone();
        Box::pin(async move { rows::write_trouble(tx, build(1), 0, known, &trouble).await })
    });
    assert!(!late.await.unwrap(), "whoever remembers it writes nothing");
}

#[tokio::test]
async fn an_erasure_notices_that_another_handle_gave_readers_another_build() {
    let world = World::new();
    let store = world.open().await;
    let (first, second) = (Views::open(&store).await.unwrap(), Views::open(&store).await.unwrap());
    let code = Tally::new();
    code.poisonous.store(false, Ordering::Relaxed);
    first.start(code.clone(), config()).await.unwrap();
    let tally = second.start(code.clone(), config()).await.unwrap();
    append(&store, "s", &["poison"]).await;
    moved(&store, "ada", "\"Elm Street\"").await;
    tally.rows_now(&store).await;
    code.poisonous.store(true, Ordering::Relaxed);
    let begun = second.rebuild(tally.name(), Switch::WhenCaughtUp).await.unwrap();
    tally.until(begun.get(), |build| matches!(build.shards[0].standing, Standing::Stopped { .. })).await;
    let mut erasing = Box::pin(store.erase("ada"));
    assert!((&mut erasing).now_or_never().is_none());
    while first.shared.replacing.try_lock().is_ok() {
        store.env().sleep(Duration::from_millis(1)).await;
    }
    code.poisonous.store(false, Ordering::Relaxed);
    second.resume(tally.name(), begun).await.unwrap();
    let erased = store.env().timeout(LONG, erasing).await;
    assert!(matches!(erased, Some(Ok(_))), "{erased:?}");
    assert_eq!(tally.describe().await.unwrap().live, Some(begun));
}
