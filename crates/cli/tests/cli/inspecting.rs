//! Files that no node has open are checked without one.

use std::{fs, path::Path};

use crate::harness::{Node, run};

fn verify(folder: &Path, file: &str) -> crate::harness::Ended {
    run(folder, &["store", "verify", "--file", file, "--output", "json"])
}

/// What lies in a folder, and what is in it.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.is_file()).collect();
    files.sort();
    files.iter().map(|path| (path.display().to_string(), fs::read(path).unwrap())).collect()
}

#[test]
fn a_backup_and_the_store_of_a_node_that_is_not_running_are_checked_and_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let mut node = Node::start_in(here, &[]);
    for n in 0..20 {
        let data = format!("{{\"n\": {n}}}");
        node.run(&["stream", "append", &format!("s-{}", n % 3), "--type", "t", "--data", &data]).ok();
    }
    node.run(&["stream", "append", "sealed", "--type", "t", "--data", "{}", "--data-subject", "ada"]).ok();
    let told = node.run(&["store", "verify", "--file", "data/quorate.db"]).failed(4);
    assert!(told.contains("open in another process") && told.contains("without --file"), "{told}");
    node.run(&["store", "backup", "monday.db"]).ok();
    let backups = here.join("data/backups");
    fs::rename(backups.join("monday.db"), backups.join("mon & day?#1%41.db")).unwrap();
    let before = contents(&backups);
    let found = verify(here, "data/backups/mon & day?#1%41.db").ok().json();
    assert_eq!(
        (&found["sound"], &found["events"], &found["streams"], &found["sealed"]),
        (&true.into(), &21.into(), &4.into(), &1.into()),
        "{found}"
    );
    let table = run(here, &["store", "verify", "--file", "data/backups/mon & day?#1%41.db"]).ok();
    assert!(table.stdout.contains("sound: 21 events, 4 streams"), "{table:?}");
    assert!(table.stderr.contains("1 events are encrypted"), "{table:?}");
    assert_eq!(contents(&backups), before, "nothing was changed");

    // Killed, it leaves a log, which is read as well and stays.
    node.signal("-KILL");
    node.wait();
    let data = here.join("data");
    let log = fs::read(data.join("quorate.db-wal")).unwrap();
    assert!(!log.is_empty());
    assert_eq!(verify(here, "data/quorate.db").ok().json()["events"], 21);
    assert_eq!(fs::read(data.join("quorate.db-wal")).unwrap(), log, "nothing was written back");
    drop(node);
    let mut node = Node::start_in(here, &[]);
    assert_eq!(node.count(), 21);
    assert!(node.terminate().success());
    let before = contents(&data);
    assert_eq!(verify(here, "data/quorate.db").ok().json()["events"], 21);
    assert_eq!(contents(&data), before, "nothing was changed");
}

#[test]
fn the_log_beside_a_file_that_lost_all_of_its_bytes_stays() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let mut node = Node::start_in(here, &[]);
    node.run(&["stream", "append", "s", "--type", "t", "--data", "{}"]).ok();
    node.signal("-KILL");
    node.wait();
    fs::write(here.join("data/quorate.db"), "").unwrap();
    let before = contents(&here.join("data"));
    let told = verify(here, "data/quorate.db").failed(1);
    assert!(told.contains("quorate.db-wal"), "{told}");
    assert_eq!(contents(&here.join("data")), before, "nothing was changed");
}

#[test]
fn a_file_that_is_damaged_or_no_store_is_told_from_one_that_is_sound() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let mut node = Node::start_in(here, &[]);
    node.run(&["stream", "append", "s", "--type", "t", "--data", "{\"word\": \"unmistakable\"}"]).ok();
    node.run(&["store", "backup", "monday.db"]).ok();
    assert!(node.terminate().success());
    let path = here.join("data/backups/monday.db");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(12).position(|some| some == b"unmistakable").unwrap();
    bytes[at] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let damaged = run(here, &["store", "verify", "--file", "data/backups/monday.db"]);
    assert!(damaged.stdout.contains("damaged: ") && damaged.stdout.contains("page 3 of the file"), "{damaged:?}");
    assert!(damaged.failed(6).contains("another backup"));
    fs::write(&path, &bytes[..100]).unwrap();
    verify(here, "data/backups/monday.db").failed(6);
    verify(here, "nowhere.db").failed(3);
    fs::write(here.join("empty.db"), "").unwrap();
    let told = verify(here, "empty.db").failed(6);
    assert!(told.contains("it is empty"), "{told}");
    let told = verify(here, "data").failed(74);
    assert!(told.contains("is a directory"), "{told}");
    fs::write(here.join("letter.db"), "Dear Ada, ".repeat(1_000)).unwrap();
    verify(here, "letter.db").failed(6);
}
