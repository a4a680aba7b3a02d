//! What the README tells a newcomer to type.

use crate::harness::Node;

#[test]
fn an_account_is_opened_money_is_posted_time_is_travelled_and_a_conflict_is_refused() {
    let node = Node::start();
    let opened = node.run(&[
        "stream",
        "append",
        "account-1",
        "--type",
        "account.opened",
        "--data",
        r#"{"owner":"Ada"}"#,
        "--time",
        "2026-01-01T09:00:00Z",
        "--expect",
        "none",
        "--output",
        "json",
    ]);
    assert_eq!(opened.ok().json()["streamversion"], "1");
    let posted = node.run(&[
        "stream",
        "append",
        "account-1",
        "--type",
        "money.deposited",
        "--data",
        r#"{"amount":100}"#,
        "--time",
        "2026-01-02T09:00:00Z",
        "--expect",
        "1",
        "--tag",
        "branch:north",
    ]);
    let posted = posted.ok();
    assert_eq!(posted.rows()[0][..2], ["account-1", "2"], "{posted:?}");
    node.run(&[
        "stream",
        "append",
        "account-1",
        "--type",
        "money.withdrawn",
        "--data",
        r#"{"amount":30}"#,
        "--time",
        "2026-01-03T09:00:00Z",
        "--expect",
        "2",
    ])
    .ok();

    let now = node.run(&["stream", "read", "account-1"]).ok();
    assert_eq!(
        now.rows().iter().map(|row| row[4]).collect::<Vec<_>>(),
        ["account.opened", "money.deposited", "money.withdrawn"]
    );
    let then = node.run(&["stream", "read", "account-1", "--at", "2026-01-02T12:00:00Z"]).ok();
    assert_eq!(then.rows().len(), 2, "{then:?}");

    let late =
        node.run(&["stream", "append", "account-1", "--type", "money.withdrawn", "--data", "{}", "--expect", "2"]);
    let told = late.failed(1);
    assert!(told.starts_with("error: Stream is at another version\n"), "{told}");
    assert!(told.contains(&format!("type: {}/errors/version-conflict", node.url())), "{told}");
    assert!(told.contains("at version 3"), "{told}");
    assert!(told.lines().any(|line| line.starts_with("  what to do: ") && line.len() > 30), "{told}");
}

#[test]
fn a_repeated_append_changes_nothing_whether_by_id_or_by_key() {
    let node = Node::start();
    let by_id = ["stream", "append", "a", "--type", "t", "--id", "e-1", "--data", "1"];
    let by_key = ["stream", "append", "b", "--type", "t", "--key", "k-1", "--data", "@data.json", "--expect", "none"];
    crate::harness::file(node.folder(), "data.json", "{\n  \"from\": \"a file\"\n}");
    for repeated in [&by_id[..], &by_key[..]] {
        let first = node.run(repeated).ok().stdout;
        assert_eq!(node.run(repeated).ok().stdout, first);
    }
    assert_eq!(node.count(), 2);
    let other = node.run(&["stream", "append", "a", "--type", "t", "--id", "e-1", "--data", "2"]).failed(1);
    assert!(other.contains("/errors/id-reused"), "{other}");
    let other = node.run(&["stream", "append", "b", "--type", "other", "--key", "k-1"]).failed(1);
    assert!(other.contains("/errors/key-reused"), "{other}");
}

#[test]
fn data_comes_from_an_argument_a_file_or_standard_input_and_need_not_be_json() {
    let node = Node::start();
    node.run_with(&["stream", "append", "a", "--type", "t", "--data", "-"], b"{\"from\":\"stdin\"}").ok();
    node.run(&["stream", "append", "a", "--type", "t", "--content-type", "image/png", "--data", "\u{1}bytes"]).ok();
    let read = node.run(&["stream", "read", "a", "--output", "json"]).ok().json();
    assert_eq!(read["events"][0]["data"]["from"], "stdin");
    assert_eq!(read["events"][1]["data_base64"], "AWJ5dGVz");
    let told = node.run(&["stream", "append", "a", "--type", "t", "--data", "{oops}"]).failed(65);
    assert!(told.contains("the data is not JSON"), "{told}");
    node.run(&["stream", "append", "a", "--type", "t", "--data", "@missing.json"]).failed(74);
}
