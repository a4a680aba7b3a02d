//! Webhooks from the command line, and a node that is killed while it sends.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use serde_json::Value;

use crate::{
    harness::{Node, file},
    server::Own,
};

/// A request that a receiver was sent.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) id: String,
    stream: String,
    version: u64,
}

/// What a receiver does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    Take,
    Refuse,
    /// Tells the test, and answers nothing until its caller is gone.
    TellAndWait,
    /// Answers, and tells the test at once.
    TakeAndTell,
}

/// Somebody's service on this machine, which outlives nodes.
pub(crate) struct Receiver {
    address: String,
    got: Arc<Mutex<Vec<Got>>>,
    pub(crate) told: mpsc::Receiver<()>,
}

impl Receiver {
    /// `does` is asked with the number of each request, from 1.
    pub(crate) fn new(does: impl Fn(usize) -> Does + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (got, does, count) = (Arc::<Mutex<Vec<Got>>>::default(), Arc::new(does), Arc::new(AtomicUsize::new(0)));
        let (tell, told) = mpsc::channel();
        let all = got.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (all, does, count, tell) = (all.clone(), does.clone(), count.clone(), tell.clone());
                std::thread::spawn(move || {
                    serve(stream, &all, |_| does(count.fetch_add(1, Ordering::SeqCst) + 1), &tell)
                });
            }
        });
        Self { address, got, told }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hooks", self.address)
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }
}

