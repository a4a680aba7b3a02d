//! The real thing: 262,200 events of a loan process, where they are at hand.

use std::path::{Path, PathBuf};

use crate::harness::{ACCOUNTS, Node, file};

/// The loans, or our own sample where there are none.
fn input(folder: &Path) -> (PathBuf, u64) {
    let named = std::env::var_os("QUORATE_LOANS").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/loans.ndjson.gz");
    match named.or_else(|| beside.exists().then_some(beside)) {
        Some(path) => (path, 262_200),
        None => {
            eprintln!("NOTE: no loans at QUORATE_LOANS or ../shared/data: a sample of our own stands in for them");
            (file(folder, "accounts.ndjson", ACCOUNTS).into(), ACCOUNTS.lines().count() as u64)
        }
    }
}

#[test]
fn the_loans_import_killed_half_way_and_resumed_and_any_moment_is_right() {
    let node = Node::start();
    let (path, total) = input(node.folder());
    let path = path.to_str().unwrap();
    let (mut import, _stdin) = node.feed(&["stream", "import", path]);
    node.wait_for(50);
    import.kill().unwrap();
    import.wait().unwrap();

    let summary = node.run(&["stream", "import", path, "--output", "json"]).ok().json();
    assert_eq!(summary["events"], total, "{summary}");
    let again = node.run(&["stream", "import", path, "--output", "json"]).ok().json();
    assert_eq!((&again["new"], &again["known"]), (&0.into(), &total.into()));
    let verified = node.run(&["store", "verify", "--output", "json"]).ok().json();
    assert_eq!((&verified["sound"], &verified["events"]), (&true.into(), &total.into()));
    if total == 262_200 {
        let read = |args: &[&str]| {
            let base = ["stream", "read", "application-173688", "--all", "--output", "json"];
            node.run(&[&base, args].concat()).ok().json()["events"].as_array().unwrap().len()
        };
        assert_eq!(read(&["--at", "2011-10-01T00:39:00+02:00"]), 2);
        assert_eq!(read(&["--at", "2011-09-30T22:38:44.880Z"]), 2, "a moment is the same in every zone");
        assert!(read(&[]) > 2);
    }
}
