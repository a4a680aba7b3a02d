//! The exit codes that `--help` promises.

use crate::harness::{Node, command, ended, nobody, run};

#[test]
fn each_way_to_fail_has_its_exit_code() {
    let node = Node::start();
    node.run(&["stream", "append", "a", "--type", "t"]).ok();
    node.run(&["stream", "append", "a", "--type", "t", "--expect", "none"]).failed(1);
    node.run(&["stream", "append", "a", "--type", "t", "--expect", "0"]).failed(2);
    node.run(&["stream", "frobnicate"]).failed(2);
    node.run(&["stream", "read", "nowhere"]).failed(3);
    node.run(&["stream", "show", "nowhere"]).failed(3);
    node.run(&["patterns", "nowhere"]).failed(3);
    node.run(&["stream", "read", "a", "--at", "yesterday"]).failed(2);
    node.run(&["stream", "append", "..", "--type", "t"]).failed(2);
    node.run(&["stream", "read", "a", "--token", "nonsense"]).failed(2);
    node.run(&["stream", "import", "missing.ndjson"]).failed(74);
    node.run(&["stream", "tombstone", "a"]).ok();
    node.run(&["stream", "append", "a", "--type", "t"]).failed(1);
    let help = node.run(&["--help"]).ok().stdout;
    for code in [
        "  1   refused",
        "  2   usage",
        "  3   not found",
        "  4   unavailable",
        "  5   outcome unknown",
        "  65  bad input",
    ] {
        assert!(help.contains(code), "{code} in {help}");
    }
}

#[test]
fn a_node_that_is_not_there_is_told_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let server = nobody();
    let told = run(folder.path(), &["stream", "list", "--server", &server]).failed(4);
    assert!(told.starts_with(&format!("error: no node can be reached at http://{server}: ")), "{told}");
    assert!(told.contains("quorate serve") && told.contains("QUORATE_SERVER"), "{told}");
    let told = run(folder.path(), &["stream", "list", "--server", "https://127.0.0.1"]).failed(2);
    assert!(told.contains("TLS is not spoken"), "{told}");
}

#[test]
fn a_node_that_never_answers_leaves_the_outcome_of_a_write_unknown() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = silent.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let told =
        run(folder.path(), &["--server", &server, "--deadline", "200ms", "stream", "append", "a", "--type", "t"])
            .failed(5);
    assert!(told.contains("gave no reply within 200ms"), "{told}");
    assert!(told.contains("repeat the command with --id "), "{told}");
    run(folder.path(), &["--server", &server, "--deadline", "200ms", "stream", "read", "a"]).failed(4);
}

#[test]
fn what_is_no_node_is_told_apart() {
    use std::io::{Read as _, Write as _};
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = other.local_addr().unwrap().to_string();
    let answering = std::thread::spawn(move || {
        let (mut socket, _) = other.accept().unwrap();
        let _ = socket.read(&mut [0; 4096]).unwrap();
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>").unwrap();
    });
    let folder = tempfile::tempdir().unwrap();
    let told = run(folder.path(), &["--server", &server, "stream", "show", "a"]).failed(70);
    assert!(told.contains("something a quorate node does not send"), "{told}");
    answering.join().unwrap();
}

#[test]
fn a_reader_that_goes_away_ends_a_command_quietly() {
    let node = Node::start();
    node.run_with(&["stream", "import", "-"], crate::harness::ACCOUNTS.as_bytes()).ok();
    let mut tail =
        command(node.folder(), &["log", "tail", "--server", node.url(), "--output", "json"]).spawn().unwrap();
    drop(tail.stdout.take());
    let ended = ended(tail);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
}
