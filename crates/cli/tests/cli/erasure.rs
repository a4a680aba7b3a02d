//! Data subjects at the command line: erased, listed, and erased still after the worst day.

use std::fs;

use crate::harness::{Node, file, run};

/// Two events about each of two patients, one CloudEvent per line.
const PATIENTS: &str = r#"{"specversion":"1.0","id":"1","source":"/s","type":"seen","subject":"file-1","datasubject":"patient/4","data":{"said":"word-of-hers"}}
{"specversion":"1.0","id":"2","source":"/s","type":"seen","subject":"file-1","datasubject":"patient/5","data":{"said":"word-of-his"}}
{"specversion":"1.0","id":"3","source":"/s","type":"seen","subject":"file-1","datasubject":"patient/4","data":{"said":"word-of-hers"}}
{"specversion":"1.0","id":"4","source":"/s","type":"seen","subject":"file-1","datasubject":"patient/5","data":{"said":"word-of-his"}}
"#;

fn patients() -> Node {
    let node = Node::start();
    node.run_with(&["stream", "import", "-", "--order", "log"], PATIENTS.as_bytes()).ok();
    node
}

#[test]
fn a_data_subject_is_erased_when_it_is_confirmed_and_the_ledger_says_so() {
    let node = patients();
    let erasure = |args: &[&str]| node.run(&[&["erasure"], args].concat());
    let json = |args: &[&str]| erasure(&[args, &["--output", "json"]].concat()).ok().json();
    let asked = erasure(&["erase", "patient/4"]).failed(2);
    assert!(asked.contains("--yes"), "nobody is there to confirm it: {asked}");
    assert_eq!(json(&["show", "patient/4"])["live"], true, "nothing happened");
    assert_eq!(erasure(&["show", "patient/4"]).ok().rows()[0][..2], ["patient/4", "readable"]);

    let erased = erasure(&["erase", "patient/4", "--yes"]).ok();
    assert_eq!(erased.rows()[0][..3], ["patient/4", "2", "1"]);
    assert!(erased.stderr.contains("quorate erasure export"), "{}", erased.stderr);
    assert_eq!(json(&["erase", "patient/4", "--yes"])["events"], 0, "a repeat is harmless");
    assert_eq!(erasure(&["show", "patient/4"]).ok().rows()[0][..2], ["patient/4", "erased"]);
    assert_eq!(json(&["show", "patient/6"])["erased"], false);
    assert!(erasure(&["erase", "patient/6", "--yes"]).ok().stderr.contains("nothing to erase"));
    erasure(&["erase", "a\nb", "--yes"]).failed(2);

    let read = node.run(&["stream", "read", "file-1"]).ok();
    assert_eq!(read.rows().iter().filter(|row| row.last() == Some(&"(erased)")).count(), 2, "{read:?}");
    assert!(!read.stdout.contains("word-of-hers") && read.stdout.contains("word-of-his"));
    let ledger = json(&["list"]);
    assert_eq!((ledger["erasures"].as_array().unwrap().len(), &ledger["erasures"][0]["entry"]), (1, &"1".into()));
    let listed = erasure(&["list"]).ok();
    assert_eq!(listed.rows()[0][1], json(&["show", "patient/4"])["name"]);
    assert_eq!(json(&["list", "--after", "1"])["erasures"], serde_json::json!([]));
    assert!(!erasure(&["export"]).ok().stdout.contains("patient"));
}

#[test]
fn a_backup_from_before_an_erasure_is_restored_without_what_was_erased() {
    let mut node = patients();
    let folder = node.folder().to_owned();
    node.run(&["store", "backup", "monday.db"]).ok();
    let keys = node.run(&["store", "backup-keys", "monday.keys", "--output", "json"]).ok().json();
    let keys = keys["path"].as_str().unwrap().to_owned();
    assert!(keys.ends_with("data/key-backups/monday.keys"), "{keys}");
    assert!(node.run(&["store", "backup-keys", "monday.keys"]).failed(1).contains("backup-exists"));
    node.run(&["erasure", "erase", "patient/4", "--yes"]).ok();
    let ledger = file(&folder, "ledger.json", node.run(&["erasure", "export"]).ok().stdout);
    node.terminate();

    // The disk is lost, and what is left is older than the erasure, but for the ledger.
    let backup = "data/backups/monday.db";
    let restore =
        |to: &str, ledger: &str| run(&folder, &["store", "restore", backup, "--data", to, "--ledger", ledger]);
    restore("new", "missing.json").failed(3);
    let half = file(&folder, "half.json", &fs::read_to_string(&ledger).unwrap()[..40]);
    assert!(restore("new", &half).failed(65).contains("quorate erasure export"));
    let text = fs::read_to_string(&ledger).unwrap();
    let (_, rest) = text.split_once(',').unwrap();
    let stranger = file(&folder, "stranger.json", format!("{{\"store\":1,{rest}"));
    restore("new", &stranger).failed(1);
    assert_eq!(
        fs::read_dir(folder.join("new")).unwrap().count(),
        0,
        "nothing was restored, and nothing is left behind"
    );
    let restored = restore("new", &ledger).ok();
    assert_eq!(restored.rows().len(), 1);
    fs::copy(folder.join(&keys), folder.join("new/quorate.db.keys")).unwrap();

    fs::rename(folder.join("data"), folder.join("lost")).unwrap();
    fs::rename(folder.join("new"), folder.join("data")).unwrap();
    let again = Node::start_in(&folder, &[]);
    let read = again.run(&["stream", "read", "file-1"]).ok();
    assert_eq!(read.rows().iter().filter(|row| row.last() == Some(&"(erased)")).count(), 2, "{read:?}");
    assert!(read.stdout.contains("word-of-his"), "his keys came with the copy");
    assert_eq!(again.run(&["erasure", "export"]).ok().stdout, text);
    let verified = again.run(&["store", "verify", "--output", "json"]).ok().json();
    assert_eq!(verified["sound"], true, "{verified}");
}

