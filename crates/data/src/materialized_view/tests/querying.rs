//! Reading a view: by key, page by page, by SQL, within limits.

use std::time::Duration;

use quorate_runtime::BoxFuture;

use super::{super::*, world::*};
use crate::{
    event::Recorded,
    store::{Bound, Query, SqlError, Store, Value},
};

/// One row per event, in a table with a key of two columns and columns of every type, and one without a key.
struct Entries(u32);

impl Projection for Entries {
    fn name(&self) -> &ViewName {
        static NAME: std::sync::LazyLock<ViewName> = std::sync::LazyLock::new(|| view("entries"));
        &NAME
    }

    fn version(&self) -> u32 {
        self.0
    }

    fn query(&self) -> Query {
        Query::EVERYTHING
    }

    fn schema(&self) -> Schema {
        let columns = "stream TEXT NOT NULL, n BIGINT NOT NULL, half DOUBLE PRECISION, odd BIGINT, cents BIGINT";
        Schema::new()
            .table("entry", format!("CREATE TABLE {{entry}} ({columns}, PRIMARY KEY (stream, n))"))
            .table("loose", "CREATE TABLE {loose} (kind TEXT NOT NULL)")
    }

    fn column_kind(&self, _: &str, column: &str) -> Option<Kind> {
        match column {
            "odd" => Some(Kind::Boolean),
            "cents" => Some(Kind::Decimal(2)),
            _ => None,
        }
    }

    fn apply<'t, 'x: 't>(
        &'t self,
        tx: &'t mut ViewTx<'x>,
        events: &'t [Recorded],
    ) -> BoxFuture<'t, Result<(), ApplyError>> {
        Box::pin(async move {
            for event in events {
                let n = i64::try_from(event.position().get()).unwrap();
                let half = if n % 3 == 0 { Value::Null } else { (n as f64 / 2.0).into() };
                let row = [event.stream().into(), n.into(), half, (n % 2 == 1).into(), (n * 5).into()];
                tx.execute("INSERT INTO {entry} VALUES ($1, $2, $3, $4, $5)", &row).await?;
                tx.execute("INSERT INTO {loose} VALUES ($1)", &[event.kind().into()]).await?;
            }
            Ok(())
        })
    }
}

async fn entries(store: &Store, limits: QueryLimits) -> (Views, View) {
    append_many(store, 3, 30).await;
    let views = Views::open_with(store, limits).await.unwrap();
    let entries = views.start(Entries(1), config()).await.unwrap();
    entries.wait(store.token(), LONG).await.unwrap();
    (views, entries)
}

fn as_json(answer: &Answer) -> Vec<serde_json::Value> {
    answer.rows.iter().map(|row| serde_json::to_value(answer.shown(row)).unwrap()).collect()
}

fn query(text: &[&str]) -> RowsQuery {
    let conditions = text.iter().map(|condition| condition.parse().unwrap()).collect();
    RowsQuery { conditions, ..RowsQuery::all("entry", 100) }
}

async fn all(view: &View, query: &RowsQuery) -> Vec<i64> {
    let answer = view.rows(query, Freshness::default()).await.unwrap();
    answer.rows.iter().map(|row| row.get("n").and_then(Value::as_i64).unwrap()).collect()
}

/// Every page of a query, one behind the other.
async fn pages(view: &View, query: &RowsQuery) -> Vec<i64> {
    let (mut query, mut found) = (query.clone(), Vec::new());
    loop {
        let answer = view.rows(&query, Freshness::default()).await.unwrap();
        found.extend(answer.rows.iter().map(|row| row.get("n").and_then(Value::as_i64).unwrap()));
        match answer.next {
            Some(next) => query.after = Some(next),
            None => return found,
        }
    }
}

