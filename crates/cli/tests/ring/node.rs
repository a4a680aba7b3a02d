//! The real binary as a process that can be killed, stopped, and started again where it was.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// How long a start may take, on a machine that has much else to do.
const START_BOUND: Duration = Duration::from_secs(30);
/// How long it may take to end after it was told to.
const DRAIN_BOUND: Duration = Duration::from_secs(20);

/// A node in a folder of its own. Its process is killed when it is dropped.
pub(crate) struct Node {
    folder: PathBuf,
    at: SocketAddr,
    /// What it is told beside where it listens.
    settings: Vec<String>,
    running: Option<Child>,
}

impl Node {
    /// Starts a node on a free port, with its data in `folder`, and further settings.
    pub(crate) async fn start(folder: &Path, settings: &[String]) -> Self {
        let at = ([127, 0, 0, 1], 0).into();
        let mut node = Self { folder: folder.to_owned(), at, settings: settings.to_vec(), running: None };
        node.start_again().await.unwrap();
        node
    }

    /// Where it listens, every time it is started.
    pub(crate) fn at(&self) -> SocketAddr {
        self.at
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Where its data lies.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Starts it where it was, and waits until it listens.
    pub(crate) async fn start_again(&mut self) -> Result<(), String> {
        let mut command = self.command(&["serve", "--listen", &self.at.to_string(), "--data", "data"]);
        let mut child = command.args(&self.settings).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let told = timeout(START_BOUND, lines.next_line()).await;
        let told = told.map_err(|_| format!("it was not there after {} s", START_BOUND.as_secs()))?;
        let Some(url) = told.map_err(|cause| cause.to_string())? else {
            let status = child.wait().await.map_err(|cause| cause.to_string())?;
            return Err(format!("{status}, and it said: {}", self.said()));
        };
        self.at = url.trim().trim_start_matches("http://").parse().map_err(|_| format!("its address is {url}"))?;
        self.running = Some(child);
        Ok(())
    }

    /// `quorate` with `args`, beside the node, without what the environment says about quorate.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("QUORATE_")) {
            command.env_remove(name);
        }
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        command
            .args(args)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true);
        command
    }

    fn log(&self) -> PathBuf {
        self.folder.join("node.log")
    }

    /// The last of what it said on standard error.
    pub(crate) fn said(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let from = log.lines().count().saturating_sub(5);
        log.lines().skip(from).collect::<Vec<_>>().join("\n")
    }

    /// Waits until it ends by itself; for ever where it does not run.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let Some(child) = &mut self.running else { return std::future::pending().await };
        let status = child.wait().await.unwrap();
        self.running = None;
        status
    }

    /// Ends it with SIGKILL, and waits until it is gone.
    pub(crate) async fn kill(&mut self) {
        if let Some(mut child) = self.running.take() {
            child.kill().await.unwrap();
        }
    }

    /// Sends it a signal, if it runs.
    pub(crate) async fn signal(&self, signal: &str) {
        let Some(pid) = self.running.as_ref().and_then(Child::id) else { return };
        // It may have ended by itself a moment ago; whoever waits for that says so.
        let _ = Command::new("kill").args([signal, &pid.to_string()]).stderr(Stdio::null()).status().await.unwrap();
    }

    /// Asks it to stop, and says what is wrong with how it did.
    pub(crate) async fn drain(&mut self) -> Result<(), String> {
        self.signal("-TERM").await;
        match timeout(DRAIN_BOUND, self.ended()).await {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{status}, and it said: {}", self.said())),
            Err(_) => Err(format!("it did not end within {} s", DRAIN_BOUND.as_secs())),
        }
    }

    /// Whether it refuses an event of `bytes`, and says that its disk is full.
    pub(crate) async fn is_too_full_for(&self, bytes: usize) -> bool {
        let mut command = self.command(&["stream", "append", "probe", "--type", "probe", "--data", "-"]);
        command.env("QUORATE_SERVER", format!("http://{}", self.at));
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(format!("\"{}\"", "x".repeat(bytes)).as_bytes()).await.unwrap();
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("disk is full")
    }

    /// Has it check its own store, and says what is wrong with it.
    pub(crate) async fn verify(&self) -> Result<(), String> {
        let mut command = self.command(&["store", "verify"]);
        command.env("QUORATE_SERVER", format!("http://{}", self.at));
        let output = command.output().await.unwrap();
        if output.status.success() {
            return Ok(());
        }
        Err(format!("{}: {}{}", output.status, String::from_utf8_lossy(&output.stdout), self.said()))
    }
}
