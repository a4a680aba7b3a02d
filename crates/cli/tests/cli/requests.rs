//! Requests from the command line: declared, asked, and answered by a command.

use std::{fs, path::Path, process::Child, time::Duration};

use quorate_runtime::Env;
use serde_json::Value;

use crate::{
    harness::{Ended, Node, ended, file},
    webhooks::{ALLOWED, Does, Receiver},
};

fn json(node: &Node, args: &[&str]) -> Value {
    node.run(&[&["request"], args, &["--output", "json"]].concat()).ok().json()
}

/// Asks, and does not wait.
fn ask(node: &Node, args: &[&str]) -> Child {
    node.feed(&[&["request", "send", "price"], args].concat()).0
}

/// Lets `script` answer.
fn serve(node: &Node, how: &[&str], script: &str) -> Child {
    let args = [&["request", "serve", "price"], how, &["--", "sh", "-c", script]].concat();
    let (child, _) = node.feed(&args);
    until(node, "responders", 1);
    child
}

/// Waits for what must happen.
fn wait_until(what: impl Fn() -> bool) {
    let env = Env::real();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let waited = runtime.block_on(env.timeout(Duration::from_secs(60), async {
        while !what() {
            env.sleep(Duration::from_millis(20)).await;
        }
    }));
    waited.expect("it happens");
}

fn until(node: &Node, what: &str, count: u64) {
    wait_until(|| json(node, &["show", "price"])[what] == count);
}

/// What a command wrote there of itself: its process.
fn process(file: &Path) -> String {
    let whole = || fs::read_to_string(file).ok().filter(|text| text.ends_with('\n'));
    wait_until(|| whole().is_some());
    format!("/proc/{}", whole().unwrap().trim())
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_command_answers_byte_for_byte_and_its_no_is_a_fault() {
    let node = Node::start();
    let declared = json(&node, &["declare", "price", "--time-limit", "1m", "--idempotent"]);
    assert_eq!((&declared["time-limit"], &declared["idempotent"]), (&"1m".into(), &true.into()));
    assert_eq!(node.run(&["request", "list"]).ok().rows(), [["price", "answer", "1m", "true", "0", "0", "0"]]);
    let script = "read what; case $what in tea) printf '250\\n\\0 %s' \"$REQUEST_CONTENT_TYPE\";; *) echo \"no $what\" >&2; exit 3;; esac";
    let responder = serve(&node, &["--limit", "2", "--content-type", "text/plain"], script);
    let said = node.run_with(&["request", "send", "price", "-", "--content-type", "text/csv"], b"tea\n").ok();
    assert_eq!(said.stdout, "250\n\0 text/csv");
    let fault = node.run(&["request", "send", "price", "coal"]).failed(1);
    assert!(fault.contains("request-fault") && fault.contains("exit-3: no coal"), "{fault}");
    let served = ended(responder).ok();
    let words: Vec<Vec<&str>> = served.stdout.lines().map(|line| line.split("  ").skip(1).collect()).collect();
    assert_eq!(words, [["answer", "taken"], ["fault", "taken"]]);
    assert_eq!(node.run(&["request", "delete", "price"]).ok().stdout, "DELETED\nprice\n");
    assert!(node.run(&["request", "serve", "price", "--", "cat"]).failed(3).contains("request-type-not-found"));
}

#[test]
fn with_nobody_there_a_script_is_told_at_once() {
    let node = Node::start();
    json(&node, &["declare", "price", "--time-limit", "1h"]);
    // Were it waited for, this would take an hour.
    let told = node.run(&["request", "send", "price", "tea", "--deadline", "1h"]).failed(4);
    assert!(told.contains("no-responder"), "{told}");
    assert_eq!(node.metric("quorate_request_no_responder"), 1, "it is not asked again");
}

#[test]
fn a_request_that_nobody_began_on_by_its_deadline_was_not_done_and_is_not_sent_again_behind_it() {
    let node = Node::start();
    json(&node, &["declare", "price", "--time-limit", "1m"]);
    let _responder = Killed(serve(&node, &["--window", "1"], "echo $$ > begun; exec sleep 60"));
    let _busy = Killed(ask(&node, &["tea"]));
    process(&node.folder().join("begun"));
    let told = node.run(&["request", "send", "price", "milk", "--deadline", "2s"]).failed(4);
    assert!(told.contains("request-refused") && told.contains("its time ran out"), "{told}");
    assert_eq!(node.metric("quorate_request_refused"), 1);
}

#[test]
fn an_answer_that_cannot_be_told_is_a_fault_and_its_place_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let limits = ["--http.max-body", "64KiB", "--store.max-event", "64KiB"];
    let node = Node::start_in(folder.path(), &limits);
    json(&node, &["declare", "price", "--time-limit", "1m"]);
    let long = "b".repeat(256);
    for wrong in ["text/plain\n", "té", &long] {
        node.run(&["request", "serve", "price", "--content-type", wrong, "--", "cat"]).failed(2);
    }
    // The first is more than an answer may have, and the second more than this node takes.
    let script = "read bytes; exec head -c $bytes /dev/zero";
    let responder = serve(&node, &["--window", "1", "--limit", "3"], script);
    for (bytes, fault) in [("3000000\n", "answer-too-long"), ("200000\n", "answer-refused")] {
        let told = node.run(&["request", "send", "price", bytes]).failed(1);
        assert!(told.contains(fault) && told.contains("the request was done"), "{told}");
    }
    assert_eq!(node.run(&["request", "send", "price", "2\n"]).ok().stdout, "\0\0");
    let served = ended(responder).ok();
    let words: Vec<&str> = served.stdout.lines().filter_map(|line| line.split("  ").nth(1)).collect();
    assert_eq!(words, ["fault", "fault", "answer"]);
}

