//! Requests to a node that fails: what is sent again, and what never is.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use crate::harness::{Ended, run};

/// What a node does with a request.
#[derive(Clone, Copy)]
enum Does {
    /// Answers with this status, these headers and this body.
    Says(u16, &'static str, &'static str),
    /// Takes the request, and closes the connection.
    Breaks,
    /// Takes the request, and never answers.
    Hangs,
}

const DOWN: Does = Does::Says(
    503,
    "",
    r#"{"type":"/errors/overloaded","title":"Overloaded","status":503,"retry":"now","outcome":"unchanged"}"#,
);
const UNKNOWN: Does = Does::Says(
    500,
    "",
    r#"{"type":"/errors/outcome-unknown","title":"Unknown","status":500,"retry":"now","outcome":"unknown"}"#,
);
const STREAMS: Does = Does::Says(200, "", r#"{"streams":[]}"#);
const APPENDED: Does = Does::Says(201, "quorate-token: t\r\n", r#"{"stream":"a","streamversion":"1","token":"t"}"#);

/// A request as the node heard it: its first line, and its head.
type Heard = Arc<Mutex<Vec<(String, String)>>>;

/// A node that does with each request what `script` says, and with those behind its end what the last one says.
struct Scripted {
    server: String,
    heard: Heard,
}

impl Scripted {
    fn start(script: &[Does]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (server, heard) = (listener.local_addr().unwrap().to_string(), Heard::default());
        let (script, noted) = (script.to_vec(), heard.clone());
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            for socket in listener.incoming() {
                let Ok(socket) = socket else { return };
                serve(socket, &script, &noted, &mut kept);
            }
        });
        Self { server, heard }
    }

    fn run(&self, args: &[&str]) -> Ended {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), &[&["--server", &self.server], args].concat())
    }

    /// The first lines of what it heard, pages of advice left out.
    fn asked(&self) -> Vec<String> {
        let heard = self.heard.lock().unwrap();
        heard.iter().map(|(line, _)| line.clone()).filter(|line| !line.contains("/errors/")).collect()
    }
}

/// Answers the requests of one connection; one that hangs is kept open.
fn serve(socket: TcpStream, script: &[Does], heard: &Heard, kept: &mut Vec<TcpStream>) {
    let mut reader = BufReader::new(socket.try_clone().unwrap());
    let mut socket = socket;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let head = head.to_ascii_lowercase();
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
        reader.read_exact(&mut vec![0; length]).unwrap();
        let line = head.lines().next().unwrap_or_default().to_owned();
        let nth = {
            let mut heard = heard.lock().unwrap();
            let nth = heard.iter().filter(|(line, _)| !line.contains("/errors/")).count();
            heard.push((line.clone(), head));
            nth
        };
        let does =
            if line.contains("/errors/") { Does::Says(404, "", "{}") } else { script[nth.min(script.len() - 1)] };
        match does {
            Does::Says(status, headers, body) => {
                let answer = format!("HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\n\r\n{body}", body.len());
                if socket.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
            Does::Breaks => return,
            Does::Hangs => {
                kept.push(socket);
                return;
            }
        }
    }
}

const LIST: [&str; 2] = ["stream", "list"];
const APPEND: [&str; 5] = ["stream", "append", "a", "--type", "t"];
const RESET: [&str; 3] = ["breaker", "reset", "a"];

#[test]
fn what_only_reads_is_sent_again_until_the_node_answers() {
    for ill in [DOWN, UNKNOWN, Does::Breaks] {
        let node = Scripted::start(&[ill, ill, STREAMS]);
        node.run(&LIST).ok();
        assert_eq!(node.asked().len(), 3, "{:?}", node.asked());
    }
}

#[test]
fn an_append_is_sent_again_with_the_same_id_and_so_is_what_has_a_key() {
    for ill in [UNKNOWN, Does::Breaks] {
        let node = Scripted::start(&[ill, APPENDED]);
        node.run(&APPEND).ok();
        assert_eq!(node.asked().len(), 2);
        let node = Scripted::start(&[ill, APPENDED]);
        node.run(&[&APPEND[..], &["--key", "k"]].concat()).ok();
        assert_eq!(node.asked().len(), 2);
    }
}

#[test]
fn what_an_earlier_attempt_may_have_done_is_unknown_whatever_the_last_one_says() {
    let quick = ["--retries", "1", "--attempt-timeout", "200ms"];
    for ill in [UNKNOWN, Does::Breaks, Does::Hangs] {
        let node = Scripted::start(&[ill, DOWN]);
        let told = node.run(&[&quick[..], &APPEND[..]].concat()).failed(5);
        assert_eq!(node.asked().len(), 2);
        assert!(told.contains("repeat the command with --id ") && told.contains("earlier attempt"), "{told}");
    }
    // What said of itself that nothing was done leaves no doubt, and nothing that only reads does.
    let node = Scripted::start(&[DOWN, DOWN]);
    node.run(&[&quick[..], &APPEND[..]].concat()).failed(4);
    let node = Scripted::start(&[Does::Breaks, DOWN]);
    node.run(&[&quick[..], &LIST[..]].concat()).failed(4);
}

