//! `quorate demo`: five processes under load and faults, judged; and none of them left when it has ended, however that was.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    time::Duration,
};

use crate::harness::{command, run};

#[test]
fn orders_come_to_an_end_whole_or_undone_whatever_is_killed_suspended_slow_or_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["demo", "--seed", "5", "--duration", "6s", "--rate", "10", "--folder", "stores", "--output", "json"];
    let report = run(folder.path(), &args).ok();
    assert_eq!(report.stdout.lines().count(), 1, "{report:?}");
    let told = report.json();
    assert_eq!(told["violations"], serde_json::json!([]), "{told}");
    assert!(told["orders"].as_u64().unwrap() >= 30 && told["orders"] == told["taken"], "{told}");
    let ended = told["completed"].as_u64().unwrap() + told["cancelled"].as_u64().unwrap();
    assert_eq!(ended, told["orders"].as_u64().unwrap(), "{told}");
    for kind in ["kill", "pause", "slow", "partition", "flaky"] {
        assert!(told["faults"][kind].as_u64().unwrap() >= 1, "{kind}: {told}");
    }
    assert!(told["checks"].as_u64().unwrap() > 0 && told["settled-cents"].as_i64().unwrap() > 0, "{told}");
    assert!(folder.path().join("stores/payments/merchant.db").exists(), "a folder that was asked for is left");
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_started() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("mine"), "").unwrap();
    for (args, why) in [
        (&["demo", "--duration", "1s"][..], "5s to a day"),
        (&["demo", "--rate", "0"], "1..=1000"),
        (&["demo", "--folder", "."], "is not empty"),
        (&["demo", "--service"], "started by `quorate demo`"),
    ] {
        let told = run(folder.path(), args).failed(2);
        assert!(told.contains(why), "{args:?}: {told}");
    }
}

#[test]
fn no_process_outlives_the_demo_when_it_is_killed_or_stopped() {
    for signal in ["-KILL", "-TERM"] {
        let folder = tempfile::tempdir().unwrap();
        let args = ["demo", "--duration", "60s", "--rate", "5", "--seed", "1", "--folder", "stores"];
        let mut demo = command(folder.path(), &args).spawn().unwrap();
        let mut said = BufReader::new(demo.stderr.take().unwrap());
        let mut line = String::new();
        // The first fault: all services are at work.
        said.read_line(&mut line).unwrap();
        assert!(line.contains(" ms"), "{line}");
        let children = children(demo.id());
        assert!(children.len() >= 4, "one may have been killed just now: {children:?}");
        let sent = std::process::Command::new("kill").args([signal, &demo.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let mut rest = String::new();
        // Ends when nobody holds it any more, no service either.
        said.read_to_string(&mut rest).unwrap();
        let ended = demo.wait().unwrap();
        assert_eq!(signal == "-TERM", ended.code() == Some(70) && rest.contains("stopped before its end"), "{rest}");
        until(|| children.iter().all(|id| !is_alive(*id)).then_some(()));
    }
}

/// Whether there is such a process that still runs.
fn is_alive(id: u32) -> bool {
    fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn children(of: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{of}/task")).unwrap();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<_>>()).collect()
}

/// Looks again until there is something.
fn until<T>(look: impl Fn() -> Option<T>) -> T {
    let begun = std::time::Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "it never came to be so");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(feature = "museum")]
#[test]
fn a_planted_bug_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["demo", "--duration", "15s", "--rate", "25", "--plant", "double-charge", "--output", "json"];
    let ended = run(folder.path(), &args);
    let told = ended.json();
    let violations = told["violations"].as_array().unwrap();
    let is_told = |what: &serde_json::Value| what.as_str().unwrap().contains("were due, charged is");
    assert!(violations.iter().any(is_told), "{told}");
    assert_eq!(ended.code, Some(6));
}
