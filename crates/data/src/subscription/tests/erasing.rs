//! Nothing that was forgotten is handed out after that was answered, whoever had read it before.

use std::time::Duration;

use super::{
    super::{CatchUp, Cause, Config, Cursor, OrderKey, Pull, Selection, Signal, Subscription},
    world::{Forgetting, World, append_event, append_many, name, places, position},
};
use crate::{
    event::{NewEvent, Recorded, Version},
    store::{AppendBatch, ExpectedVersion, Query, QueryItem, Retire, Store},
};

fn about(store: &Store, subject: &str) -> NewEvent {
    NewEvent::new(store.event_id(), "/test", "happened").json(&br#"{"to": "Elm Street"}"#[..]).about(subject)
}

/// Appends `count` events about each of anna and bert, taking turns, to stream `s`.
async fn write(store: &Store, count: usize) {
    let events = (0..2 * count).map(|n| about(store, ["anna", "bert"][n % 2])).collect();
    store.append(AppendBatch::to(name("s"), ExpectedVersion::Any, events)).await.unwrap();
}

/// Whether an event is as it must be once anna was erased.
fn is_right(event: &Recorded) -> bool {
    let anna = event.data_subject() == Some("anna");
    event.erased() == anna && event.data().is_none() == anna
}

async fn next_event(reader: &mut CatchUp) -> Recorded {
    loop {
        if let Signal::Event(event) = reader.next().await.unwrap() {
            return event;
        }
    }
}

#[tokio::test]
async fn a_reader_hands_out_nothing_that_was_erased_although_it_had_read_it() {
    let world = World::new();
    let store = world.open().await;
    write(&store, 50).await;
    let mut by_log = CatchUp::log(&store, Query::EVERYTHING, position(0));
    let mut by_stream = CatchUp::stream(&store, name("s"), Version::ZERO);
    let mut by_page = CatchUp::log(&store, Query::EVERYTHING, position(0));
    for reader in [&mut by_log, &mut by_stream, &mut by_page] {
        for n in 1..=5 {
            let event = next_event(reader).await;
            assert!(event.position() == position(n) && !event.erased() && event.data().is_some());
        }
    }
    store.erase("anna").await.unwrap();
    for reader in [&mut by_log, &mut by_stream] {
        for n in 6..=100 {
            let event = next_event(reader).await;
            assert_eq!(event.position(), position(n), "no gap and no repetition");
            assert!(is_right(&event), "{event:?}");
        }
        assert!(matches!(reader.next().await.unwrap(), Signal::CaughtUp { .. }));
    }
    assert_eq!(by_page.cursor(), Cursor::Log(position(5)));
    let batch = by_page.next_batch().await.unwrap();
    assert_eq!((batch.events.len(), batch.cursor, batch.live), (95, Cursor::Log(position(100)), true));
    assert!(batch.events.iter().all(is_right));
    store.close().await.unwrap();
}

#[tokio::test]
async fn being_caught_up_is_told_once_although_the_page_was_read_again() {
    let world = World::new();
    let store = world.open().await;
    write(&store, 1).await;
    let mut reader = CatchUp::log(&store, Query::EVERYTHING, position(0)).page_events(2);
    next_event(&mut reader).await;
    next_event(&mut reader).await;
    store.erase("anna").await.unwrap();
    assert!(matches!(reader.next().await.unwrap(), Signal::CaughtUp { at } if at == Cursor::Log(position(2))));
    write(&store, 3).await;
    assert!(matches!(reader.next().await.unwrap(), Signal::FellBehind { at } if at == Cursor::Log(position(2))));
    assert_eq!(next_event(&mut reader).await.position(), position(3));
    store.erase("bert").await.unwrap();
    let rest: Vec<u64> = [next_event(&mut reader).await, next_event(&mut reader).await, next_event(&mut reader).await]
        .map(|event| event.position().get())
        .into();
    assert_eq!(rest, [4, 5, 6]);
    assert!(!reader.is_live() || reader.cursor() == Cursor::Log(position(8)));
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_reader_hands_out_nothing_of_a_stream_that_was_truncated_meanwhile() {
    let world = World::new();
    let store = world.open().await;
    write(&store, 5).await;
    let mut by_log = CatchUp::log(&store, Query::EVERYTHING, position(0));
    let mut by_stream = CatchUp::stream(&store, name("s"), Version::ZERO);
    next_event(&mut by_log).await;
    next_event(&mut by_stream).await;
    store.retire(name("s"), Retire::Truncate { before: Version::new(9) }).await.unwrap();
    for n in 2..=10 {
        let event = next_event(&mut by_log).await;
        assert_eq!((event.position(), event.stub().is_some(), event.data().is_none()), (position(n), n < 9, n < 9));
    }
    assert_eq!(next_event(&mut by_stream).await.version(), Version::new(9));
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_subscription_hands_out_nothing_that_was_erased_although_it_had_read_ahead() {
    let world = World::new();
    let config = Config { key: OrderKey::Unordered, ..Config::default() };
    let (store, workers) = world.with(config).await;
    write(&store, 20).await;
    // The page that is read for the first event holds all of them.
    let first = workers.takes(1).await;
    assert!(places(&first) == [1] && first[0].event.data().is_some());
    store.erase("anna").await.unwrap();
    let rest = workers.takes(100).await;
    assert_eq!(places(&rest), (2..=40).collect::<Vec<_>>());
    assert!(rest.iter().all(|delivery| is_right(&delivery.event)));
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_subscription_hands_out_no_data_that_was_truncated_although_it_had_read_ahead() {
    let world = World::new();
    let (store, workers) = world.with(Config::default()).await;
    write(&store, 5).await;
    let first = workers.takes(1).await;
    store.retire(name("s"), Retire::Truncate { before: Version::new(9) }).await.unwrap();
    workers.ack(&[first[0].lease]).await.unwrap();
    let next = workers.takes(1).await;
    assert_eq!(places(&next), [9], "nothing is left of a stub that a consumer could work on");
    assert!(next[0].event.data().is_some());
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_was_truncated_before_its_turn_is_counted_once_also_over_restarts() {
    let world = World::new();
    let (store, workers) = world.with(Config { key: OrderKey::Unordered, ..Config::default() }).await;
    write(&store, 5).await;
    let first = workers.takes(1).await;
    store.retire(name("s"), Retire::Truncate { before: Version::new(9) }).await.unwrap();
    let next = workers.takes(1).await;
    assert_eq!(places(&next), [9]);
    let passed_over = async |workers: &Subscription| workers.describe().await.unwrap().passed_over;
    assert_eq!(passed_over(&workers).await, 0, "the checkpoint is not past them: the first is still out");
    workers.ack(&[first[0].lease]).await.unwrap();
    assert_eq!(passed_over(&workers).await, 7);
    let (store, workers) = world.restart(store).await;
    assert_eq!(passed_over(&workers).await, 7);
    world.pass(Config::default().lease_ttl);
    let rest = workers.takes(10).await;
    assert_eq!(places(&rest), [9, 10]);
    workers.ack(&rest.iter().map(|one| one.lease).collect::<Vec<_>>()).await.unwrap();
    let (store, workers) = world.restart(store).await;
    assert_eq!(passed_over(&workers).await, 7, "what was settled and is gone now was not passed over");
    store.close().await.unwrap();
}

/// Pulls until `stop` was erased, and says what came with data after its erasure had been answered.
async fn consume(workers: Subscription, erased: tokio::sync::watch::Receiver<bool>, until: u64) -> Vec<Recorded> {
    let mut late = Vec::new();
    let mut seen = 0;
    while seen < until {
        let answered = *erased.borrow();
        let pull = Pull::of(3).waiting(Duration::from_secs(5));
        let taken = workers.pull(pull).await.unwrap();
        assert!(!taken.is_empty(), "all of them come");
        seen += taken.len() as u64;
        late.extend(taken.iter().map(|taken| taken.event.clone()).filter(|event| answered && !is_right(event)));
        workers.ack(&taken.iter().map(|taken| taken.lease).collect::<Vec<_>>()).await.unwrap();
    }
    late
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_that_pull_while_a_subject_is_erased_see_nothing_of_it_afterwards() {
    let world = World::of_this_machine();
    let config = Config { key: OrderKey::Unordered, ..Config::default() };
    let (store, workers) = world.with(config).await;
    write(&store, 300).await;
    let (told, erased) = tokio::sync::watch::channel(false);
    let (reply, late) = tokio::sync::oneshot::channel();
    let consuming = consume(workers.clone(), erased, 600);
    store.env().tasks().spawn("consumer", async move {
        let _gone = reply.send(consuming.await);
    });
    while workers.describe().await.unwrap().checkpoint < position(50) {
        tokio::task::yield_now().await;
    }
    store.erase("anna").await.unwrap();
    told.send_replace(true);
    assert_eq!(late.await.unwrap(), [], "nothing of her comes after the answer");
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_consumers_said_of_an_erased_subjects_events_is_forgotten_and_the_rest_stays() {
    let world = World::new();
    let config = Config { key: OrderKey::Unordered, ..Config::default() };
    let (store, workers) = world.with(config).await;
    write(&store, 2).await;
    append_event(&store, "s", NewEvent::new(store.event_id(), "/test", "happened")).await;
    let taken = workers.takes(10).await;
    for delivery in &taken[..4] {
        let reason = format!("cannot ship {} to Elm Street", delivery.event.data_subject().unwrap());
        workers.park(&[delivery.lease], &reason).await.unwrap();
    }
    workers.nack(&[taken[4].lease], None, "too busy").await.unwrap();
    for round in 0..3 {
        if round < 2 {
            store.erase("anna").await.unwrap();
        }
        let parked = workers.parked(position(0), 10).await.unwrap();
        let said: Vec<&str> = parked.iter().map(|parked| &*parked.failures[0].reason).collect();
        let bert = "cannot ship bert to Elm Street";
        assert_eq!(said, ["", bert, "", bert], "round {round}");
        assert!(parked.iter().all(|parked| parked.failures[0].cause == Cause::Parked && parked.attempts == 1));
    }
    // What the machine knew of them in memory does not come back with the next write.
    assert_eq!(workers.replay(Selection::All).await.unwrap(), 4);
    let again = workers.takes(10).await;
    assert_eq!(places(&again), [1, 2, 3, 4]);
    workers.park(&[again[0].lease], "out of stock").await.unwrap();
    let parked = workers.parked(position(0), 10).await.unwrap();
    assert_eq!(parked[0].failures.iter().map(|failure| &*failure.reason).collect::<Vec<_>>(), ["", "out of stock"]);
    store.close().await.unwrap();
}

/// A store whose events lie in its file, eight of them for `workers`, and many more to be forgotten while these are read.
async fn while_others_are_forgotten(world: &World) -> (Store, Subscription) {
    let config = Config { filter: happened(), key: OrderKey::Unordered, ..Config::default() };
    let (store, _) = world.with(config).await;
    append_many(&store, "s", "happened", 8).await;
    append_many(&store, Forgetting::STREAM, "to-be-forgotten", 400).await;
    world.restart(store).await
}

fn happened() -> Query {
    Query::of([QueryItem::types(["happened"])])
}

#[tokio::test]
async fn a_subscription_hands_out_what_it_can_while_others_are_forgotten_and_no_attempt_is_lost() {
    let mut first_given = Vec::new();
    for reads in 0..24 {
        let world = World::new();
        let (store, workers) = while_others_are_forgotten(&world).await;
        world.forgetting.begin(&store, reads);
        let mut given = workers.takes(8).await;
        first_given.push(given.len());
        while given.len() < 8 {
            let more = workers.takes(8).await;
            assert!(!more.is_empty() || world.forgetting.goes_on(), "after {reads} reads");
            given.extend(more);
        }
        assert_eq!(places(&given), (1..=8).collect::<Vec<_>>(), "after {reads} reads");
        assert!(given.iter().all(|delivery| delivery.attempt == 1), "after {reads} reads");
        store.close().await.unwrap();
    }
    assert!(first_given.iter().any(|given| (1..8).contains(given)), "some come: {first_given:?}");
}

#[tokio::test]
async fn a_subscription_that_cannot_hand_out_for_all_the_forgetting_says_so_in_time() {
    let world = World::new();
    let (store, workers) = while_others_are_forgotten(&world).await;
    world.forgetting.begin(&store, 390);
    assert_eq!(places(&workers.takes(8).await), super::world::NOTHING);
    assert!(world.forgetting.goes_on(), "it did not wait for the end of it");
    world.forgetting.begin(&store, 0);
    let given = workers.takes(8).await;
    assert_eq!(places(&given), (1..=8).collect::<Vec<_>>());
    assert!(given.iter().all(|delivery| delivery.attempt == 1), "nobody had seen them");
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_reader_gets_on_by_smaller_pages_while_others_are_forgotten() {
    let mut first_read = Vec::new();
    for reads in 0..8 {
        let world = World::new();
        let (store, _) = while_others_are_forgotten(&world).await;
        let mut reader = CatchUp::log(&store, happened(), position(0)).page_events(8);
        world.forgetting.begin(&store, reads);
        let mut read = reader.next_batch().await.unwrap().events;
        first_read.push(read.len());
        while read.len() < 8 {
            read.extend(reader.next_batch().await.unwrap().events);
        }
        let read: Vec<u64> = read.iter().map(|event| event.position().get()).collect();
        assert_eq!(read, (1..=8).collect::<Vec<_>>(), "after {reads} reads");
        store.close().await.unwrap();
    }
    assert!(first_read.contains(&1) && first_read[0] == 8, "{first_read:?}");
}