const SERVE: [&str; 5] = ["serve", "--listen", "127.0.0.1:0", "--data", "data"];

#[test]
fn a_node_without_its_keys_does_not_start_and_says_what_to_do() {
    let mut node = patients();
    let folder = node.folder().to_owned();
    node.run(&["store", "backup-keys", "monday.keys"]).ok();
    node.terminate();
    let keys = folder.join("data/quorate.db.keys");
    let give_up = |args: &[&str]| run(&folder, &[&["store", "give-up-keys", "--data", "data"], args].concat());
    assert!(give_up(&["--yes"]).failed(1).contains("the keys are not lost"));
    fs::rename(&keys, folder.join("lost.keys")).unwrap();
    let told = run(&folder, &SERVE).failed(3);
    for part in ["quorate.db.keys", "what to do: ", "quorate store backup-keys", "quorate store give-up-keys"] {
        assert!(told.contains(part), "{part} in {told}");
    }

    let mut other = patients();
    other.terminate();
    fs::copy(other.folder().join("data/quorate.db.keys"), &keys).unwrap();
    let told = run(&folder, &SERVE).failed(1);
    assert!(told.contains("not those of store") && told.contains("what to do: "), "{told}");

    fs::copy(folder.join("data/key-backups/monday.keys"), &keys).unwrap();
    let mut node = Node::start_in(&folder, &[]);
    assert!(node.run(&["stream", "read", "file-1"]).ok().stdout.contains("word-of-hers"), "a copy does as well");
    node.terminate();
    fs::remove_file(&keys).unwrap();
    assert!(give_up(&[]).failed(2).contains("--yes"), "nobody is there to confirm it");
    give_up(&["--yes"]).ok();
    let node = Node::start_in(&folder, &[]);
    let read = node.run(&["stream", "read", "file-1"]).ok();
    assert_eq!(read.rows().iter().filter(|row| row.last() == Some(&"(erased)")).count(), 4, "{read:?}");
    let missing = ["store", "give-up-keys", "--data", "nowhere", "--yes"];
    run(&folder, &missing).failed(3);
    assert!(!folder.join("nowhere").exists());
}

#[test]
fn a_key_that_is_missing_is_told_and_never_passes_for_erased() {
    let mut node = patients();
    let folder = node.folder().to_owned();
    node.run(&["store", "backup-keys", "monday.keys"]).ok();
    let append = ["stream", "append", "file-2", "--type", "seen", "--data-subject", "patient/6", "--data", "{}"];
    node.run(&append).ok();
    node.terminate();
    let keys = folder.join("data/quorate.db.keys");
    fs::copy(folder.join("data/key-backups/monday.keys"), &keys).unwrap();
    let _ = fs::remove_file(folder.join("data/quorate.db.keys-wal"));
    let node = Node::start_in(&folder, &[]);
    for read in [&["stream", "read", "file-2"][..], &["log", "read"]] {
        let told = node.run(read).failed(6);
        for part in ["key-missing", "file-2", "what to do: ", "quorate.db.keys"] {
            assert!(told.contains(part), "{part} in {told}");
        }
    }
    assert_eq!(node.run(&["stream", "read", "file-1"]).ok().rows().len(), 4, "others are read");
    assert_eq!(node.run(&["erasure", "show", "patient/6"]).ok().rows()[0][..2], ["patient/6", "key-missing"]);
    let told = node.run(&["store", "verify"]).failed(6);
    assert!(told.contains("key"), "{told}");
    node.run(&["erasure", "erase", "patient/6", "--yes"]).ok();
    let read = node.run(&["stream", "read", "file-2"]).ok();
    assert_eq!(read.rows()[0].last(), Some(&"(erased)"), "{read:?}");
}
