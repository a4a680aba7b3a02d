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
