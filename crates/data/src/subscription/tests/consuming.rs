use std::{sync::Arc, time::Duration};

use futures_util::FutureExt as _;

use super::{
    super::{
        Backoff, Cause, Config, Key, Lease, OrderKey, ParkedEvent, Pull, Selection, Stall, Start, Subscription,
        SubscriptionError,
    },
    world::{NOTHING, World, append, append_event, append_many, append_tagged, name, places, position, seconds},
};
use crate::{
    event::{NewEvent, Position, Scalar, Version},
    store::{ExpectedVersion, Limits, Query, QueryItem, ReadStream, Retire, Store, TransactError},
};

fn lost(result: Result<(), SubscriptionError>) -> Vec<Lease> {
    match result {
        Err(SubscriptionError::LeaseLost { leases }) => leases,
        other => panic!("no lease is lost: {other:?}"),
    }
}

#[tokio::test]
async fn what_is_acknowledged_does_not_come_again_and_what_is_not_does() {
    let world = World::new();
    let (store, workers) = world.with(Config::default()).await;
    for stream in ["a", "b", "c"] {
        append(&store, stream, "happened").await;
    }
    let taken = workers.takes(10).await;
    assert_eq!(places(&taken), [1, 2, 3]);
    workers.ack(&[taken[0].lease, taken[2].lease]).await.unwrap();
    let (store, workers) = world.restart(store).await;
    assert_eq!(places(&workers.takes(10).await), NOTHING, "the lease runs its full time after a restart");
    world.pass(seconds(30));
    let again = workers.takes(10).await;
    assert_eq!((places(&again), again[0].attempt), (vec![2], 2));
    assert_eq!(lost(workers.ack(&[taken[1].lease]).await), [taken[1].lease]);
    workers.ack(&[again[0].lease]).await.unwrap();
    let described = workers.describe().await.unwrap();
    assert_eq!((described.checkpoint, described.lag_events, described.lag), (position(3), 0, Duration::ZERO));
    store.close().await.unwrap();
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a thread that waits for itself could not be joined")]
fn a_runtime_that_has_ended_answers_instead_of_waiting_for_itself() {
    let world = World::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let opened = runtime.block_on(world.with(Config::default()));
    let inside = runtime.handle().clone();
    runtime.shutdown_background();
    let (told, hears) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _inside = inside.enter();
        let (_store, workers) = opened;
        let asked = workers.pull(Pull::of(1)).now_or_never();
        let _ = told.send(asked.map(|answer| answer.is_err()));
    });
    assert_eq!(hears.recv_timeout(seconds(20)), Ok(Some(true)));
}

#[tokio::test]
async fn a_lost_lease_does_not_spoil_the_others_of_its_call() {
    let world = World::new();
    let (store, workers) = world.with(Config::default()).await;
    append(&store, "a", "happened").await;
    append(&store, "b", "happened").await;
    let taken = workers.takes(10).await;
    workers.nack(&[taken[0].lease], Some(Duration::ZERO), "not now").await.unwrap();
    assert_eq!(lost(workers.ack(&[taken[0].lease, taken[1].lease]).await), [taken[0].lease]);
    assert_eq!(places(&workers.takes(10).await), [1]);
    store.close().await.unwrap();
}

/// Acknowledges in a transaction that also appends to `stream`.
async fn work(
    store: &Store,
    workers: &Subscription,
    lease: Lease,
    stream: &str,
) -> Result<(), TransactError<SubscriptionError>> {
    let (workers, stream, id) = (workers.clone(), name(stream), store.event_id());
    let unit = store.transact(move |tx| {
        let (workers, stream, event) = (workers.clone(), stream.clone(), NewEvent::new(id.clone(), "/test", "worked"));
        Box::pin(async move {
            tx.append(&stream, ExpectedVersion::Any, vec![event]).await.expect("nothing is in the way");
            workers.ack_in(tx, &lease).await
        })
    });
    unit.await
}

async fn length(store: &Store, stream: &str) -> usize {
    store.read_stream(ReadStream::forward(name(stream), 100)).await.unwrap().events.len()
}

