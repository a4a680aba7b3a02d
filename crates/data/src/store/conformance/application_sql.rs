//! The application's statements: what they may do, and what they may not reach.

use super::{
    super::{Limits, RoomTables, SqlError, Store, StoreError, TransactError, Value},
    Outcome, Place,
    transactions::{Inside, ROOM, count, run, with_tables},
    vocabulary::{append, assert_sound, event, events, ids_of, limits},
};

/// Tries a statement of the application in a transaction that goes on if it is refused.
async fn attempt(store: &Store, sql: &str) -> Result<Result<u64, SqlError>, TransactError<Inside>> {
    let sql = sql.to_owned();
    store
        .transact(move |tx| {
            let sql = sql.clone();
            Box::pin(async move {
                let tried = tx.execute(&sql, &[]).await;
                tx.execute("INSERT INTO note (text) VALUES ($1)", &[format!("went on after {sql}").into()]).await?;
                Ok(tried)
            })
        })
        .await
}

/// Fails unless each of the statements is refused, alone, and the rest of its transaction commits.
async fn assert_refused(store: &Store, statements: &[&str]) -> Outcome {
    for sql in statements {
        let before = count(store, "SELECT count(*) FROM note").await?;
        let tried = attempt(store, sql).await?;
        assert!(tried.is_err(), "`{sql}` should be refused");
        assert_eq!(count(store, "SELECT count(*) FROM note").await?, before + 1, "`{sql}` is refused alone");
    }
    Ok(())
}

pub(super) async fn values_of_every_type_come_back(place: &dyn Place) -> Outcome {
    let store = with_tables(place, Limits::default()).await?;
    run(&store, "CREATE TABLE kinds (n INTEGER, x REAL, t TEXT, b BLOB)").await?;
    let given = [
        vec![
            Value::Integer(i64::MIN),
            Value::Real(-0.5),
            Value::Text("☂ 'quoted'".into()),
            Value::Blob(vec![0, 255].into()),
        ],
        vec![Value::Integer(i64::MAX), Value::Real(1e300), Value::Text("".into()), Value::Blob(vec![].into())],
        vec![Value::Null, Value::Null, Value::Null, Value::Null],
    ];
    let rows = given.clone();
    store
        .transact(move |tx| {
            let rows = rows.clone();
            Box::pin(async move {
                for row in &rows {
                    tx.execute("INSERT INTO kinds (n, x, t, b) VALUES ($1, $2, $3, $4)", row).await?;
                }
                let found = tx.query("SELECT n, x, t, b FROM kinds ORDER BY n IS NULL, n", &[]).await?;
                assert_eq!(found.into_iter().map(|row| row.values).collect::<Vec<_>>(), rows);
                Ok::<_, Inside>(())
            })
        })
        .await?;
    let twice = store.query("SELECT $2 AS second, $1 AS first, $2 AS again", vec![1.into(), 2.into()]).await?;
    assert_eq!(twice[0].values, [2.into(), 1.into(), 2.into()]);
    assert_eq!(twice[0].get("first"), Some(&1.into()));
    let found = store.query("SELECT t FROM kinds WHERE n = $1", vec![i64::MIN.into()]).await?;
    assert_eq!(found[0].at(0).as_str(), Some("☂ 'quoted'"));
    Ok(())
}

pub(super) async fn a_wrong_statement_fails_and_the_transaction_goes_on(place: &dyn Place) -> Outcome {
    let store = with_tables(place, Limits::default()).await?;
    let wrong =
        ["", " ", ";", "nonsense", "SELECT * FROM nowhere", "SELECT $2", "INSERT INTO note (text) VALUES (NULL)"];
    assert_refused(&store, &wrong).await
}

