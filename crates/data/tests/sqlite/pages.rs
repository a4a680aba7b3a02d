//! One flipped byte, in any page of the file and of the write-ahead log: whatever reads it says so, and verifying names it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use quorate_data::{
    event::{Position, Recorded, Tags},
    store::{
        OpenError, Query, QueryItem, ReadLog, ReadStream, RoomTables, Row, SqlError, Store, StoreError, StreamSummary,
    },
};

use crate::shared::{Folder, batch, event, open, quiet, raw, with_suffix};

const PAGE: usize = 4096;
const ROOM: RoomTables =
    RoomTables { room: "proof", versions: &["CREATE TABLE quorate_proof (id INTEGER PRIMARY KEY, note TEXT)"] };

/// A closed store whose file has pages of every kind: of the store, of a room, of the application.
async fn filled(folder: &Folder) {
    let store = folder.store().await;
    store.declare(ROOM).await.unwrap();
    for sql in [
        "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT NOT NULL)",
        "CREATE INDEX note_text ON note (text)",
        "CREATE TABLE gone (id INTEGER PRIMARY KEY, text TEXT)",
        "INSERT INTO note (text) SELECT printf('note %d of %s', value, hex(zeroblob(40))) FROM numbers",
        "INSERT INTO note (text) VALUES (hex(zeroblob(9000)))",
        "INSERT INTO gone (text) SELECT hex(zeroblob(1000)) FROM numbers LIMIT 200",
    ] {
        let numbers =
            "(WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n LIMIT 300) SELECT * FROM n)";
        let sql: &'static str = sql.replace("numbers", numbers).leak();
        store.transact(move |tx| Box::pin(tx.execute(sql, &[]))).await.unwrap();
    }
    for n in 0..600_u64 {
        let tags = Tags::new([format!("n:{}", n % 3)]).unwrap();
        let stream = format!("{}-{}", "stream".repeat(8), n % 150);
        store.append(batch(&stream, vec![event(n).tagged(tags)])).await.unwrap();
    }
    let large = quorate_data::event::NewEvent { data: Some(vec![b'x'; 20_000].into()), ..event("large") };
    store.append(batch("large", vec![large])).await.unwrap();
    store.transact(|tx| Box::pin(tx.execute("DROP TABLE gone", &[]))).await.unwrap();
    store.close().await.unwrap();
}

fn put(folder: &Folder, bytes: &[u8]) -> PathBuf {
    let path = folder.path("damaged.db");
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(with_suffix(&path, suffix));
    }
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Everything that a store can be asked, each answer by itself.
#[derive(Debug, PartialEq)]
enum Answer {
    Events(Vec<Recorded>),
    Streams(Vec<StreamSummary>),
    Rows(Vec<Row>),
}

/// Each answer, or `None` where the store said that it is damaged.
async fn ask(store: &Store) -> BTreeMap<String, Option<Answer>> {
    fn events<P>(page: Result<P, StoreError>, events: impl FnOnce(P) -> Vec<Recorded>) -> Option<Answer> {
        match page {
            Ok(page) => Some(Answer::Events(events(page))),
            Err(StoreError::Corrupt { .. }) => None,
            Err(other) => panic!("damage is not {other:?}"),
        }
    }
    let mut answers = BTreeMap::new();
    let tag = |n: u32| Query::of([QueryItem::tags([format!("n:{n}").as_str()])]);
    for (name, query) in [("log", Query::EVERYTHING), ("tag 0", tag(0)), ("tag 1", tag(1)), ("tag 2", tag(2))] {
        let page = store.read_log(ReadLog { query, after: Position::ZERO, limit: 1_000 }).await;
        answers.insert(name.to_owned(), events(page, |page| page.events));
    }
    for n in 0..150 {
        let stream = format!("{}-{n}", "stream".repeat(8));
        let page = store.read_stream(ReadStream::forward(stream.parse().unwrap(), 100)).await;
        answers.insert(stream, events(page, |page| page.events));
    }
    let listed = match store.streams("", None, 1_000).await {
        Ok(streams) => Some(Answer::Streams(streams)),
        Err(StoreError::Corrupt { .. }) => None,
        Err(other) => panic!("damage is not {other:?}"),
    };
    answers.insert("listing".to_owned(), listed);
    for sql in [
        "SELECT id, text FROM note NOT INDEXED ORDER BY id",
        "SELECT text FROM note INDEXED BY note_text ORDER BY text",
    ] {
        let rows = match store.query(sql, vec![]).await {
            Ok(rows) => Some(Answer::Rows(rows)),
            Err(SqlError::Store(StoreError::Corrupt { .. })) => None,
            Err(other) => panic!("damage is not {other:?}"),
        };
        answers.insert(sql.to_owned(), rows);
    }
    answers
}