#[tokio::test]
async fn a_row_is_found_by_its_key_and_shown_with_its_types() {
    let world = World::new();
    let store = world.open().await;
    let (_views, view) = entries(&store, QueryLimits::default()).await;
    let answer = view.row("entry", &["s-0", "7"], Freshness::default()).await.unwrap();
    let row = serde_json::json!({ "stream": "s-0", "n": 7, "half": 3.5, "odd": true, "cents": "0.35" });
    assert_eq!(as_json(&answer), [row]);
    assert_eq!((answer.as_of.position, answer.as_of.build, answer.as_of.version), (store.head(), build(1), 1));
    assert!(view.row("entry", &["s-0", "8"], Freshness::default()).await.unwrap().rows.is_empty());
    for wrong in [&["s-0"][..], &["s-0", "x"], &["s-0", "7", "8"]] {
        let refused = view.row("entry", wrong, Freshness::default()).await;
        assert!(matches!(refused, Err(ViewError::InvalidQuery { .. })), "{refused:?}");
    }
    let none = view.row("loose", &["1"], Freshness::default()).await.unwrap_err().to_string();
    assert!(none.contains("has no key"), "{none}");
}

#[tokio::test]
async fn conditions_compare_by_the_type_of_the_column() {
    let world = World::new();
    let store = world.open().await;
    let (_views, view) = entries(&store, QueryLimits::default()).await;
    assert_eq!(all(&view, &query(&["stream.eq.s-0", "n.lte.7"])).await, [1, 4, 7]);
    assert_eq!(all(&view, &query(&["n.in.2,5", "stream.ne.s-0"])).await, [2, 5]);
    assert_eq!(all(&view, &query(&["n.in.[\"2\",9]"])).await, [2, 9]);
    assert_eq!(all(&view, &query(&["half.gte.4", "half.lt.5.5", "odd.eq.true"])).await, Vec::<i64>::new());
    assert_eq!(all(&view, &query(&["half.is.null", "n.lt.10"])).await, [3, 6, 9]);
    assert_eq!(all(&view, &query(&["cents.eq.0.50"])).await, [10]);
    assert_eq!(all(&view, &query(&["stream.starts.s-", "odd.eq.false", "n.gt.26"])).await, [28, 30]);
    assert_eq!(all(&view, &query(&["stream.starts.t"])).await, Vec::<i64>::new());
    for (wrong, says) in [
        ("nothing.eq.1", "it has stream, n, half, odd, cents"),
        ("n.eq.x", "column `n`"),
        ("odd.eq.maybe", "no boolean"),
        ("half.is.7", "`null` or `not-null`"),
        ("cents.eq.0.505", "column `cents`"),
    ] {
        let refused = view.rows(&query(&[wrong]), Freshness::default()).await.unwrap_err().to_string();
        assert!(refused.contains(says), "{wrong}: {refused}");
    }
    let nothing = view.rows(&RowsQuery::all("nothing", 1), Freshness::default()).await.unwrap_err().to_string();
    assert_eq!(nothing, "view `entries` has no table `nothing`; it has entry, loose");
    let spliced = query(&["stream.eq.s-0' OR 1=1 --"]);
    assert_eq!(all(&view, &spliced).await, Vec::<i64>::new(), "a value is never part of the statement");
}

#[tokio::test]
async fn pages_in_any_order_and_of_any_size_hold_every_row_once() {
    let world = World::new();
    let store = world.open().await;
    let (_views, view) = entries(&store, QueryLimits::default()).await;
    for order in [&[][..], &["n.desc"], &["half"], &["half.desc", "odd"], &["odd.desc", "half.asc"], &["cents"]] {
        let order: Vec<OrderBy> = order.iter().map(|by| by.parse().unwrap()).collect();
        let whole = all(&view, &RowsQuery { order: order.clone(), ..RowsQuery::all("entry", 100) }).await;
        assert_eq!(whole.len(), 30);
        for limit in [1, 7, 30] {
            let paged = pages(&view, &RowsQuery { order: order.clone(), ..RowsQuery::all("entry", limit) }).await;
            assert_eq!(paged, whole, "{order:?}, {limit} at a time");
        }
    }
    let (mut loose, mut count) = (RowsQuery::all("loose", 4), 0);
    loop {
        let answer = view.rows(&loose, Freshness::default()).await.unwrap();
        count += answer.rows.len();
        match answer.next {
            Some(next) => loose.after = Some(next),
            None => break,
        }
    }
    assert_eq!(count, 30, "also of a table without a key");
}