#[test]
fn a_responder_that_is_killed_leaves_its_caller_not_knowing_and_who_waited_told_that_nothing_was_done() {
    let node = Node::start();
    json(&node, &["declare", "price", "--time-limit", "1m"]);
    let begun = node.folder().join("begun");
    let responder = serve(&node, &["--window", "1"], "echo $$ > begun; exec sleep 20");
    let handed = ask(&node, &["tea"]);
    process(&begun);
    let waiting = ask(&node, &["milk"]);
    until(&node, "waiting", 1);
    kill(responder);
    let Ended { code, stderr, .. } = ended(handed);
    assert!(code == Some(5) && stderr.contains("its responder left"), "{code:?} {stderr}");
    let Ended { code, stderr, .. } = ended(waiting);
    assert!(code == Some(4) && stderr.contains("no-responder"), "{code:?} {stderr}");
}

#[test]
fn at_the_deadline_and_when_its_caller_is_killed_a_command_is_killed_with_what_it_started() {
    let node = Node::start();
    json(&node, &["declare", "price", "--time-limit", "1m"]);
    // The shell waits for one that it started.
    let _responder = Killed(serve(&node, &["--window", "1"], "sleep 60 & echo $! > begun; wait"));
    let begun = node.folder().join("begun");
    let late = ask(&node, &["tea", "--deadline", "5s"]);
    let started = process(&begun);
    let Ended { code, stderr, .. } = ended(late);
    assert!(code == Some(5) && stderr.contains("its time ran out"), "{code:?} {stderr}");
    wait_until(|| !Path::new(&started).exists());
    fs::remove_file(&begun).unwrap();
    let leaving = ask(&node, &["tea"]);
    let started = process(&begun);
    kill(leaving);
    wait_until(|| !Path::new(&started).exists());
    until(&node, "running", 0);
}

#[test]
fn durable_requests_come_to_an_end_though_their_node_is_killed_while_they_wait_and_are_worked_on() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start_in(folder.path(), &[]);
    json(&node, &["declare", "price", "--time-limit", "1m", "--durable"]);
    // Behind the restart it runs its full time again.
    node.run(&["queue", "declare", "price", "--lease-ttl", "2s"]).ok();
    for (what, id) in [("tea\n", "1"), ("milk\n", "2")] {
        let kept = node.run(&["request", "send", "price", what, "--id", id]).ok().json();
        assert_eq!((&kept["id"], &kept["repeated"]), (&id.into(), &false.into()));
    }
    let serve = |node: &Node, script: &str| {
        Killed(node.feed(&["request", "serve", "price", "--window", "1", "--", "sh", "-c", script]).0)
    };
    let responder = serve(&node, "echo $$ > begun; exec sleep 60");
    process(&folder.path().join("begun"));
    assert_eq!(json(&node, &["status", "price", "1"])["status"], "running");
    assert_eq!(json(&node, &["status", "price", "2"])["status"], "waiting");
    node.run(&["request", "status", "price", "2", "--answer"]).failed(4);
    node.kill();
    drop(responder);
    let node = Node::start_in(folder.path(), &[]);
    let _responder = serve(&node, "read what; echo $what >> served; test $what = tea && printf '250\\0' || exit 3");
    let said = node.run(&["request", "status", "price", "1", "--wait", "20s", "--answer"]).ok();
    assert_eq!(said.stdout, "250\0");
    assert!(node.run(&["request", "status", "price", "2", "--wait", "20s", "--answer"]).failed(1).contains("exit-3"));
    assert_eq!(json(&node, &["status", "price", "1"])["status"], "done");
    let again = node.run(&["request", "send", "price", "tea\n", "--id", "1"]).ok().json();
    assert_eq!(again["repeated"], true);
    assert!(node.run(&["request", "send", "price", "coal", "--id", "1"]).failed(1).contains("request-id-reused"));
    node.run(&["request", "status", "price", "3"]).failed(3);
    let mut served: Vec<String> =
        fs::read_to_string(folder.path().join("served")).unwrap().lines().map(str::to_owned).collect();
    served.sort();
    assert_eq!(served, ["milk", "tea"], "each was answered once");
}

#[test]
fn who_is_to_be_told_is_told_though_the_node_is_killed_before_the_answer_and_while_it_tells() {
    let folder = tempfile::tempdir().unwrap();
    let start = || Node::start_in(folder.path(), ALLOWED);
    let receiver = Receiver::new(|n| if n == 1 { Does::TellAndWait } else { Does::Take });
    let secret = file(folder.path(), "secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n");
    let node = start();
    json(&node, &["declare", "price", "--time-limit", "1m", "--durable"]);
    node.run(&["queue", "declare", "request-callbacks", "--lease-ttl", "2s"]).ok();
    let url = receiver.url();
    let send =
        ["request", "send", "price", "tea\n", "--id", "1", "--callback", &url, "--callback-secret-file", &secret];
    assert_eq!(node.run(&send).ok().json()["repeated"], false);
    node.kill();
    let node = start();
    assert_eq!(node.run(&send).ok().json()["repeated"], true);
    let args = ["request", "serve", "price", "--", "sh", "-c", "read what; printf 250"];
    let responder = Killed(node.feed(&args).0);
    receiver.told.recv_timeout(Duration::from_secs(30)).expect("the receiver is called");
    node.kill();
    drop(responder);
    let node = start();
    let told = || node.run(&["queue", "show", "request-callbacks", "--output", "json"]).ok().json();
    wait_until(|| told()["messages"] == 0);
    let got = receiver.got();
    assert!(got.len() >= 2 && got.iter().all(|one| one.id == got[0].id), "{got:?}");
    assert_eq!(node.run(&["request", "status", "price", "1", "--answer"]).ok().stdout, "250");
}

/// Ended when the test is.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