#[tokio::test]
async fn work_and_its_acknowledgement_commit_together_or_not_at_all() {
    let world = World::new();
    let filter = Query::of([QueryItem::types(["happened"])]);
    let (store, workers) = world.with(Config { filter, ..Config::default() }).await;
    append(&store, "a", "happened").await;
    append(&store, "a", "happened").await;
    let paused = workers.takes(1).await.remove(0);
    world.pass(seconds(30));
    let current = workers.takes(1).await.remove(0);
    let refused = work(&store, &workers, paused.lease, "result").await;
    assert!(matches!(refused, Err(TransactError::Aborted(SubscriptionError::LeaseLost { .. }))), "{refused:?}");
    assert_eq!(length(&store, "result").await, 0, "nothing of the late work remains");
    work(&store, &workers, current.lease, "result").await.unwrap();
    assert_eq!(length(&store, "result").await, 1);
    assert_eq!(places(&workers.takes(10).await), [2], "the key goes on at once");
    assert_eq!(workers.describe().await.unwrap().checkpoint, position(1));
    let twice = work(&store, &workers, current.lease, "result").await;
    assert!(matches!(twice, Err(TransactError::Aborted(SubscriptionError::LeaseLost { .. }))));
    store.close().await.unwrap();
}

#[tokio::test]
async fn an_acknowledgement_whose_transaction_rolled_back_was_none() {
    let world = World::new();
    let (store, workers) = world.with(Config::default()).await;
    append(&store, "a", "happened").await;
    let delivery = workers.takes(1).await.remove(0);
    let (handle, lease) = (workers.clone(), delivery.lease);
    let unit = store.transact(move |tx| {
        let handle = handle.clone();
        Box::pin(async move {
            handle.ack_in(tx, &lease).await.map_err(|cause| cause.to_string())?;
            Err::<(), _>("changed my mind".to_owned())
        })
    });
    assert!(unit.await.is_err());
    assert_eq!(places(&workers.takes(1).await), NOTHING);
    workers.ack(&[lease]).await.unwrap();
    assert_eq!(workers.describe().await.unwrap().lag_events, 0);
    store.close().await.unwrap();
}

#[tokio::test]
async fn an_event_settled_in_a_transaction_stays_settled_after_a_restart() {
    let world = World::new();
    let filter = Query::of([QueryItem::types(["happened"])]);
    let (store, workers) = world.with(Config { filter, ..Config::default() }).await;
    append(&store, "a", "happened").await;
    let lease = workers.takes(1).await[0].lease;
    work(&store, &workers, lease, "result").await.unwrap();
    let (store, workers) = world.restart(store).await;
    world.pass(seconds(3_600));
    assert_eq!(places(&workers.takes(10).await), NOTHING);
    assert_eq!(workers.describe().await.unwrap().lag_events, 0);
    store.close().await.unwrap();
}

/// Lets a pull begin to wait, then does something that should wake it.
async fn woken(workers: &Subscription, wake: impl Future<Output = ()>) -> Vec<u64> {
    let pull = workers.pull(Pull::of(10).waiting(seconds(60)));
    let act = async {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        wake.await;
    };
    let (pulled, ()) = tokio::join!(pull, act);
    places(&pulled.unwrap())
}