pub(super) async fn an_application_cannot_end_the_transaction(place: &dyn Place) -> Outcome {
    let store = with_tables(place, Limits::default()).await?;
    let statements = [
        "COMMIT",
        "commit;",
        "/* */ COMMIT",
        "END",
        "ROLLBACK",
        "BEGIN",
        "BEGIN IMMEDIATE",
        "SAVEPOINT mine",
        "SAVEPOINT unit",
        "RELEASE unit",
        "ROLLBACK TO unit",
    ];
    assert_refused(&store, &statements).await?;
    // Also not half-way, with events before and after.
    for sql in ["COMMIT", "ROLLBACK", "RELEASE unit"] {
        let refused: Result<(), TransactError<Inside>> = store
            .transact(move |tx| {
                Box::pin(async move {
                    tx.append(&super::vocabulary::stream("s"), Default::default(), vec![event(sql)]).await?;
                    assert!(tx.execute(sql, &[]).await.is_err());
                    assert!(tx.query(sql, &[]).await.is_err());
                    Err(Inside::No)
                })
            })
            .await;
        assert!(matches!(refused, Err(TransactError::Aborted(Inside::No))), "{refused:?}");
    }
    assert_eq!(store.head().get(), 0);
    Ok(())
}

pub(super) async fn an_application_cannot_reach_reserved_tables(place: &dyn Place) -> Outcome {
    let store = with_tables(place, Limits::default()).await?;
    append(&store, "s", events("e", 0..5)).await?;
    let statements = [
        "SELECT * FROM quorate_proof",
        "SELECT count(*) FROM Quorate_Proof",
        "SELECT (SELECT note FROM quorate_proof LIMIT 1)",
        "WITH x AS (SELECT * FROM quorate_proof) SELECT * FROM x",
        "INSERT INTO quorate_proof (id, note) VALUES (1, 'x')",
        "INSERT INTO note (text) SELECT note FROM quorate_proof",
        "UPDATE \"quorate_proof\" SET note = 'y'",
        "DELETE FROM quorate_proof",
        "DROP TABLE quorate_proof",
        "CREATE TABLE quorate_mine (x INTEGER)",
        "CREATE TABLE QUORATE_MINE (x INTEGER)",
        "CREATE VIEW quorate_mine AS SELECT 1 AS one",
        "ALTER TABLE note RENAME TO quorate_mine",
        "ALTER TABLE note RENAME TO \"QUORATE_mine\"",
        "ALTER TABLE quorate_proof RENAME TO mine",
        "ALTER TABLE quorate_proof ADD COLUMN more INTEGER",
        "CREATE INDEX mine ON quorate_proof (note)",
        "CREATE TABLE copied AS SELECT * FROM quorate_proof",
    ];
    assert_refused(&store, &statements).await?;
    for sql in ["SELECT * FROM quorate_proof", "SELECT * FROM note, quorate_proof"] {
        assert!(store.query(sql, vec![]).await.is_err(), "`{sql}` should be refused");
    }
    assert_eq!(store.room_query("SELECT * FROM quorate_proof", vec![]).await?, []);
    assert_eq!(ids_of(&store, "s").await?.len(), 5);
    Ok(assert_sound(&store).await?)
}

const TRIGGER: &str = "CREATE TRIGGER erase AFTER INSERT ON bait BEGIN DELETE FROM quorate_proof; END";

pub(super) async fn triggers_and_views_open_no_way_around(place: &dyn Place) -> Outcome {
    let store = with_tables(place, Limits::default()).await?;
    store.transact(|tx| Box::pin(room_note(tx, 1))).await?;
    run(&store, "CREATE TABLE bait (id INTEGER PRIMARY KEY, of INTEGER)").await?;
    // Making them may be refused or not; using them never gets through.
    let trigger = attempt(&store, TRIGGER).await?;
    for sql in [
        "CREATE VIEW peek AS SELECT note FROM quorate_proof",
        "CREATE TABLE hostage (id INTEGER PRIMARY KEY, of INTEGER REFERENCES quorate_proof (id) ON DELETE RESTRICT)",
    ] {
        let _ = attempt(&store, sql).await?;
    }
    assert_refused(&store, &["SELECT * FROM peek"]).await?;
    if trigger.is_ok() {
        assert_refused(&store, &["INSERT INTO bait (id) VALUES (1)"]).await?;
    }
    assert_refused(&store, &["INSERT INTO hostage (id, of) VALUES (1, 1)"]).await?;
    assert!(store.query("SELECT * FROM peek", vec![]).await.is_err());
    assert_refused(&store, &["CREATE TRIGGER spy AFTER INSERT ON quorate_proof BEGIN SELECT 1; END"]).await?;
    // The room is not disturbed.
    store.transact(|tx| Box::pin(room_note(tx, 2))).await?;
    assert_eq!(store.room_query("SELECT id FROM quorate_proof", vec![]).await?.len(), 2);
    Ok(assert_sound(&store).await?)
}

