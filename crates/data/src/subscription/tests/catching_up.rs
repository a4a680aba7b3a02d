use std::time::Duration;

use super::{
    super::{CatchUp, Cursor, Signal},
    world::{World, append, append_many, name, position, seconds},
};
use crate::{
    event::{Position, Version},
    store::{ExpectedVersion, Query, QueryItem, Retire, Store, StoreError},
};

fn wanted() -> Query {
    Query::of([QueryItem::types(["wanted"])])
}

/// Appends to eight streams, now and then something that is not wanted.
async fn write(store: Store, writer: usize, count: usize) {
    for n in 0..count {
        let kind = if n % 3 == 0 { "other" } else { "wanted" };
        append(&store, &format!("s-{}", (writer + n) % 8), kind).await;
    }
}

async fn busy(store: &Store, writers: usize, each: usize) {
    for writer in 0..writers {
        store.env().tasks().spawn("writer", write(store.clone(), writer, each));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_matching_event_comes_once_and_in_order_while_others_append() {
    let world = World::new();
    let store = world.open().await;
    append_many(&store, "s-0", "wanted", 100).await;
    busy(&store, 4, 300).await;
    let mut reader = CatchUp::log(&store, wanted(), position(40)).page_events(7);
    let (mut seen, mut caught_up) = (Vec::new(), 0);
    while seen.len() < 60 + 4 * 200 {
        match reader.next().await.unwrap() {
            Signal::Event(event) => seen.push(event.position()),
            Signal::CaughtUp { .. } => caught_up += 1,
            Signal::FellBehind { .. } => {}
        }
    }
    let all = CatchUp::log(&store, wanted(), position(40)).page_events(10_000).next_batch().await.unwrap();
    assert_eq!(seen, all.events.iter().map(crate::event::Recorded::position).collect::<Vec<_>>());
    assert!(caught_up > 0 || !reader.is_live(), "a reader that is live has said so");
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_followed_without_a_seam() {
    let world = World::new();
    let store = world.open().await;
    busy(&store, 4, 200).await;
    let mut reader = CatchUp::stream(&store, name("s-3"), Version::new(2)).page_events(3);
    let mut versions = Vec::new();
    while versions.len() < 98 {
        if let Signal::Event(event) = reader.next().await.unwrap() {
            assert_eq!(event.stream(), "s-3");
            versions.push(event.version().get());
        }
    }
    assert_eq!(versions, (3..=100).collect::<Vec<_>>());
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_reader_whose_query_matches_nothing_still_advances() {
    let world = World::new();
    let store = world.open().await;
    append_many(&store, "noise-1", "other", 5_000).await;
    let mut reader = CatchUp::log(&store, wanted(), Position::ZERO);
    let at = Cursor::Log(position(5_000));
    assert_eq!(reader.next().await.unwrap(), Signal::CaughtUp { at });
    assert_eq!(reader.cursor(), at);
    append_many(&store, "noise-1", "other", 10).await;
    let batch = reader.next_batch().await.unwrap();
    assert_eq!((batch.events.len(), batch.cursor), (0, Cursor::Log(position(5_010))));
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_reader_says_when_it_is_live_and_when_it_no_longer_is() {
    let world = World::new();
    let store = world.open().await;
    let mut reader = CatchUp::log(&store, Query::EVERYTHING, Position::ZERO).page_events(10);
    assert_eq!(reader.next().await.unwrap(), Signal::CaughtUp { at: Cursor::Log(Position::ZERO) });
    append_many(&store, "s-1", "wanted", 25).await;
    let mut said = Vec::new();
    while said.len() < 27 {
        said.push(reader.next().await.unwrap());
    }
    assert_eq!(said[0], Signal::FellBehind { at: Cursor::Log(Position::ZERO) });
    assert_eq!(said[26], Signal::CaughtUp { at: Cursor::Log(position(25)) });
    append(&store, "s-1", "wanted").await;
    assert!(matches!(reader.next().await.unwrap(), Signal::Event(event) if event.position() == position(26)));
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_is_dropped_mid_wait_again_and_again_loses_nothing() {
    let world = World::new();
    let store = world.open().await;
    busy(&store, 2, 150).await;
    let mut reader = CatchUp::log(&store, wanted(), Position::ZERO).page_events(5);
    let mut seen = 0;
    let mut last = Cursor::Log(Position::ZERO);
    while seen < 200 {
        tokio::select! {
            biased;
            signal = reader.next() => if let Signal::Event(_) = signal.unwrap() { seen += 1 },
            () = tokio::task::yield_now() => {}
        }
        assert!(reader.cursor().get() >= last.get(), "the cursor never moves back");
        last = reader.cursor();
    }
    let mut again = CatchUp::log(&store, wanted(), position(last.get()));
    assert!(matches!(again.next().await.unwrap(), Signal::CaughtUp { .. }), "a new reader continues from the cursor");
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_cursor_in_the_middle_of_a_page_continues_with_the_next_event() {
    let world = World::new();
    let store = world.open().await;
    append_many(&store, "s-1", "wanted", 10).await;
    for cut in 1..10 {
        let mut reader = CatchUp::stream(&store, name("s-1"), Version::ZERO);
        for _ in 0..cut {
            reader.next().await.unwrap();
        }
        assert_eq!(reader.cursor(), Cursor::Stream(Version::new(cut)));
        let rest = reader.next_batch().await.unwrap().events;
        assert_eq!(rest.first().map(crate::event::Recorded::version), Some(Version::new(cut + 1)));
        assert_eq!(rest.len() as u64, 10 - cut);
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_stream_reader_steps_over_what_was_truncated() {
    let world = World::new();
    let store = world.open().await;
    append_many(&store, "s-1", "wanted", 10).await;
    store.retire(name("s-1"), Retire::Truncate { before: Version::new(8) }).await.unwrap();
    let mut reader = CatchUp::stream(&store, name("s-1"), Version::new(2)).page_events(2);
    let mut versions = Vec::new();
    while let Signal::Event(event) = reader.next().await.unwrap() {
        versions.push(event.version().get());
    }
    assert_eq!((versions, reader.cursor()), (vec![8, 9, 10], Cursor::Stream(Version::new(10))));
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_reader_of_a_closed_store_is_told_so() {
    let world = World::new();
    let store = world.open().await;
    let mut reader = CatchUp::log(&store, Query::EVERYTHING, Position::ZERO);
    reader.next().await.unwrap();
    let (ended, closed) = tokio::join!(reader.next(), store.close());
    closed.unwrap();
    assert!(matches!(ended, Err(StoreError::Closed)), "{ended:?}");
}

#[tokio::test]
async fn a_stream_reader_resumes_behind_a_position_and_says_how_far_the_log_was_looked_at() {
    let world = World::new();
    let store = world.open().await;
    for _ in 0..10 {
        append(&store, "mine", "wanted").await;
        append_many(&store, "noise", "other", 2).await;
    }
    for behind in 0..=30 {
        let mut reader = CatchUp::stream_behind(&store, name("mine"), position(behind)).await.unwrap();
        let batch = reader.next_batch().await.unwrap();
        let positions: Vec<u64> = batch.events.iter().map(|event| event.position().get()).collect();
        assert_eq!(positions, (1..=30).step_by(3).filter(|position| *position > behind).collect::<Vec<_>>());
        assert_eq!((batch.position, batch.live, batch.over), (position(30), true, false), "behind {behind}");
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_stream_reader_is_told_when_the_stream_is_closed_for_good() {
    let world = World::new();
    let store = world.open().await;
    append(&store, "s-1", "wanted").await;
    let mut reader = CatchUp::stream(&store, name("s-1"), Version::ZERO);
    assert!(!reader.next_batch().await.unwrap().over);
    let retire = Retire::Tombstone { expected: ExpectedVersion::Any };
    let (told, retired) = tokio::join!(reader.next_batch(), store.retire(name("s-1"), retire));
    retired.unwrap();
    assert!(told.unwrap().over);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_selective_reader_rests_longer_and_longer_until_something_is_for_it() {
    let world = World::new();
    let store = world.open().await;
    let mut reader = CatchUp::log(&store, wanted(), Position::ZERO).resting(seconds(1), seconds(3));
    assert!(reader.next_batch().await.unwrap().live);
    // The first look comes at once, each later one after a rest.
    for rest in [0, 1, 2, 3, 3] {
        append(&store, "noise", "other").await;
        let early = store.env().timeout(Duration::ZERO, reader.next_batch()).await;
        assert_eq!(early.is_none(), rest > 0, "a rest of {rest} s");
        if rest > 0 {
            let (batch, ()) = tokio::join!(reader.next_batch(), pass_soon(&world, rest));
            assert!(batch.unwrap().events.is_empty());
        }
    }
    append(&store, "s-1", "wanted").await;
    let (batch, ()) = tokio::join!(reader.next_batch(), pass_soon(&world, 3));
    assert_eq!(batch.unwrap().events.len(), 1);
    append(&store, "s-1", "wanted").await;
    assert_eq!(reader.next_batch().await.unwrap().events.len(), 1, "at once again");
    store.close().await.unwrap();
}

/// Lets the others begin to wait, then time pass.
async fn pass_soon(world: &World, count: u64) {
    tokio::task::yield_now().await;
    world.pass(seconds(count));
}
