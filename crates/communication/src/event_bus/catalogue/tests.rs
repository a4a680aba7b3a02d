//! The catalogue over a real store.

use std::collections::BTreeMap;

use quorate_data::{
    event::{NewEvent, Position, Version},
    schema::{SchemaVersion, address},
    store::{AppendBatch, ExpectedVersion, Retire, Store, sqlite},
};
use quorate_foundations::{name::Name, time::Wall};
use quorate_runtime::Env;

use super::{
    Catalogue, CatalogueError, Reach, Seen,
    rows::{self, State},
    tally::{Card, Count},
};

struct World {
    folder: tempfile::TempDir,
    store: Store,
    catalogue: Catalogue,
}

impl World {
    async fn new() -> Self {
        Self::open(tempfile::tempdir().unwrap()).await
    }

    async fn open(folder: tempfile::TempDir) -> Self {
        let store = sqlite::open(&Env::real(), sqlite::Config::at(folder.path().join("s.db"))).await.unwrap();
        let catalogue = Catalogue::new(&store);
        Self { folder, store, catalogue }
    }

    async fn restart(self) -> Self {
        self.store.close().await.unwrap();
        Self::open(self.folder).await
    }

    /// Appends an event of each (type, source, schema) to `stream`, in this order.
    async fn append(&self, stream: &str, events: &[(&str, &str, Option<&str>)]) {
        let event = |(event_type, source, schema): &(&str, &str, Option<&str>)| {
            let mut event = NewEvent::new(self.store.event_id(), *source, *event_type);
            event.schema = schema.map(Into::into);
            event
        };
        let batch = AppendBatch::to(name(stream), ExpectedVersion::Any, events.iter().map(event).collect());
        self.store.append(batch).await.unwrap();
    }

    /// Asks until everything is counted.
    async fn all(&self) -> Reach {
        loop {
            let reach = self.catalogue.look().await.unwrap();
            if reach.is_all() {
                return reach;
            }
        }
    }