async fn room_note(tx: &mut super::super::DynTx, n: i64) -> Result<u64, SqlError> {
    tx.room_execute("INSERT INTO quorate_proof (id, note) VALUES ($1, 'n')", &[n.into()]).await
}

pub(super) async fn a_statement_that_was_allowed_is_judged_again_when_the_tables_change(place: &dyn Place) -> Outcome {
    let store = with_tables(place, Limits::default()).await?;
    store.transact(|tx| Box::pin(room_note(tx, 1))).await?;
    run(&store, "CREATE VIEW shown AS SELECT text FROM note").await?;
    run(&store, "CREATE TABLE bait (id INTEGER PRIMARY KEY)").await?;
    // Harmless, allowed, and perhaps kept ready by the store.
    for _ in 0..3 {
        assert!(attempt(&store, "SELECT text FROM shown").await?.is_ok());
        assert!(store.query("SELECT text FROM shown", vec![]).await.is_ok());
        assert!(attempt(&store, "INSERT INTO bait DEFAULT VALUES").await?.is_ok());
    }
    // The same words mean something else now.
    run(&store, "DROP VIEW shown").await?;
    let _ = attempt(&store, "CREATE VIEW shown AS SELECT note AS text FROM quorate_proof").await?;
    let trigger = attempt(&store, TRIGGER).await?;
    assert!(store.query("SELECT text FROM shown", vec![]).await.is_err(), "a reader is refused");
    assert_refused(&store, &["SELECT text FROM shown"]).await?;
    if trigger.is_ok() {
        assert_refused(&store, &["INSERT INTO bait DEFAULT VALUES"]).await?;
    }
    assert_eq!(store.room_query("SELECT id FROM quorate_proof", vec![]).await?.len(), 1);
    Ok(())
}

pub(super) async fn a_rooms_rows_are_not_bound_by_the_applications_page(place: &dyn Place) -> Outcome {
    let store = with_tables(place, limits(|limits| limits.page_bytes = 10_000)).await?;
    run(&store, "CREATE TABLE wide (id INTEGER PRIMARY KEY, text TEXT NOT NULL)").await?;
    const ROOMS: &str = "SELECT id, note FROM quorate_proof";
    const OWN: &str = "SELECT id, text FROM wide";
    store
        .transact(|tx| {
            Box::pin(async move {
                for _ in 0..3 {
                    let large = [Value::from("x".repeat(20_000))];
                    tx.room_execute("INSERT INTO quorate_proof (note) VALUES ($1)", &large).await?;
                    tx.execute("INSERT INTO wide (text) VALUES ($1)", &large).await?;
                }
                assert_eq!(tx.room_query(ROOMS, &[]).await?.len(), 3);
                assert!(tx.query(OWN, &[]).await.is_err());
                Ok::<_, Inside>(())
            })
        })
        .await?;
    assert_eq!(store.room_query(ROOMS, vec![]).await?.len(), 3);
    let own = store.query(OWN, vec![]).await;
    assert!(matches!(own, Err(SqlError::Store(StoreError::TooMuch { max: 10_000, .. }))), "{own:?}");
    Ok(())
}

pub(super) async fn a_rooms_statement_is_not_an_applications(place: &dyn Place) -> Outcome {
    let store = with_tables(place, Limits::default()).await?;
    const SELECT: &str = "SELECT id FROM quorate_proof";
    const INSERT: &str = "INSERT INTO quorate_proof (note) VALUES ('n')";
    for _ in 0..3 {
        store
            .transact(|tx| {
                Box::pin(async move {
                    tx.room_execute(INSERT, &[]).await?;
                    tx.room_query(SELECT, &[]).await?;
                    assert!(tx.execute(INSERT, &[]).await.is_err());
                    assert!(tx.query(SELECT, &[]).await.is_err());
                    Ok::<_, Inside>(())
                })
            })
            .await?;
        store.room_query(SELECT, vec![]).await?;
        assert!(store.query(SELECT, vec![]).await.is_err());
    }
    assert_eq!(store.room_query(SELECT, vec![]).await?.len(), 3);
    Ok(())
}