/// What each page of the file is for.
fn pages(path: &Path) -> BTreeMap<usize, String> {
    let connection = raw(path);
    let count: u32 = connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    let mut select = connection.prepare("SELECT pageno, pagetype || ' of ' || name FROM dbstat").unwrap();
    let used = select.query_map([], |row| Ok((row.get::<_, u32>(0)? as usize, row.get(1)?))).unwrap();
    let mut pages: BTreeMap<usize, String> = used.map(Result::unwrap).collect();
    for page in 1..=count as usize {
        pages.entry(page).or_insert_with(|| "free".to_owned());
    }
    pages
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_any_page_is_never_served_and_verifying_names_the_page() {
    let folder = Folder::new();
    filled(&folder).await;
    let pages = pages(&folder.file());
    for kind in [
        "internal of note",
        "leaf of note",
        "overflow of note",
        "leaf of note_text",
        "overflow of quorate_block",
        "internal of quorate_block",
        "leaf of quorate_proof",
        "leaf of sqlite_autoindex_quorate_stream_1",
        "internal of sqlite_autoindex_quorate_stream_1",
        "leaf of quorate_event_id",
        "free",
    ] {
        assert!(pages.values().any(|is| is == kind), "no page is `{kind}`: {:?}", BTreeSet::from_iter(pages.values()));
    }
    let good = std::fs::read(folder.file()).unwrap();
    assert_eq!(good.len(), pages.len() * PAGE);
    let store = folder.store().await;
    let expected = ask(&store).await;
    assert!(expected.values().all(Option::is_some));
    store.close().await.unwrap();
    // In page 1: the magic, the page size, the reserve, counters, the encoding, the application, the schema.
    let first = [0, 16, 18, 20, 24, 28, 36, 40, 47, 59, 63, 70, 95, 97, 100, 103, 2_000, 4_087, 4_088, 4_095];
    let (mut refused, mut withheld, mut tried) = (0, 0, 0);
    for (page, kind) in &pages {
        // The kind of a page, its pointers, its middle, its end, and both halves of its footer.
        let others = [page % 8, 8 + page % 40, 1_000 + page % 2_000, 4_087, 4_088 + page % 4, 4_092 + page % 4];
        for at in if *page == 1 { &first[..] } else { &others[page % 6..][..1] } {
            let (mut bytes, what) = (good.clone(), format!("byte {at} of page {page} ({kind})"));
            bytes[(page - 1) * PAGE + at] ^= 1 << (page % 8);
            let path = put(&folder, &bytes);
            tried += 1;
            let store = match open(&path).await {
                Ok(store) => store,
                Err(OpenError::Corrupt { what: said, .. }) => {
                    let named = said.contains(&format!("page {page} of the file"));
                    assert!(named || (*page == 1 && said.contains("not an SQLite database")), "{what}: {said}");
                    refused += 1;
                    continue;
                }
                Err(other) => panic!("{what}: {other:?}"),
            };
            for (question, answer) in ask(&store).await {
                match answer {
                    Some(answer) => assert!(expected[&question] == Some(answer), "{what} changed {question}"),
                    None => withheld += 1,
                }
            }
            let verified = store.verify(Arc::new(|_, _| {})).await.unwrap();
            let named = verified.findings.iter().any(|finding| finding.place == format!("page {page} of the file"));
            assert!(named, "{what}: {:?}", verified.findings);
            store.close().await.unwrap();
        }
    }
    println!("{tried} flips in {} pages: {refused} at the door, {withheld} answers withheld", pages.len());
    assert!(refused > 15 && withheld > 100, "{refused} {withheld}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_written_to_the_wrong_place_is_named() {
    let folder = Folder::new();
    filled(&folder).await;
    let pages = pages(&folder.file());
    let leaves: Vec<usize> = pages.iter().filter(|page| page.1 == "leaf of note").map(|page| *page.0).collect();
    let mut bytes = std::fs::read(folder.file()).unwrap();
    let (from, to) = ((leaves[0] - 1) * PAGE, (leaves[1] - 1) * PAGE);
    bytes.copy_within(from..from + PAGE, to);
    let store = open(&put(&folder, &bytes)).await.unwrap();
    let read = store.query("SELECT id, text FROM note NOT INDEXED", vec![]).await;
    assert!(matches!(read, Err(SqlError::Store(StoreError::Corrupt { .. }))), "{read:?}");
    let verified = store.verify(Arc::new(|_, _| {})).await.unwrap();
    let finding = format!("page {} of the file: it is page {}, in the wrong place", leaves[1], leaves[0]);
    assert!(verified.findings.iter().any(|found| found.to_string() == finding), "{:?}", verified.findings);
}

/// What is wrong with the store at `path`: why it is refused, or what verifying finds.
async fn judge(path: &Path) -> String {
    match open(path).await {
        Ok(store) => {
            let verified = store.verify(Arc::new(|_, _| {})).await.unwrap();
            store.close().await.unwrap();
            verified.findings.iter().map(|finding| format!("{finding}\n")).collect()
        }
        Err(OpenError::Corrupt { what, .. }) => what,
        Err(other) => panic!("damage is not {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_has_checksums_of_its_own_and_a_restored_one_keeps_them() {
    let folder = Folder::new();
    filled(&folder).await;
    let (backup, restored) = (folder.path("backup.db"), folder.path("restored.db"));
    let store = folder.store().await;
    store.backup(backup.clone(), Arc::new(|_, _| {})).await.unwrap();
    store.close().await.unwrap();
    let env = quorate_runtime::Env::real();
    quorate_data::store::sqlite::restore(&env, backup.clone(), restored.clone(), quiet()).await.unwrap();
    for path in [backup, restored] {
        let good = std::fs::read(&path).unwrap();
        assert_eq!(judge(&put(&folder, &good)).await, "");
        for page in (1..=good.len() / PAGE).step_by(13) {
            let mut bytes = good.clone();
            bytes[(page - 1) * PAGE + 300 + page] ^= 1;
            let said = judge(&put(&folder, &bytes)).await;
            assert!(said.contains(&format!("page {page} of the file")), "{page}: {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_any_page_of_the_keys_is_named() {
    let folder = Folder::new();
    let store = folder.store().await;
    for n in 0..60 {
        store.append(batch("s", vec![event(n).about(&*format!("subject-{n}"))])).await.unwrap();
    }
    store.close().await.unwrap();
    let keys = with_suffix(&folder.file(), ".keys");
    let good = std::fs::read(&keys).unwrap();
    assert!(good.len() >= 4 * PAGE);
    for page in 1..=good.len() / PAGE {
        for at in [101, 2_000, 4_095] {
            let mut bytes = good.clone();
            bytes[(page - 1) * PAGE + at] ^= 2;
            std::fs::write(&keys, &bytes).unwrap();
            let said = judge(&folder.file()).await;
            assert!(said.contains(&format!("page {page} of the file")), "{page}: {said}");
        }
    }
    std::fs::write(&keys, &good).unwrap();
    assert_eq!(judge(&folder.file()).await, "");
}
