//! Statements of rooms and of the application on PostgreSQL: whose they are, what they reach, and several nodes at once.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "nodes and strangers of these tests run beside each other, in real time"
)]

use futures_util::future::join_all;
use quorate_data::{
    event::NewEvent,
    schema::{Compatibility, Registrar, RegistrarError},
    store::{
        AppendError, DynTx, Limits, OpenError, RoomTables, SqlError, Store, StoreError, TransactError, Value,
        postgres as store,
    },
};

use crate::shared::{Schema, batch, env, event, stranger};

macro_rules! schema {
    () => {
        match Schema::new() {
            Some(schema) => schema,
            None => return,
        }
    };
}

async fn run(store: &Store, sql: &str) -> Result<u64, TransactError<SqlError>> {
    let sql = sql.to_owned();
    store
        .transact(move |tx| {
            let sql = sql.clone();
            Box::pin(async move { tx.execute(&sql, &[]).await })
        })
        .await
}

async fn refused(store: &Store, sql: &str) {
    let tried = run(store, sql).await;
    assert!(matches!(tried, Err(TransactError::Aborted(SqlError::Refused { .. }))), "`{sql}`: {tried:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_keeps_an_application_from_the_log_and_from_rooms() {
    let schema = schema!();
    let (store, _cable) = schema.node(|_| {}).await;
    store.append(batch("s", vec![event(1)])).await.unwrap();
    run(&store, "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT NOT NULL)").await.unwrap();
    let s = &schema.name;
    // None of these names anything that the words of a statement are looked at for.
    for sql in [
        format!("SELECT * FROM {s}.event"),
        format!("DELETE FROM {s}.log"),
        format!("INSERT INTO note (text) SELECT body::text FROM {s}.event"),
        format!("CREATE VIEW peek AS SELECT * FROM {s}.stream"),
        format!("CREATE TABLE {s}.mine (x int)"),
        format!("ALTER TABLE {s}.log ADD COLUMN x int"),
        format!("TRUNCATE {s}.pending"),
    ] {
        refused(&store, &sql).await;
        let read = store.query(&sql, vec![]).await;
        assert!(matches!(read, Err(SqlError::Refused { .. })), "`{sql}`: {read:?}");
    }
    // What an application leaves on a connection is nothing: rooms and the log come next on the same one.
    run(&store, "INSERT INTO note (text) VALUES ('mine')").await.unwrap();
    store.append(batch("s", vec![event(2)])).await.unwrap();
    assert!(store.room_query("SELECT version FROM meta", vec![]).await.is_ok());
    assert!(store.room_query("SELECT text FROM note", vec![]).await.is_err(), "a room is not the application either");
    let stranger = schema.stranger().await;
    let owner = format!("SELECT tableowner::text FROM pg_tables WHERE schemaname = '{s}_app' AND tablename = 'note'");
    let owner: String = stranger.query_typed_one(&owner, &[]).await.unwrap().get(0);
    assert_eq!(owner, format!("{s}_app"));
}

#[tokio::test(flavor = "multi_thread")]
async fn values_go_into_types_that_only_the_server_has_and_come_back() {
    let schema = schema!();
    let (store, _cable) = schema.node(|_| {}).await;
    run(&store, "CREATE TABLE t (j jsonb, at timestamptz, u uuid, b boolean, n numeric(20, 4), i int, v varchar(9))")
        .await
        .unwrap();
    store
        .transact(|tx| {
            Box::pin(async move {
                let row: [Value; 5] = [
                    r#"{"a": [1, 2]}"#.into(),
                    "2026-11-29T11:30:00Z".into(),
                    "0190ad1e-0000-7000-8000-000000000001".into(),
                    "12.5".into(),
                    7.into(),
                ];
                tx.execute("INSERT INTO t (j, at, u, b, n, i, v) VALUES ($1, $2, $3, $5 = 7, $4, $5, 'x')", &row).await
            })
        })
        .await
        .unwrap();
    let rows = store
        .query("SELECT j, u, b, n, i, v, sum(i) OVER (), count(*) OVER (), $1::int IS NULL FROM t", vec![Value::Null]);
    let expected: [Value; 9] = [
        r#"{"a": [1, 2]}"#.into(),
        "0190ad1e-0000-7000-8000-000000000001".into(),
        1.into(),
        "12.5000".into(),
        7.into(),
        "x".into(),
        7.into(),
        1.into(),
        true.into(),
    ];
    assert_eq!(rows.await.unwrap()[0].values, expected);
    let strange = store.query("SELECT at FROM t", vec![]).await;
    assert!(
        matches!(&strange, Err(SqlError::Failed { what }) if what.contains("`at`") && what.contains("cast")),
        "{strange:?}"
    );
    assert_eq!(
        store.query("SELECT at::date::text FROM t", vec![]).await.unwrap()[0].at(0).as_str(),
        Some("2026-11-29")
    );
    let missing = store.query("SELECT $2::int", vec![1.into()]).await;
    assert!(matches!(&missing, Err(SqlError::Failed { what }) if what.contains("$2")), "{missing:?}");
}

async fn raise(tx: &mut DynTx) -> Result<(), SqlError> {
    let rows = tx.query("SELECT n FROM counter", &[]).await?;
    let n = rows[0].at(0).as_i64().unwrap();
    tx.execute("UPDATE counter SET n = $1", &[(n + 1).into()]).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_nodes_that_are_in_each_others_way_none_loses_what_it_wrote() {
    let schema = schema!();
    let (first, _cable) = schema.node(|_| {}).await;
    let (second, _cable) = schema.node(|_| {}).await;
    run(&first, "CREATE TABLE counter (n INTEGER NOT NULL)").await.unwrap();
    run(&first, "INSERT INTO counter (n) VALUES (0)").await.unwrap();
    let raises =
        (0..40).map(async |n| if n % 2 == 0 { &first } else { &second }.transact(|tx| Box::pin(raise(tx))).await);
    let raised = join_all(raises).await.into_iter().filter(Result::is_ok).count();
    let found = second.query("SELECT n FROM counter", vec![]).await.unwrap()[0].at(0).as_i64();
    assert_eq!(found, i64::try_from(raised).ok(), "each that was told it counted did, once");
    assert!(raised > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_start_together_make_the_tables_of_a_room_once() {
    const ROOM: RoomTables = RoomTables {
        room: "proof",
        versions: &[
            "CREATE TABLE quorate_proof (id INTEGER PRIMARY KEY)",
            "ALTER TABLE quorate_proof ADD COLUMN note TEXT",
        ],
    };
    let schema = schema!();
    // Each also makes the store's own tables, and the role.
    let nodes = join_all((0..6).map(async |_| {
        let store = store::open(&env(), schema.config(Limits::default())).await?;
        store.declare(ROOM).await.map_err(|failed| OpenError::Unsuitable { what: failed.to_string() })?;
        Ok::<_, OpenError>(store)
    }));
    let nodes = nodes.await.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
    for node in &nodes {
        assert_eq!(node.room_query("SELECT id, note FROM quorate_proof", vec![]).await.unwrap(), []);
        assert_eq!(node.timeline(), nodes[0].timeline());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_registered_on_one_node_holds_on_every_node_at_once() {
    let schema = schema!();
    let (first, _cable) = schema.node(|_| {}).await;
    let (second, _cable) = schema.node(|_| {}).await;
    let kind = "order.placed".parse().unwrap();
    let with = |member: &str| serde_json::json!({"type": "object", "required": [member]});
    let placed = |n: u64| batch("s", vec![NewEvent { kind: "order.placed".into(), ..event(n) }.json(r#"{"x": 1}"#)]);
    second.append(placed(1)).await.unwrap();
    Registrar::of(&first).register(&kind, with("n"), None).await.unwrap();
    // The other node has heard nothing of it yet.
    let late = second.append(placed(2)).await;
    assert!(matches!(late, Err(AppendError::Schema { .. })), "{late:?}");
    let inside = second.transact(move |tx| Box::pin(async move { tx.append_batch(placed(3)).await })).await;
    assert!(matches!(inside, Err(TransactError::Aborted(AppendError::Schema { .. }))), "{inside:?}");
    Registrar::of(&first).set_mode(&kind, Compatibility::None).await.unwrap();
    second.append(batch("s", vec![event(4)])).await.unwrap();
    assert_eq!(
        Registrar::of(&second).current().mode("order.placed"),
        Some(Compatibility::None),
        "modes are heard of as well"
    );
    // Both register at once, over and over: no version is lost or given twice.
    let both = join_all((0..10).map(async |n: usize| {
        let node = if n.is_multiple_of(2) { &first } else { &second };
        Registrar::of(node).register(&kind, with(&format!("m{n}")), Some(Compatibility::None)).await
    }));
    let mut versions: Vec<_> = both
        .await
        .into_iter()
        .map(|done| done.map(|done| done.version.get()))
        .collect::<Result<_, RegistrarError>>()
        .unwrap();
    versions.sort_unstable();
    assert_eq!(versions, (2..12).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_may_make_no_role_is_told_what_somebody_else_has_to_do() {
    let schema = schema!();
    let s = &schema.name;
    let admin = schema.stranger().await;
    let made = format!("CREATE ROLE {s}_user LOGIN; GRANT CREATE ON DATABASE postgres TO {s}_user");
    admin.batch_execute(&made).await.unwrap();
    let address = schema.in_database("postgres").replace("quorate@", &format!("{s}_user@"));
    let config =
        || store::Config { schema: s.clone(), application: format!("{s}_app"), ..store::Config::at(&address).unwrap() };
    for statement in [format!("CREATE ROLE \"{s}_app\" NOLOGIN"), format!("GRANT \"{s}_app\" TO \"{s}_user\"")] {
        let refused = store::open(&env(), config()).await.err();
        let Some(OpenError::Unsuitable { what }) = refused else { panic!("it should be refused: {refused:?}") };
        assert!(what.contains(&statement), "{what}");
        admin.batch_execute(&statement).await.unwrap();
    }
    let store = store::open(&env(), config()).await.unwrap();
    run(&store, "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT)").await.unwrap();
    run(&store, "INSERT INTO note (text) VALUES ('mine')").await.unwrap();
    refused(&store, &format!("SELECT * FROM {s}.event")).await;
    store.close().await.unwrap();

    admin.batch_execute(&format!("GRANT USAGE ON SCHEMA {s} TO {s}_app")).await.unwrap();
    let open = store::open(&env(), config()).await.err();
    assert!(matches!(&open, Some(OpenError::Unsuitable { what }) if what.contains("REVOKE")), "{open:?}");
    drop(stranger(&address).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ends_inside_a_transaction_takes_everything_with_it() {
    let schema = schema!();
    let (store, _cable) = schema.node(|_| {}).await;
    run(&store, "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT)").await.unwrap();
    let (env, admin) = (store.env().clone(), std::sync::Arc::new(schema.stranger().await));
    let name = schema.name.clone();
    let ended = store
        .transact(move |tx| {
            let (admin, env, name) = (admin.clone(), env.clone(), name.clone());
            Box::pin(async move {
                tx.execute("INSERT INTO note (text) VALUES ('lost')", &[]).await?;
                let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1
                    AND state = 'idle in transaction'";
                admin.query_typed(end, &[(&name, tokio_postgres::types::Type::TEXT)]).await.unwrap();
                env.sleep(std::time::Duration::from_millis(20)).await;
                let after = tx.execute("INSERT INTO note (text) VALUES ('after')", &[]).await;
                assert!(matches!(after, Err(SqlError::Store(StoreError::Unreachable { .. }))), "{after:?}");
                let again = tx.execute("INSERT INTO note (text) VALUES ('again')", &[]).await;
                assert!(again.is_err(), "nothing more comes of it");
                Ok::<_, SqlError>(())
            })
        })
        .await;
    assert!(
        matches!(ended, Err(TransactError::Store(StoreError::Unreachable { .. }))),
        "it is known not to be written: {ended:?}"
    );
    assert_eq!(store.query("SELECT count(*) FROM note", vec![]).await.unwrap()[0].at(0).as_i64(), Some(0));
}
