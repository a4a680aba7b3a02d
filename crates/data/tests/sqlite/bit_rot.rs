//! One flipped byte, in any table, is named; and what was damaged is never served.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use quorate_data::{
    event::{Position, Recorded},
    schema::Registrar,
    store::{
        AppendError, ArchiveOrder, ExpectedVersion, OpenError, Query, QueryItem, ReadLog, ReadStream, Retire,
        RoomTables, Rules, Store, StoreError, StreamMetadata, Verified,
    },
};
use rusqlite::{Connection, types::Value};

use crate::shared::{self, Folder, batch, event, open};

const ROOM: RoomTables =
    RoomTables { room: "proof", versions: &["CREATE TABLE quorate_proof (id INTEGER PRIMARY KEY, note TEXT)"] };

/// A store with something in each of its tables, closed: an indexed part and a part that is not indexed yet.
async fn filled(folder: &Folder) {
    let store = folder.store().await;
    store.declare(ROOM).await.unwrap();
    let schema = serde_json::json!({"type": "object", "title": "a thing"});
    Registrar::of(&store).register(&"a".parse().unwrap(), schema, None).await.unwrap();
    for n in 0..1_200_u64 {
        let tags = quorate_data::event::Tags::new([format!("n:{}", n % 3), "all".to_owned()]).unwrap();
        let kind = ["a", "b"][n as usize % 2].into();
        let tagged = quorate_data::event::NewEvent { kind, ..event(n) }.tagged(tags);
        store.append(batch(&format!("s-{}", n % 2), vec![tagged])).await.unwrap();
    }
    let before = quorate_data::event::Version::new(5);
    store.retire("s-0".parse().unwrap(), Retire::Truncate { before }).await.unwrap();
    store.append(batch("p-0", vec![event("hers").about("anna")])).await.unwrap();
    store.erase("anna").await.unwrap();
    let rules = Rules { max_count: Some(100_000), max_age: Some(Rules::MAX_AGE) };
    let values = [("owner".to_owned(), "billing".to_owned())].into();
    let metadata = StreamMetadata { rules, values };
    store.set_metadata("s-1".parse().unwrap(), ExpectedVersion::NoStream, metadata).await.unwrap();
    store.append(batch("q-0", vec![event("old")])).await.unwrap();
    let (to, name) = (folder.path("q.archive"), "q.archive".to_owned());
    store.archive(ArchiveOrder { stream: "q-0".parse().unwrap(), before: None, to, name }).await.unwrap();
    store.close().await.unwrap();
}

/// Makes `bytes` a store, beside the keys of the one that was filled.
fn put(folder: &Folder, bytes: &[u8]) -> PathBuf {
    let path = folder.path("damaged.db");
    for suffix in ["", "-wal", "-shm", ".keys-wal"] {
        let _ = std::fs::remove_file(shared::with_suffix(&path, suffix));
    }
    std::fs::write(&path, bytes).unwrap();
    let keys = |path: &Path| shared::with_suffix(path, ".keys");
    std::fs::copy(keys(&folder.file()), keys(&path)).unwrap();
    path
}

async fn verify(store: &Store) -> Verified {
    store.verify(Arc::new(|_, _| {})).await.unwrap()
}

/// What a store at `path` says of itself: refused at the door, or the findings.
async fn judge(path: &Path) -> Result<Verified, String> {
    match open(path).await {
        Ok(store) => {
            let verified = verify(&store).await;
            store.close().await.unwrap();
            Ok(verified)
        }
        Err(OpenError::Corrupt { what, .. }) => Err(what),
        Err(other) => panic!("damage is not {other:?}"),
    }
}

