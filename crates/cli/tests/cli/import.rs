//! Bringing events in and out.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};

use crate::harness::{ACCOUNTS, Node, expected_ids, file, stored_ids, without_places};

fn total() -> u64 {
    ACCOUNTS.lines().count() as u64
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn plain_and_compressed_files_and_standard_input_bring_the_same_events() {
    let plain = Node::start();
    let path = file(plain.folder(), "accounts.ndjson", ACCOUNTS);
    let summary = plain.run(&["stream", "import", &path, "--output", "json"]).ok().json();
    assert_eq!((&summary["new"], &summary["known"], &summary["skipped"]), (&total().into(), &0.into(), &0.into()));
    assert_eq!(stored_ids(&plain), expected_ids(ACCOUNTS));

    let compressed = Node::start();
    // The name says nothing: the bytes do.
    let path = file(compressed.folder(), "accounts.txt", gzip(ACCOUNTS));
    let said = compressed.run(&["stream", "import", &path]).ok();
    assert!(said.stdout.starts_with(&format!("{0} events: {0} new, 0 known, 0 skipped; ", total())), "{said:?}");
    assert_eq!(stored_ids(&compressed), expected_ids(ACCOUNTS));

    let piped = Node::start();
    piped.run_with(&["stream", "import", "-", "--batch", "7", "--parallel", "3"], &gzip(ACCOUNTS)).ok();
    assert_eq!(stored_ids(&piped), expected_ids(ACCOUNTS));
}

#[test]
fn a_second_import_finds_everything_known_however_its_batches_are_cut() {
    let node = Node::start();
    node.run_with(&["stream", "import", "-"], ACCOUNTS.as_bytes()).ok();
    for cut in [&["--batch", "7", "--parallel", "1"][..], &["--order", "log"], &["--batch", "1", "--parallel", "9"]] {
        let args = [&["stream", "import", "-", "--output", "json"], cut].concat();
        let summary = node.run_with(&args, ACCOUNTS.as_bytes()).ok().json();
        assert_eq!((&summary["new"], &summary["known"]), (&0.into(), &total().into()), "{cut:?}");
    }
    assert_eq!(stored_ids(&node), expected_ids(ACCOUNTS));
}

#[test]
fn a_file_of_which_any_part_is_known_is_completed() {
    let lines: Vec<&str> = ACCOUNTS.lines().collect();
    for known in [1, 50, 133, lines.len() - 1] {
        let node = Node::start();
        let part = lines[..known].join("\n");
        node.run_with(&["stream", "import", "-", "--batch", "11", "--parallel", "2"], part.as_bytes()).ok();
        let summary = node.run_with(&["stream", "import", "-", "--output", "json"], ACCOUNTS.as_bytes()).ok().json();
        assert_eq!((&summary["known"], &summary["new"]), (&known.into(), &(lines.len() - known).into()));
        assert_eq!(stored_ids(&node), expected_ids(ACCOUNTS));
    }
}

#[test]
fn the_log_can_keep_the_order_of_the_input() {
    let node = Node::start();
    node.run_with(&["stream", "import", "-", "--order", "log"], ACCOUNTS.as_bytes()).ok();
    let exported = node.run(&["stream", "export"]).ok().stdout;
    let ids = |text: &str| -> Vec<serde_json::Value> {
        text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].clone()).collect()
    };
    assert_eq!(ids(&exported), ids(ACCOUNTS));
}