pub(super) async fn one_call_runs_one_statement(place: &dyn Place) -> Outcome {
    let store = with_tables(place, Limits::default()).await?;
    let before = count(&store, "SELECT count(*) FROM note").await?;
    for sql in [
        "SELECT 1; COMMIT",
        "INSERT INTO note (text) VALUES ('one'); INSERT INTO note (text) VALUES ('two')",
        "COMMIT; SELECT 1",
    ] {
        let refused = store.query(sql, vec![]).await;
        assert!(refused.is_err(), "`{sql}` should be refused: {refused:?}");
        let sql = sql.to_owned();
        let refused: Result<u64, TransactError<Inside>> = store
            .transact(move |tx| {
                let sql = sql.clone();
                Box::pin(async move { Ok(tx.execute(&sql, &[]).await?) })
            })
            .await;
        assert!(matches!(refused, Err(TransactError::Aborted(Inside::Sql(_)))), "{refused:?}");
    }
    assert_eq!(count(&store, "SELECT count(*) FROM note").await?, before);
    assert_eq!(store.query("SELECT 1;", vec![]).await?.len(), 1, "a semicolon at the end is no second statement");
    Ok(())
}

pub(super) async fn a_read_only_query_writes_nothing(place: &dyn Place) -> Outcome {
    let store = with_tables(place, Limits::default()).await?;
    for sql in [
        "INSERT INTO note (text) VALUES ('x')",
        "INSERT INTO note (text) VALUES ('x') RETURNING id",
        "UPDATE note SET text = 'x'",
        "DELETE FROM note",
        "CREATE TABLE made (x INTEGER)",
        "DROP TABLE note",
        "BEGIN",
        "COMMIT",
    ] {
        for refused in [store.query(sql, vec![]).await, store.room_query(sql, vec![]).await] {
            assert!(refused.is_err(), "`{sql}` should be refused: {refused:?}");
        }
    }
    run(&store, "INSERT INTO note (text) VALUES ('still here')").await?;
    assert_eq!(count(&store, "SELECT count(*) FROM note").await?, 1);
    Ok(())
}

pub(super) async fn rooms_upgrade_their_tables_step_by_step(place: &dyn Place) -> Outcome {
    const SECOND: RoomTables = RoomTables {
        room: "proof",
        versions: &[
            ROOM.versions[0],
            "ALTER TABLE quorate_proof ADD COLUMN more INTEGER; CREATE TABLE quorate_proof_b (x INTEGER)",
        ],
    };
    const BROKEN: RoomTables = RoomTables {
        room: "proof",
        versions: &[ROOM.versions[0], SECOND.versions[1], "CREATE TABLE quorate_proof_c (x INTEGER); nonsense"],
    };
    let store = place.open(Limits::default()).await;
    store.declare(ROOM).await?;
    store.declare(ROOM).await?;
    store.transact(|tx| Box::pin(room_note(tx, 1))).await?;
    store.declare(SECOND).await?;
    store.close().await?;
    let store = place.open(Limits::default()).await;
    store.declare(SECOND).await?;
    let rows = store.room_query("SELECT id, more FROM quorate_proof", vec![]).await?;
    assert_eq!(rows[0].values, [1.into(), Value::Null]);
    let newer = store.declare(ROOM).await;
    assert!(matches!(newer, Err(SqlError::Refused { .. })), "made by a newer quorate: {newer:?}");
    let broken = store.declare(BROKEN).await;
    assert!(broken.is_err());
    assert!(store.room_query("SELECT * FROM quorate_proof_c", vec![]).await.is_err(), "all of a step or nothing");
    store.declare(SECOND).await?;
    Ok(assert_sound(&store).await?)
}
