//! A PgBouncer of one's own, which pools transactions: a connection's next transaction may be on another one of the server's.
#![allow(clippy::disallowed_methods, reason = "it is started and ended as an operator would")]

use std::{
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use crate::server::{UNPRIVILEGED, free_port, is_root, keep, skipped};

const PROGRAM: &str = "/usr/sbin/pgbouncer";

/// Connections that it has to the server: two nodes of half as many, less one, find one left for whatever they look up in a transaction.
pub(crate) const SERVED: usize = 8;

/// A running one.
pub(crate) struct Bouncer {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Bouncer {
    /// One in front of the server at `address`, or nothing where there is none to be had: the test says so and is skipped.
    pub(crate) fn before(address: &str) -> Option<Self> {
        if !std::path::Path::new(PROGRAM).exists() {
            skipped("PgBouncer", "pgbouncer");
            return None;
        }
        let (_, server) = address.rsplit_once(':').unwrap();
        let (behind, _) = server.split_once('/').unwrap();
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        open_to_all(folder.path());
        let users = folder.path().join("users");
        keep(&users, "\"quorate\" \"\"\n");
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={behind}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = transaction\nmax_client_conn = 300\n\
             default_pool_size = {SERVED}\n",
            users.display()
        );
        let file = folder.path().join("pgbouncer.ini");
        keep(&file, &settings);
        // It ends with the test, however that ends.
        let mut command = Command::new("setpriv");
        if is_root() {
            command.args(UNPRIVILEGED);
        }
        command.args(["--pdeathsig=KILL", PROGRAM, "--quiet"]).arg(file);
        let child =
            command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Some(Self { child, port, _folder: folder })
    }

    /// The address of `database` through it.
    pub(crate) fn address(&self, database: &str) -> String {
        format!("postgres://quorate@127.0.0.1:{}/{database}", self.port)
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// The folder of a test is its own user's, and it does not run as root.
fn open_to_all(folder: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
}