#[tokio::test]
async fn a_page_goes_on_where_it_ended_whatever_is_written_in_between() {
    let world = World::new();
    let store = world.open().await;
    let (_views, view) = entries(&store, QueryLimits::default()).await;
    let by_n = RowsQuery { order: vec!["n".parse().unwrap()], ..RowsQuery::all("entry", 10) };
    let first = view.rows(&by_n, Freshness::default()).await.unwrap();
    append_many(&store, 3, 5).await;
    view.wait(store.token(), LONG).await.unwrap();
    let second = RowsQuery { after: first.next.clone(), ..by_n.clone() };
    assert_eq!(all(&view, &second).await, (11..=20).collect::<Vec<_>>());
    let other = RowsQuery { after: first.next, ..query(&["n.gt.1"]) };
    let refused = view.rows(&other, Freshness::default()).await.unwrap_err().to_string();
    assert!(refused.contains("of another query"), "{refused}");
    let made_up = RowsQuery { after: Some("AAAA".to_owned()), ..by_n };
    assert!(matches!(view.rows(&made_up, Freshness::default()).await, Err(ViewError::InvalidQuery { .. })));
}

#[tokio::test]
async fn a_cursor_outlives_a_rebuild_and_no_new_version() {
    let world = World::new();
    let store = world.open().await;
    let (views, view) = entries(&store, QueryLimits::default()).await;
    let first = view.rows(&RowsQuery::all("entry", 3), Freshness::default()).await.unwrap();
    let loose = view.rows(&RowsQuery::all("loose", 3), Freshness::default()).await.unwrap();
    views.rebuild(view.name(), Switch::WhenCaughtUp).await.unwrap();
    view.until(2, |build| build.live).await;
    let second = RowsQuery { after: first.next, ..RowsQuery::all("entry", 3) };
    let answer = view.rows(&second, Freshness::default()).await.unwrap();
    assert_eq!((answer.as_of.build, answer.rows.len()), (build(2), 3), "the same code made the same rows");
    let places = RowsQuery { after: loose.next, ..RowsQuery::all("loose", 3) };
    let moved = view.rows(&places, Freshness::default()).await;
    assert!(matches!(moved, Err(ViewError::OutdatedCursor)), "without a key rows have other places: {moved:?}");
    views.start(Entries(2), config()).await.unwrap();
    view.until(3, |build| build.live).await;
    let outdated = view.rows(&RowsQuery { after: answer.next, ..second }, Freshness::default()).await;
    assert!(matches!(outdated, Err(ViewError::OutdatedCursor)), "{outdated:?}");
}

