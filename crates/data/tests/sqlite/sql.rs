//! What only SQLite's dialect has, and an application may not do with it.

use std::sync::{Arc, Mutex};

use quorate_data::store::{SqlError, Store, TransactError, conformance::Place};

use crate::shared::{Folder, batch, event};

async fn attempt(store: &Store, sql: &'static str) -> Result<u64, TransactError<SqlError>> {
    store.transact(move |tx| Box::pin(tx.execute(sql, &[]))).await
}

#[tokio::test]
async fn engine_commands_are_refused_everywhere() {
    let folder = Folder::new();
    let store = folder.store().await;
    attempt(&store, "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT)").await.unwrap();
    for sql in [
        "PRAGMA journal_mode",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA synchronous = OFF",
        "PRAGMA writable_schema = ON",
        "PRAGMA query_only = OFF",
        "PRAGMA defer_foreign_keys = ON",
        "PRAGMA user_version = 9",
        "PRAGMA database_list",
        "SELECT * FROM pragma_database_list",
        "SELECT * FROM pragma_table_info('quorate_block')",
        "SELECT * FROM pragma_journal_mode",
        "ATTACH ':memory:' AS other",
        "ATTACH '/tmp/other.db' AS other",
        "DETACH main",
        "VACUUM",
        "VACUUM INTO '/tmp/quorate-leak.db'",
        "REINDEX",
        "ANALYZE",
        "ANALYZE quorate_block",
        "CREATE TEMP TABLE t (x)",
        "CREATE TEMP VIEW t AS SELECT * FROM quorate_meta",
        "CREATE TEMP TRIGGER t AFTER INSERT ON note BEGIN DELETE FROM quorate_meta; END",
        "CREATE VIRTUAL TABLE t USING fts5(x)",
        "SELECT load_extension('x')",
        "SELECT * FROM quorate_meta",
        "SELECT * FROM \"main\".[quorate_block]",
        "UPDATE quorate_meta SET value = 0",
        "INSERT OR REPLACE INTO quorate_meta VALUES ('store', 1, 1)",
        "DELETE FROM quorate_event_id",
        "DROP TABLE quorate_block",
        "DROP INDEX sqlite_autoindex_quorate_stream_1",
        "CREATE INDEX mine ON quorate_stream (version)",
        "ALTER TABLE quorate_block ADD COLUMN x",
        "UPDATE sqlite_schema SET sql = '' WHERE name = 'quorate_block'",
        "DELETE FROM sqlite_master",
        "UPDATE sqlite_sequence SET seq = 0",
    ] {
        let written = attempt(&store, sql).await;
        let refused =
            matches!(written, Err(TransactError::Aborted(SqlError::Refused { .. } | SqlError::Failed { .. })));
        assert!(refused, "`{sql}` in a transaction: {written:?}");
        let read = store.query(sql, vec![]).await;
        assert!(
            matches!(read, Err(SqlError::Refused { .. } | SqlError::Failed { .. })),
            "`{sql}` as a query: {read:?}"
        );
    }
    assert!(!std::path::Path::new("/tmp/quorate-leak.db").exists());
    store.append(batch("s", vec![event(1)])).await.unwrap();
    store.close().await.unwrap();
    folder.store().await.append(batch("s", vec![event(2)])).await.unwrap();
}

#[tokio::test]
async fn a_room_cannot_write_what_only_the_store_writes() {
    let folder = Folder::new();
    let store = folder.store().await;
    store.append(batch("s", vec![event(1)])).await.unwrap();
    for sql in [
        "DELETE FROM quorate_block",
        "UPDATE quorate_meta SET value = 0",
        "INSERT INTO quorate_event_id VALUES (x'00', 1, 1)",
        "DROP TABLE quorate_stream",
        "ALTER TABLE quorate_term ADD COLUMN x",
        "CREATE TRIGGER t AFTER INSERT ON quorate_block BEGIN SELECT 1; END",
        "CREATE INDEX i ON quorate_block (body)",
        "PRAGMA synchronous = OFF",
        "COMMIT",
    ] {
        let refused: Result<u64, TransactError<SqlError>> =
            store.transact(move |tx| Box::pin(tx.room_execute(sql, &[]))).await;
        assert!(matches!(refused, Err(TransactError::Aborted(SqlError::Refused { .. }))), "`{sql}`: {refused:?}");
    }
}

#[tokio::test]
async fn a_reference_to_the_stores_tables_cannot_hold_them() {
    let folder = Folder::new();
    let store = folder.store().await;
    store.append(batch("s", vec![event(1)])).await.unwrap();
    store.close().await.unwrap();
    let store = folder.store().await;
    for sql in [
        "CREATE TABLE hostage (key TEXT REFERENCES quorate_meta (key))",
        "CREATE TABLE late (key TEXT REFERENCES quorate_meta (key) DEFERRABLE INITIALLY DEFERRED)",
        "CREATE TABLE block (first INTEGER REFERENCES quorate_block (first))",
    ] {
        let _ = attempt(&store, sql).await;
    }
    for sql in [
        "INSERT INTO hostage VALUES ('indexed')",
        "INSERT INTO late VALUES ('indexed')",
        "INSERT INTO block VALUES (1)",
    ] {
        let refused = attempt(&store, sql).await;
        assert!(refused.is_err(), "`{sql}`: {refused:?}");
    }
    // Indexing replaces a row of quorate_meta, and retention changes blocks.
    store.append(batch("s", vec![event(2)])).await.unwrap();
    let before = quorate_data::event::Version::new(2);
    store.retire("s".parse().unwrap(), quorate_data::store::Retire::Truncate { before }).await.unwrap();
    store.close().await.unwrap();
    assert_eq!(folder.store().await.head().get(), 2);
}

#[tokio::test]
async fn a_statement_cannot_take_the_memory() {
    let folder = Folder::new();
    let store = folder.open(quorate_data::store::Limits::default()).await;
    for sql in ["SELECT zeroblob(900000000)", "SELECT length(randomblob(900000000))", "SELECT printf('%900000000d', 1)"]
    {
        let refused = store.query(sql, vec![]).await;
        assert!(refused.is_err(), "`{sql}` should be refused");
        assert!(attempt(&store, sql).await.is_err(), "`{sql}` should be refused");
    }
}

#[tokio::test]
async fn what_is_wanted_after_a_commit_is_done_before_the_answer_and_never_after_a_rollback() {
    let folder = Folder::new();
    let store = folder.store().await;
    let done = Arc::new(Mutex::new(Vec::new()));
    for (name, fails) in [("first", false), ("taken back", true), ("second", false)] {
        let told = done.clone();
        let ended = store.transact(move |tx| {
            let told = told.clone();
            Box::pin(async move {
                tx.after_commit(move || told.lock().unwrap().push(name))?;
                if fails { Err(SqlError::Failed { what: "no".to_owned() }) } else { Ok(()) }
            })
        });
        assert_eq!(ended.await.is_err(), fails);
        assert_eq!(done.lock().unwrap().contains(&name), !fails, "{name}");
    }
    let panics = store.transact(|tx| Box::pin(async move { Ok::<_, SqlError>(tx.after_commit(|| panic!("oops"))?) }));
    panics.await.unwrap();
    store.append(batch("s", vec![event(1)])).await.expect("whoever's hook panics, the store goes on");
    assert_eq!(*done.lock().unwrap(), ["first", "second"]);
}
