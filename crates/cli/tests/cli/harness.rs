//! Words for tests: a node in a folder of its own, and commands against it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// Our own events: twelve bank accounts, 200 events.
pub(crate) const ACCOUNTS: &str = include_str!("../../testdata/accounts.ndjson");

/// A running `quorate serve`. It is killed when it is dropped.
pub(crate) struct Node {
    child: Child,
    url: String,
    folder: PathBuf,
    /// Held so that the folder outlives the node.
    kept: Option<TempDir>,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// `quorate` with `args`, in `folder`, without what the environment says about quorate.
pub(crate) fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    let ours = std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("QUORATE_"));
    for name in ours {
        command.env_remove(name);
    }
    command.current_dir(folder).args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs `quorate` with `args` in `folder` to its end.
pub(crate) fn run(folder: &Path, args: &[&str]) -> Ended {
    ended(command(folder, args).spawn().unwrap())
}

/// Waits for a command that was started.
pub(crate) fn ended(child: Child) -> Ended {
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

impl Ended {
    /// Asserts that it did what it was asked, and returns it.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// Asserts that it exited with `code`, and returns what it said about it.
    #[track_caller]
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        self.stderr
    }

    /// Standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|wrong| panic!("{wrong}: {self:?}"))
    }

    /// The rows of the table on standard output, heading left out, split at two blanks.
    pub(crate) fn rows(&self) -> Vec<Vec<&str>> {
        let cells = |line| str::split(line, "  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        self.stdout.lines().skip(1).map(cells).collect()
    }
}

impl Node {
    /// A node on a free port, with a data directory of its own.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut node = Self::start_in(folder.path(), &[]);
        node.kept = Some(folder);
        node
    }

    /// A node on a free port with its data in `folder`, and further arguments.
    pub(crate) fn start_in(folder: &Path, args: &[&str]) -> Self {
        Self::start_at(folder, "127.0.0.1:0", args)
    }

    /// The same, on a given address.
    pub(crate) fn start_at(folder: &Path, listen: &str, args: &[&str]) -> Self {
        let all = [&["serve", "--listen", listen, "--data", "data"], args].concat();
        let mut child = command(folder, &all).stderr(Stdio::inherit()).spawn().unwrap();
        let mut url = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut url).unwrap();
        assert!(url.starts_with("http://127.0.0.1:"), "the node told its address: {url:?}");
        Self { child, url: url.trim().to_owned(), folder: folder.to_owned(), kept: None }
    }

    /// Where it is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Its address without the scheme.
    pub(crate) fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// The folder its data directory lies in; commands run there, too.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs `quorate` with `args` against it.
    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        ended(self.command(args).spawn().unwrap())
    }

    /// The same with `input` on standard input.
    pub(crate) fn run_with(&self, args: &[&str], input: &[u8]) -> Ended {
        let (child, mut stdin) = self.feed(args);
        let input = input.to_vec();
        // A command may end before it has read everything.
        let feeding = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let ended = ended(child);
        feeding.join().unwrap();
        ended
    }

    /// Starts `quorate` with `args` and gives its standard input to the caller.
    pub(crate) fn feed(&self, args: &[&str]) -> (Child, ChildStdin) {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        (child, stdin)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = command(&self.folder, args);
        command.env("QUORATE_SERVER", &self.url);
        command
    }

    /// What one of its metrics says.
    pub(crate) fn metric(&self, name: &str) -> i64 {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        let request = format!("GET /metrics HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address());
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
    }

    /// How many events its log holds.
    pub(crate) fn count(&self) -> usize {
        let log = self.run(&["log", "read", "--all", "--output", "json"]).ok().json();
        log["events"].as_array().unwrap().len()
    }

    /// Waits until its log holds at least `count` events.
    pub(crate) fn wait_for(&self, count: usize) {
        let count = count.to_string();
        self.run(&["log", "tail", "--limit", &count]).ok();
    }

    /// Ends it as a power cut would: SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop, with SIGTERM, and waits for that.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal("-TERM");
        self.wait()
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address of this machine where nobody listens.
pub(crate) fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Writes `text` to a file in `folder` and returns its path.
pub(crate) fn file(folder: &Path, name: &str, text: impl AsRef<[u8]>) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The members that a store sets anew: everything else of an event survives an export and an import.
pub(crate) fn without_places(line: &str) -> Value {
    let mut event: Value = serde_json::from_str(line).unwrap();
    let members = event.as_object_mut().unwrap();
    for member in ["logposition", "recordedtime"] {
        assert!(members.remove(member).is_some(), "{member} of {line}");
    }
    event
}

/// Our own events as the streams they make: for each stream its events' ids, in order.
pub(crate) fn expected_ids(lines: &str) -> std::collections::BTreeMap<String, Vec<String>> {
    let mut streams = std::collections::BTreeMap::<String, Vec<String>>::new();
    for line in lines.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let text = |member: &str| event[member].as_str().unwrap().to_owned();
        streams.entry(text("subject")).or_default().push(text("id"));
    }
    streams
}

/// The same, as the node has them.
pub(crate) fn stored_ids(node: &Node) -> std::collections::BTreeMap<String, Vec<String>> {
    let exported = node.run(&["stream", "export"]).ok().stdout;
    let mut streams = std::collections::BTreeMap::<String, Vec<String>>::new();
    for line in exported.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let text = |member: &str| event[member].as_str().unwrap().to_owned();
        let ids = streams.entry(text("stream")).or_default();
        ids.push(text("id"));
        assert_eq!(text("streamversion"), ids.len().to_string(), "versions are dense");
    }
    streams
}