/// Every column of one row of a table, each with one of its bytes changed.
fn flips(value: &Value) -> Vec<Value> {
    match value {
        Value::Integer(n) => [0, 7, 24, 40, 63].iter().map(|bit| Value::Integer(n ^ (1_i64 << bit))).collect(),
        Value::Text(text) => {
            let mut other = text.clone().into_bytes();
            other[text.len() / 2] ^= 1;
            vec![Value::Text(String::from_utf8(other).unwrap())]
        }
        Value::Blob(bytes) => [0, bytes.len() / 2, bytes.len() - 1]
            .iter()
            .map(|at| {
                let mut other = bytes.clone();
                other[*at] ^= 0x20;
                Value::Blob(other)
            })
            .collect(),
        other => panic!("{other:?} is in no column of ours"),
    }
}

fn columns(connection: &Connection, table: &str) -> Vec<String> {
    let mut select = connection.prepare(&format!("SELECT name FROM pragma_table_info('{table}')")).unwrap();
    select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// Our tables, but for the one that is empty unless something is being forgotten.
fn tables(connection: &Connection) -> Vec<String> {
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'quorate\\_%' ESCAPE '\\'
               AND name NOT IN ('quorate_proof', 'quorate_retiring')";
    connection.prepare(sql).unwrap().query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// The whole log and every stream as they were, page by page; `Err` where the store says that it is damaged.
async fn read_everything(store: &Store) -> Result<(Vec<Recorded>, Vec<Vec<Recorded>>), StoreError> {
    let mut log = Vec::new();
    loop {
        let after = Position::new(log.len() as u64);
        let page = store.read_log(ReadLog { query: Query::EVERYTHING, after, limit: 500 }).await?;
        log.extend(page.events);
        if page.scanned >= page.head {
            break;
        }
    }
    let mut streams = Vec::new();
    for name in ["s-0", "s-1"] {
        let (mut events, mut from) = (Vec::new(), None);
        loop {
            let mut read = ReadStream::forward(name.parse().unwrap(), 100);
            read.from = from;
            let page = store.read_stream(read).await?;
            events.extend(page.events);
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        streams.push(events);
    }
    Ok((log, streams))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_changed_byte_in_any_column_of_any_table_is_named() {
    let folder = Folder::new();
    filled(&folder).await;
    let good = std::fs::read(folder.file()).unwrap();
    let sound = judge(&folder.file()).await.unwrap();
    assert!(sound.is_sound() && sound.events == 1_202, "{sound:?}");
    let connection = shared::raw(&folder.file());
    let names = tables(&connection);
    assert_eq!(names.len(), 13, "{names:?}");
    let plan: Vec<(String, Vec<String>)> =
        names.into_iter().map(|table| (table.clone(), columns(&connection, &table))).collect();
    drop(connection);
    let mut tried = 0;
    for (table, columns) in &plan {
        for column in columns {
            let read = format!("SELECT {column} FROM {table} LIMIT 1");
            let path = put(&folder, &good);
            let value: Value = shared::raw(&path).query_row(&read, [], |row| row.get(0)).unwrap();
            for flipped in flips(&value) {
                put(&folder, &good);
                let connection = shared::raw(&path);
                let all = columns.join(", ");
                let first = format!(
                    "UPDATE OR REPLACE {table} SET {column} = ?1 WHERE ({all}) = (SELECT {all} FROM {table} LIMIT 1)"
                );
                let changed = connection.execute(&first, [&flipped]).unwrap();
                assert_eq!(changed, 1, "{table}.{column}");
                drop(connection);
                tried += 1;
                let place = match judge(&path).await {
                    Err(what) => what,
                    Ok(verified) => {
                        assert!(!verified.is_sound(), "{table}.{column}: {value:?} became {flipped:?} unnoticed");
                        verified.findings.iter().map(|finding| format!("{finding}\n")).collect()
                    }
                };
                assert!(place.contains(table.as_str()), "{table}.{column} should be named, not: {place}");
            }
        }
    }
    assert!(tried > 60, "{tried} flips");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_bytes_are_never_served_wherever_they_are_in_the_file() {
    let folder = Folder::new();
    filled(&folder).await;
    let store = folder.store().await;
    let expected = read_everything(&store).await.unwrap();
    store.close().await.unwrap();
    let good = std::fs::read(folder.file()).unwrap();
    let mut rng = quorate_runtime::random::Random::from_seed([3; 32]).stream("bit rot");
    let mut noticed = 0;
    for round in 0..150 {
        let mut bytes = good.clone();
        let at = rng.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << rng.below(8);
        let path = put(&folder, &bytes);
        let store = match open(&path).await {
            Ok(store) => store,
            Err(
                OpenError::Corrupt { .. }
                | OpenError::Newer { .. }
                | OpenError::Older { .. }
                | OpenError::Foreign { .. },
            ) => {
                noticed += 1;
                continue;
            }
            Err(other) => panic!("round {round}, byte {at}: {other:?}"),
        };
        let verified = store.verify(Arc::new(|_, _| {})).await;
        let read = read_everything(&store).await;
        match (&read, &verified) {
            (Ok(read), Ok(verified)) => {
                // Only a page that nothing uses may rot and leave every answer as it was.
                assert!(*read == expected, "round {round}, byte {at}: something else was served");
                noticed += u32::from(!verified.is_sound());
            }
            (Err(StoreError::Corrupt { .. }), Ok(verified)) => {
                assert!(!verified.is_sound(), "round {round}, byte {at}: reading failed, verifying did not");
                noticed += 1;
            }
            (_, Err(StoreError::Corrupt { .. })) => noticed += 1,
            other => panic!("round {round}, byte {at}: {:?}, {:?}", other.0.as_ref().err(), other.1),
        }
        store.close().await.ok();
    }
    assert_eq!(noticed, 150, "every byte is under a checksum");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_event_is_an_error_to_its_readers_and_to_nobody_else() {
    let folder = Folder::new();
    filled(&folder).await;
    let connection = shared::raw(&folder.file());
    let (first, mut body): (i64, Vec<u8>) = connection
        .query_row("SELECT first, body FROM quorate_block WHERE first > 300 ORDER BY first LIMIT 1", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    let middle = body.len() / 2;
    body[middle] ^= 4;
    connection.execute("UPDATE quorate_block SET body = ?1 WHERE first = ?2", rusqlite::params![body, first]).unwrap();
    drop(connection);
    let store = folder.store().await;
    let corrupt =
        |cause: &StoreError| matches!(cause, StoreError::Corrupt { place, .. } if place.contains("quorate_block"));
    let log = |after, limit| ReadLog { query: Query::EVERYTHING, after: Position::new(after), limit };
    let read = store.read_log(log(first as u64 - 1, 1)).await;
    assert!(read.as_ref().is_err_and(corrupt), "{read:?}");
    let tagged = Query::of([QueryItem::tags(["all"])]);
    let read = store.read_log(ReadLog { query: tagged, ..log(first as u64 - 1, 1) }).await;
    assert!(read.as_ref().is_err_and(corrupt), "{read:?}");
    assert_eq!(store.read_log(log(0, 100)).await.unwrap().events.len(), 100);
    assert!(store.read_log(log(1_100, 100)).await.is_ok());
    store.append(batch("s-0", vec![event("new")])).await.unwrap();
    let found = verify(&store).await.findings;
    let named = |finding: &quorate_data::store::Finding| finding.place == format!("quorate_block, row {first}");
    assert!(found.iter().any(named), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_row_is_noticed() {
    let folder = Folder::new();
    filled(&folder).await;
    let good = std::fs::read(folder.file()).unwrap();
    let names = tables(&shared::raw(&folder.file()));
    for table in names {
        let path = put(&folder, &good);
        let connection = shared::raw(&path);
        let key = columns(&connection, &table)[..2].join(", ");
        let sql = format!("DELETE FROM {table} WHERE ({key}) = (SELECT {key} FROM {table} LIMIT 1)");
        assert_eq!(connection.execute(&sql, []).unwrap(), 1);
        drop(connection);
        if let Ok(verified) = judge(&path).await {
            // The keys know as well who was erased, and opening puts the row back.
            let restored = table == "quorate_erasure";
            assert_eq!(verified.is_sound(), restored, "a row of {table} is missing");
        }
        // Readers never see a hole. (A stream whose row is gone is not known any more: only verifying can tell.)
        if table == "quorate_stream" {
            continue;
        }
        if let Ok(store) = open(&path).await {
            match read_everything(&store).await {
                Ok((log, streams)) => {
                    let whole = log.len() == 1_202 && streams[0].len() == 596 && streams[1].len() == 600;
                    assert!(whole, "{table}: {} {} {}", log.len(), streams[0].len(), streams[1].len());
                }
                Err(StoreError::Corrupt { .. }) => {}
                Err(other) => panic!("{table}: {other:?}"),
            }
            store.close().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_row_that_contradicts_the_log_is_named_although_its_checksum_is_right() {
    let folder = Folder::new();
    filled(&folder).await;
    let good = std::fs::read(folder.file()).unwrap();
    type Stream = (i64, String, i64, i64, bool, Vec<u8>);
    let change = |with: &dyn Fn(&mut Stream)| {
        let path = put(&folder, &good);
        let connection = shared::raw(&path);
        let select = "SELECT id, name, version, first, tombstoned, hash FROM quorate_stream WHERE name = 's-0'";
        let read = |row: &rusqlite::Row<'_>| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
        };
        let mut row: Stream = connection.query_row(select, [], read).unwrap();
        with(&mut row);
        let (id, name, version, first, tombstoned, hash) = row;
        let mut bytes = name.into_bytes();
        bytes.extend(&hash);
        bytes.extend(version.to_le_bytes());
        bytes.extend(first.to_le_bytes());
        bytes.push(tombstoned.into());
        // No rules, no metadata.
        bytes.extend([0; 24]);
        let update =
            "UPDATE quorate_stream SET version = ?2, first = ?3, tombstoned = ?4, hash = ?5, sum = ?6 WHERE id = ?1";
        let values = rusqlite::params![id, version, first, tombstoned, hash, crc32fast::hash(&bytes)];
        assert_eq!(connection.execute(update, values).unwrap(), 1);
        (path, format!("quorate_stream, row {id}"))
    };
    let (path, _) = change(&|_| {});
    assert!(judge(&path).await.unwrap().is_sound(), "the checksum is computed as the store does");
    let changes: [&dyn Fn(&mut Stream); 6] =
        [&|row| row.2 += 1, &|row| row.2 -= 1, &|row| row.3 += 1, &|row| row.3 -= 1, &|row| row.4 = true, &|row| {
            row.5[7] ^= 1
        }];
    for (n, with) in changes.into_iter().enumerate() {
        let (path, place) = change(with);
        let found = judge(&path).await.unwrap().findings;
        assert!(found.iter().any(|finding| finding.place == place), "change {n}: {found:?}");
    }
}

#[tokio::test]
async fn an_append_that_meets_damage_is_refused_alone_and_costs_its_group_nothing() {
    let folder = Folder::new();
    let store = folder.store().await;
    store.append(batch("rotten", vec![event("first")])).await.unwrap();
    store.append(batch("sound", vec![event("last")])).await.unwrap();
    store.close().await.unwrap();
    let rot = "UPDATE quorate_block SET body = zeroblob(length(body)) WHERE first = 1";
    assert_eq!(shared::raw(&folder.file()).execute(rot, []).unwrap(), 1);
    let store = folder.store().await;
    let before = store.statistics().commits;
    // The same id again: whether it is the same event stands in the block that has rotted.
    let appends = (0..100).map(|n| match n % 2 {
        0 => store.append(batch(&format!("s-{n}"), vec![event(n)])),
        _ => store.append(batch("rotten", vec![event("first")])),
    });
    for (n, appended) in futures_util::future::join_all(appends).await.into_iter().enumerate() {
        match n % 2 {
            0 => drop(appended.unwrap()),
            _ => assert!(matches!(appended, Err(AppendError::Store(StoreError::Corrupt { .. }))), "{appended:?}"),
        }
    }
    let commits = store.statistics().commits - before;
    assert!(commits < 25, "{commits} commits for 50 appends");
}