#[tokio::test]
async fn a_waiting_consumer_wakes_for_appends_acknowledgements_transactions_and_time() {
    let world = World::new();
    let filter = Query::of([QueryItem::types(["happened"])]);
    let (store, workers) = world.with(Config { filter, ..Config::default() }).await;
    assert_eq!(woken(&workers, append(&store, "a", "happened")).await, [1]);
    append_many(&store, "a", "happened", 3).await;
    let held = async |place| {
        let expired = workers.describe().await.unwrap();
        assert_eq!(expired.oldest, Some(position(place)));
    };
    held(1).await;
    assert_eq!(woken(&workers, async { world.pass(seconds(31)) }).await, [1], "its lease expired");
    let taken = {
        world.pass(seconds(31));
        workers.takes(1).await
    };
    assert_eq!(woken(&workers, async { workers.ack(&[taken[0].lease]).await.unwrap() }).await, [2]);
    world.pass(seconds(31));
    let taken = workers.takes(1).await;
    let settle = async {
        work(&store, &workers, taken[0].lease, "result").await.unwrap();
        world.pass(Duration::from_millis(300));
    };
    assert_eq!(woken(&workers, settle).await, [3]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_consumer_waits_no_longer_than_it_said() {
    let world = World::new();
    let (store, workers) = world.with(Config::default()).await;
    let pull = workers.pull(Pull::of(10).waiting(seconds(2)));
    let time = async {
        for _ in 0..30 {
            tokio::task::yield_now().await;
            world.pass(Duration::from_millis(100));
        }
    };
    let (pulled, ()) = tokio::join!(pull, time);
    assert_eq!(places(&pulled.unwrap()), NOTHING);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_poisonous_event_parks_its_key_and_a_replay_hands_it_out_in_order() {
    let world = World::new();
    let (store, workers) = world.with(Config { max_attempts: 2, ..Config::default() }).await;
    append(&store, "a", "happened").await;
    append(&store, "a", "happened").await;
    append(&store, "b", "happened").await;
    for reason in ["first", "second"] {
        let taken = workers.takes(1).await;
        workers.nack(&[taken[0].lease], Some(Duration::ZERO), reason).await.unwrap();
    }
    let other = workers.takes(10).await;
    assert_eq!(places(&other), [3], "other keys go on");
    workers.ack(&[other[0].lease]).await.unwrap();
    let (store, workers) = world.restart(store).await;
    let parked = workers.parked(Position::ZERO, 10).await.unwrap();
    let [ParkedEvent { failures, attempts: 2, .. }, behind] = &parked[..] else { panic!("{parked:?}") };
    assert_eq!(failures.iter().map(|failure| &*failure.reason).collect::<Vec<_>>(), ["first", "second"]);
    assert_eq!(failures[0].at, 86_400_000_000_000);
    assert_eq!((behind.position, behind.failures[0].cause), (position(2), Cause::Behind));
    assert_eq!(workers.describe().await.unwrap().checkpoint, position(3), "it does not wait for parked events");
    assert_eq!(workers.replay(Selection::Key(Key::from("a"))).await.unwrap(), 2);
    for (expected, attempt) in [(1, 3), (2, 1)] {
        let taken = workers.takes(10).await;
        assert_eq!((places(&taken), taken[0].attempt), (vec![expected], attempt));
        workers.ack(&[taken[0].lease]).await.unwrap();
    }
    assert_eq!(workers.parked(Position::ZERO, 10).await.unwrap(), []);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_replayed_event_survives_a_restart_although_the_checkpoint_passed_it() {
    let world = World::new();
    let (store, workers) = world.with(Config::default()).await;
    append(&store, "a", "happened").await;
    let taken = workers.takes(1).await;
    workers.park(&[taken[0].lease], "poison").await.unwrap();
    assert_eq!(workers.describe().await.unwrap().checkpoint, position(1));
    assert_eq!(workers.replay(Selection::All).await.unwrap(), 1);
    let (store, workers) = world.restart(store).await;
    assert_eq!(places(&workers.takes(1).await), [1]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_is_given_up_does_not_come_again() {
    let world = World::new();
    let (store, workers) = world.with(Config::default()).await;
    append(&store, "a", "happened").await;
    let taken = workers.takes(1).await;
    workers.park(&[taken[0].lease], "poison").await.unwrap();
    assert_eq!(workers.discard(Selection::Event(position(1))).await.unwrap(), 1);
    assert_eq!(workers.discard(Selection::All).await.unwrap(), 0);
    let (store, workers) = world.restart(store).await;
    assert_eq!(workers.replay(Selection::All).await.unwrap(), 0);
    assert_eq!(places(&workers.takes(1).await), NOTHING);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_lease_can_be_held_for_as_long_as_the_work_takes() {
    let world = World::new();
    let (store, workers) = world.with(Config::default()).await;
    append(&store, "a", "happened").await;
    let lease = workers.takes(1).await[0].lease;
    for _ in 0..30 {
        world.pass(seconds(20));
        workers.extend(&[lease], None).await.unwrap();
        assert_eq!(places(&workers.takes(1).await), NOTHING);
    }
    workers.extend(&[lease], Some(seconds(600))).await.unwrap();
    world.pass(seconds(599));
    assert_eq!(places(&workers.takes(1).await), NOTHING);
    workers.ack(&[lease]).await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn the_backoff_grows_with_every_failure() {
    let world = World::new();
    let backoff = Backoff { first: seconds(10), max: seconds(100) };
    let (store, workers) = world.with(Config { backoff, ..Config::default() }).await;
    append(&store, "a", "happened").await;
    for (rests_at_least, rests_at_most) in [(7, 10), (15, 20), (31, 40)] {
        let lease = workers.takes(1).await[0].lease;
        workers.nack(&[lease], None, "no").await.unwrap();
        world.pass(seconds(rests_at_least));
        assert_eq!(places(&workers.takes(1).await), NOTHING);
        world.pass(seconds(rests_at_most - rests_at_least));
    }
    assert_eq!(workers.takes(1).await[0].attempt, 4);
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_holds_a_subscription_up_is_said() {
    let world = World::new();
    let (store, workers) = world.with(Config { window: 2, max_parked: 1, ..Config::default() }).await;
    append_many(&store, "a", "happened", 3).await;
    append(&store, "b", "happened").await;
    let taken = workers.takes(10).await;
    assert_eq!(places(&taken), [1]);
    let full = workers.pull(Pull::of(10)).await;
    assert!(matches!(full, Err(SubscriptionError::WindowFull { unsettled: 2, window: 2 })), "{full:?}");
    workers.park(&[taken[0].lease], "poison").await.unwrap();
    let full = workers.pull(Pull::of(10)).await;
    assert!(matches!(full, Err(SubscriptionError::ParkedFull { parked: 2, max: 1 })), "{full:?}");
    assert_eq!(workers.describe().await.unwrap().stall, Some(Stall::Parked(2)));
    workers.discard(Selection::All).await.unwrap();
    assert_eq!(places(&workers.takes(10).await), [3, 4]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_pull_that_is_dropped_costs_no_attempt_and_holds_nothing() {
    let world = World::new();
    let (store, workers) = world.with(Config::default()).await;
    append(&store, "a", "happened").await;
    for rounds in 0..40 {
        tokio::select! {
            biased;
            _pulled = workers.pull(Pull::of(1)) => panic!("a pull takes a round"),
            () = std::future::ready(()) => {}
        }
        // Each time the shift gets a little further before the next one is dropped.
        for _ in 0..rounds % 8 {
            tokio::task::yield_now().await;
        }
    }
    let taken = workers.pull(Pull::of(1).waiting(seconds(1))).await.unwrap();
    assert_eq!((places(&taken), taken[0].attempt), (vec![1], 1));
    store.close().await.unwrap();
}

#[tokio::test]
async fn the_checkpoint_of_a_sparse_filter_is_kept_over_a_restart() {
    let world = World::new();
    let filter = Query::of([QueryItem::types(["rare"])]);
    let (store, workers) = world.with(Config { filter, ..Config::default() }).await;
    append_many(&store, "noise-1", "other", 9_000).await;
    assert_eq!(places(&workers.takes(1).await), NOTHING);
    let (store, _) = world.restart(store).await;
    let listed = world.subscriptions(&store).await.list(None, 10).await.unwrap();
    assert_eq!((listed.len(), listed[0].checkpoint), (1, position(9_000)));
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_retired_event_is_not_handed_out() {
    let world = World::new();
    let (store, workers) = world.with(Config::default()).await;
    append_many(&store, "a", "happened", 3).await;
    store.retire(name("a"), Retire::Truncate { before: Version::new(3) }).await.unwrap();
    let taken = workers.takes(10).await;
    assert_eq!(places(&taken), [3]);
    workers.ack(&[taken[0].lease]).await.unwrap();
    assert_eq!(workers.describe().await.unwrap().checkpoint, position(3));
    store.close().await.unwrap();
}

#[tokio::test]
async fn the_lag_is_told_in_events_and_in_time() {
    let world = World::new();
    let (store, workers) = world.with(Config { window: 2, ..Config::default() }).await;
    append_many(&store, "a", "happened", 5).await;
    world.pass(seconds(70));
    let described = workers.describe().await.unwrap();
    assert_eq!((described.lag_events, described.lag, described.oldest), (5, seconds(70), Some(position(1))));
    assert_eq!((described.head, described.counts.waiting), (position(5), 2));
    store.close().await.unwrap();
}

#[tokio::test]
async fn order_goes_by_stream_tag_extension_or_not_at_all() {
    for (key, expected) in [
        (OrderKey::Stream, vec![1, 4]),
        (OrderKey::Tag("order".into()), vec![1, 3]),
        (OrderKey::Extension("tenant".into()), vec![1, 4]),
        (OrderKey::Unordered, vec![1, 2, 3, 4]),
    ] {
        let world = World::new();
        let (store, workers) = world.with(Config { key: key.clone(), ..Config::default() }).await;
        append_tagged(&store, "a", &["order:1"]).await;
        append_tagged(&store, "a", &["order:1", "other:2"]).await;
        append_tagged(&store, "a", &["order:2"]).await;
        let mut last = NewEvent::new("last", "/test", "happened").tagged("order:2".parse().unwrap());
        last.extensions.insert("tenant".into(), Scalar::Text("t".into()));
        append_event(&store, "b", last).await;
        assert_eq!(places(&workers.takes(10).await), expected, "{key:?}");
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_subscription_begins_where_it_was_told_to() {
    let world = World::new();
    let store = world.open().await;
    append_many(&store, "a", "happened", 4).await;
    let all = world.subscriptions(&store).await;
    for (start, first) in [(Start::Beginning, 1), (Start::After(position(2)), 3), (Start::End, 5)] {
        let workers = all.create(&name(&format!("{start:?}")), Config { start, ..Config::default() }).await.unwrap();
        if start == Start::End {
            append(&store, "a", "happened").await;
        }
        assert_eq!(places(&workers.takes(1).await), [first], "{start:?}");
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn creating_is_repeatable_and_deleting_is_final() {
    let world = World::new();
    let (store, workers) = world.with(Config::default()).await;
    let all = world.subscriptions(&store).await;
    append(&store, "a", "happened").await;
    let lease = workers.takes(1).await[0].lease;
    let same = all.create(workers.name(), Config::default()).await.unwrap();
    assert_eq!(same.describe().await.unwrap().counts.in_flight, 1, "it is the same one");
    let other = all.create(workers.name(), Config { window: 5, ..Config::default() }).await;
    assert!(matches!(other, Err(SubscriptionError::Exists { .. })));
    all.delete(workers.name()).await.unwrap();
    assert!(matches!(all.delete(workers.name()).await, Err(SubscriptionError::NotFound { .. })));
    assert!(matches!(all.get(workers.name()).await, Err(SubscriptionError::NotFound { .. })));
    assert!(matches!(workers.pull(Pull::of(1)).await, Err(SubscriptionError::NotFound { .. })));
    assert!(matches!(workers.ack(&[lease]).await, Err(SubscriptionError::NotFound { .. })));
    let anew = all.create(workers.name(), Config::default()).await.unwrap();
    let taken = anew.takes(1).await;
    assert_eq!(places(&taken), [1]);
    assert_eq!(lost(anew.ack(&[lease]).await), [lease], "a lease of the old one is none of the new one");
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_is_out_of_range_is_refused_by_name() {
    let world = World::new();
    let (store, workers) = world.with(Config::default()).await;
    let said = |result: Result<_, SubscriptionError>| result.map(|_: Vec<_>| ()).unwrap_err().to_string();
    assert!(said(workers.pull(Pull::of(0)).await).contains("`max`"));
    assert!(said(workers.pull(Pull::of(1).waiting(seconds(301))).await).contains("`wait`"));
    assert!(said(workers.pull(Pull::of(1).by("x".repeat(257))).await).contains("`owner`"));
    assert!(workers.parked(Position::ZERO, 0).await.unwrap_err().to_string().contains("`limit`"));
    assert!(workers.nack(&[], Some(seconds(90_000)), "").await.unwrap_err().to_string().contains("`rest`"));
    assert!(workers.extend(&[], Some(Duration::ZERO)).await.unwrap_err().to_string().contains("`ttl`"));
    store.close().await.unwrap();
}

/// A world whose transactions take little, and `count` events to be handed out in it.
async fn where_little_is_written_at_once(count: usize) -> (World, Store, Subscription) {
    let limits = Limits { unit_bytes: 96 << 10, batch_bytes: 96 << 10, page_bytes: 96 << 10, ..Limits::default() };
    let world = World::limited(limits);
    let config = Config { key: OrderKey::Unordered, max_attempts: 3, ..Config::default() };
    let (store, workers) = world.with(config).await;
    for stream in ["a", "b", "c", "d"] {
        append_many(&store, stream, "happened", count / 4).await;
    }
    (world, store, workers)
}

#[tokio::test]
async fn however_much_was_said_of_a_window_it_is_written_read_and_parked() {
    let (world, store, workers) = where_little_is_written_at_once(200).await;
    let reason = "\u{1}trace\n".repeat(200);
    for attempt in 1..=3 {
        let taken = workers.takes(1_000).await;
        assert!(taken.len() == 200 && taken.iter().all(|taken| taken.attempt == attempt));
        let leases: Vec<Lease> = taken.iter().map(|taken| taken.lease).collect();
        workers.nack(&leases, Some(Duration::ZERO), &reason).await.unwrap();
    }
    let (store, workers) = world.restart(store).await;
    let described = workers.describe().await.unwrap();
    assert_eq!((described.counts.parked, described.checkpoint), (200, position(200)));
    let parked = workers.parked(position(0), 200).await.unwrap();
    assert!(parked.len() == 200 && parked.iter().all(|parked| parked.failures.len() == 3));
    assert!(
        parked.iter().all(|parked| parked.failures[2].reason.starts_with("\u{1}trace")),
        "the last one counts most"
    );
    assert_eq!(workers.replay(Selection::All).await.unwrap(), 200);
    assert_eq!(workers.takes(1_000).await.len(), 200);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_window_of_leases_that_expire_together_for_the_last_time_is_parked() {
    let (world, store, workers) = where_little_is_written_at_once(400).await;
    for _ in 0..3 {
        assert_eq!(workers.takes(1_000).await.len(), 400);
        world.pass(seconds(31));
    }
    assert_eq!(places(&workers.takes(10).await), NOTHING);
    let described = workers.describe().await.unwrap();
    assert_eq!((described.counts.parked, described.checkpoint), (400, position(400)));
    let (store, workers) = world.restart(store).await;
    assert_eq!(workers.describe().await.unwrap().checkpoint, position(400));
    store.close().await.unwrap();
}

#[tokio::test]
async fn rows_of_earlier_builds_that_hold_more_than_an_answer_are_read() {
    let (world, store, workers) = where_little_is_written_at_once(200).await;
    let leases: Vec<Lease> = workers.takes(1_000).await.iter().map(|taken| taken.lease).collect();
    workers.park(&leases, "no").await.unwrap();
    let failure = format!(r#"{{"attempt":1,"at":0,"cause":"nacked","reason":"{}"}}"#, "\\u0001".repeat(512));
    let failures: Arc<str> = format!("[{}]", vec![failure; 5].join(",")).into();
    for n in 1..=200_i64 {
        let failures = failures.clone();
        let written = store.transact(move |tx| {
            let params = [crate::store::Value::from(failures.clone()), n.into()];
            Box::pin(async move {
                let sql = "UPDATE quorate_subscription_event SET failures = $1 WHERE position = $2";
                tx.room_execute(sql, &params).await.map(drop)
            })
        });
        written.await.unwrap();
    }
    let (store, workers) = world.restart(store).await;
    assert_eq!(workers.describe().await.unwrap().counts.parked, 200);
    let parked = workers.parked(position(0), 150).await.unwrap();
    assert!(parked.len() == 150 && parked.iter().all(|parked| parked.failures.len() == 5));
    assert_eq!(workers.replay(Selection::All).await.unwrap(), 200);
    assert_eq!(workers.takes(1_000).await.len(), 200);
    store.close().await.unwrap();
}
