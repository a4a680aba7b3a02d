//! A PostgreSQL of one's own: in a temporary folder, on a free port, shared by all tests of one run.
//!
//! Making a server takes seconds, so whoever comes first makes it and the others find it: under nextest every test is a process
//! of its own, and all have the runner as their parent. A watchman stops it when that parent has ended, however it did.
#![allow(clippy::disallowed_methods, reason = "it is started and ended as an operator would")]

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

/// The address of the server's database, or nothing where there is no server to be had: the test says so and is skipped.
pub(crate) fn address() -> Option<String> {
    static ADDRESS: OnceLock<Option<String>> = OnceLock::new();
    let address = ADDRESS.get_or_init(|| binaries().map(|binaries| shared(&binaries)));
    if address.is_none() {
        skipped("PostgreSQL", "postgresql");
    }
    address.clone()
}

/// Says that a test is skipped, since a program of Debian's is not installed.
pub(crate) fn skipped(program: &str, package: &str) {
    eprintln!("SKIPPED a test of the PostgreSQL store: no {program} is installed (apt-get install {package})");
    assert!(std::env::var_os("QUORATE_FORBID_SKIPPING").is_none(), "skipping is forbidden here");
}

/// Where Debian has the newest version's programs, which are not on the path.
fn binaries() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|version| version.path().join("bin"));
    let mut versions: Vec<_> = versions.filter(|bin| bin.join("initdb").exists()).collect();
    versions.sort_by_key(|bin| bin.parent().and_then(|path| path.file_name()?.to_str()?.parse::<u32>().ok()));
    versions.pop()
}

/// In memory where there is some: what is tried here is not the disk.
fn base() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

/// The server of this run. A lock lets one make it while the others wait.
fn shared(binaries: &Path) -> String {
    let run = std::os::unix::process::parent_id();
    let base = base();
    let folder = base.join(format!("quorate-postgres-{run}"));
    let lock = std::fs::File::create(base.join(format!("quorate-postgres-{run}.lock"))).unwrap();
    lock.lock().unwrap();
    let ready = folder.join("address");
    if let Ok(address) = std::fs::read_to_string(&ready) {
        return address;
    }
    let _left = std::fs::remove_dir_all(&folder);
    let address = make(binaries, &folder);
    watch(binaries, &folder, run);
    std::fs::write(&ready, &address).unwrap();
    address
}

fn make(binaries: &Path, folder: &Path) -> String {
    init(binaries, folder);
    let port = free_port();
    start(binaries, folder, port, "-c max_connections=300");
    address_at(port)
}

fn address_at(port: u16) -> String {
    format!("postgres://quorate@127.0.0.1:{port}/postgres")
}

/// Free a moment ago; whoever takes it in between makes starting fail loudly, not wrongly.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn init(binaries: &Path, folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    if is_root() {
        assert!(run(Command::new("chown").arg("postgres").arg(folder)).status.success(), "the package has its user");
    }
    let made = run(unprivileged(&binaries.join("initdb"))
        .args(["--no-sync", "--encoding=UTF8", "--locale=C", "--auth=trust", "--username=quorate", "--pgdata"])
        .arg(folder.join("data")));
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

fn start(binaries: &Path, folder: &Path, port: u16, options: &str) {
    let options = format!(
        "-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories='' -c shared_buffers=64MB \
         -c max_prepared_transactions=20 -c max_wal_size=256MB {options}"
    );
    let started = run(unprivileged(&binaries.join("pg_ctl"))
        .args(["start", "--wait", "--timeout=60", "--silent", "--pgdata"])
        .arg(folder.join("data"))
        .arg("--log")
        .arg(folder.join("log"))
        .args(["--options", &options]));
    let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
    assert!(started.status.success(), "{}{log}", String::from_utf8_lossy(&started.stderr));
}

/// A server of one test's own, to be ended and started again.
pub(crate) struct Own {
    binaries: PathBuf,
    folder: PathBuf,
    port: u16,
    options: String,
}

impl Own {
    /// A running one with further options (`-c max_connections=20`), or nothing where there is none to be had.
    pub(crate) fn new(options: &str) -> Option<Self> {
        Self::with_files(options, &[])
    }