/// Answers the requests of one connection until it ends.
fn serve(stream: TcpStream, all: &Mutex<Vec<Got>>, does: impl Fn(&Got) -> Does, tell: &mpsc::Sender<()>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut writer = stream;
    loop {
        let (mut length, mut id) = (0, String::new());
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_ascii_lowercase();
            match line.split_once(": ") {
                Some(("content-length", value)) => length = value.parse().ok()?,
                Some(("webhook-id", value)) => id = value.to_owned(),
                _ if line.is_empty() => break,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let event: Value = serde_json::from_slice(&body).ok()?;
        let stream = event["stream"].as_str().unwrap_or_default().to_owned();
        let version = event["streamversion"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default();
        let got = Got { id, stream, version };
        all.lock().unwrap().push(got.clone());
        let does = does(&got);
        if does == Does::TellAndWait {
            let _ = tell.send(());
            let _ = reader.read(&mut [0]);
            return None;
        }
        let status = if does == Does::Refuse { "422 Unprocessable Content" } else { "204 No Content" };
        write!(writer, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").ok()?;
        writer.flush().ok()?;
        if does == Does::TakeAndTell {
            let _ = tell.send(());
        }
    }
}

pub(crate) const ALLOWED: &[&str] = &["--webhooks.allow", "127.0.0.1"];

fn json(node: &Node, args: &[&str]) -> Value {
    node.run(&[&["webhook"], args, &["--output", "json"]].concat()).ok().json()
}

fn append(node: &Node, stream: &str, count: usize) {
    let event =
        |n| format!(r#"{{"specversion":"1.0","id":"{n}","source":"/t","type":"order.placed","subject":"{stream}"}}"#);
    let lines: Vec<String> = (0..count).map(event).collect();
    node.run_with(&["stream", "import", "-"], lines.join("\n").as_bytes()).ok();
}

/// Asks for how the webhook stands until `holds` is true of it.
fn until(node: &Node, holds: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..600 {
        let shown = json(node, &["show", "billing"]);
        if holds(&shown) {
            return shown;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("it stays so: {}", json(node, &["show", "billing"]));
}

/// Each of the first `count` events of each of `streams` came, first arrivals in order, under an id of its own.
fn every_event_came_in_order(receiver: &Receiver, streams: &[&str], count: usize) {
    let (mut arrivals, mut ids) = (BTreeMap::<String, Vec<u64>>::new(), BTreeMap::<(String, u64), String>::new());
    for got in receiver.got() {
        let seen = arrivals.entry(got.stream.clone()).or_default();
        if !seen.contains(&got.version) {
            seen.push(got.version);
        }
        let id = ids.entry((got.stream.clone(), got.version)).or_insert_with(|| got.id.clone());
        assert_eq!(*id, got.id, "a repeat has the id of the first");
    }
    let expected: Vec<u64> = (1..=count as u64).collect();
    assert_eq!(arrivals, streams.iter().map(|stream| ((*stream).to_owned(), expected.clone())).collect());
    let distinct: BTreeSet<&String> = ids.values().collect();
    assert_eq!(distinct.len(), streams.len() * count);
}

fn is_settled(shown: &Value) -> bool {
    shown["subscription"]["checkpoint"] == shown["subscription"]["head"]
}

#[test]
fn a_webhook_is_declared_tested_watched_and_mended() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start_in(folder.path(), ALLOWED);
    // The third request is the poisonous one's first and only attempt.
    let receiver = Receiver::new(|n| if n == 3 { Does::Refuse } else { Does::Take });
    let secret = file(folder.path(), "secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n");
    let url = receiver.url();
    let declared = json(
        &node,
        &[
            "declare",
            "billing",
            &url,
            "--type",
            "order.placed",
            "--max-attempts",
            "1",
            "--places",
            "1",
            "--secret-file",
            &secret,
        ],
    );
    assert_eq!(
        (&declared["state"], &declared["config"]["max-attempts"], declared.get("secret")),
        (&"active".into(), &1.into(), None)
    );
    assert_eq!(json(&node, &["test", "billing"])["delivered"], true);
    for stream in ["order-1", "order-2", "order-2"] {
        node.run(&["stream", "append", stream, "--type", "order.placed", "--data", "{}"]).ok();
        until(&node, |shown| is_settled(shown) || shown["subscription"]["parked"] != 0);
    }
    let shown = until(&node, is_settled);
    assert_eq!(shown["subscription"]["parked"], 2);
    let attempts = node.run(&["webhook", "attempts", "billing"]).ok();
    let told: Vec<&str> = attempts.rows().iter().map(|row| row[row.len() - 1]).collect();
    assert_eq!(told, ["answered 422 Unprocessable Entity", "delivered"]);
    assert_eq!(node.run(&["webhook", "parked", "billing"]).ok().rows().len(), 2);
    assert_eq!(json(&node, &["replay", "billing", "--key", "order-2"])["events"], 2);
    until(&node, |shown| {
        shown["subscription"]["parked"] == 0
            && shown["subscription"]["waiting"] == 0
            && shown["subscription"]["in-flight"] == 0
    });
    let versions: Vec<u64> =
        receiver.got().iter().filter(|got| got.stream == "order-2").map(|got| got.version).collect();
    assert_eq!(versions, [1, 1, 2]);

    let rotated = node.run(&["webhook", "rotate", "billing", "--overlap", "1h"]).ok();
    assert!(rotated.rows()[0][0].starts_with("whsec_"), "{rotated:?}");
    let disabled = node.run(&["webhook", "disable", "billing", "--reason", "they move"]).ok();
    assert!(disabled.stderr.contains("they move"), "{disabled:?}");
    assert_eq!(node.run(&["webhook", "list"]).ok().rows(), [["billing", "disabled", "they move", &url]]);
    assert_eq!(json(&node, &["enable", "billing"])["state"], "active");
    let refused = node.run(&["webhook", "declare", "metadata", "http://169.254.169.254/"]).failed(1);
    assert!(refused.contains("link-local") && refused.contains("/errors/forbidden-target"), "{refused}");
    assert!(node.run(&["webhook", "show", "none"]).failed(3).contains("webhook-not-found"));
    let nobody = node.run(&["webhook", "declare", "nobody", "http://127.0.0.1:9/"]).ok();
    assert!(nobody.stdout.contains("whsec_"), "{nobody:?}");
    node.run(&["webhook", "test", "nobody"]).failed(1);
    assert_eq!(node.run(&["webhook", "delete", "billing"]).ok().stdout, "DELETED\nbilling\n");
}

#[test]
fn whichever_moment_a_node_is_killed_at_a_webhook_skips_nothing_and_keeps_the_order_of_its_keys() {
    const STREAMS: [&str; 3] = ["a", "b", "c"];
    const EVENTS: usize = 6;
    let folder = tempfile::tempdir().unwrap();
    // Some requests find a receiver at whose first byte, and some one at whose answer, their node dies.
    let receiver = Receiver::new(|n| match n {
        2 | 9 | 16 => Does::TellAndWait,
        5 | 12 | 19 => Does::TakeAndTell,
        _ => Does::Take,
    });
    let mut node = Node::start_in(folder.path(), ALLOWED);
    // Leases of 650 ms: what a node that was killed held comes back that long after the next one has started.
    json(
        &node,
        &[
            "declare",
            "billing",
            &receiver.url(),
            "--timeout",
            "100ms",
            "--start",
            "beginning",
            "--places",
            "4",
            "--backoff-first",
            "50ms",
            "--backoff-max",
            "200ms",
        ],
    );
    for stream in STREAMS {
        append(&node, stream, EVENTS);
    }
    // Killed while nothing is known of what it was just told, too.
    node.kill();
    node = Node::start_in(folder.path(), ALLOWED);
    for _ in 0..6 {
        receiver.told.recv_timeout(Duration::from_secs(30)).expect("the receiver is called as often as that");
        node.kill();
        node = Node::start_in(folder.path(), ALLOWED);
    }
    let shown = until(&node, is_settled);
    assert_eq!((&shown["subscription"]["parked"], &shown["subscription"]["lag-events"]), (&0.into(), &0.into()));
    every_event_came_in_order(&receiver, &STREAMS, EVENTS);
    assert!(receiver.got().len() > STREAMS.len() * EVENTS, "some came twice: the kills hit something");
}

#[test]
fn nodes_over_one_database_share_a_webhook_and_one_that_is_killed_takes_nothing_with_it() {
    let Some(own) = Own::new("") else { return };
    let address = own.address();
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let start = |n: usize| Node::start_in(folders[n].path(), &[&["--store", &address], ALLOWED].concat());
    let (first, second) = (start(0), start(1));
    let receiver = Receiver::new(|n| if n == 4 { Does::TellAndWait } else { Does::Take });
    let url = receiver.url();
    let declare = [
        "declare",
        "billing",
        &url,
        "--timeout",
        "100ms",
        "--start",
        "beginning",
        "--backoff-first",
        "50ms",
        "--backoff-max",
        "200ms",
    ];
    json(&first, &declare);
    for stream in ["a", "b", "c"] {
        append(&first, stream, 6);
    }
    receiver.told.recv_timeout(Duration::from_secs(30)).expect("the receiver is called");
    first.kill();
    let shown = until(&second, is_settled);
    assert_eq!(shown["subscription"]["parked"], 0);
    every_event_came_in_order(&receiver, &["a", "b", "c"], 6);
    let third = start(0);
    json(&third, &["disable", "billing", "--reason", "they move"]);
    assert_eq!(json(&second, &["show", "billing"])["disabled"]["reason"], "they move");
}
