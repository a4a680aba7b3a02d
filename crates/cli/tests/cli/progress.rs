//! What whoever waits at a terminal sees, and who pipes does not.

use std::process::{Command, Stdio};

use crate::harness::{Node, command, ended};

/// A node whose pages are small, with events enough to fill a pipe.
fn node(folder: &std::path::Path) -> Node {
    let node = Node::start_in(folder, &["--http.max-page=100"]);
    let data = "x".repeat(500);
    let lines: String = (0..1_000)
        .map(|n| {
            format!(
                r#"{{"specversion":"1.0","id":"{n}","source":"/test","type":"t","subject":"s-{}","data":"{data}"}}"#,
                n % 3
            ) + "\n"
        })
        .collect();
    node.run_with(&["stream", "import", "-", "--batch", "100"], lines.as_bytes()).ok();
    node
}

#[test]
fn an_export_shows_percentages_at_a_terminal_and_nothing_of_them_reaches_the_pipe() {
    if Command::new("script").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        eprintln!("SKIPPED an_export_shows_percentages…: there is no script(1) (apt-get install bsdutils)");
        assert!(std::env::var_os("QUORATE_FORBID_SKIPPING").is_none(), "skipping is forbidden here");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let node = node(folder.path());
    for (what, lines) in [("", 1_000), (" s-1", 333)] {
        // Whoever reads is slow, so that there is something to wait for; standard error is the terminal.
        let export = format!("'{}' stream export{what} | (sleep 1; cat > out.ndjson)", env!("CARGO_BIN_EXE_quorate"));
        let seen = Command::new("script")
            .args(["-q", "-e", "-c", &export, "/dev/null"])
            .env("QUORATE_SERVER", node.url())
            .env("TERM", "xterm")
            .current_dir(node.folder())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
        assert!(seen.contains(" %  exporting"), "{seen:?}");
        let written = std::fs::read_to_string(node.folder().join("out.ndjson")).unwrap();
        assert_eq!(written.lines().count(), lines);
        assert!(written.lines().all(|line| line.starts_with('{') && line.ends_with('}')));
    }
}

#[test]
fn where_there_is_no_terminal_no_progress_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let node = node(folder.path());
    let mut export = command(node.folder(), &["stream", "export"]);
    let export = export.env("QUORATE_SERVER", node.url()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(600));
    let export = ended(export).ok();
    assert_eq!(export.stdout.lines().count(), 1_000);
    assert_eq!(export.stderr.lines().count(), 1, "{:?}", export.stderr);
    let verified = node.run(&["store", "verify", "--output", "json"]).ok();
    assert_eq!((&verified.json()["sound"], verified.stderr.as_str()), (&true.into(), ""));
}
