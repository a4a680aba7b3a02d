//! Views of other services' events: silent, late and unknown feeds.

use std::time::Duration;

use quorate_foundations::time::Wall;

use super::{
    super::*,
    world::{LONG, Tally, World, build, name, view},
};
use crate::{
    event::{NewEvent, Timestamp},
    materialized_view::declared::{Document, Format},
    store::{AppendBatch, ExpectedVersion, Store},
};

const SALES: &str = r#"
view = "sales"
version = 1
on-poison = "park"
from = { source = "/shop", heartbeat = "tick" }
staleness = { max-feed-seconds = 3600 }

[tables.sale]
key = "id"
columns = { id = "text", eur = "integer" }

[[on]]
type = "sold"
bind = { id = "$.id", eur = "$.data.eur" }
sql = "INSERT INTO sale (id, eur) VALUES (:id, :eur)"

[[samples]]
events = [
    { stream = "a", type = "sold", id = "1", data = { eur = 5 } },
    { stream = "a", type = "sold", id = "2", source = "/other", data = { eur = 6 } },
    { stream = "a", type = "tick" },
]
rows.sale = [{ id = "1", eur = 5 }]
"#;

const HOUR: Duration = Duration::from_secs(3_600);

/// What a source says, so long ago by its own time; `None`: without a time.
async fn says(store: &Store, source: &str, kind: &str, ago: Option<Duration>) {
    let mut event = NewEvent::new(store.event_id(), source, kind).json(r#"{"eur": 5}"#);
    let now = store.env().wall().unix_nanos();
    let then = |ago: Duration| Wall::from_unix_nanos(now - i64::try_from(ago.as_nanos()).unwrap());
    event.time = ago.map(|ago| Timestamp::from(then(ago)));
    store.append(AppendBatch::to(name("order-1"), ExpectedVersion::Any, vec![event])).await.unwrap();
}

async fn declared(views: &Views, text: &str) -> View {
    let declared = views.declare(Document::read(text, Format::Toml).unwrap()).await.unwrap();
    views.get(&declared.view).await.unwrap()
}

/// A read, once the view has seen everything.
async fn read(view: &View, store: &Store, beyond: Option<WhenStale>) -> Result<Answer, ViewError> {
    view.wait(store.token(), LONG).await.unwrap();
    view.sql("SELECT id FROM sale", vec![], Freshness { beyond, ..Freshness::default() }).await
}

/// How far behind its feed the view is, where a read is refused for that.
fn refused(answer: Result<Answer, ViewError>) -> Option<Duration> {
    match answer {
        Err(ViewError::FeedStale { feed, lag, max_lag: HOUR, .. }) if feed == "/shop" => lag,
        other => panic!("it was not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_behind_a_silent_or_late_feed_is_refused_or_flagged() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let view = declared(&views, SALES).await;
    view.until(1, |build| build.live).await;
    assert_eq!(refused(read(&view, &store, None).await), None, "it never spoke");
    says(&store, "/shop", "sold", None).await;
    assert_eq!(refused(read(&view, &store, None).await), None, "it says no time");
    says(&store, "/shop", "sold", Some(2 * HOUR)).await;
    assert!(refused(read(&view, &store, None).await).unwrap() >= 2 * HOUR, "it is late, or silent since");
    let flagged = read(&view, &store, Some(WhenStale::Flag)).await.unwrap();
    let feed = &flagged.as_of.feeds[0];
    assert!(flagged.as_of.stale && feed.stale && feed.lag.unwrap() >= 2 * HOUR, "{feed:?}");
    assert_eq!(flagged.rows.len(), 2, "both sales");
    let lenient = Freshness { max_lag: Some(10 * HOUR), ..Freshness::default() };
    assert!(view.sql("SELECT id FROM sale", vec![], lenient).await.is_err(), "that is about the view's own lag");

    says(&store, "/other", "sold", Some(Duration::ZERO)).await;
    assert!(refused(read(&view, &store, None).await).is_some(), "another source says nothing of this one");
    says(&store, "/shop", "tick", Some(Duration::ZERO)).await;
    let fresh = read(&view, &store, None).await.unwrap();
    assert!(!fresh.as_of.stale && !fresh.as_of.feeds[0].stale, "a heartbeat says that nothing else was said");
    assert_eq!(fresh.rows.len(), 2, "neither the heartbeat nor another source's event changed a row");
    says(&store, "/shop", "sold", Some(3 * HOUR)).await;
    assert_eq!(read(&view, &store, None).await.unwrap().rows.len(), 3, "one that was overtaken takes nothing back");
    views.shut_down().await;
}

/// A source ticks in a stream of its own, whatever the view's rows are about.
#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_are_read_from_whatever_stream_they_are_in() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let narrow = SALES.replace(r#"heartbeat = "tick" }"#, r#"heartbeat = "tick", categories = ["order"] }"#);
    let view = declared(&views, &narrow.replace(r#"stream = "a""#, r#"stream = "order-1""#)).await;
    says(&store, "/shop", "sold", Some(2 * HOUR)).await;
    assert!(refused(read(&view, &store, None).await).is_some());
    let mut tick = NewEvent::new(store.event_id(), "/shop", "tick");
    tick.time = Some(Timestamp::from(store.env().wall()));
    store.append(AppendBatch::to(name("ticker-1"), ExpectedVersion::Any, vec![tick])).await.unwrap();
    assert!(!read(&view, &store, None).await.unwrap().as_of.stale);
    views.shut_down().await;
}

/// A feed that is silent gets no younger by looking again: who would wait for it would ask again and again.
#[tokio::test(flavor = "multi_thread")]
async fn who_may_wait_does_not_wait_for_a_silent_feed() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let view = declared(&views, SALES).await;
    says(&store, "/shop", "sold", Some(2 * HOUR)).await;
    view.wait(store.token(), LONG).await.unwrap();
    let patient = Freshness { wait: HOUR, ..Freshness::default() };
    let read = store.env().timeout(LONG, view.sql("SELECT id FROM sale", vec![], patient)).await;
    assert!(refused(read.expect("an hour is not waited for")).is_some());
    views.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_feed_said_is_known_after_a_restart_a_rebuild_and_beside_poison() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let shown = declared(&views, SALES).await;
    says(&store, "/shop", "sold", Some(2 * HOUR)).await;
    let mut poison = NewEvent::new("poison", "/shop", "sold").json("{}");
    poison.time = Some(Timestamp::from(store.env().wall()));
    store.append(AppendBatch::to(name("order-2"), ExpectedVersion::Any, vec![poison])).await.unwrap();
    let before = read(&shown, &store, None).await.unwrap().as_of;
    assert_eq!((before.parked, before.stale), (1, false), "what cannot be applied was said all the same");
    views.rebuild(&view("sales"), Switch::Manual).await.unwrap();
    let rebuilt = shown.until(2, |build| build.position == store.head()).await;
    assert_eq!(rebuilt.feeds[0].said, before.feeds[0].said);
    views.shut_down().await;
    store.close().await.unwrap();

    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    assert!(views.start_declared().await.unwrap().is_empty());
    let view = views.get(&view("sales")).await.unwrap();
    let after = read(&view, &store, None).await.unwrap().as_of;
    assert_eq!((&after.feeds[0].said, &after.feeds[0].heard), (&before.feeds[0].said, &before.feeds[0].heard));
    views.drop_build(view.name(), build(2)).await.unwrap();
    let left = store.room_query("SELECT build FROM quorate_view_feed", vec![]).await.unwrap();
    assert_eq!(left.len(), 1, "a dropped build leaves nothing");
    views.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_feed_is_judged_by_how_late_its_last_word_was_also_inline() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let text = SALES.replace("max-feed-seconds = 3600", "max-feed-seconds = 3600, silence = \"idle\", then = \"flag\"");
    let view = declared(&views, &text.replace("on-poison = \"park\"", "mode = \"inline\"")).await;
    view.until(1, |build| build.shards[0].standing == Standing::Inline).await;
    let never = read(&view, &store, None).await.unwrap().as_of;
    assert!(never.stale && never.feeds[0].heard.is_none(), "it never spoke: {never:?}");
    says(&store, "/shop", "sold", Some(2 * HOUR)).await;
    assert!(read(&view, &store, None).await.unwrap().as_of.stale, "it arrived two hours late");
    says(&store, "/shop", "sold", Some(Duration::ZERO)).await;
    let caught_up = read(&view, &store, None).await.unwrap().as_of;
    let feed = &caught_up.feeds[0];
    assert!(!caught_up.stale && feed.lag.unwrap() < HOUR, "{feed:?}");
    views.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn feeds_have_sources_and_one_shard() {
    let feeds = |sources: &[&str]| Feeds {
        sources: sources.iter().map(|source| (*source).to_owned()).collect(),
        max_lag: None,
        silence: Silence::Stale,
    };
    let with = |sources: &[&str], shards| Config { feeds: Some(feeds(sources)), shards, ..Config::default() };
    with(&["/shop", "/bank"], 1).check().unwrap();
    for wrong in [with(&[], 1), with(&["/shop", "/shop"], 1), with(&[""], 1), with(&["/shop"], 2)] {
        assert!(matches!(wrong.check(), Err(ViewError::Invalid { .. })), "{wrong:?}");
    }
    let many: Vec<String> = (0..17).map(|n| format!("/{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(with(&many, 1).check().is_err(), "more than there may be");

    // A projection in Rust says which events matter; its feeds say how far it is behind whom.
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let max_lag = Some(HOUR);
    let config = Config { feeds: Some(Feeds { max_lag, ..feeds(&["/shop", "/bank"]) }), ..Config::default() };
    let view = views.start(Tally::new(), config).await.unwrap();
    says(&store, "/shop", "sold", Some(Duration::ZERO)).await;
    view.wait(store.token(), LONG).await.unwrap();
    let refused = view.rows(&RowsQuery::all("tally", 1), Freshness::default()).await;
    assert!(matches!(&refused, Err(ViewError::FeedStale { feed, lag: None, .. }) if feed == "/bank"), "{refused:?}");
    says(&store, "/bank", "paid", Some(Duration::ZERO)).await;
    view.wait(store.token(), LONG).await.unwrap();
    let answer = view.rows(&RowsQuery::all("tally", 1), Freshness::default()).await.unwrap();
    assert!(answer.as_of.feeds.iter().all(|feed| !feed.stale), "{:?}", answer.as_of);
    views.shut_down().await;
}
