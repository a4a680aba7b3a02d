//! What may not be mentioned outside the crates that touch the world, and what to do instead.

use super::mentions::{Mention, What};

/// A forbidden path.
pub(super) struct Rule {
    /// The path as the rule names it; exceptions use the same words.
    pub(super) path: &'static str,
    reach: Reach,
    /// What to do instead.
    pub(super) instead: &'static str,
}

/// How much a rule covers.
enum Reach {
    /// The path and everything inside it.
    Under,
    /// Exactly the path.
    Only,
    /// Every path that ends so.
    Ending,
    /// A method of this name, called without arguments.
    Method,
}

use Reach::{Ending, Method, Only, Under};

const fn rule(path: &'static str, reach: Reach, instead: &'static str) -> Rule {
    Rule { path, reach, instead }
}

const CLOCK: &str = "ask Env::mono, Env::boot or Env::wall";
const WAIT: &str = "ask Env::sleep, Env::sleep_until or Env::timeout";
const RANDOM: &str = "ask Env::random";
const TASK: &str = "ask Env::tasks";
const THREAD: &str = "ask Env::dedicate or Env::run_blocking";
const DISK: &str = "ask Env::disk";
const NET: &str = "ask Env::net";
const ORDER: &str = "its order differs between runs; take a BTreeMap or BTreeSet, or hashbrown with a seeded hasher";
const PROCESS: &str = "end the process through Env::fatal; starting one is for cli";

const RULES: &[Rule] = &[
    rule("Env::real", Ending, "take the Env that is handed in; only the binary makes the real one"),
    rule("Instant::now", Ending, CLOCK),
    rule("SystemTime::now", Ending, CLOCK),
    rule("SystemTime::elapsed", Ending, CLOCK),
    rule("Instant::elapsed", Ending, CLOCK),
    rule("jiff::Timestamp::now", Only, CLOCK),
    rule("jiff::Zoned::now", Only, CLOCK),
    rule("Utc::now", Ending, CLOCK),
    rule("Local::now", Ending, CLOCK),
    rule("tokio::time", Under, WAIT),
    rule("tokio_util::time", Under, WAIT),
    rule("tower::timeout", Under, WAIT),
    rule("tower_http::timeout", Under, WAIT),
    rule("hyper_util::rt::TokioTimer", Under, "hand hyper a timer backed by Env"),
    rule("axum::response::sse::KeepAlive", Under, "send heartbeats from Env::sleep_until"),
    rule("rand", Under, RANDOM),
    rule("getrandom", Under, RANDOM),
    rule("fastrand", Under, RANDOM),
    rule("rustix::rand", Under, RANDOM),
    rule("ring::rand::SystemRandom", Under, RANDOM),
    rule("OsRng", Ending, RANDOM),
    rule("SysRng", Ending, RANDOM),
    rule("from_os_rng", Ending, RANDOM),
    rule("from_entropy", Ending, RANDOM),
    rule("new_v4", Ending, RANDOM),
    rule("now_v1", Ending, RANDOM),
    rule("now_v6", Ending, RANDOM),
    rule("now_v7", Ending, RANDOM),
    rule("futures_util::select", Only, "its choice is random; take tokio::select! with `biased;`"),
    rule("futures::select", Only, "its choice is random; take tokio::select! with `biased;`"),
    rule("RandomState", Ending, ORDER),
    rule("std::collections::HashMap", Under, ORDER),
    rule("std::collections::HashSet", Under, ORDER),
    rule("std::collections::hash_map", Under, ORDER),
    rule("std::collections::hash_set", Under, ORDER),
    rule("foldhash::HashMap", Under, ORDER),
    rule("foldhash::HashSet", Under, ORDER),
    rule("tokio::spawn", Only, TASK),
    rule("tokio::task", Under, TASK),
    rule("tokio::runtime", Under, TASK),
    rule("tokio::main", Only, TASK),
    rule("tokio_util::task", Under, TASK),
    rule("hyper_util::rt::TokioExecutor", Under, TASK),
    rule("std::thread", Under, THREAD),
    rule("rustix::thread", Under, THREAD),
    rule("rayon", Under, THREAD),
    rule("std::fs", Under, DISK),
    rule("std::os::unix::fs", Under, DISK),
    rule("tokio::fs", Under, DISK),
    rule("rustix::fs", Under, DISK),
    rule("tempfile", Under, DISK),
    rule("is_file", Method, DISK),
    rule("is_dir", Method, DISK),
    rule("is_symlink", Method, DISK),
    rule("try_exists", Method, DISK),
    rule("read_dir", Method, DISK),
    rule("read_link", Method, DISK),
    rule("canonicalize", Method, DISK),
    rule("symlink_metadata", Method, DISK),
    rule("std::net::TcpStream", Under, NET),
    rule("std::net::TcpListener", Under, NET),
    rule("std::net::UdpSocket", Under, NET),
    rule("std::net::ToSocketAddrs", Under, NET),
    rule("std::os::unix::net", Under, NET),
    rule("tokio::net", Under, NET),
    rule("rustix::net", Under, NET),
    rule("axum::serve", Under, NET),
    rule("hyper_util::client::legacy::connect::HttpConnector", Under, NET),
    rule("rustix::time", Under, CLOCK),
    rule("std::process", Under, PROCESS),
    rule("tokio::process", Under, PROCESS),
    rule("rustix::process", Under, PROCESS),
];

impl Rule {
    /// The rule that `mention` breaks.
    pub(super) fn broken_by(mention: &Mention) -> Option<&'static Self> {
        match &mention.what {
            What::Path { meanings } => meanings.iter().find_map(|path| Self::about(path)),
            What::Method { name } => RULES.iter().find(|rule| matches!(rule.reach, Method) && rule.path == name),
        }
    }

    /// The rule that forbids `path`.
    pub(super) fn about(path: &[String]) -> Option<&'static Self> {
        RULES.iter().find(|rule| rule.covers(path))
    }

    /// Whether a word alone, without a path before it, is enough to break a rule.
    pub(super) fn is_telling_word(word: &str) -> bool {
        RULES.iter().any(|rule| matches!(rule.reach, Ending) && rule.path == word)
    }

    fn covers(&self, path: &[String]) -> bool {
        let wanted: Vec<&str> = self.path.split("::").collect();
        let same = |part: &[String]| part.iter().map(String::as_str).eq(wanted.iter().copied());
        match self.reach {
            Only => same(path),
            Under => path.get(..wanted.len()).is_some_and(same),
            // What ends so is forbidden, and so is what hangs below it: `RandomState::new`.
            Ending => path.windows(wanted.len()).any(same),
            Method => false,
        }
    }
}