#[test]
fn what_was_exported_is_imported_as_it_was() {
    let node = Node::start();
    node.run_with(&["stream", "import", "-"], ACCOUNTS.as_bytes()).ok();
    let broken = "{\"specversion\":\"1.0\",\"id\":\"x\",\"source\":\"/s\",\"type\":\"t\",\"subject\":\"s\",\"ext\":true,\"data\":";
    let broken = format!("{broken}{{\n \"a\" : [ 1,\r\n2.50 ] }}}}");
    post(&node, "odd/stream ☂", &broken);
    node.run(&["stream", "append", "odd/stream ☂", "--type", "t", "--content-type", "image/png", "--data", "\u{1}"])
        .ok();
    node.run(&["stream", "append", "odd/stream ☂", "--type", "t"]).ok();
    let first = node.run(&["stream", "export"]).ok();
    assert!(first.stderr.contains(&format!("{} events written", total() + 3)), "{first:?}");

    let other = Node::start();
    let args = ["stream", "import", "-", "--stream-from", "stream", "--order", "log"];
    other.run_with(&args, first.stdout.as_bytes()).ok();
    let second = other.run(&["stream", "export", "--out", "second.ndjson"]).ok();
    assert_eq!(second.stdout, "");
    let second = std::fs::read_to_string(other.folder().join("second.ndjson")).unwrap();
    let events = |text: &str| text.lines().map(without_places).collect::<Vec<_>>();
    assert_eq!(events(&second), events(&first.stdout));
    // Byte for byte: to the first node, the second's events are known.
    let summary = node.run_with(&[&args[..], &["--output", "json"]].concat(), second.as_bytes()).ok().json();
    assert_eq!(summary["new"], 0);

    let one = node.run(&["stream", "export", "account-1"]).ok().stdout;
    assert_eq!(one.lines().count(), expected_ids(ACCOUNTS)["account-1"].len());
}

fn post(node: &Node, stream: &str, event: &str) {
    use std::io::Read as _;
    let path: String = stream.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let mut socket = std::net::TcpStream::connect(node.address()).unwrap();
    let head = format!(
        "POST /v1/streams/{path}/events HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/cloudevents+json\r\ncontent-length: {}\r\n\r\n{event}",
        node.address(),
        event.len()
    );
    socket.write_all(head.as_bytes()).unwrap();
    let mut reply = String::new();
    socket.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 201 "), "{reply}");
}

#[test]
fn a_truncated_stream_is_exported_without_its_stubs() {
    let node = Node::start();
    node.run_with(&["stream", "import", "-"], ACCOUNTS.as_bytes()).ok();
    node.run(&["stream", "truncate", "account-1", "--before", "3"]).ok();
    let exported = node.run(&["stream", "export"]).ok();
    assert_eq!(exported.stdout.lines().count() as u64, total() - 2);
    assert!(exported.stderr.contains("2 whose data is gone were left out"), "{exported:?}");
}

#[test]
fn the_wrong_attribute_for_streams_is_noticed() {
    let node = Node::start();
    node.run_with(
        &["stream", "import", "-", "--stream-from", "correlationid", "--on-error", "skip"],
        ACCOUNTS.as_bytes(),
    )
    .ok();
    let exported = node.run(&["stream", "export"]).ok().stdout;
    let other = Node::start();
    let said = other.run_with(&["stream", "import", "-"], exported.as_bytes()).ok();
    assert!(said.stderr.contains("`--stream-from stream`"), "{said:?}");
}

#[test]
fn an_export_has_its_name_when_it_is_complete_and_leaves_nothing_before() {
    use std::fs;
    let node = Node::start();
    node.run_with(&["stream", "import", "-"], ACCOUNTS.as_bytes()).ok();
    let all = node.run(&["stream", "export"]).ok().stdout;
    let at = |name: &str| node.folder().join(name);
    let (out, partial) = (at("all.ndjson"), at(".all.ndjson.quorate-partial"));
    let export = |stream: &[&str]| node.run(&[&["stream", "export", "--out", out.to_str().unwrap()], stream].concat());
    // Somebody's file, which an export used to write over.
    fs::write(at("all.ndjson.partial"), "mine").unwrap();
    export(&[]).ok();
    assert!(fs::read_to_string(&out).unwrap() == all && !partial.exists());
    assert_eq!(fs::read_to_string(at("all.ndjson.partial")).unwrap(), "mine");

    export(&["nowhere"]).failed(3);
    assert!(
        fs::read_to_string(&out).unwrap() == all && !partial.exists(),
        "a failure leaves what was there, and no more"
    );

    fs::write(&partial, "{\"half\":").unwrap();
    let held = fs::File::open(&partial).unwrap();
    held.lock().unwrap();
    assert!(export(&[]).failed(4).contains("another command is writing"));
    drop(held);
    let said = export(&[]).ok();
    assert!(said.stderr.contains("a command that did not end"), "{said:?}");
    assert!(fs::read_to_string(&out).unwrap() == all && !partial.exists());
    node.run(&["stream", "export", "--out", partial.to_str().unwrap()]).failed(2);
}
