use super::*;

const HERE: &str = "crates/data/src/store.rs";

fn judge_at(path: &str, code: &str) -> Vec<String> {
    findings(&Tree::from([(path, code)])).unwrap().into_iter().map(|finding| finding.to_string()).collect()
}

/// Asserts that `code` is refused, once, with `named` in the message.
#[track_caller]
fn refuses(code: &str, named: &str) {
    let found = judge_at(HERE, code);
    assert_eq!(found.len(), 1, "{code}: {found:?}");
    assert!(found[0].contains(named), "{code}: {found:?}");
}

#[track_caller]
fn accepts(code: &str) {
    assert_eq!(judge_at(HERE, code), Vec::<String>::new(), "{code}");
}

#[test]
fn every_way_out_into_the_world_is_refused() {
    for call in [
        "std::time::Instant::now()",
        "std::time::SystemTime::now()",
        "std::fs::read(path)",
        "std::fs::File::open(path)",
        "std::thread::spawn(work)",
        "std::thread::sleep(span)",
        "tokio::spawn(task)",
        "tokio::task::spawn_blocking(work)",
        "tokio::time::sleep(span)",
        "tokio::net::TcpListener::bind(address)",
        "tokio::fs::read(path)",
        "std::net::TcpStream::connect(address)",
        "std::net::TcpListener::bind(address)",
        "std::net::UdpSocket::bind(address)",
        "rand::random()",
        "std::hash::RandomState::new()",
        "std::collections::HashMap::new()",
        "std::collections::HashSet::new()",
        "uuid::Uuid::new_v4()",
        "uuid::Uuid::now_v7()",
        "quorate_runtime::Env::real()",
    ] {
        refuses(&format!("fn f() {{ {call}; }}"), call.split('(').next().unwrap());
    }
    refuses("fn f() { futures_util::select! { a = b => c } }", "futures_util::select");
}

#[test]
fn a_finding_names_the_line_and_what_to_do_instead() {
    let found = judge_at(HERE, "\n\nfn f() { std::thread::sleep(span) }");
    assert_eq!(
        found,
        ["crates/data/src/store.rs:3: std::thread::sleep is forbidden here (std::thread); \
                       ask Env::dedicate or Env::run_blocking"]
    );
}

#[test]
fn renamed_imports_are_followed() {
    refuses("use std::time::Instant as Clock; fn f() { Clock::now() }", "std::time::Instant::now");
    refuses("use std::time as t; fn f() { t::SystemTime::now() }", "std::time::SystemTime::now");
    refuses("use std as s; use s::time as t; fn f() { t::Instant::now() }", "std::time::Instant::now");
    refuses("extern crate tokio as t; fn f() { t::spawn(a) }", "tokio::spawn");
    refuses("type Clock = std::time::Instant; fn f() { Clock::now() }", "Instant::now");
    refuses("use tokio::{self as rt}; fn f() { rt::spawn(a) }", "tokio::spawn");
}

#[test]
fn grouped_and_nested_imports_are_followed() {
    refuses("use std::{fs, io};", "std::fs");
    refuses("use std::{collections::{BTreeMap, HashMap}, io};", "std::collections::HashMap");
    refuses("fn f() { use tokio::{sync::mpsc, task::JoinHandle}; }", "tokio::task::JoinHandle");
    refuses("use std::fs::{self};", "std::fs");
    refuses("mod inner { pub use std::thread as workers; }", "std::thread");
}

#[test]
fn globs_are_followed() {
    refuses("use std::fs::*;", "std::fs");
    refuses("use std::time::*; fn f() { Instant::now() }", "std::time::Instant::now");
    refuses("use std::collections::*; struct S { m: HashMap<u8, u8> }", "std::collections::HashMap");
    refuses("use std::*; fn f() { fs::read(p) }", "std::fs::read");
    refuses("use futures_util::*; fn f() { select! { a = b => c } }", "futures_util::select");
}

#[test]
fn an_import_is_reported_where_it_comes_in_and_not_again_at_each_use() {
    refuses("use std::fs; fn f() { fs::read(a); fs::read(b); }", ":1: std::fs");
    refuses("use std::collections::HashMap; struct S { m: HashMap<u8, u8> }", "HashMap");
}

#[test]
fn what_stands_inside_macros_is_seen() {
    refuses("fn f() { tokio::select! { biased; () = tokio::time::sleep(s) => {} } }", "tokio::time::sleep");
    refuses("fn f() { vec![std::time::Instant::now()] }", "std::time::Instant::now");
    refuses("macro_rules! m { () => { $crate::x(); std::thread::yield_now() } }", "std::thread::yield_now");
}

