//! Sagas of two nodes over one PostgreSQL, of which one is killed or stands still in the middle of them. What they do is counted by somebody's
//! service on this machine, which outlives both.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, mpsc},
    time::Duration,
};

use serde_json::Value;

use crate::{
    harness::{Node, file, run},
    server::Own,
};

const SAGAS: usize = 6;
/// How long something may take that has to happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// What it was asked: the bodies that came under each key, one for each request.
type Asked = BTreeMap<String, Vec<String>>;

/// A participant that keeps whoever calls `/charge` waiting until it is told to go on.
struct Participant {
    address: String,
    asked: Arc<Mutex<Asked>>,
    charged: mpsc::Receiver<String>,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl Participant {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (asked, gate) = (Arc::<Mutex<Asked>>::default(), Arc::<(Mutex<bool>, Condvar)>::default());
        let (tell, charged) = mpsc::channel();
        let (all, open) = (asked.clone(), gate.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (all, open, tell) = (all.clone(), open.clone(), tell.clone());
                std::thread::spawn(move || serve(stream, &all, &open, &tell));
            }
        });
        Self { address, asked, charged, gate }
    }

    /// Waits until so many were asked to be charged, and are kept waiting.
    fn until_charged(&self, count: usize) {
        for n in 0..count {
            self.charged.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("only {n} were called"));
        }
    }

    fn go_on(&self) {
        *self.gate.0.lock().unwrap() = true;
        self.gate.1.notify_all();
    }

    fn asked(&self) -> Asked {
        self.asked.lock().unwrap().clone()
    }
}

