//! The one transaction: everything or nothing, and nobody else's.

use std::{convert::Infallible, time::Duration};

use futures_util::future::join_all;

use super::{
    super::{
        AppendError, DynTx, ExpectedVersion, InboxError, Limits, Query, ReadLog, ReadStream, RoomTables, SqlError,
        Store, StoreError, TransactError, Value,
    },
    Outcome, Place,
    vocabulary::{append, assert_sound, event, events, ids_of, limits, page, stream, whole_log},
};
use crate::event::Position;

/// A room's tables, for claims about rooms.
pub(super) const ROOM: RoomTables = RoomTables {
    room: "proof",
    versions: &["CREATE TABLE quorate_proof (id INTEGER PRIMARY KEY, note TEXT NOT NULL)"],
};

/// Anything that can go wrong inside a transaction.
#[derive(Debug, thiserror::Error)]
pub(super) enum Inside {
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Inbox(#[from] InboxError),
    #[error(transparent)]
    Sql(#[from] SqlError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("no, thank you")]
    No,
}

/// A store with a table `note` of the application and one of a room.
pub(super) async fn with_tables(place: &dyn Place, limits: Limits) -> Result<Store, TransactError<Inside>> {
    let store = place.open(limits).await;
    store.declare(ROOM).await.map_err(|cause| TransactError::Aborted(cause.into()))?;
    run(&store, "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT NOT NULL)").await?;
    Ok(store)
}

/// One statement of the application in a transaction of its own.
pub(super) async fn run(store: &Store, sql: &'static str) -> Result<u64, TransactError<Inside>> {
    store.transact(move |tx| Box::pin(async move { Ok(tx.execute(sql, &[]).await?) })).await
}

/// The one number that a query of the application gives.
pub(super) async fn count(store: &Store, sql: &str) -> Result<i64, SqlError> {
    Ok(store.query(sql, vec![]).await?[0].at(0).as_i64().unwrap_or(-1))
}

/// Writes everywhere: two streams, a table of the application, a table of a room.
async fn write_everywhere(tx: &mut DynTx, n: i64) -> Result<(), Inside> {
    tx.append(&stream("a"), ExpectedVersion::Any, vec![event(format!("a-{n}"))]).await?;
    tx.execute("INSERT INTO note (id, text) VALUES ($1, $2)", &[n.into(), format!("note {n}").into()]).await?;
    tx.append(&stream("b"), ExpectedVersion::Any, vec![event(format!("b-{n}"))]).await?;
    let changed =
        tx.room_execute("INSERT INTO quorate_proof (id, note) VALUES ($1, $2)", &[n.into(), "x".into()]).await?;
    assert_eq!(changed, 1);
    Ok(())
}

/// The numbers that were written everywhere. Fails if one was written somewhere only.
async fn written(store: &Store) -> Result<Vec<i64>, Box<dyn std::error::Error + Send + Sync>> {
    let numbers = |rows: Vec<super::super::Row>| rows.iter().filter_map(|row| row.at(0).as_i64()).collect::<Vec<_>>();
    let notes = numbers(store.query("SELECT id FROM note ORDER BY id", vec![]).await?);
    let room = numbers(store.room_query("SELECT id FROM quorate_proof ORDER BY id", vec![]).await?);
    assert_eq!(notes, room, "the application's table and the room's");
    for prefix in ["a", "b"] {
        let mut ids = ids_of(store, prefix).await?;
        ids.sort_unstable_by_key(|id| id.len());
        let mut expected: Vec<String> = notes.iter().map(|n| format!("{prefix}-{n}")).collect();
        ids.sort_unstable();
        expected.sort_unstable();
        assert_eq!(ids, expected, "tables and events");
    }
    Ok(notes)
}

pub(super) async fn a_transaction_commits_events_and_tables_together(place: &dyn Place) -> Outcome {
    let store = with_tables(place, Limits::default()).await?;
    for n in 0..5 {
        store.transact(move |tx| Box::pin(write_everywhere(tx, n))).await?;
        assert_eq!(written(&store).await?, (0..=n).collect::<Vec<_>>());
    }
    Ok(assert_sound(&store).await?)
}

pub(super) async fn a_transaction_that_says_no_leaves_nothing(place: &dyn Place) -> Outcome {
    let store = with_tables(place, Limits::default()).await?;
    let refused: Result<(), _> = store
        .transact(|tx| {
            Box::pin(async move {
                write_everywhere(tx, 1).await?;
                tx.execute("CREATE TABLE made_inside (x INTEGER)", &[]).await?;
                Err(Inside::No)
            })
        })
        .await;
    assert!(matches!(refused, Err(TransactError::Aborted(Inside::No))), "{refused:?}");
    assert!(written(&store).await?.is_empty());
    assert!(store.query("SELECT * FROM made_inside", vec![]).await.is_err(), "also tables are taken back");
    assert_eq!(store.head().get(), 0);
    store.transact(|tx| Box::pin(write_everywhere(tx, 1))).await?;
    assert_eq!(written(&store).await?, [1]);
    Ok(assert_sound(&store).await?)
}

pub(super) async fn a_transaction_reads_its_own_appends(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    append(&store, "s", events("before", 0..3)).await?;
    store.close().await?;
    let store = place.open(Limits::default()).await;
    append(&store, "s", events("tail", 0..2)).await?;
    let (found, end) = if store.capabilities().own_log_in_transaction { (3, 7) } else { (1, 5) };
    store
        .transact(move |tx| {
            Box::pin(async move {
                tx.append(&stream("s"), ExpectedVersion::Any, events("own", 0..2)).await?;
                let page = tx.read_stream(ReadStream::forward(stream("s"), 100)).await?;
                let ids: Vec<&str> = page.events.iter().map(|event| event.id()).collect();
                assert_eq!(ids, ["before-0", "before-1", "before-2", "tail-0", "tail-1", "own-0", "own-1"]);
                assert_eq!(page.head.version.get(), 7);
                let page = tx.read_stream(ReadStream::backward(stream("s"), 3)).await?;
                assert_eq!(page.events[0].id(), "own-1");
                let everything = ReadLog { query: Query::EVERYTHING, after: Position::new(4), limit: 100 };
                let page = tx.read_log(everything).await?;
                assert_eq!((page.events.len(), page.head.get(), page.scanned.get()), (found, end, end));
                let repeated = tx.append(&stream("s"), ExpectedVersion::NoStream, events("own", 0..2)).await?;
                assert!(repeated.repeated, "its own events are known");
                Ok::<_, Inside>(())
            })
        })
        .await?;
    assert_eq!(ids_of(&store, "s").await?.len(), 7);
    Ok(())
}

pub(super) async fn others_see_nothing_before_the_commit(place: &dyn Place) -> Outcome {
    let store = with_tables(place, Limits::default()).await?;
    append(&store, "a", vec![event("before")]).await?;
    let (told, mut inside) = tokio::sync::mpsc::unbounded_channel();
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Arc::new(std::sync::Mutex::new(wait));
    let writing = store.transact(move |tx| {
        let (told, wait) = (told.clone(), wait.clone());
        Box::pin(async move {
            write_everywhere(tx, 1).await?;
            let _ = told.send(());
            // Holds the transaction open while the others look: not a wait that the transaction could notice.
            let _ = wait.lock().map(|wait| wait.recv_timeout(Duration::from_millis(800)));
            Ok::<_, Inside>(())
        })
    });
    let looking = async {
        inside.recv().await;
        assert_eq!(store.head().get(), 1);
        assert_eq!(ids_of(&store, "a").await?, ["before"]);
        assert_eq!(ids_of(&store, "b").await?.len(), 0);
        assert_eq!(page(&store, Query::EVERYTHING, 0, 100).await?.events.len(), 1);
        assert!(store.streams("b", None, 10).await?.is_empty());
        let notes = count(&store, "SELECT count(*) FROM note").await?;
        assert_eq!(notes, 0);
        let _ = go_on.send(());
        Ok::<_, Inside>(())
    };
    let (wrote, looked) = tokio::join!(writing, looking);
    looked?;
    wrote?;
    assert_eq!(ids_of(&store, "a").await?, ["before", "a-1"]);
    assert_eq!(count(&store, "SELECT count(*) FROM note").await?, 1);
    Ok(())
}

/// One transaction in a crowd: every third says no, every seventh breaks a constraint, every eleventh panics.
async fn member(store: &Store, n: i64) -> Result<(), TransactError<Inside>> {
    store
        .transact(move |tx| {
            Box::pin(async move {
                write_everywhere(tx, n).await?;
                if n % 3 == 0 {
                    return Err(Inside::No);
                }
                if n % 7 == 0 {
                    tx.execute("INSERT INTO note (id, text) VALUES ($1, 'twice')", &[n.into()]).await?;
                }
                assert!(n % 11 != 0, "every eleventh panics");
                Ok(())
            })
        })
        .await
}

pub(super) async fn a_failing_transaction_leaves_its_neighbours_alone(place: &dyn Place) -> Outcome {
    let store = with_tables(place, Limits::default()).await?;
    let append_too = join_all((0..100).map(async |n: i64| append(&store, "c", vec![event(n)]).await));
    let (answers, appended) = tokio::join!(join_all((0..100).map(|n| member(&store, n))), append_too);
    appended.into_iter().collect::<Result<Vec<_>, _>>()?;
    let fails = |n: i64| n % 3 == 0 || n % 7 == 0 || n % 11 == 0;
    for (n, answer) in (0..).zip(&answers) {
        assert_eq!(answer.is_err(), fails(n), "{n}: {answer:?}");
    }
    assert_eq!(written(&store).await?, (0..100).filter(|n| !fails(*n)).collect::<Vec<_>>());
    assert_eq!(ids_of(&store, "c").await?.len(), 100);
    whole_log(&store).await?;
    Ok(assert_sound(&store).await?)
}

pub(super) async fn a_refused_append_does_not_end_the_transaction(place: &dyn Place) -> Outcome {
    let store = with_tables(place, Limits::default()).await?;
    store
        .transact(|tx| {
            Box::pin(async move {
                write_everywhere(tx, 1).await?;
                let refused = tx.append(&stream("a"), ExpectedVersion::NoStream, vec![event("x")]).await;
                assert!(matches!(refused, Err(AppendError::VersionConflict { .. })), "{refused:?}");
                let malformed = tx.append(&stream("a"), ExpectedVersion::Any, vec![]).await;
                assert!(matches!(malformed, Err(AppendError::Malformed { .. })), "{malformed:?}");
                let failed = tx.execute("INSERT INTO note (id, text) VALUES (1, 'again')", &[]).await;
                assert!(matches!(failed, Err(SqlError::Failed { .. })), "{failed:?}");
                write_everywhere(tx, 2).await
            })
        })
        .await?;
    assert_eq!(written(&store).await?, [1, 2]);
    Ok(())
}

pub(super) async fn a_panic_rolls_back_and_the_store_goes_on(place: &dyn Place) -> Outcome {
    let store = with_tables(place, Limits::default()).await?;
    let panicked: Result<(), TransactError<Inside>> = store
        .transact(|tx| {
            Box::pin(async move {
                write_everywhere(tx, 1).await?;
                panic!("the {} panic", "planned")
            })
        })
        .await;
    assert!(matches!(&panicked, Err(TransactError::Panicked { what }) if what == "the planned panic"), "{panicked:?}");
    assert!(written(&store).await?.is_empty());
    store.transact(|tx| Box::pin(write_everywhere(tx, 2))).await?;
    assert_eq!(written(&store).await?, [2]);
    Ok(assert_sound(&store).await?)
}

pub(super) async fn a_transaction_that_waits_for_something_else_is_rolled_back_or_served(place: &dyn Place) -> Outcome {
    let store = with_tables(place, Limits::default()).await?;
    let waited: Result<(), TransactError<Inside>> = store
        .transact(|tx| {
            Box::pin(async move {
                write_everywhere(tx, 1).await?;
                wait_once().await;
                write_everywhere(tx, 2).await
            })
        })
        .await;
    match waited {
        Ok(()) => assert_eq!(written(&store).await?, [1, 2]),
        Err(TransactError::ForeignAwait) => assert!(written(&store).await?.is_empty()),
        Err(other) => return Err(other.into()),
    }
    store.transact(|tx| Box::pin(write_everywhere(tx, 3))).await?;
    assert_eq!(written(&store).await?.last(), Some(&3));
    Ok(())
}

/// Waits for one turn, as a reply of somebody else would make a transaction wait.
async fn wait_once() {
    let mut waited = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut waited, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

fn impatient() -> Limits {
    limits(|limits| limits.unit_time = Duration::from_millis(150))
}

pub(super) async fn a_transaction_that_takes_too_long_is_rolled_back(place: &dyn Place) -> Outcome {
    let store = with_tables(place, impatient()).await?;
    let env = store.env().clone();
    let dawdled: Result<(), TransactError<Inside>> = store
        .transact(move |tx| {
            let env = env.clone();
            Box::pin(async move {
                write_everywhere(tx, 1).await?;
                let until = env.mono() + Duration::from_millis(200);
                while env.mono() < until {
                    std::hint::spin_loop();
                }
                Ok(())
            })
        })
        .await;
    assert!(matches!(dawdled, Err(TransactError::TooLong { limit }) if limit.as_millis() == 150), "{dawdled:?}");
    assert!(written(&store).await?.is_empty());
    store.transact(|tx| Box::pin(write_everywhere(tx, 2))).await?;
    Ok(())
}

const ENDLESS_READ: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) SELECT count(*) FROM n";
const ENDLESS_WRITE: &str = "INSERT INTO note (text) \
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) SELECT i || ' times' FROM n";

pub(super) async fn a_statement_that_takes_too_long_is_rolled_back(place: &dyn Place) -> Outcome {
    let store = with_tables(place, impatient()).await?;
    for (n, (endless, swallow)) in
        [(ENDLESS_READ, false), (ENDLESS_WRITE, false), (ENDLESS_READ, true), (ENDLESS_WRITE, true)]
            .into_iter()
            .enumerate()
    {
        let unit = store.transact(move |tx| {
            Box::pin(async move {
                write_everywhere(tx, 1).await?;
                match tx.execute(endless, &[]).await {
                    Err(cause) if !swallow => Err(cause.into()),
                    _ => Ok(()),
                }
            })
        });
        let beside = join_all((0..3).map(async |i: i64| append(&store, "c", vec![event(format!("{n}-{i}"))]).await));
        let (dawdled, beside): (Result<(), TransactError<Inside>>, _) = tokio::join!(unit, beside);
        assert!(matches!(dawdled, Err(TransactError::TooLong { .. })), "{endless}: {dawdled:?}");
        beside.into_iter().collect::<Result<Vec<_>, _>>()?;
        assert!(written(&store).await?.is_empty());
        assert_eq!(ids_of(&store, "c").await?.len(), 3 * (n + 1), "neighbours are served");
    }
    store.transact(|tx| Box::pin(write_everywhere(tx, 2))).await?;
    assert_eq!(written(&store).await?, [2]);
    Ok(assert_sound(&store).await?)
}

pub(super) async fn a_deferred_constraint_fails_only_its_own_transaction(place: &dyn Place) -> Outcome {
    let store = with_tables(place, Limits::default()).await?;
    run(
        &store,
        "CREATE TABLE child (id INTEGER PRIMARY KEY, parent INTEGER NOT NULL
         REFERENCES note (id) DEFERRABLE INITIALLY DEFERRED)",
    )
    .await?;
    let unit = async |n: i64| -> Result<(), TransactError<Inside>> {
        store
            .transact(move |tx| {
                Box::pin(async move {
                    // The child comes first; every fifth has no parent at all.
                    let parent = if n % 5 == 0 { 1_000 + n } else { n };
                    let child: [Value; 2] = [n.into(), parent.into()];
                    tx.execute("INSERT INTO child (id, parent) VALUES ($1, $2)", &child).await?;
                    write_everywhere(tx, n).await
                })
            })
            .await
    };
    let answers = join_all((0..30).map(unit)).await;
    for (n, answer) in (0..).zip(&answers) {
        match answer {
            Ok(()) => assert!(n % 5 != 0, "{n} has no parent"),
            Err(TransactError::Constraint { .. }) => assert!(n % 5 == 0, "{n} has a parent"),
            Err(other) => panic!("{n}: {other:?}"),
        }
    }
    assert_eq!(written(&store).await?, (0..30).filter(|n| n % 5 != 0).collect::<Vec<_>>());
    assert_eq!(count(&store, "SELECT count(*) FROM child").await?, 24);
    Ok(assert_sound(&store).await?)
}

pub(super) async fn committed_transactions_survive_a_crash(place: &dyn Place) -> Outcome {
    let mut store = with_tables(place, Limits::default()).await?;
    for n in 0..8 {
        store.transact(move |tx| Box::pin(write_everywhere(tx, n))).await?;
        let refused: Result<(), TransactError<Inside>> = store
            .transact(move |tx| {
                Box::pin(async move {
                    write_everywhere(tx, 100 + n).await?;
                    Err(Inside::No)
                })
            })
            .await;
        assert!(refused.is_err());
        place.crash(store).await;
        store = place.open(Limits::default()).await;
        assert_eq!(written(&store).await?, (0..=n).collect::<Vec<_>>());
    }
    let looked: Result<(), TransactError<Infallible>> = store.transact(|_| Box::pin(std::future::ready(Ok(())))).await;
    looked?;
    Ok(assert_sound(&store).await?)
}
