//! Imports that are killed, cut off from their node, or fed rubbish.

use std::io::Write as _;

use crate::harness::{ACCOUNTS, Node, ended, expected_ids, stored_ids};

const SMALL: [&str; 7] = ["stream", "import", "-", "--batch", "5", "--parallel", "3"];

/// The lines before and behind the middle.
fn halves() -> (String, String) {
    let lines: Vec<&str> = ACCOUNTS.lines().collect();
    let (first, second) = lines.split_at(lines.len() / 2);
    (first.join("\n") + "\n", second.join("\n") + "\n")
}

#[test]
fn an_import_killed_half_way_is_resumed_without_loss_or_doubles() {
    let node = Node::start();
    let (mut import, mut stdin) = node.feed(&SMALL);
    stdin.write_all(halves().0.as_bytes()).unwrap();
    node.wait_for(20);
    import.kill().unwrap();
    import.wait().unwrap();
    let before = node.count();
    assert!((20..ACCOUNTS.lines().count()).contains(&before), "it was killed half-way: {before}");

    let summary = node.run_with(&["stream", "import", "-", "--output", "json"], ACCOUNTS.as_bytes()).ok().json();
    assert_eq!(summary["known"], before);
    assert_eq!(stored_ids(&node), expected_ids(ACCOUNTS));
}

#[test]
fn an_import_whose_node_is_killed_says_so_and_is_resumed_on_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start_in(folder.path(), &[]);
    let (import, mut stdin) = node.feed(&[&SMALL[..], &["--patience", "100ms"]].concat());
    let (first, second) = halves();
    stdin.write_all(first.as_bytes()).unwrap();
    node.wait_for(20);
    node.kill();
    let _ = stdin.write_all(second.as_bytes()); // the import may have given up by now
    // It does not wait for the end of its input, which is still open.
    let told = ended(import).failed(4);
    assert!(told.contains("run the same import again"), "{told}");

    let node = Node::start_in(folder.path(), &[]);
    assert!(node.count() >= 20, "what was acknowledged is there");
    node.run_with(&["stream", "import", "-"], ACCOUNTS.as_bytes()).ok();
    assert_eq!(stored_ids(&node), expected_ids(ACCOUNTS));
}

#[test]
fn an_import_outlives_a_restart_of_its_node() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start_in(folder.path(), &[]);
    let address = node.address().to_owned();
    let (import, mut stdin) = node.feed(&SMALL);
    let (first, second) = halves();
    stdin.write_all(first.as_bytes()).unwrap();
    node.wait_for(20);
    node.kill();
    let node = Node::start_at(folder.path(), &address, &[]);
    stdin.write_all(second.as_bytes()).unwrap();
    drop(stdin);
    ended(import).ok();
    assert_eq!(stored_ids(&node), expected_ids(ACCOUNTS));
}

/// Our events with line 3 cut off and, in the middle, an event that only the node can refuse.
fn with_bad_lines() -> (String, usize) {
    let mut lines: Vec<String> = ACCOUNTS.lines().map(str::to_owned).collect();
    lines[2].truncate(60);
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let middle = lines.len() / 2;
    lines[middle] = lines[middle].replace("\"data\":{", &format!("\"data\":{{\"deep\":{deep},"));
    (lines.join("\n"), middle + 1)
}

#[test]
fn a_bad_line_is_named_and_stops_the_import_behind_what_came_before() {
    let (text, _) = with_bad_lines();
    let node = Node::start();
    let told = node.run_with(&["stream", "import", "-"], text.as_bytes()).failed(65);
    assert!(told.contains("error: line 3, column 60: EOF while parsing"), "{told}");
    assert!(told.contains("--on-error skip"), "{told}");
    assert_eq!(node.count(), 2, "the lines before it are in");
}

#[test]
fn bad_lines_are_named_and_passed_over_when_asked() {
    let (text, deep) = with_bad_lines();
    let node = Node::start();
    let ended =
        node.run_with(&["stream", "import", "-", "--on-error", "skip", "--output", "json"], text.as_bytes()).ok();
    assert_eq!(ended.json()["skipped"], 2);
    assert!(ended.stderr.contains("skipped line 3, column 60: "), "{ended:?}");
    assert!(ended.stderr.contains(&format!("skipped line {deep}, `data`: ")), "{ended:?}");
    assert_eq!(node.count(), ACCOUNTS.lines().count() - 2);
}

#[test]
fn a_line_that_only_the_node_refuses_is_named_in_whatever_batch_it_comes() {
    let mut lines: Vec<String> = ACCOUNTS.lines().map(str::to_owned).collect();
    lines[150] = lines[150].replace("\"tags\":\"", "\"tags\":\"bad\\ttag ");
    for batch in ["1", "13", "1000"] {
        let node = Node::start();
        let args = ["stream", "import", "-", "--batch", batch];
        let told = node.run_with(&args, lines.join("\n").as_bytes()).failed(65);
        assert!(told.contains("error: line 151, `tags`: "), "{told}");
    }
}

#[test]
fn an_id_that_stands_for_two_events_is_named() {
    let mut lines: Vec<String> = ACCOUNTS.lines().map(str::to_owned).collect();
    let changed = lines[0].replace("Ada", "Eve");
    lines.push(changed);
    let node = Node::start();
    let told = node.run_with(&["stream", "import", "-"], lines.join("\n").as_bytes()).failed(65);
    assert!(
        told.contains(&format!("line {}: event `1-1` of `/bank` is already in stream `account-1`", lines.len())),
        "{told}"
    );
}

#[test]
fn a_line_that_stands_there_twice_is_taken_once() {
    let lines: Vec<&str> = ACCOUNTS.lines().collect();
    let doubled = lines.iter().flat_map(|line| [*line, *line]).collect::<Vec<_>>().join("\n");
    let node = Node::start();
    let summary = node.run_with(&["stream", "import", "-", "--output", "json"], doubled.as_bytes()).ok().json();
    assert_eq!((&summary["new"], &summary["known"]), (&lines.len().into(), &lines.len().into()));
    assert_eq!(stored_ids(&node), expected_ids(ACCOUNTS));
}

#[test]
fn rubbish_of_any_kind_is_told_with_its_line() {
    let node = Node::start();
    for (input, told) in [
        (&b"\xff\xfe\n"[..], "line 1, column 1: this is not UTF-8"),
        (b"\n\n[]\n", "line 3, column 1: invalid type: sequence"),
        (b"\x1f\x8b\x08\x00", "the input breaks off behind line 0"),
        (b"{\"specversion\":\"1.0\"}", "line 1, `id`: the attribute is missing"),
    ] {
        let said = node.run_with(&["stream", "import", "-"], input).failed(65);
        assert!(said.contains(told), "{said}");
    }
    node.run_with(&["stream", "import", "-"], b"").ok();
    assert_eq!(node.count(), 0);
}