    /// One with files of its own, by their names in its folder, which is `FOLDER` in the options: nobody else reads them.
    pub(crate) fn with_files(options: &str, files: &[(&str, &str)]) -> Option<Self> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let Some(binaries) = binaries() else {
            skipped("PostgreSQL", "postgresql");
            return None;
        };
        let of = std::process::id();
        let folder = base().join(format!("quorate-postgres-own-{of}-{}", MADE.fetch_add(1, Ordering::Relaxed)));
        let _left = std::fs::remove_dir_all(&folder);
        init(&binaries, &folder);
        for (name, text) in files {
            keep(&folder.join(name), text);
        }
        let options = options.replace("FOLDER", folder.to_str().unwrap());
        let own = Self { binaries, folder, port: free_port(), options };
        own.start();
        watch(&own.binaries, &own.folder, of);
        Some(own)
    }

    pub(crate) fn address(&self) -> String {
        address_at(self.port)
    }

    /// The address of its Unix socket, if it was started with `-c unix_socket_directories=FOLDER`.
    pub(crate) fn socket(&self) -> String {
        format!("postgres://quorate@/postgres?host={}&port={}", self.folder.display(), self.port)
    }

    pub(crate) fn start(&self) {
        start(&self.binaries, &self.folder, self.port, &self.options);
    }

    /// Ends it as a kill would: nothing is finished, and everybody's connection breaks off.
    pub(crate) fn kill(&self) {
        self.control(&["stop", "--wait", "--mode=immediate"]);
    }

    /// Has it come up as a standby the next time: it can be read, and takes no writes.
    pub(crate) fn demote(&self) {
        std::fs::write(self.folder.join("data/standby.signal"), "").unwrap();
        if is_root() {
            let path = self.folder.join("data/standby.signal");
            assert!(run(Command::new("chown").arg("postgres").arg(path)).status.success());
        }
    }

    /// Makes the primary of a standby.
    pub(crate) fn promote(&self) {
        self.control(&["promote", "--wait"]);
    }

    /// Makes user `shop`, who owns database `shop` and may make roles, and is no superuser: as a provider gives one. The address.
    pub(crate) fn tenant(&self) -> String {
        self.say(&self.address(), &["CREATE ROLE shop LOGIN CREATEROLE", "CREATE DATABASE shop OWNER shop"]);
        format!("postgres://shop@127.0.0.1:{}/shop", self.port)
    }

    /// Writes what the database at `address` holds to a file, as an operator would.
    pub(crate) fn dump(&self, address: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new(self.binaries.join("pg_dump"));
        let done = run(command.args(["--format=custom", "--file"]).arg(file.path()).arg(address));
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        file
    }

    /// Reads a dump into the database at `address`, which is empty and `user`'s; `role` is one that the dump names and does not
    /// have. As the guide says it (docs/guide/postgresql.md, "Backups").
    pub(crate) fn restore(&self, dump: &Path, address: &str, user: &str, role: &str) {
        self.say(address, &[&format!("CREATE ROLE {role} NOLOGIN"), &format!("GRANT {role} TO {user}")]);
        let mut command = Command::new(self.binaries.join("pg_restore"));
        let done = run(command.args(["--exit-on-error", "--dbname", address]).arg(dump));
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// Has the database at `address` do something, as an operator would.
    pub(crate) fn say(&self, address: &str, statements: &[&str]) {
        let mut psql = Command::new(self.binaries.join("psql"));
        psql.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]);
        let commands = statements.iter().flat_map(|statement| ["--command", statement]);
        let said = run(psql.args(commands).arg(address));
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    }

    fn control(&self, verb: &[&str]) {
        let mut command = unprivileged(&self.binaries.join("pg_ctl"));
        let done = run(command.args(verb).args(["--silent", "--pgdata"]).arg(self.folder.join("data")));
        assert!(done.status.success(), "{verb:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let mut command = unprivileged(&self.binaries.join("pg_ctl"));
        let stop = ["stop", "--mode=immediate", "--silent", "--pgdata"];
        run(command.args(stop).arg(self.folder.join("data")));
        let _left = std::fs::remove_dir_all(&self.folder);
    }
}

/// Writes a file that only the server's user reads.
pub(crate) fn keep(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    assert!(run(Command::new("chmod").arg("600").arg(path)).status.success());
    if is_root() {
        assert!(run(Command::new("chown").arg("postgres").arg(path)).status.success());
    }
}

/// Stops the server when process `of` is gone, from a session of its own, so that nothing that ends the tests ends it.
#[expect(clippy::zombie_processes, reason = "it outlives whoever starts it")]
fn watch(binaries: &Path, folder: &Path, of: u32) {
    let script = r#"while kill -0 "$1" 2>/dev/null; do sleep 1; done
        "$2" stop --mode=immediate --silent --pgdata "$3/data"; rm -rf "$3" "$3.lock""#;
    // As whoever owns the folder: root may end others' processes, but pg_ctl refuses root.
    let mut watchman = Command::new("setsid");
    watchman.arg("sh").args(["-c", script, "watchman"]).arg(of.to_string());
    let pg_ctl = binaries.join("pg_ctl");
    if is_root() {
        let wrapper = folder.join("pg_ctl");
        let text = format!(
            "#!/bin/sh\nexec setpriv --reuid=postgres --regid=postgres --clear-groups {} \"$@\"\n",
            pg_ctl.display()
        );
        std::fs::write(&wrapper, text).unwrap();
        run(Command::new("chmod").arg("755").arg(&wrapper));
        watchman.arg(wrapper);
    } else {
        watchman.arg(pg_ctl);
    }
    watchman.arg(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
}

/// How `setpriv` makes whoever is root the user of the package.
pub(crate) const UNPRIVILEGED: [&str; 3] = ["--reuid=postgres", "--regid=postgres", "--clear-groups"];

/// A command that does not run as root, which servers refuse to.
fn unprivileged(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(UNPRIVILEGED).arg(program).current_dir("/");
    command
}

/// `pg_ctl` leaves its output open for the server; nobody waits for that to end.
fn run(command: &mut Command) -> Output {
    let errors = tempfile::NamedTempFile::new().unwrap();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors.reopen().unwrap()).status();
    let status = status.unwrap_or_else(|cause| panic!("{command:?}: {cause}"));
    Output { status, stdout: vec![], stderr: std::fs::read(errors.path()).unwrap() }
}

pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|of| of.uid() == 0)
}