#[tokio::test]
async fn sql_names_the_tables_as_the_view_does_and_reaches_nothing_else() {
    let world = World::new();
    let store = world.open().await;
    store
        .transact(|tx| {
            Box::pin(async move {
                tx.execute("CREATE TABLE secret (code TEXT)", &[]).await?;
                tx.execute("INSERT INTO secret VALUES ('x')", &[]).await.map(|_| ())
            })
        })
        .await
        .unwrap();
    let (views, view) = entries(&store, QueryLimits::default()).await;
    views.start(Tally::new(), config()).await.unwrap().wait(store.token(), LONG).await.unwrap();
    let fresh = Freshness::default();
    for (sql, params, rows) in [
        ("SELECT stream, count(*) AS n FROM entry WHERE n > $1 GROUP BY stream", vec![3.into()], 3),
        ("with big as (select * from entry where n > 27) select count(*) n from big", vec![], 1),
        (
            "-- recursion\nWITH RECURSIVE c(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c WHERE x < 5) SELECT x FROM c",
            vec![],
            5,
        ),
        ("SELECT e.n FROM entry e JOIN loose l ON l.kind = 'happened' WHERE e.n = 1;", vec![], 30),
        ("SELECT count(*) AS entry FROM entry", vec![], 1),
        ("SELECT value FROM json_each('[1,2]')", vec![], 2),
    ] {
        let answer = view.sql(sql, params, fresh).await.unwrap_or_else(|failed| panic!("`{sql}`: {failed:?}"));
        assert_eq!(answer.rows.len(), rows, "`{sql}`");
    }
    for sql in [
        "SELECT * FROM secret",
        "SELECT count(*) FROM secret",
        "SELECT count(*) FROM main.secret",
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM secret)",
        "SELECT * FROM quorate_meta",
        "SELECT count(*) FROM quorate_block",
        "SELECT count(*) FROM view__tally__2__tally",
        "SELECT * FROM sqlite_master",
        "SELECT count(*) FROM sqlite_schema",
        "SELECT * FROM pragma_table_info('secret')",
        "SELECT count(*) FROM pragma_database_list",
        "SELECT count(*) FROM dbstat",
        "INSERT INTO entry VALUES ('a', 1, 1, 1, 1)",
        "DELETE FROM view__entries__1__entry",
        "UPDATE view__entries__1__entry SET n = 0",
        "CREATE TABLE mine (x)",
        "ATTACH 'other.db' AS other",
        "PRAGMA query_only = OFF",
        "SELECT 1; SELECT 2",
        "SELECT load_extension('x')",
        "BEGIN",
        "",
        "SELECT $1",
        "SELECT nothing FROM entry",
        "SELECT \"nothing\" FROM entry",
    ] {
        let refused = view.sql(sql, vec![], fresh).await;
        let is_no = matches!(&refused, Err(ViewError::Sql(SqlError::Refused { .. } | SqlError::Failed { .. })));
        assert!(is_no, "`{sql}`: {refused:?}");
    }
    let doubled = view.sql("SELECT n, n FROM entry", vec![], fresh).await.unwrap_err().to_string();
    assert!(doubled.contains("name one of them with AS"), "{doubled}");
    let unused = view.sql("SELECT n FROM entry", vec![1.into()], fresh).await;
    assert!(matches!(unused, Err(ViewError::Sql(SqlError::Failed { .. }))), "{unused:?}");
    assert_eq!(all(&view, &RowsQuery::all("entry", 100)).await.len(), 30, "nothing was changed");
}