#[test]
fn times_in_which_nothing_can_be_answered_are_refused_by_name() {
    for (flags, named) in [
        (&["--deadline", "0s"][..], "--deadline"),
        (&["--attempt-timeout", "0s"][..], "--attempt-timeout"),
        (&["--attempt-timeout", "30s"][..], "--attempt-timeout"),
        (&["--attempt-timeout", "2s", "--deadline", "1s"][..], "--attempt-timeout"),
    ] {
        let node = Scripted::start(&[STREAMS]);
        let told = node.run(&[flags, &LIST[..]].concat()).failed(2);
        assert!(told.contains(named), "{told}");
        assert_eq!(node.asked().len(), 0);
    }
}

#[test]
fn a_write_without_a_key_is_sent_again_only_if_it_certainly_was_not_done() {
    let node = Scripted::start(&[UNKNOWN, Does::Says(200, "", "{}")]);
    node.run(&RESET).failed(5);
    assert_eq!(node.asked().len(), 1);
    let node = Scripted::start(&[Does::Breaks, Does::Says(200, "", "{}")]);
    node.run(&RESET).failed(5);
    assert_eq!(node.asked().len(), 1);
    let node = Scripted::start(&[DOWN, Does::Says(200, "", "{}")]);
    node.run(&RESET).ok();
    assert_eq!(node.asked().len(), 2, "it said that nothing was done");
}

#[test]
fn what_the_node_refuses_for_good_is_asked_once() {
    let refused = Does::Says(409, "", r#"{"type":"/errors/id-reused","title":"No","status":409,"retry":"never"}"#);
    let node = Scripted::start(&[refused]);
    node.run(&LIST).failed(1);
    assert_eq!(node.asked().len(), 1);
}

#[test]
fn nobody_is_asked_more_often_than_was_said_and_attempts_say_which_they_are() {
    let node = Scripted::start(&[DOWN]);
    node.run(&LIST).failed(4);
    assert_eq!(node.asked().len(), 3);
    {
        let heard = node.heard.lock().unwrap();
        assert!(heard[0].1.contains("quorate-attempt: ") && heard[0].1.contains("owned"), "{heard:?}");
        assert!(heard[2].1.contains("attempt=3"), "{heard:?}");
    }
    let node = Scripted::start(&[DOWN]);
    node.run(&[&["--retries", "0"], &LIST[..]].concat()).failed(4);
    assert_eq!(node.asked().len(), 1);
}

#[test]
fn a_wait_that_the_node_asks_for_is_kept_to_or_not_begun() {
    let later = |after: &str| -> &'static str {
        let body = format!(
            r#"{{"type":"/errors/overloaded","title":"Overloaded","status":503,"retry":"after","retryafter":"{after}","outcome":"unchanged"}}"#
        );
        Box::leak(body.into_boxed_str())
    };
    let node = Scripted::start(&[Does::Says(503, "", later("300ms")), STREAMS]);
    let begun = std::time::Instant::now();
    node.run(&LIST).ok();
    assert!(begun.elapsed() >= std::time::Duration::from_millis(300));
    assert_eq!(node.asked().len(), 2);
    // An hour does not fit into what the caller waits.
    let node = Scripted::start(&[Does::Says(503, "", later("3600000ms")), STREAMS]);
    node.run(&LIST).failed(4);
    assert_eq!(node.asked().len(), 1);
}

#[test]
fn an_attempt_that_hangs_is_given_up_in_time_and_a_write_says_that_it_does_not_know() {
    let node = Scripted::start(&[Does::Hangs, STREAMS]);
    node.run(&[&["--attempt-timeout", "200ms"], &LIST[..]].concat()).ok();
    assert_eq!(node.asked().len(), 2);
    let node = Scripted::start(&[Does::Hangs]);
    let told = node.run(&[&["--attempt-timeout", "200ms"], &RESET[..]].concat()).failed(5);
    assert!(told.contains("gave no reply within 200ms"), "{told}");
    assert_eq!(node.asked().len(), 1);
}

#[test]
fn an_import_that_is_refused_behind_an_attempt_that_may_have_been_done_does_not_say_that_nothing_was() {
    const HEAD: Does = Does::Says(200, "quorate-token: AAAAAAAAAAEAAAABAAAAAAAAAADFOFZL\r\n", r#"{"streams":[]}"#);
    const FORBIDDEN: Does =
        Does::Says(403, "", r#"{"type":"/errors/forbidden","title":"No","status":403,"retry":"never"}"#);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events");
    std::fs::write(&file, r#"{"specversion":"1.0","id":"1","source":"/t","type":"t","subject":"a"}"#).unwrap();
    let import = ["stream", "import", file.to_str().unwrap()];
    let node = Scripted::start(&[HEAD, Does::Breaks, FORBIDDEN]);
    let told = node.run(&import).failed(5);
    assert!(told.contains("an earlier attempt may have been done"), "{told}");
    assert_eq!(node.asked().len(), 3, "{:?}", node.asked());
    Scripted::start(&[HEAD, FORBIDDEN]).run(&import).failed(1);
}
