//! `quorate serve` over PostgreSQL: real processes, of which either may be killed.

use serde_json::Value;

use crate::{
    bouncer::Bouncer,
    harness::{Node, command, ended, run},
    server::Own,
};

macro_rules! own {
    () => {
        match Own::new("") {
            Some(own) => own,
            None => return,
        }
    };
}

/// A node over `own` that gives up soon.
fn node_over(own: &Own, folder: &std::path::Path) -> Node {
    node_at(&own.address(), folder)
}

fn node_at(address: &str, folder: &std::path::Path) -> Node {
    Node::start_in(folder, &["--store", address, "--store.patience", "500ms"])
}

fn append(node: &Node, id: &str) -> crate::harness::Ended {
    node.run(&[
        "stream",
        "append",
        "order-1",
        "--type",
        "placed",
        "--id",
        id,
        "--data",
        "{\"n\": 1}",
        "--output",
        "json",
    ])
}

fn ids(node: &Node) -> Vec<String> {
    let page = node.run(&["stream", "read", "order-1", "--output", "json"]).ok().json();
    page["events"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_node_over_postgres_goes_on_after_its_server_was_killed_and_after_it_was_itself() {
    let (own, folder) = (own!(), tempfile::tempdir().unwrap());
    let node = node_over(&own, folder.path());
    append(&node, "1").ok();
    append(&node, "2").ok();
    assert_eq!(ids(&node), ["1", "2"]);
    let (tail, _stdin) = node.feed(&["log", "tail", "--limit", "4", "--output", "json"]);

    own.kill();
    let told = append(&node, "3").failed(4);
    assert!(told.contains("the database cannot be reached") && told.contains("what to do: "), "{told}");
    node.run(&["log", "read"]).failed(4);
    own.start();
    append(&node, "3").ok();

    node.signal("-KILL");
    drop(node);
    let listening = "127.0.0.1:0";
    let node = Node::start_at(folder.path(), listening, &["--store", &own.address()]);
    let again = append(&node, "3").ok().json();
    assert_eq!(again["streamversion"], "3", "what was acknowledged is known: {again}");
    append(&node, "4").ok();
    assert_eq!(ids(&node), ["1", "2", "3", "4"]);
    assert!(!folder.path().join("data").exists(), "nothing is kept beside the database");
    drop(tail);
}

#[test]
fn a_tail_misses_nothing_and_repeats_nothing_while_the_server_is_killed() {
    let (own, folder) = (own!(), tempfile::tempdir().unwrap());
    let node = node_over(&own, folder.path());
    append(&node, "1").ok();
    let (tail, _stdin) = node.feed(&["log", "tail", "--limit", "3", "--output", "json"]);
    own.kill();
    append(&node, "2").failed(4);
    own.start();
    append(&node, "2").ok();
    append(&node, "3").ok();
    let told = ended(tail).ok();
    let seen: Vec<Value> = told.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seen: Vec<&str> = seen.iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(seen, ["1", "2", "3"]);
}

#[test]
fn what_the_database_cannot_do_is_refused_at_the_command_line() {
    let (own, folder) = (own!(), tempfile::tempdir().unwrap());
    let node = node_over(&own, folder.path());
    append(&node, "1").ok();
    for args in [
        &["store", "backup", "monday"][..],
        &["store", "scavenge"],
        &["view", "list"],
        &["erasure", "list"],
        &["stream", "truncate", "order-1", "--before", "2"],
    ] {
        let told = node.run(args).failed(1);
        assert!(told.contains("the postgres store cannot "), "{args:?}: {told}");
    }
    let verified = node.run(&["store", "verify", "--output", "json"]).ok().json();
    assert_eq!(verified["events"], 1, "{verified}");
    let address = own.address();
    let told = run(folder.path(), &["store", "restore", "monday", "--store", &address]).failed(1);
    assert!(told.contains("this is done to the embedded store"), "{told}");
}

#[test]
fn an_address_that_leads_nowhere_is_refused_and_its_password_is_shown_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let secret = "postgres://u:s3cret@127.0.0.1:1/db";
    let told = run(folder.path(), &["serve", "--listen", "127.0.0.1:0", "--store", secret]).failed(4);
    assert!(told.contains("cannot be reached") && !told.contains("s3cret"), "{told}");
    let told = run(folder.path(), &["serve", "--listen", "127.0.0.1:0", "--store", "mysql://u:s3cret@h/db"]).failed(2);
    assert!(told.contains("store.address") && !told.contains("s3cret"), "{told}");
    for format in ["json", "table"] {
        let mut show = command(folder.path(), &["config", "show", "--output", format]);
        let shown = ended(show.env("QUORATE_STORE_ADDRESS", secret).spawn().unwrap()).ok();
        assert!(shown.stdout.contains("postgres://u:***@127.0.0.1:1/db") && !shown.stdout.contains("s3cret"));
    }
}

#[test]
fn a_node_reaches_its_database_as_its_address_says_or_says_why_not() {
    let Some(own) = Own::new("-c unix_socket_directories=FOLDER") else { return };
    let folder = tempfile::tempdir().unwrap();
    let node = node_at(&own.socket(), folder.path());
    append(&node, "1").ok();
    assert_eq!(ids(&node), ["1"]);
    run(folder.path(), &["doctor", "--store", &own.socket()]).ok();

    let (at, gone) = (own.address(), folder.path().join("gone.pem"));
    let verified = format!("{at}?sslmode=verify-full&sslrootcert={}", gone.display());
    for (address, exit, why) in [
        (format!("{at}?sslmode=require"), 4, "server does not support TLS"),
        (verified, 4, "gone.pem cannot be read"),
        (format!("{at}?sslmode=verify-ca"), 2, "needs the file of the authority's certificate"),
    ] {
        let told = run(folder.path(), &["serve", "--listen", "127.0.0.1:0", "--store", &address]).failed(exit);
        assert!(told.contains(why), "{address}: {told}");
        let told = run(folder.path(), &["doctor", "--store", &address]).failed(exit);
        assert!(told.contains(why), "{address}: {told}");
    }
}

#[test]
fn nodes_behind_a_proxy_that_pools_transactions_are_nodes_of_one_store() {
    let own = own!();
    let Some(bouncer) = Bouncer::before(&own.address()) else { return };
    let address = bouncer.address("postgres");
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let pooled = ["--store", &address, "--store.notifications=false", "--store.connections", "3"];
    let [one, other] = folders.each_ref().map(|folder| Node::start_in(folder.path(), &pooled));
    one.run(&["subscription", "create", "billing"]).ok();
    for n in 1..=10 {
        append(if n % 2 == 0 { &one } else { &other }, &n.to_string()).ok();
    }
    let all: Vec<String> = (1..=10).map(|n| n.to_string()).collect();
    assert_eq!((ids(&one), ids(&other)), (all.clone(), all.clone()));
    let mut pulled = Vec::new();
    for node in [&one, &other].into_iter().cycle().take(10) {
        let page = node.run(&["subscription", "pull", "billing", "--max", "1", "--wait", "10s", "--output", "json"]);
        let delivery = page.ok().json()["deliveries"][0].clone();
        pulled.push(delivery["event"]["id"].as_str().unwrap().to_owned());
        node.run(&["subscription", "ack", "billing", delivery["lease"].as_str().unwrap()]).ok();
    }
    assert_eq!(pulled, all);
    let verified = other.run(&["store", "verify", "--output", "json"]).ok().json();
    assert_eq!(verified["events"], 10, "{verified}");
    run(folders[0].path(), &["doctor", "--store", &address]).ok();
}

/// A node that sleeps through its lease wakes up with everything as it was, and is refused.
#[test]
fn what_a_paused_node_held_goes_to_another_and_its_late_writes_are_refused() {
    let own = own!();
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [paused, other] = folders.each_ref().map(|folder| node_over(&own, folder.path()));
    paused.run(&["subscription", "create", "billing", "--lease-ttl", "1s"]).ok();
    append(&paused, "1").ok();
    let pull = |node: &Node| {
        let pulled = node.run(&["subscription", "pull", "billing", "--wait", "1s", "--output", "json"]).ok().json();
        pulled["deliveries"].as_array().unwrap().first().cloned()
    };
    let held = pull(&paused).unwrap();
    paused.signal("-STOP");
    // Asked for while it sleeps: done, if at all, when it wakes up.
    let lease = held["lease"].as_str().unwrap();
    let (late_ack, _stdin) = paused.feed(&["subscription", "ack", "billing", lease]);
    let late = ["stream", "append", "order-1", "--type", "placed", "--data", "{}", "--expect", "1"];
    let (late_append, _stdin) = paused.feed(&late);

    let taken = (0..30).find_map(|_| pull(&other)).expect("the lease ran out");
    assert_eq!((&taken["attempt"], &taken["event"]), (&Value::from(2), &held["event"]));
    append(&other, "2").ok();
    paused.signal("-CONT");
    let told = ended(late_ack).failed(1);
    assert!(told.contains("lease-lost"), "{told}");
    let told = ended(late_append).failed(1);
    assert!(told.contains("version-conflict"), "{told}");
    other.run(&["subscription", "ack", "billing", taken["lease"].as_str().unwrap()]).ok();
    let shown = paused.run(&["subscription", "show", "billing", "--output", "json"]).ok().json();
    assert_eq!(shown["checkpoint"], "1", "the paused node knows what the other one did: {shown}");
    assert_eq!(ids(&paused), ["1", "2"]);
}

/// The same for messages of a queue, and for a node that never wakes up.
#[test]
fn what_a_paused_or_killed_node_held_of_a_queue_goes_to_another_and_its_late_word_is_refused() {
    let own = own!();
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [one, other] = folders.each_ref().map(|folder| node_over(&own, folder.path()));
    one.run(&["queue", "declare", "mails", "--lease-ttl", "1s"]).ok();
    let receive = |node: &Node| {
        let received = node.run(&["queue", "receive", "mails", "--wait", "1s", "--output", "json"]).ok().json();
        received["deliveries"].as_array().unwrap().first().cloned()
    };
    let send = |id| other.run(&["queue", "send", "mails", "--type", "mail.due", "--id", id, "--data", "{}"]).ok();
    let ack = |delivery: &Value| other.run(&["queue", "ack", "mails", delivery["lease"].as_str().unwrap()]).ok();
    send("1");
    let held = receive(&one).unwrap();
    one.signal("-STOP");
    let (late, _stdin) = one.feed(&["queue", "ack", "mails", held["lease"].as_str().unwrap()]);
    let taken = (0..30).find_map(|_| receive(&other)).expect("the lease ran out");
    assert_eq!((&taken["attempt"], &taken["event"]), (&Value::from(2), &held["event"]));
    one.signal("-CONT");
    let told = ended(late).failed(1);
    assert!(told.contains("lease-lost"), "{told}");
    ack(&taken);

    send("2");
    let held = receive(&one).unwrap();
    one.signal("-KILL");
    let taken = (0..30).find_map(|_| receive(&other)).expect("the lease ran out");
    assert_eq!((&taken["attempt"], &taken["event"]), (&Value::from(2), &held["event"]));
    ack(&taken);
    let shown = other.run(&["queue", "show", "mails", "--output", "json"]).ok().json();
    assert_eq!(shown["messages"], 0, "{shown}");
}

#[test]
fn a_dump_restored_into_a_fresh_cluster_continues_every_subscription_without_replay_or_silence() {
    let (old, new) = (own!(), own!());
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let addresses = [old.tenant(), new.tenant()];
    let node = node_at(&addresses[0], folders[0].path());
    node.run(&["subscription", "create", "billing", "--lease-ttl", "1s"]).ok();
    for id in ["1", "2", "3"] {
        append(&node, id).ok();
    }
    let pull = |node: &Node| {
        let pulled = node.run(&["subscription", "pull", "billing", "--wait", "2s", "--output", "json"]).ok().json();
        pulled["deliveries"].as_array().unwrap().first().cloned()
    };
    let settle = |node: &Node, id: &str| {
        let handed = (0..30).find_map(|_| pull(node)).expect("it is handed out");
        assert_eq!((&handed["event"]["id"], &handed["attempt"]), (&Value::from(id), &Value::from(1)));
        node.run(&["subscription", "ack", "billing", handed["lease"].as_str().unwrap()]).ok();
    };
    settle(&node, "1");
    settle(&node, "2");
    let dump = old.dump(&addresses[0]);
    drop(node);

    new.restore(dump.path(), &addresses[1], "shop", "quorate_app");
    let node = node_at(&addresses[1], folders[1].path());
    settle(&node, "3");
    append(&node, "4").ok();
    settle(&node, "4");
    assert_eq!(append(&node, "2").ok().json()["streamversion"], "2", "what was known is known");
    let log = node.run(&["log", "read", "--all", "--output", "json"]).ok().json();
    let positions: Vec<&str> =
        log["events"].as_array().unwrap().iter().map(|e| e["logposition"].as_str().unwrap()).collect();
    assert_eq!(positions, ["1", "2", "3", "4"]);
    let shown = node.run(&["subscription", "show", "billing", "--output", "json"]).ok().json();
    assert_eq!(shown["checkpoint"], "4", "{shown}");
    node.run(&["store", "verify"]).ok();
}

#[test]
fn the_doctor_says_what_ails_a_database_and_its_exit_code_says_whether_anything_does() {
    let (own, folder) = (own!(), tempfile::tempdir().unwrap());
    let address = own.address();
    let examine =
        |more: &[&str]| run(folder.path(), &[&["doctor", "--store", &address, "--output", "json"], more].concat());
    let node = node_over(&own, folder.path());
    append(&node, "1").ok();
    assert_eq!(examine(&[]).ok().json()["findings"], serde_json::json!([]));
    drop(node);
    own.kill();
    own.demote();
    own.start();
    let ailing = examine(&[]);
    let findings = ailing.json();
    assert_eq!(
        (&findings["findings"][0]["about"], &findings["findings"][0]["severity"]),
        (&"standby".into(), &"danger".into())
    );
    assert!(ailing.failed(7).contains("1 thing to mend"));
    let table = run(folder.path(), &["doctor", "--store", &address]);
    assert_eq!(table.rows()[0][..2], ["danger", "standby"], "{table:?}");
    own.promote();
    examine(&["--older-than", "10s"]).ok();
    own.kill();
    assert!(examine(&[]).failed(4).contains("the database cannot be reached"));
    let embedded = run(folder.path(), &["doctor"]).failed(2);
    assert!(embedded.contains("store verify"), "{embedded}");
}

#[test]
fn the_bench_measures_over_a_database_and_leaves_nothing_there() {
    let Some(own) = Own::new("-c max_connections=300") else { return };
    let folder = tempfile::tempdir().unwrap();
    let address = own.address();
    let bench = ["bench", "log", "--store", &address, "--quick", "--span", "50ms", "--events", "2000", "--json"];
    let figures = run(folder.path(), &bench).ok().json();
    let names: Vec<&str> =
        figures["results"].as_array().unwrap().iter().map(|figure| figure["name"].as_str().unwrap()).collect();
    let expected = [
        "append/postgres/1",
        "append/postgres/64",
        "append/postgres/256",
        "append/postgres/64/alone",
        "visible/postgres/p99",
        "read/postgres/catch-up",
    ];
    assert_eq!(names, expected, "{figures}");
    let found = run(folder.path(), &["doctor", "--store", &address, "--output", "json"]).ok().json();
    assert_eq!(found["findings"][0]["about"], "tables", "there is no store: {found}");
}
