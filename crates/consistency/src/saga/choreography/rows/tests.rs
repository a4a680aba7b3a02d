//! What is read of many courses, and of one.

use quorate_data::store::{Store, sqlite};
use quorate_foundations::name::Name;
use quorate_runtime::Env;

use super::*;

fn order() -> Name {
    "order".parse().unwrap()
}

/// Courses `from` to `to` stand so.
async fn fill(store: &Store, standing: &'static str, from: u64, to: u64) {
    let done = store.transact(move |tx| {
        Box::pin(async move {
            let sql = "INSERT INTO quorate_process_course (process, course, standing, first_at, updated_at, due, state)
                WITH RECURSIVE n (i) AS (SELECT $2 UNION ALL SELECT i + 1 FROM n WHERE i < $3)
                SELECT 'order', $1 || i, $1, 0, 0, NULL, '{}' FROM n";
            tx.room_execute(sql, &[standing.into(), number(from), number(to)]).await
        })
    });
    done.await.unwrap();
}

#[tokio::test]
async fn of_each_standing_one_more_is_counted_than_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite::open(&Env::real(), sqlite::Config::at(folder.path().join("a.db"))).await.unwrap();
    store.declare(TABLES).await.unwrap();
    for part in 0..11 {
        fill(&store, "overdue", part * 10_000, part * 10_000 + 9_999).await;
    }
    fill(&store, "stopped", 0, 2).await;
    fill(&store, "ended", 0, 4).await;
    let open = census(&store, &order(), &Standing::OPEN).await.unwrap();
    assert_eq!(open, [(Standing::Overdue, 100_001), (Standing::Stopped, 3)]);
    let all = census(&store, &order(), &Standing::ALL).await.unwrap();
    assert_eq!(all, [(Standing::Overdue, 100_001), (Standing::Ended, 5), (Standing::Stopped, 3)]);
    assert_eq!(census(&store, &"other".parse().unwrap(), &Standing::ALL).await.unwrap(), []);
}

fn event(position: u64) -> Seen {
    Seen {
        position: Position::new(position),
        source: "/shop".into(),
        id: format!("e-{position}").into(),
        kind: "placed".into(),
        stream: "orders".into(),
        causation: (position > 9).then(|| "e-9".into()),
        depth: 1,
        at: Wall::from_unix_nanos(5),
    }
}

#[tokio::test]
async fn a_course_is_looked_at_with_its_own_events_in_the_order_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite::open(&Env::real(), sqlite::Config::at(folder.path().join("a.db"))).await.unwrap();
    store.declare(TABLES).await.unwrap();
    let of = |trail: Vec<Seen>, first_at| {
        let course = Course { standing: Standing::Stopped, late: 7, ..Course::default() };
        Kept { course, trail, written: 0, first_at: Wall::from_unix_nanos(first_at) }
    };
    let (many, none) = (of(vec![event(10), event(9)], -3), of(Vec::new(), 4));
    let (all, other) = ([("1", many.clone()), ("2", none.clone())], of(vec![event(8)], 1));
    let written = store.transact(move |tx| {
        let (all, other) = (all.clone(), other.clone());
        Box::pin(async move {
            for (key, kept) in &all {
                write(tx, &order(), &(*key).into(), kept, Wall::from_unix_nanos(6)).await?;
            }
            write(tx, &"other".parse().unwrap(), &"1".into(), &other, Wall::from_unix_nanos(6)).await
        })
    });
    written.await.unwrap();
    let looked = look(&store, &order(), &"1".into()).await.unwrap().unwrap();
    assert_eq!((looked.course, looked.trail, looked.first_at), (many.course, vec![event(9), event(10)], many.first_at));
    let looked = look(&store, &order(), &"2".into()).await.unwrap().unwrap();
    assert_eq!((looked.course, looked.trail, looked.first_at), (none.course, vec![], none.first_at));
    assert!(look(&store, &order(), &"3".into()).await.unwrap().is_none());
}