/// Answers the requests of one connection until it ends.
fn serve(
    stream: TcpStream,
    all: &Mutex<Asked>,
    (is_open, opened): &(Mutex<bool>, Condvar),
    tell: &mpsc::Sender<String>,
) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut writer = stream;
    loop {
        let (mut first, mut length, mut key) = (String::new(), 0, String::new());
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end();
            match line.to_ascii_lowercase().split_once(": ") {
                Some(("content-length", value)) => length = value.parse().ok()?,
                Some(("idempotency-key", value)) => key = value.trim_matches('"').to_owned(),
                _ if line.is_empty() => break,
                _ if first.is_empty() => first = line.to_owned(),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        all.lock().unwrap().entry(key.clone()).or_default().push(String::from_utf8(body).ok()?);
        if first.contains("/charge") {
            let mut is_open = is_open.lock().unwrap();
            if !*is_open {
                tell.send(key).ok()?;
            }
            while !*is_open {
                is_open = opened.wait(is_open).unwrap();
            }
        }
        writer
            .write_all(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 13\r\n\r\n{\"done\":true}",
            )
            .ok()?;
    }
}

/// Waits until a node runs no saga any more.
fn until_idle(node: &Node) {
    let is_idle = || {
        std::thread::sleep(Duration::from_millis(200));
        node.metric("quorate_saga_open") == 0
    };
    assert!((0..300).any(|_| is_idle()), "it lets go of what it lost");
}

fn ended(node: &Node, id: &str) -> Value {
    let show = || node.run(&["saga", "show", "order", id, "--wait", "5", "--output", "json"]).ok().json();
    (0..24).map(|_| show()).find(|shown| shown["ended"] == true).expect("it ends")
}

fn journal(node: &Node, id: &str) -> Value {
    node.run(&["stream", "read", &format!("saga-order:{id}"), "--output", "json"]).ok().json()["events"].clone()
}

#[test]
fn sagas_of_a_node_that_is_killed_or_stands_still_go_on_at_another_and_nothing_is_done_twice() {
    let Some(own) = Own::new("") else { return };
    for how in ["-KILL", "-STOP"] {
        let (address, participant) = (own.address(), Participant::new());
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let schema = format!("sagas_{}", how.trim_start_matches('-').to_lowercase());
        let application = format!("{schema}_app");
        let start = |folder: &tempfile::TempDir| {
            let of = ["--store", &address, "--store.schema", &schema, "--store.application", &application];
            Node::start_in(folder.path(), &[&of[..], &["--sagas.takeover", "2s"]].concat())
        };
        let [one, other] = folders.each_ref().map(start);
        let document = format!(
            r#"saga: order
version: 1
steps:
  - step: reserve
    http: {{ url: "http://{0}/reserve", body: "{{id: .id, input: .input}}" }}
    undo: {{ http: {{ url: "http://{0}/release" }} }}
  - step: charge
    attempts: 100
    http: {{ url: "http://{0}/charge", body: "{{id: .id, reserved: .steps.reserve.done}}" }}
    undo: {{ http: {{ url: "http://{0}/refund" }} }}
  - step: tell
    kind: pivot
    queue: {{ name: mails, type: mail.due, data: "{{id: .id}}" }}
"#,
            participant.address
        );
        file(one.folder(), "order.yaml", document);
        one.run(&["queue", "declare", "mails"]).ok();
        one.run(&["saga", "declare", "order.yaml"]).ok();
        let ids: Vec<String> = (0..SAGAS).map(|n| n.to_string()).collect();
        for id in &ids {
            one.run(&["saga", "start", "order", id, "--input", "{\"cents\": 5}"]).ok();
        }
        participant.until_charged(SAGAS);

        one.signal(how);
        // The other one asks again, of its own accord.
        participant.until_charged(SAGAS);
        participant.go_on();
        for id in &ids {
            let done = ended(&other, id);
            assert_eq!(done["status"], "completed", "{how}: {done}");
        }
        let (asked, journals) = (participant.asked(), ids.iter().map(|id| journal(&other, id)).collect::<Vec<_>>());
        if how == "-STOP" {
            // Now it finds the answers to what it had asked, and would write them down.
            one.signal("-CONT");
            until_idle(&one);
            for id in &ids {
                assert_eq!(ended(&one, id)["status"], "completed", "{how}");
            }
        }
        assert_eq!(participant.asked(), asked, "{how}: nothing more is asked for");
        assert_eq!(
            ids.iter().map(|id| journal(&other, id)).collect::<Vec<_>>(),
            journals,
            "{how}: nothing is written late"
        );

        let keys: Vec<&str> = asked.keys().map(String::as_str).collect();
        let of = |id: &String| ["charge", "reserve"].map(|step| format!("order/{id}/{step}/forward"));
        assert_eq!(
            keys,
            ids.iter().flat_map(of).collect::<Vec<_>>(),
            "{how}: each effect once, and nothing was undone"
        );
        for (key, bodies) in &asked {
            assert!(bodies.iter().all(|body| *body == bodies[0]), "{how}: {key} asks for the same: {bodies:?}");
            assert!(key.contains("charge") || bodies.len() == 1, "{how}: what was done is not asked for again");
        }
        let mails = other.run(&["queue", "receive", "mails", "--max", "99", "--output", "json"]).ok().json();
        let mut mails: Vec<&str> =
            mails["deliveries"].as_array().unwrap().iter().map(|mail| mail["event"]["id"].as_str().unwrap()).collect();
        mails.sort_unstable();
        let told: Vec<String> = ids.iter().map(|id| format!("order/{id}/tell/forward")).collect();
        assert_eq!(mails, told, "{how}");
    }
}

#[test]
fn the_doctor_names_sagas_that_no_node_goes_on_with_until_their_version_is_declared_again() {
    let Some(own) = Own::new("") else { return };
    let (address, folder) = (own.address(), tempfile::tempdir().unwrap());
    let start = || Node::start_in(folder.path(), &["--store", &address, "--sagas.takeover", "500ms"]);
    let document = r#"saga: order
version: 1
steps:
  - wait: go
  - step: never
    when: "false"
    http: { url: "http://127.0.0.1:1/" }
"#;
    file(folder.path(), "order.yaml", document);
    let node = start();
    node.run(&["saga", "declare", "order.yaml"]).ok();
    node.run(&["saga", "start", "order", "17"]).ok();
    node.kill();
    own.say(&address, &["DELETE FROM quorate.quorate_saga_document"]);
    let node = start();
    let found = || {
        std::thread::sleep(Duration::from_millis(200));
        let found = run(folder.path(), &["doctor", "--store", &address, "--output", "json"]).json();
        let found = found["findings"].as_array().unwrap().iter().find(|finding| finding["about"] == "saga").cloned();
        found.map(|finding| finding["what"].as_str().unwrap().to_owned())
    };
    let told = (0..150).find_map(|_| found()).expect("it is found once the node counts as gone");
    assert!(told.contains("1 open sagas of version 1 of `order`"), "{told}");
    node.run(&["saga", "declare", "order.yaml"]).ok();
    assert_eq!(found(), None);
    node.run(&["saga", "signal", "order", "17", "go", "--signal-id", "1"]).ok();
    assert_eq!(ended(&node, "17")["status"], "completed");
}