#[test]
fn qualified_raw_and_rooted_spellings_are_seen() {
    refuses("fn f() { <std::time::Instant>::now() }", "std::time::Instant::now");
    refuses("fn f() { ::std::fs::read(p) }", "std::fs::read");
    refuses("fn f() { std::r#fs::read(p) }", "std::fs::read");
    refuses("fn f(x: Vec<std::net::TcpStream>) {}", "std::net::TcpStream");
    refuses("fn f() { a(..std::fs::read(p)) }", "std::fs::read");
}

#[test]
fn methods_that_ask_the_disk_are_seen() {
    refuses("fn f(p: &Path) { p.join(a).is_dir() }", ".is_dir()");
    refuses("fn f(p: &Path) { p.canonicalize()? }", ".canonicalize()");
    accepts("fn f(env: &Env) { env.disk().read_dir(path) }");
}

#[test]
fn harmless_neighbours_are_accepted() {
    accepts("use std::{collections::BTreeMap, time::{Duration, Instant}, net::{IpAddr, SocketAddr}, sync::Arc};");
    accepts("use tokio::{select, sync::{mpsc, oneshot}}; fn f() { tokio::pin!(a); }");
    accepts("fn f(rand: u8, thread: u8) { rand + thread }");
    accepts("mod rand; fn f() { rand::draw() }");
    accepts("use crate::rand; fn f() { rand::draw() }");
    accepts("use rand_chacha::ChaCha8Rng; use hashbrown::HashMap;");
    accepts("fn f() { futures_util::future::select(a, b); futures_util::select_biased! {} }");
    accepts("/// Reads like `std::fs::read`.\nfn f() -> &'static str { \"std::fs::read\" } // std::thread::spawn");
}

#[test]
fn tests_may_do_as_they_like() {
    accepts("#[cfg(test)] mod tests { use std::fs; fn f() { std::thread::sleep(s) } }");
    accepts("#[cfg(test)] use std::fs; #[test] fn t() { std::fs::read(p); }");
    assert_eq!(judge_at("crates/data/tests/kill.rs", "use std::process::Command;"), [""; 0]);
}

#[test]
fn a_call_beside_a_test_module_is_still_seen() {
    refuses("#[cfg(test)] mod tests { use std::fs; } fn f() { std::thread::sleep(s) }", "std::thread::sleep");
    refuses("#[cfg(not(test))] fn f() { std::thread::sleep(s) }", "std::thread::sleep");
}

#[test]
fn the_crates_that_touch_the_world_by_profession_are_left_alone() {
    for path in ["crates/runtime/src/disk.rs", "crates/cli/src/main.rs", "xtask/src/main.rs", "examples/a.rs"] {
        assert_eq!(judge_at(path, "use std::fs;"), [""; 0]);
    }
    assert_eq!(judge_at("crates/sim/src/lib.rs", "use std::fs;").len(), 1);
}

#[test]
fn a_machine_mentions_neither_env_nor_async() {
    let machine = "crates/coordination/src/lock/machine.rs";
    assert_eq!(judge_at(machine, "use quorate_runtime::Env;").len(), 1);
    assert_eq!(judge_at(machine, "async fn f() {}"), [format!("{machine}:1: a machine may not mention `async`")]);
    assert_eq!(judge_at("crates/coordination/src/lock/machine/votes.rs", "fn f() { a.await }").len(), 1);
    assert_eq!(judge_at(machine, "/// Never async, knows no Env.\nfn f() {}"), [""; 0]);
    assert_eq!(judge_at("crates/coordination/src/lock/service.rs", "async fn f(env: Env) {}"), [""; 0]);
}

#[test]
fn an_exception_covers_its_file_and_its_rule_only() {
    let exception = "[[call]]\nfile = \"crates/data/src/store.rs\"\npath = \"std::thread\"\nreason = \"counts cores\"";
    let judge = |code| findings(&Tree::from([(HERE, code), ("xtask/exceptions.toml", exception)])).unwrap();
    assert_eq!(judge("fn f() { std::thread::available_parallelism() }"), []);
    assert_eq!(judge("fn f() { std::thread::available_parallelism(); std::fs::read(p) }").len(), 1);
    assert_eq!(judge("fn f() {}")[0].at, "xtask/exceptions.toml");
}
