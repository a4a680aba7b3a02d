//! `quorate txn`: what a node sees of transactions that a program left in its store.

use std::{path::Path, sync::Arc};

use quorate_consistency::two_phase_commit::{
    Config, Coordinator, Embedded, Ended, Gid, Participant as _, SqlResource, SqlWork, Statement, Transaction, Vote,
};
use quorate_data::store::sqlite;
use quorate_runtime::Env;

use crate::harness::{Node, run};

const PROMISED: &str = "quorate:0197f2a0-0000-7000-8000-000000000001:1-7";

/// A program that commits one transaction, is asked to promise another one, and stops before it hears how that ends.
async fn program(folder: &Path) -> Gid {
    std::fs::create_dir_all(folder.join("data")).unwrap();
    let config = quorate_node::config::Config::in_folder(folder.join("data"));
    let store = sqlite::open(&Env::real(), config.store()).await.unwrap();
    let desk = Arc::new(Embedded::open(&store, &"desk".parse().unwrap(), Arc::new(SqlResource)).await.unwrap());
    let chair = Arc::new(Embedded::open(&store, &"chair".parse().unwrap(), Arc::new(SqlResource)).await.unwrap());
    let coordinator = Coordinator::open(&store, Config::default()).await.unwrap();
    coordinator.register("desk".parse().unwrap(), desk.clone()).unwrap();
    coordinator.register("chair".parse().unwrap(), chair).unwrap();
    let work = |claim: &str| SqlWork::default().claiming(claim).commit(Statement::of("SELECT 1")).work().unwrap();
    let both = Transaction::new().with("desk".parse().unwrap(), work("a")).with("chair".parse().unwrap(), work("b"));
    let receipt = coordinator.run(both).await.unwrap();
    assert_eq!(receipt.ended, Ended::Committed);
    assert_eq!(desk.prepare(&PROMISED.parse().unwrap(), &work("seat 17")).await, Ok(Vote::Yes));
    coordinator.close().await;
    store.close().await.unwrap();
    receipt.gid
}

#[test]
fn transactions_are_listed_shown_and_resolved_at_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let gid = tokio::runtime::Runtime::new().unwrap().block_on(program(folder.path())).to_string();
    let node = Node::start_in(folder.path(), &[]);
    let listed = node.run(&["txn", "list"]).ok();
    let rows = listed.rows();
    assert_eq!((rows.len(), &rows[0][..4]), (1, &[PROMISED, "none", "desk", "uncoordinated"][..]), "{}", listed.stdout);
    assert_eq!(rows[0].last(), Some(&"seat 17"));
    let told = node.run(&["txn", "list", "--output", "json"]).ok().json();
    assert_eq!(told["transactions"][0]["branches"][0]["held"][0], "seat 17");

    let shown = node.run(&["txn", "show", &gid]).ok().stdout;
    assert!(shown.contains("decision commit, among desk, chair"), "{shown}");
    let order = |gid: &str, participant: &str| {
        node.run(&["txn", "resolve", gid, participant, "abort", "--by", "carol", "--why", "it burned down"])
    };
    let ordered = order(&gid, "chair").ok();
    assert!(ordered.stderr.contains("waits"), "{ordered:?}");
    assert_eq!(ordered.rows()[0][1..], ["chair", "abort", "false", "true"], "{}", ordered.stdout);
    let shown = node.run(&["txn", "show", &gid]).ok().stdout;
    assert!(shown.contains("abort at chair by carol, against what was decided: it burned down"), "{shown}");
    // What nobody knows of, and what only its coordinator decides.
    for (gid, participant) in [(&*gid, "lamp"), (PROMISED, "desk")] {
        let refused = order(gid, participant);
        assert_ne!(refused.code, Some(0), "{refused:?}");
        assert!(refused.stderr.contains("the log does not name it"), "{refused:?}");
    }
    assert!(node.run(&["txn", "show", "17"]).stderr.contains("quorate:<uuid>:<takeover>-<number>"));
}

#[test]
fn transactions_run_with_their_coordinator_killed_behind_a_decision_and_before_one_and_what_they_claim_holds() {
    let folder = tempfile::tempdir().unwrap();
    let told = run(folder.path(), &["patterns", "two-phase-commit", "--output", "json"]).ok().json();
    let claims = told["claims"].as_array().unwrap();
    assert!(claims.len() >= 7 && claims.iter().all(|claim| claim["holds"] == true), "{told}");
    let ends = |timeline: &serde_json::Value| -> Vec<String> {
        let steps = timeline["steps"].as_array().unwrap().iter();
        steps.map(|step| step["note"].as_str().unwrap().to_owned()).collect()
    };
    let [behind, before] = told["timelines"].as_array().unwrap().as_slice() else { panic!("{told}") };
    assert_eq!(ends(behind), ["did it", "did it", "killed, and started again"], "{behind}");
    assert_eq!(ends(before), ["took it back", "took it back", "killed, and started again"], "{before}");
}
