//! A write-ahead log that rotted: whatever reads it says so, and a log that lost what was acknowledged is refused, and left
//! as it is.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use quorate_data::{
    event::Version,
    store::{AppendError, ArchiveError, ArchiveOrder, OpenError, Store, StoreError},
};

use crate::shared::{self, Folder, batch, event, open, quiet, raw, with_suffix};

const PAGE: usize = 4096;

/// A live store with a table of 60 rows and as many events, all of it in the write-ahead log.
async fn live(folder: &Folder) -> Store {
    filled(folder, true).await
}

/// As [`live`]; without events it has nothing in memory that an idle store would write into its log, and nothing it would empty it for.
async fn filled(folder: &Folder, with_events: bool) -> Store {
    let store = folder.store().await;
    if !with_events {
        // A store that was opened does so once.
        store.wipe("s".parse().unwrap()).await.unwrap();
    }
    store
        .transact(|tx| Box::pin(tx.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT)", &[])))
        .await
        .unwrap();
    for n in 0..60 {
        let insert = "INSERT INTO note (text) VALUES (hex(zeroblob(1500)))";
        store.transact(move |tx| Box::pin(tx.execute(insert, &[]))).await.unwrap();
        if with_events {
            store.append(batch("s", vec![event(n)])).await.unwrap();
        }
    }
    store
}

/// Where each frame's page begins in a log.
fn frames(log: &[u8]) -> impl Iterator<Item = usize> + use<> {
    (0..(log.len() - 32) / (24 + PAGE)).map(|frame| 32 + frame * (24 + PAGE) + 24)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_the_log_of_a_live_store_is_noticed_and_never_reaches_the_file() {
    let folder = Folder::new();
    let store = filled(&folder, false).await;
    let rows = store.query("SELECT id, text FROM note", vec![]).await.unwrap();
    assert_eq!(rows.len(), 60);
    let path = with_suffix(&folder.file(), "-wal");
    let good = std::fs::read(&path).unwrap();
    let (mut noticed, mut superseded) = (0, 0);
    for (frame, begin) in frames(&good).enumerate() {
        let at = begin + (frame * 97) % PAGE;
        flip(&path, at);
        let found = store.verify(Arc::new(|_, _| {})).await.unwrap().findings;
        let place = format!("frame {} of the write-ahead log", frame + 1);
        assert!(found.iter().any(|finding| finding.place == place), "{place}: {found:?}");
        // A connection that never saw the pages before; what another has in memory is sound.
        let fresh = raw(&folder.file());
        let read: rusqlite::Result<i64> = fresh.query_row("SELECT sum(length(text)) FROM note", [], |row| row.get(0));
        match read {
            Ok(sum) => {
                assert_eq!(sum, 60 * 3_000, "{place}");
                superseded += 1;
            }
            Err(cause) => {
                assert_eq!(cause.sqlite_error().unwrap().extended_code, rusqlite::ffi::SQLITE_IOERR_DATA, "{cause}");
                noticed += 1;
            }
        }
        drop(fresh);
        flip(&path, at);
    }
    assert!(noticed > 30 && superseded > 30, "{noticed} {superseded}");
    let verified = store.verify(Arc::new(|_, _| {})).await.unwrap();
    assert!(verified.is_sound(), "{:?}", verified.findings);
    // Writing the log back reads it too: damage must not get a footer that makes it look sound.
    let newest = frames(&good).last().unwrap();
    flip(&path, newest + 2_000);
    let _ = store.close().await;
    let pages = std::fs::read(folder.file()).unwrap();
    let damaged = &std::fs::read(&path).unwrap()[newest..newest + PAGE - 8];
    assert!(!pages.chunks(PAGE).any(|page| page.starts_with(damaged)));
}

/// Changes one byte in place: the file stays the one that is open.
fn flip(path: &Path, at: usize) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at as u64).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_more_is_put_behind_a_log_that_rotted() {
    let folder = Folder::new();
    let store = live(&folder).await;
    let path = with_suffix(&folder.file(), "-wal");
    let newest = frames(&std::fs::read(&path).unwrap()).last().unwrap();
    flip(&path, newest + 2_000);
    // It is written back, or would be: what is damaged is found by then.
    store.wipe("s".parse().unwrap()).await.unwrap();
    let refused = store.append(batch("s", vec![event("more")])).await;
    let stuck = |cause: &StoreError| matches!(cause, StoreError::Stuck { cause, .. } if matches!(&**cause, StoreError::Corrupt { place, .. } if place.contains("write-ahead log")));
    assert!(matches!(&refused, Err(AppendError::Store(cause)) if stuck(cause)), "{refused:?}");
    assert!(store.check_writes().is_err_and(|cause| stuck(&cause)));
    flip(&path, newest + 2_000);
    store.wipe("s".parse().unwrap()).await.unwrap();
    assert!(store.check_writes().is_ok());
    store.append(batch("s", vec![event("more")])).await.unwrap();
    store.close().await.unwrap();
}

/// Moves the first event of `t` to an archive.
fn archive(folder: &Folder) -> ArchiveOrder {
    ArchiveOrder {
        stream: "t".parse().unwrap(),
        before: Some(Version::new(2)),
        to: folder.path("t.archive"),
        name: "t.archive".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_not_moved_to_an_archive_while_the_log_that_says_so_is_damaged() {
    let folder = Folder::new();
    let store = live(&folder).await;
    store.append(batch("t", vec![event(1), event(2)])).await.unwrap();
    let insert = "INSERT INTO note (text) VALUES (hex(zeroblob(1500)))";
    for _ in 0..4 {
        store.transact(move |tx| Box::pin(tx.execute(insert, &[]))).await.unwrap();
    }
    let path = with_suffix(&folder.file(), "-wal");
    let newest = frames(&std::fs::read(&path).unwrap()).last().unwrap();
    flip(&path, newest + 2_000);
    let refused = store.archive(archive(&folder)).await;
    assert!(matches!(&refused, Err(ArchiveError::Store(StoreError::Stuck { .. }))), "{refused:?}");
    assert!(store.check_writes().is_err());
    flip(&path, newest + 2_000);
    store.archive(archive(&folder)).await.unwrap();
    assert!(store.check_writes().is_ok());
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_beside_a_damaged_log_outlives_it() {
    let folder = Folder::new();
    let store = live(&folder).await;
    store.append(batch("people", vec![event("anna").about("anna")])).await.unwrap();
    let backup = folder.path("backup.db");
    store.backup(backup.clone(), Arc::new(|_, _| {})).await.unwrap();
    let insert = "INSERT INTO note (text) VALUES (hex(zeroblob(1500)))";
    store.transact(move |tx| Box::pin(tx.execute(insert, &[]))).await.unwrap();
    let path = with_suffix(&folder.file(), "-wal");
    let newest = frames(&std::fs::read(&path).unwrap()).last().unwrap();
    flip(&path, newest + 2_000);
    store.wipe("s".parse().unwrap()).await.unwrap();
    assert!(store.check_writes().is_err());
    assert_eq!(store.erase("anna").await.unwrap().keys, 1);
    let entries = store.erasures().await.unwrap();
    let _ = store.close().await;
    // What an operator has then: a backup, and the keys as they are.
    let restored = folder.path("restored.db");
    let env = quorate_runtime::Env::real();
    quorate_data::store::sqlite::restore(&env, backup, restored.clone(), quiet()).await.unwrap();
    std::fs::copy(with_suffix(&folder.file(), ".keys"), with_suffix(&restored, ".keys")).unwrap();
    let store = open(&restored).await.unwrap();
    assert_eq!(store.erasures().await.unwrap(), entries);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_read_is_tried_again_by_itself() {
    let folder = Folder::new();
    let store = folder.store().await;
    store.append(batch("s", vec![event("first")])).await.unwrap();
    // Whoever reads keeps the log from being written back.
    let reader = raw(&folder.file());
    reader.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema;").unwrap();
    store.append(batch("t", vec![event(1), event(2)])).await.unwrap();
    // Whoever archives has the index written before.
    let order = ArchiveOrder { stream: "nowhere".parse().unwrap(), ..archive(&folder) };
    assert!(matches!(store.archive(order.clone()).await, Err(ArchiveError::NoStream { .. })));
    let path = with_suffix(&folder.file(), "-wal");
    let log = std::fs::read(&path).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(log.len() as u64 - 100).unwrap();
    drop(reader);
    let _ = store.archive(order).await;
    let refused = store.check_writes();
    let is_engine = |cause: &StoreError| matches!(cause, StoreError::Engine { .. });
    assert!(matches!(&refused, Err(StoreError::Stuck { cause, .. }) if is_engine(cause)), "{refused:?}");
    assert!(store.append(batch("s", vec![event("refused")])).await.is_err());
    std::os::unix::fs::FileExt::write_all_at(&file, &log, 0).unwrap();
    for _ in 0..600 {
        if store.check_writes().is_ok() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(store.check_writes().is_ok(), "nobody asked for anything");
    store.append(batch("s", vec![event("more")])).await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_written_back_where_its_end_cannot_be_noted() {
    let folder = Folder::new();
    let name = folder.file().file_name().unwrap().to_str().unwrap().to_owned();
    let in_the_way = folder.path(&format!(".{name}.mark.quorate-partial"));
    std::fs::create_dir(&in_the_way).unwrap();
    let store = live(&folder).await;
    let (log, note) = (with_suffix(&folder.file(), "-wal"), with_suffix(&folder.file(), ".mark"));
    store.wipe("s".parse().unwrap()).await.unwrap();
    assert_eq!((std::fs::metadata(&log).unwrap().len(), note.exists()), (0, false));
    std::fs::remove_dir(&in_the_way).unwrap();
    store.append(batch("s", vec![event("more")])).await.unwrap();
    store.wipe("s".parse().unwrap()).await.unwrap();
    assert_eq!((std::fs::metadata(&log).unwrap().len(), note.exists()), (0, true));
    store.close().await.unwrap();
}

/// The files of a store whose process was killed.
struct Killed {
    folder: Folder,
    file: Vec<u8>,
    log: Vec<u8>,
    note: Option<Vec<u8>>,
}

impl Killed {
    /// The store in `folder`, as it is now.
    async fn now(folder: Folder, store: Store) -> Self {
        let crashed = folder.path("crashed.db");
        shared::photograph(&folder.file(), &crashed);
        store.close().await.unwrap();
        let read = |suffix| std::fs::read(with_suffix(&crashed, suffix));
        Self { file: read("").unwrap(), log: read("-wal").unwrap(), note: read(".mark").ok(), folder }
    }

    /// The same files, with this log.
    fn with(&self, log: &[u8]) -> PathBuf {
        let path = self.folder.path("damaged.db");
        for suffix in ["-wal", "-shm", ".mark"] {
            let _ = std::fs::remove_file(with_suffix(&path, suffix));
        }
        std::fs::write(&path, &self.file).unwrap();
        std::fs::write(with_suffix(&path, "-wal"), log).unwrap();
        self.note.iter().for_each(|note| std::fs::write(with_suffix(&path, ".mark"), note).unwrap());
        path
    }

    /// Says that a store with this log is refused, as often as it is opened, and that its files stay what they are.
    async fn is_refused(&self, log: &[u8], named: &str) {
        let path = self.with(log);
        for attempt in 1..=2 {
            let Err(cause) = open(&path).await.map(|_| ()) else {
                panic!("{named}: opened without what was acknowledged at attempt {attempt}")
            };
            assert!(matches!(&cause, OpenError::Corrupt { what, .. } if what.contains(named)), "{named}: {cause:?}");
            assert!(std::fs::read(with_suffix(&path, "-wal")).unwrap() == log, "{named}: the log was changed");
            assert!(std::fs::read(&path).unwrap() == self.file, "{named}: the file was changed");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_rotted_in_its_middle_is_refused_and_not_cut_off_there() {
    let folder = Folder::new();
    let store = live(&folder).await;
    let killed = Killed::now(folder, store).await;
    let log = &killed.log;
    let store = open(&killed.with(log)).await.unwrap();
    assert_eq!(store.head().get(), 60);
    store.close().await.unwrap();
    let begins: Vec<usize> = frames(log).collect();
    for (frame, begin) in begins[..begins.len() - 8].iter().enumerate() {
        // Its page, its length of the database, its salt, its checksum.
        let at = [begin + 1_000, begin - 24 + 5, begin - 24 + 9, begin - 24 + 18][frame % 4];
        let mut damaged = log.clone();
        damaged[at] ^= 4;
        killed.is_refused(&damaged, &format!("frame {} of the write-ahead log", frame + 1)).await;
    }
    // A power cut while the log is written back tears pages of the file that stand in the log as well.
    let path = killed.with(log);
    let mut torn = killed.file.clone();
    torn.truncate(PAGE);
    torn.extend([7; PAGE + 1_000]);
    std::fs::write(&path, torn).unwrap();
    let store = open(&path).await.unwrap();
    assert!(store.verify(Arc::new(|_, _| {})).await.unwrap().is_sound());
    store.close().await.unwrap();
    // What it tears of the log is the newest transaction, and that is no damage either.
    for keep in [log.len() - 1, log.len() - 2_000, log.len() - 5_000] {
        let store = open(&killed.with(&log[..keep])).await.unwrap();
        assert!(store.head().get() >= 58);
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_many_frames_in_a_row_is_refused_as_long_as_two_transactions_are_behind_them() {
    let folder = Folder::new();
    let store = live(&folder).await;
    let killed = Killed::now(folder, store).await;
    assert!(killed.note.is_none(), "nothing was written back");
    let begins: Vec<usize> = frames(&killed.log).collect();
    for lost in [1, 4, 5, 40, begins.len() - 16] {
        let mut damaged = killed.log.clone();
        begins[6..6 + lost].iter().for_each(|begin| damaged[begin - 24..*begin].fill(0));
        killed.is_refused(&damaged, "frame 7 of the write-ahead log").await;
        damaged[begins[6] - 24..begins[6 + lost] - 24].fill(0);
        killed.is_refused(&damaged, "frame 7 of the write-ahead log").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_log_had_before_it_began_anew_is_no_part_of_it() {
    let folder = Folder::new();
    let store = live(&folder).await;
    let path = with_suffix(&folder.file(), "-wal");
    let before = std::fs::read(&path).unwrap();
    raw(&folder.file()).query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).unwrap();
    store.append(batch("s", vec![event("anew")])).await.unwrap();
    let killed = Killed::now(folder, store).await;
    assert_eq!(killed.log.len(), before.len());
    let first_old =
        frames(&killed.log).position(|begin| before[begin - 24..begin] == killed.log[begin - 24..begin]).unwrap();
    assert!(first_old > 0 && first_old < 10, "{first_old} frames are new");
    let store = open(&killed.with(&killed.log)).await.unwrap();
    assert_eq!(store.head().get(), 61);
    store.close().await.unwrap();
    // The power was cut while the first transaction was written.
    let mut torn = killed.log.clone();
    torn[32..32 + 1_000].fill(0);
    let store = open(&killed.with(&torn)).await.unwrap();
    assert_eq!(store.head().get(), 60);
    assert!(store.verify(Arc::new(|_, _| {})).await.unwrap().is_sound());
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_header_rotted_is_refused_and_not_taken_for_an_empty_one() {
    let folder = Folder::new();
    let store = live(&folder).await;
    let killed = Killed::now(folder, store).await;
    for at in 0..32 {
        let mut damaged = killed.log.clone();
        damaged[at] ^= 1 << (at % 8);
        killed.is_refused(&damaged, "the header of the write-ahead log").await;
    }
    // A block of the disk, lost as a whole.
    for lost in [512, PAGE, killed.log.len() - 1_000] {
        let mut damaged = killed.log.clone();
        damaged[..lost].fill(0);
        killed.is_refused(&damaged, "the header of the write-ahead log").await;
    }
    // One that was never written, although the file is as long: so a power cut leaves a log that was just begun.
    let store = open(&killed.with(&vec![0; killed.log.len()])).await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_newest_transaction_rotted_after_it_was_written_back_is_refused() {
    let folder = Folder::new();
    let store = live(&folder).await;
    let insert = "INSERT INTO note (text) VALUES (hex(zeroblob(9000)))";
    store.transact(move |tx| Box::pin(tx.execute(insert, &[]))).await.unwrap();
    // Everything goes into the file, and whoever reads keeps the log from being emptied.
    let reader = raw(&folder.file());
    reader.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema;").unwrap();
    store.wipe("s".parse().unwrap()).await.unwrap();
    drop(reader);
    let mut killed = Killed::now(folder, store).await;
    let log = killed.log.clone();
    assert!(killed.note.is_some());
    let store = open(&killed.with(&log)).await.unwrap();
    assert!(store.verify(Arc::new(|_, _| {})).await.unwrap().is_sound());
    store.close().await.unwrap();
    let begins: Vec<usize> = frames(&log).collect();
    let ends = |begin: &usize| log[begin - 24 + 4..begin - 24 + 8] != [0; 4];
    let newest = begins[..begins.len() - 1].iter().rposition(ends).unwrap() + 1;
    assert!(begins.len() - newest > 1, "the row takes several pages");
    for begin in &begins[newest..] {
        let mut damaged = log.clone();
        damaged[begin + 1_000] ^= 4;
        killed.is_refused(&damaged, &format!("frame {} of the write-ahead log", newest + 1)).await;
    }
    // That it is noted is what tells: the log alone looks like one that a power cut tore.
    killed.note = None;
    let mut damaged = log.clone();
    damaged[begins[newest] + 1_000] ^= 4;
    open(&killed.with(&damaged)).await.unwrap().close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_beside_a_newer_note_is_refused_and_told_what_to_do() {
    let folder = Folder::new();
    let store = live(&folder).await;
    let copy = folder.path("copy.db");
    shared::photograph(&folder.file(), &copy);
    // Whoever reads keeps the log from beginning anew: what is noted is about the log that the copy has.
    let reader = raw(&folder.file());
    reader.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema;").unwrap();
    store.append(batch("s", vec![event("newer")])).await.unwrap();
    store.wipe("s".parse().unwrap()).await.unwrap();
    let note = with_suffix(&copy, ".mark");
    std::fs::copy(with_suffix(&folder.file(), ".mark"), &note).unwrap();
    drop(reader);
    store.close().await.unwrap();
    let Err(cause) = open(&copy).await.map(|_| ()) else { panic!("pages of different ages would be taken for sound") };
    let told =
        format!("as {} says; if the store and its log are an older copy", note.canonicalize().unwrap().display());
    assert!(matches!(&cause, OpenError::Corrupt { what, .. } if what.contains(&told)), "{cause:?}");
    std::fs::remove_file(&note).unwrap();
    let store = open(&copy).await.unwrap();
    assert_eq!(store.head().get(), 60);
    store.close().await.unwrap();
}
