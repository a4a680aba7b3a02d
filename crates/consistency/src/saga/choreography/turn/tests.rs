//! What a turn refuses to do.

use std::{sync::Arc, time::Duration};

use quorate_data::{
    event::{NewEvent, Position},
    store::{AppendBatch, ExpectedVersion, Query, ReadLog, Store, TransactError, sqlite},
};
use quorate_runtime::Env;

use super::{Belonging, Tally, Turn, Undone};
use crate::saga::choreography::{
    Process, ProcessError,
    rows::{self, Place},
};

async fn append(store: &Store, kind: &str) {
    let event = NewEvent::new(kind, "/shop", kind);
    store.append(AppendBatch::to("order-1".parse().unwrap(), ExpectedVersion::Any, vec![event])).await.unwrap();
}

async fn ring(store: &Store, turn: &Turn, scanned: Position) -> Result<(Tally, bool), TransactError<Undone>> {
    let turn = turn.clone();
    let rung = store.transact(move |tx| {
        let turn = turn.clone();
        Box::pin(async move { turn.ring(tx, scanned, 10).await })
    });
    rung.await
}

/// A course in which something is expected, and the turn that is next.
async fn expecting(store: &Store) -> Turn {
    let process = Process::new("order".parse().unwrap()).begins(&["placed"]);
    let process = process.expect("placed", &["paid"], Duration::from_secs(60));
    store.declare(rows::TABLES).await.unwrap();
    append(store, "placed").await;
    let place = Place { born: 1, revision: 0, checkpoint: Position::ZERO };
    let wall = store.env().wall();
    let stream = "process-order".parse().unwrap();
    let turn = Turn { process: Arc::new(process), stream, place, now: wall, wall };
    let page = store.read_log(ReadLog { query: Query::EVERYTHING, after: Position::ZERO, limit: 10 }).await.unwrap();
    let events: Arc<[Belonging]> = page.events.into_iter().map(|event| Belonging { event, key: "1".into() }).collect();
    let first = turn.clone();
    let taken = store.transact(move |tx| {
        let (turn, events) = (first.clone(), events.clone());
        Box::pin(async move {
            rows::declare(tx, &turn.process.name, turn.place, turn.now, None).await.map_err(ProcessError::from)?;
            turn.take(tx, &events, Position::new(1), None).await
        })
    });
    assert_eq!(taken.await.unwrap().events, 1);
    let place = Place { revision: 1, checkpoint: Position::new(1), ..place };
    Turn { place, now: turn.now + Duration::from_secs(3_600), ..turn }
}

#[tokio::test]
async fn nothing_is_told_to_be_overdue_while_the_log_holds_what_was_not_taken_in() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite::open(&Env::real(), sqlite::Config::at(folder.path().join("a.db"))).await.unwrap();
    let turn = expecting(&store).await;
    append(&store, "paid").await;
    let rung = ring(&store, &turn, Position::new(1)).await;
    assert!(matches!(rung, Err(TransactError::Aborted(Undone::Behind))), "{rung:?}");
    // Taken in, it would be told: nothing else is in the way.
    let (tally, more) = ring(&store, &turn, Position::new(2)).await.unwrap();
    assert_eq!((tally.overdue, more), (1, false));
}

#[tokio::test]
async fn who_comes_late_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite::open(&Env::real(), sqlite::Config::at(folder.path().join("a.db"))).await.unwrap();
    let turn = expecting(&store).await;
    for (born, revision) in [(1, 0), (1, 2), (2, 1)] {
        let late = Turn { place: Place { born, revision, ..turn.place }, ..turn.clone() };
        let rung = ring(&store, &late, Position::new(1)).await;
        assert!(matches!(rung, Err(TransactError::Aborted(Undone::Overtaken))), "{rung:?}");
    }
    assert_eq!(store.head(), Position::new(1));
    assert_eq!(ring(&store, &turn, Position::new(1)).await.unwrap().0.overdue, 1);
    assert_eq!(rows::next_due(&store, &turn.process.name).await.unwrap(), None);
}