const FOR_EVER: &str = "WITH RECURSIVE c(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c";

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_takes_too_much_is_stopped_and_says_of_what() {
    let world = World::new();
    let store = world.open().await;
    let limits = QueryLimits {
        time: Duration::from_secs(3_600),
        rows: 10,
        bytes: 2_000,
        memory: 8 << 20,
        concurrent: 2,
        changes: 10,
    };
    let (_views, view) = entries(&store, limits).await;
    let stopped = async |sql: &str| match view.sql(sql, vec![], Freshness::default()).await {
        Err(ViewError::Sql(SqlError::Exceeded(bound))) => bound,
        other => panic!("`{sql}`: {other:?}"),
    };
    assert_eq!(stopped("SELECT n FROM entry").await, Bound::Rows(10));
    assert_eq!(stopped("SELECT hex(zeroblob(1500)) AS x").await, Bound::Bytes(2_000));
    let sorting = "WITH RECURSIVE c(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c WHERE x < 3000000)
        SELECT x FROM c ORDER BY hex(x) LIMIT 1 OFFSET 2900000";
    assert_eq!(stopped(sorting).await, Bound::Memory(8 << 20));
    let at_once = "SELECT length(hex(zeroblob(7000000)) || hex(zeroblob(1000000))) AS n";
    assert_eq!(stopped(at_once).await, Bound::Memory(8 << 20));
    let short = QueryLimits { time: Duration::from_millis(20), ..QueryLimits::default() };
    drop(view);
    let views = Views::open_with(&store, short).await.unwrap();
    let view = views.get(&view_name()).await.unwrap();
    let like = format!("SELECT printf('%.*c', 900000, 'a') LIKE '%{}b' AS found", "a".repeat(240));
    let glob = format!("SELECT printf('%.*c', 900000, 'a') GLOB '*{}b' AS found", "?a".repeat(100));
    for endless in [FOR_EVER, &like, &glob] {
        let late = view.sql(endless, vec![], Freshness::default()).await;
        assert!(matches!(late, Err(ViewError::Sql(SqlError::Exceeded(Bound::Time(_))))), "{endless}: {late:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_step_of_a_query_takes_no_longer_than_its_values_are_long() {
    let world = World::new();
    let store = world.open().await;
    // A loaded machine may take its time; as many steps as a value is long for each of its bytes would take minutes.
    let (_views, view) = entries(&store, QueryLimits { time: Duration::from_secs(30), ..QueryLimits::default() }).await;
    let much = "printf('%.*c', 3000000, 'a')";
    let less = "printf('%.*c', 300000, 'a')";
    let half = "printf('%.*c', 1500000, 'a') || 'b'";
    for (asked, answer) in [
        (format!("SELECT instr({much}, {half}) AS n"), 0),
        (format!("SELECT length(replace({much}, {half}, '')) AS n"), 3_000_000),
        (format!("SELECT length(trim({much}, {half})) AS n"), 0),
        (format!("SELECT length(ltrim(t, x'80')) AS n FROM (SELECT replace({less}, 'a', x'80') AS t)"), 0),
        (format!("SELECT length(rtrim(t, x'80')) AS n FROM (SELECT replace({less}, 'a', x'80') AS t)"), 0),
    ] {
        let found =
            view.sql(&asked, vec![], Freshness::default()).await.unwrap_or_else(|failed| panic!("{asked}: {failed:?}"));
        assert_eq!(found.rows[0].at(0).as_i64(), Some(answer), "{asked}");
    }
    for refused in
        ["SELECT json_patch('{}', '{}') AS x", "SELECT unhex('00', '0') AS x", "SELECT json_pretty('[]', ' ') AS x"]
    {
        let told = view.sql(refused, vec![], Freshness::default()).await;
        assert!(told.as_ref().is_err_and(|told| told.to_string().contains("statement")), "{refused}: {told:?}");
    }
}

fn view_name() -> ViewName {
    view("entries")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_ends_early_where_its_rows_are_large_and_goes_on() {
    let world = World::new();
    let store = world.open().await;
    let (_views, view) = entries(&store, QueryLimits { bytes: 500, ..QueryLimits::default() }).await;
    let first = view.rows(&RowsQuery::all("entry", 30), Freshness::default()).await.unwrap();
    assert!(first.rows.len() < 30 && first.next.is_some());
    assert_eq!(pages(&view, &RowsQuery::all("entry", 30)).await.len(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_beyond_the_limit_wait_for_their_turn_and_appends_for_none() {
    let world = World::new();
    let store = world.open().await;
    let limits = QueryLimits { time: Duration::from_millis(300), concurrent: 1, ..QueryLimits::default() };
    let (views, view) = entries(&store, limits).await;
    let endless = view.sql(FOR_EVER, vec![], Freshness::default());
    let others = async {
        while views.queries_running() == 0 {
            tokio::task::yield_now().await;
        }
        append_many(&store, 3, 3).await;
        view.sql("SELECT count(*) AS n FROM entry", vec![], Freshness::default()).await
    };
    let (endless, queued) = tokio::join!(endless, others);
    assert!(matches!(queued, Ok(_) | Err(ViewError::Busy { concurrent: 1 })), "{queued:?}");
    assert!(matches!(endless, Err(ViewError::Sql(SqlError::Exceeded(Bound::Time(_))))), "{endless:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_ends_when_nobody_waits_for_it() {
    let world = World::new();
    let store = world.open().await;
    let (views, view) =
        entries(&store, QueryLimits { time: Duration::from_secs(3_600), ..QueryLimits::default() }).await;
    tokio::select! {
        ended = view.sql(FOR_EVER, vec![], Freshness::default()) => panic!("it ended: {ended:?}"),
        () = async {
            while views.queries_running() == 0 {
                tokio::task::yield_now().await;
            }
        } => {}
    }
    while views.queries_running() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_view_that_is_too_old_is_refused_or_says_so() {
    let world = World::new();
    let store = world.open().await;
    let (views, view) = entries(&store, QueryLimits::default()).await;
    let fresh = Freshness { max_lag: Some(Duration::ZERO), ..Freshness::default() };
    let page = RowsQuery::all("entry", 1);
    assert!(!view.rows(&page, fresh).await.unwrap().as_of.stale);
    views.pause(view.name(), build(1)).await.unwrap();
    view.until(1, |build| build.shards[0].standing == Standing::Paused).await;
    append_many(&store, 1, 2).await;
    let refused = view.rows(&page, fresh).await;
    assert!(matches!(refused, Err(ViewError::Stale { applied, .. }) if applied.get() == 30), "{refused:?}");
    let flagged = view.rows(&page, Freshness { beyond: Some(WhenStale::Flag), ..fresh }).await.unwrap();
    assert!(flagged.as_of.stale && flagged.as_of.position.get() == 30);
    let lenient = Freshness { max_lag: Some(Duration::from_secs(3_600)), ..fresh };
    assert!(!view.rows(&page, lenient).await.unwrap().as_of.stale);
    let contract = Config { staleness: Some(Staleness { max_events: Some(1), ..Staleness::default() }), ..config() };
    drop((views, view));
    let views = Views::open(&store).await.unwrap();
    let view = views.start(Entries(1), contract).await.unwrap();
    let kept = view.rows(&page, Freshness::default()).await;
    assert!(
        matches!(kept, Err(ViewError::Stale { behind: 2, max_events: Some(1), .. })),
        "the contract holds: {kept:?}"
    );
    let flagged = Freshness { beyond: Some(WhenStale::Flag), ..Freshness::default() };
    assert!(view.rows(&page, flagged).await.unwrap().as_of.stale, "unless the reader says so");
    let behind = Freshness { at_least: Some(store.token()), ..Freshness::default() };
    assert!(matches!(view.rows(&page, behind).await, Err(ViewError::Behind { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_of_one_build_and_of_the_position_it_says() {
    let world = World::new();
    let store = world.open().await;
    let (views, view) = entries(&store, QueryLimits::default()).await;
    let is_over = std::cell::Cell::new(false);
    let switching = async {
        for round in 2..=4 {
            append_many(&store, 3, 5).await;
            views.rebuild(view.name(), Switch::WhenCaughtUp).await.unwrap();
            view.until(round, |build| build.live).await;
            views.drop_build(view.name(), build(round - 1)).await.unwrap();
        }
        is_over.set(true);
    };
    let reading = async {
        while !is_over.get() {
            let sql = "SELECT (SELECT count(*) FROM entry) AS entries, (SELECT count(*) FROM loose) AS kinds";
            let answer = view.sql(sql, vec![], Freshness::default()).await.unwrap();
            let counted = answer.as_of.position.get().cast_signed();
            assert_eq!(answer.rows[0].values, [counted.into(), counted.into()], "{:?}", answer.as_of);
        }
    };
    tokio::join!(switching, reading);
}
