//! A broker of a test's own: in a temporary folder, on free ports, ended with the test however that ends.

use std::{
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

/// How a broker is started in its folder.
pub(crate) trait Kind: Send + Sync {
    /// The command, and the port that it listens on when it is ready.
    fn command(&self, folder: &Path) -> Command;
    fn port(&self) -> u16;
}

pub(crate) struct Server {
    kind: Box<dyn Kind>,
    folder: tempfile::TempDir,
    running: Mutex<Option<Child>>,
}

/// Says that a test is skipped for want of a program, which is forbidden where everything is installed.
pub(crate) fn skipped(package: &str) {
    eprintln!("SKIPPED a test of transports: no broker is installed (apt-get install {package})");
    assert!(std::env::var_os("QUORATE_FORBID_SKIPPING").is_none(), "skipping is forbidden here");
}

/// The first of these that is there.
pub(crate) fn program(paths: &[&str]) -> Option<PathBuf> {
    paths.iter().map(PathBuf::from).find(|path| path.exists())
}

/// Free a moment ago; whoever takes it in between makes starting fail loudly, not wrongly.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    pub(crate) fn new(make: impl FnOnce(&Path) -> Box<dyn Kind>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Self { kind: make(folder.path()), folder, running: Mutex::default() };
        server.start();
        server
    }

    pub(crate) fn port(&self) -> u16 {
        self.kind.port()
    }

    /// Where it keeps what it has.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it and waits until it listens.
    pub(crate) fn start(&self) {
        let log = std::fs::File::options().create(true).append(true).open(self.folder.path().join("output")).unwrap();
        let mut command = self.kind.command(self.folder.path());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        // A group of its own, so that what it starts ends with it.
        let mut child = command.process_group(0).spawn().unwrap();
        watch(child.id());
        let until = Instant::now() + Duration::from_secs(300);
        while TcpStream::connect(("127.0.0.1", self.port())).is_err() {
            let ended = child.try_wait().unwrap();
            if ended.is_some() || Instant::now() > until {
                kill_group(child.id());
                let said = std::fs::read_to_string(self.folder.path().join("output")).unwrap_or_default();
                panic!("the broker does not come up ({ended:?}): {said}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        *self.running.lock().unwrap() = Some(child);
    }

    /// Ends it at once: nothing is finished or said goodbye to.
    pub(crate) fn kill(&self) {
        if let Some(mut child) = self.running.lock().unwrap().take() {
            kill_group(child.id());
            child.wait().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn kill_group(id: u32) {
    let _gone = Command::new("kill").args(["-9", "--", &format!("-{id}")]).stderr(Stdio::null()).status();
}

/// Ends the broker's group when this process is gone, from a session of its own, so that nothing that ends the tests ends it.
#[expect(clippy::zombie_processes, reason = "it outlives whoever starts it")]
pub(crate) fn watch(group: u32) {
    let script = r#"while kill -0 "$1" 2>/dev/null && kill -0 "$2" 2>/dev/null; do sleep 1; done
        kill -0 "$1" 2>/dev/null || kill -9 "-$2" 2>/dev/null"#;
    let mut watchman = Command::new("setsid");
    watchman.arg("sh").args(["-c", script, "watchman"]).args([std::process::id(), group].map(|id| id.to_string()));
    watchman.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
}
