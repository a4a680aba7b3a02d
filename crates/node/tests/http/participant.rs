//! A participant of transactions as any program could be one. It outlives the nodes that ask it, and stands still, or misbehaves, where a
//! test says so.
#![allow(clippy::disallowed_methods, reason = "it is somebody else's program")]

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::Duration,
};

use serde_json::{Value, json};

/// How long something may take that has to happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// What it does with what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// What the contract says.
    Good,
    /// It votes no.
    Unwilling,
    /// It stands still before it promises.
    StillAtPrepare,
    /// It stands still before it commits.
    StillAtCommit,
    /// It commits nothing for now, and says so.
    Stubborn,
    /// It stands still before it says what it holds.
    StillAtInDoubt,
    /// It answers with more than anybody wants to read.
    Huge,
    /// It answers with what is no JSON.
    Babbling,
    /// It sends whoever asks elsewhere.
    Redirecting,
}

/// What it knows.
struct Books {
    mood: Mood,
    /// Requests that stand still.
    still: usize,
    held: BTreeMap<String, Value>,
    ended: BTreeMap<String, &'static str>,
    prepares: usize,
}

struct Shared {
    books: Mutex<Books>,
    moved: Condvar,
}

/// A participant on a port of its own.
pub(crate) struct Participant {
    address: String,
    shared: Arc<Shared>,
}

impl Participant {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/txn", listener.local_addr().unwrap());
        let (held, ended) = (BTreeMap::new(), BTreeMap::new());
        let books = Mutex::new(Books { mood: Mood::Good, still: 0, held, ended, prepares: 0 });
        let shared = Arc::new(Shared { books, moved: Condvar::new() });
        let of_all = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = of_all.clone();
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { address, shared }
    }

    /// Where it is.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// As a member of a transaction's `participants`.
    pub(crate) fn asked_for(&self, work: Value) -> Value {
        json!({ "url": self.address, "work": work })
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.shared.books.lock().unwrap()
    }

    /// From now on it is so; what stands still goes on if it may.
    pub(crate) fn be(&self, mood: Mood) {
        self.books().mood = mood;
        self.shared.moved.notify_all();
    }

    /// Waits until something stands still.
    pub(crate) fn until_still(&self) {
        self.until("something stands still", |books| books.still > 0);
    }

    /// Waits until it holds so much.
    pub(crate) fn until_held(&self, count: usize) {
        self.until("it holds so much", |books| books.held.len() == count);
    }

    /// Waits until it was told how so many ended.
    pub(crate) fn until_ended(&self, count: usize) {
        self.until("so much has ended", |books| books.ended.len() == count);
    }

    fn until(&self, what: &str, is: impl Fn(&Books) -> bool) {
        let waited = self.shared.moved.wait_timeout_while(self.books(), PATIENCE, |books| !is(books)).unwrap();
        assert!(!waited.1.timed_out(), "it did not come about that {what}");
    }

    /// What it was told of each transaction, by its name.
    pub(crate) fn ended(&self) -> BTreeMap<String, &'static str> {
        self.books().ended.clone()
    }

    /// How many prepares it took in.
    pub(crate) fn prepares(&self) -> usize {
        self.books().prepares
    }
}

/// Answers the requests of one connection until it ends.
fn serve(stream: TcpStream, shared: &Shared) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut writer = stream;
    loop {
        let (mut first, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end();
            match line.to_ascii_lowercase().split_once(": ") {
                Some(("content-length", value)) => length = value.parse().ok()?,
                _ if line.is_empty() => break,
                _ if first.is_empty() => first = line.to_owned(),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let (status, answer) = answered(shared, &first, &body);
        let head =
            format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", answer.len());
        writer.write_all(head.as_bytes()).ok()?;
        writer.write_all(answer.as_bytes()).ok()?;
    }
}

fn answered(shared: &Shared, first: &str, body: &[u8]) -> (&'static str, String) {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let gid = body["gid"].as_str().unwrap_or_default().to_owned();
    let still = |at: Mood| {
        let mut books = shared.books.lock().unwrap();
        let stands = usize::from(books.mood == at);
        books.still += stands;
        shared.moved.notify_all();
        let mut books = shared.moved.wait_while(books, |books| books.mood == at).unwrap();
        books.still -= stands;
        books
    };
    let (status, answer) = if first.contains("/txn/prepare ") {
        prepare(&mut still(Mood::StillAtPrepare), &gid, &body["work"])
    } else if first.contains("/txn/commit ") {
        end(&mut still(Mood::StillAtCommit), &gid, "commit")
    } else if first.contains("/txn/abort ") {
        end(&mut shared.books.lock().unwrap(), &gid, "abort")
    } else {
        let coordinator =
            first.split("coordinator=").nth(1).and_then(|rest| rest.split('&').next()).unwrap_or_default();
        let books = still(Mood::StillAtInDoubt);
        let own = books.held.keys().filter(|gid| gid.contains(coordinator)).take(1_000);
        ("200 OK", json!({ "prepared": own.map(|gid| json!({ "gid": gid, "held": ["a shelf"] })).collect::<Vec<_>>() }))
    };
    shared.moved.notify_all();
    match shared.books.lock().unwrap().mood {
        Mood::Huge => ("200 OK", format!("{{\"vote\": \"no\", \"why\": \"{}\"}}", "x".repeat(9 << 20))),
        Mood::Babbling => ("200 OK", "<html>yes</html>".to_owned()),
        Mood::Redirecting => ("307 Temporary Redirect\r\nlocation: http://127.0.0.1:9/", String::new()),
        _ => (status, answer.to_string()),
    }
}

fn prepare(books: &mut Books, gid: &str, work: &Value) -> (&'static str, Value) {
    books.prepares += 1;
    if books.ended.contains_key(gid) || books.mood == Mood::Unwilling {
        return ("200 OK", json!({ "vote": "no", "why": "nothing is left of it" }));
    }
    books.held.insert(gid.to_owned(), work.clone());
    ("200 OK", json!({ "vote": "yes" }))
}

fn end(books: &mut Books, gid: &str, how: &'static str) -> (&'static str, Value) {
    if books.mood == Mood::Stubborn {
        return ("503 Service Unavailable", json!({ "why": "not now" }));
    }
    let was_held = books.held.remove(gid).is_some();
    match books.ended.get(gid) {
        Some(known) if *known != how => return ("409 Conflict", json!({ "why": "it was ended otherwise" })),
        None if how == "commit" && !was_held => return ("409 Conflict", json!({ "why": "it was never promised" })),
        _ => {}
    }
    books.ended.insert(gid.to_owned(), how);
    ("200 OK", json!({}))
}