    async fn get(&self, event_type: &str) -> Seen {
        self.catalogue.get(event_type).await.unwrap().expect("it was seen")
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn producers(seen: &Seen) -> Vec<(&str, u64)> {
    seen.producers.iter().map(|one| (one.source.as_str(), one.events)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_is_counted_once_by_producer_and_schema_also_over_restarts() {
    let world = World::new().await;
    let second = address("order.placed", SchemaVersion::FIRST.next());
    world.append("a", &[("order.placed", "/shop", None), ("order.placed", "/app", Some(&second))]).await;
    world.append("b", &[("order.paid", "/till", Some("urn:paid"))]).await;
    let reach = world.all().await;
    let three = Position::new(3);
    assert_eq!(reach, Reach { scanned: three, head: three, types: 2, others: 0 });

    let world = world.restart().await;
    world.append("a", &[("order.placed", "/shop", None)]).await;
    assert_eq!(world.all().await.scanned, Position::new(4));
    let placed = world.get("order.placed").await;
    assert_eq!((placed.events, placed.first.get(), placed.last.get(), placed.others), (3, 1, 4, 0));
    assert_eq!(producers(&placed), [("/app", 1), ("/shop", 2)]);
    let schemas: Vec<(Option<&str>, u64)> =
        placed.schemas.iter().map(|one| (one.dataschema.as_deref(), one.events)).collect();
    assert_eq!(schemas, [(None, 2), (Some(second.as_str()), 1)]);
    assert_eq!(world.catalogue.get("order.lost").await.unwrap(), None);
    assert_eq!(world.all().await.types, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn types_are_listed_page_by_page() {
    let world = World::new().await;
    world.append("a", &[("c", "/s", None), ("a", "/s", None), ("b", "/s", None)]).await;
    world.all().await;
    let types = |page: Vec<Seen>| page.into_iter().map(|one| one.event_type).collect::<Vec<_>>();
    assert_eq!(types(world.catalogue.list(None, 2).await.unwrap()), ["a", "b"]);
    assert_eq!(types(world.catalogue.list(Some("b"), 2).await.unwrap()), ["c"]);
    for limit in [0, Catalogue::MAX_PAGE + 1] {
        let refused = world.catalogue.list(None, limit).await;
        assert!(matches!(refused, Err(CatalogueError::Limit { .. })), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_read_on_at_one_time_count_every_event_once() {
    let world = World::new().await;
    for _ in 0..20 {
        world.append("a", &vec![("t", "/s", None); 200]).await;
    }
    let others: Vec<Catalogue> = (0..4).map(|_| Catalogue::new(&world.store)).collect();
    let looked = futures_util::future::join_all(others.iter().map(Catalogue::look)).await;
    assert!(looked.iter().all(Result::is_ok), "{looked:?}");
    world.all().await;
    assert_eq!(producers(&world.get("t").await), [("/s", 4_000)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_question_reads_no_more_than_it_may_and_the_next_goes_on() {
    let world = World::new().await;
    let many = vec![("t", "/s", None); 1_000];
    for _ in 0..=Catalogue::MAX_LOOK / many.len() {
        world.append("a", &many).await;
    }
    let first = world.catalogue.look().await.unwrap();
    assert!(!first.is_all() && first.scanned > Position::ZERO && first.scanned.get() <= Catalogue::MAX_LOOK as u64);
    let all = world.all().await;
    assert_eq!(world.get("t").await.events, all.head.get());
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_beyond_the_bound_are_counted_and_not_named() {
    let world = World::new().await;
    let sources: Vec<String> = (0..Catalogue::MAX_CARDS + 40).map(|n| format!("/device/{n:04}")).collect();
    for _ in 0..2 {
        let events: Vec<_> = sources.iter().map(|source| ("t", source.as_str(), None)).collect();
        world.append("a", &events).await;
    }
    world.append("a", &[("t", "/device/0000", None)]).await;
    world.all().await;
    let seen = world.get("t").await;
    assert_eq!((seen.producers.len() as u64, seen.others, seen.events), (Catalogue::MAX_CARDS, 80, 593));
    assert_eq!(seen.producers[0].events, 3, "one that has a card goes on to be counted there");
    let listed = world.catalogue.list(None, 1).await.unwrap().remove(0);
    let rest = usize::try_from(Catalogue::MAX_CARDS).unwrap() - Catalogue::MAX_LISTED;
    assert_eq!((listed.producers.len(), listed.more_producers), (Catalogue::MAX_LISTED, rest));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_beyond_the_bound_are_counted_and_not_named() {
    let world = World::new().await;
    let long = "x".repeat(Catalogue::MAX_NAME_BYTES + 1);
    let urn = format!("urn:{long}");
    world.append("a", &[("t", "/s", None), (&long, "/s", None), ("t", &long, None), ("t", "/s", Some(&urn))]).await;
    assert_eq!(world.all().await.others, 1);
    let seen = world.get("t").await;
    assert_eq!((producers(&seen), seen.others, seen.events), (vec![("/s", 1)], 2, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn types_beyond_the_bound_are_counted_and_not_named() {
    let world = World::new().await;
    world.all().await;
    let full = State { scanned: Position::ZERO, types: Catalogue::MAX_TYPES };
    let count = Count { events: 1, first: Position::new(1), last: Position::new(1), recorded: Wall::default() };
    let card = |kind: &str| Card { event_type: kind.into(), dataschema: String::new(), source: "/s".into() };
    let tally: BTreeMap<Card, Count> = ["a", "b"].map(|kind| (card(kind), count)).into();
    let added = world.store.transact(move |tx| {
        let tally = tally.clone();
        Box::pin(async move { rows::add(tx, full, Position::new(2), &tally).await })
    });
    assert!(added.await.unwrap());
    assert_eq!(world.catalogue.get("a").await.unwrap(), None);
    assert_eq!(world.catalogue.look().await.unwrap().others, 2);
    assert_eq!(world.catalogue.list(None, 10).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_truncated_before_anybody_asked_is_counted_all_the_same() {
    let world = World::new().await;
    world.append("a", &[("t", "/s", None), ("t", "/s", None), ("t", "/s", None)]).await;
    world.store.retire(name("a"), Retire::Truncate { before: Version::new(3) }).await.unwrap();
    world.all().await;
    assert_eq!(producers(&world.get("t").await), [("/s", 3)]);
}
