//! Processes that nobody leads, over a real store: what is told, reacted to and drawn, and what is left of it when a process dies.

use std::{sync::Arc, time::Duration};

use quorate_data::{
    event::NewEvent,
    store::{AppendBatch, ExpectedVersion, Query, QueryItem, ReadLog, Retire, Store},
};
use quorate_foundations::document::Format;
use quorate_runtime::Env;
use serde_json::{Value, json};

use super::world::{PATIENCE, World, effects, name, note, write_into};
use crate::saga::choreography::{
    By, Declared, Document, OVERDUE, Process, ProcessError, Processes, ReactError, Reacted, STOPPED, Search, Standing,
    Start,
};

pub(super) const MINUTE: Duration = Duration::from_secs(60);

pub(super) fn order() -> Process {
    Process::new(name("order"))
        .begins(&["placed"])
        .expect("placed", &["paid", "refused"], MINUTE)
        .ends(&["paid"])
        .undone(&["cancelled"])
}

/// An order whose confirmation cannot be taken back: a refused payment has a notice sent, and the order is cancelled.
fn with_notice() -> Process {
    order().react("mails", "refused", &["cancelled"], |tx, reacting| {
        Box::pin(async move {
            note(tx, format!("notice for {}", reacting.key)).await?;
            Ok(Reacted::default().append(name("mails"), NewEvent::new("", "/mails", "cancelled")))
        })
    })
}

pub(super) fn event(kind: &str, id: &str, course: &str, cause: Option<&str>) -> NewEvent {
    let (correlation_id, causation_id) = (Some(course.into()), cause.map(Into::into));
    NewEvent { correlation_id, causation_id, ..NewEvent::new(id, "/shop", kind) }
}

pub(super) async fn append(store: &Store, stream: &str, event: NewEvent) {
    store.append(AppendBatch::to(name(stream), ExpectedVersion::Any, vec![event])).await.unwrap();
}

/// Waits until the course stands so.
pub(super) async fn until(processes: &Processes, course: &str, standing: Standing) {
    let mut moves = processes.watch(&name("order")).unwrap();
    let stands = async {
        loop {
            let found = processes.look(&name("order"), course).await;
            if found.is_ok_and(|looked| looked.course.standing == standing) {
                return;
            }
            moves.changed().await.unwrap();
        }
    };
    if Env::real().timeout(PATIENCE, stands).await.is_none() {
        let (looked, process) =
            (processes.look(&name("order"), course).await, processes.describe(&name("order")).await);
        panic!("{course} is not {standing:?}: {looked:?}, {process:?}");
    }
}

/// Waits until the process has followed the log to where it ends now.
async fn caught_up(store: &Store, processes: &Processes) {
    let mut moves = processes.watch(&name("order")).unwrap();
    let head = store.head();
    Env::real().timeout(PATIENCE, moves.wait_for(|at| *at >= head)).await.unwrap().unwrap();
}

pub(super) async fn told(store: &Store, kind: &str) -> Vec<Value> {
    let query = Query::of([QueryItem::types([kind])]);
    let page = store.read_log(ReadLog { query, after: Default::default(), limit: 100 }).await.unwrap();
    page.events.iter().map(|event| serde_json::from_slice(event.data().unwrap_or(b"null")).unwrap()).collect()
}

#[tokio::test]
async fn what_is_overdue_is_told_once_with_its_edge_and_over_a_restart() {
    let world = World::new();
    let store = world.store().await;
    let processes = Processes::open(&store).await.unwrap();
    processes.declare(order()).await.unwrap();
    append(&store, "order-1", event("placed", "a", "1", None)).await;
    until(&processes, "1", Standing::OnTime).await;
    world.pass(MINUTE);
    until(&processes, "1", Standing::Overdue).await;
    store.close().await.unwrap();
    drop(processes);
    let store = world.store().await;
    let processes = Processes::open(&store).await.unwrap();
    processes.declare(order()).await.unwrap();
    world.pass(10 * MINUTE);
    append(&store, "order-1", event("placed", "b", "2", None)).await;
    until(&processes, "2", Standing::OnTime).await;
    let all = told(&store, OVERDUE).await;
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(
        all[0],
        json!({
            "process": "order", "course": "1", "after": { "type": "placed", "id": "a", "logposition": "1" },
            "expected": ["paid", "refused"], "within": "1m",
        })
    );
    append(&store, "order-1", event("paid", "c", "1", Some("a"))).await;
    until(&processes, "1", Standing::Ended).await;
}

#[tokio::test]
async fn an_answer_that_is_in_the_log_is_never_told_to_be_missing() {
    let world = World::new();
    let store = world.store().await;
    let processes = Processes::open(&store).await.unwrap();
    processes.declare(order()).await.unwrap();
    append(&store, "order-1", event("placed", "a", "1", None)).await;
    until(&processes, "1", Standing::OnTime).await;
    store.close().await.unwrap();
    drop(processes);
    // The answer comes while nobody follows, and the time is long over when somebody does again.
    let store = world.store().await;
    append(&store, "order-1", event("paid", "b", "1", Some("a"))).await;
    world.pass(100 * MINUTE);
    let processes = Processes::open(&store).await.unwrap();
    processes.declare(order()).await.unwrap();
    until(&processes, "1", Standing::Ended).await;
    assert_eq!(told(&store, OVERDUE).await, Vec::<Value>::new());
}

#[tokio::test]
async fn times_run_over_restarts_and_jumps_of_the_wall_clock_and_never_longer_than_they_are_to() {
    // The wall clock stays, or is set a day back or forward, while the process is up, or while it is down.
    for (while_up, while_down, left) in
        [(0, 0, 30), (86_400, 0, 30), (-86_400, 0, 30), (0, -86_400, 30), (0, 86_400, 0)]
    {
        let world = World::new();
        let store = world.store().await;
        let processes = Processes::open(&store).await.unwrap();
        processes.declare(order()).await.unwrap();
        append(&store, "order-1", event("placed", "a", "1", None)).await;
        until(&processes, "1", Standing::OnTime).await;
        world.set_wall(while_up);
        world.pass(Duration::from_secs(30));
        // Something else happens, so that it is written how late it is.
        append(&store, "order-2", event("paid", "b", "2", None)).await;
        until(&processes, "2", Standing::Ended).await;
        if while_up == 0 {
            store.close().await.unwrap();
            drop(processes);
            world.set_wall(while_down);
            let store = world.store().await;
            let processes = Processes::open(&store).await.unwrap();
            processes.declare(order()).await.unwrap();
            finish(&world, &store, &processes, left).await;
        } else {
            finish(&world, &store, &processes, left).await;
        }
    }
}

async fn finish(world: &World, store: &Store, processes: &Processes, left: u64) {
    if left > 0 {
        world.pass(Duration::from_secs(left - 1));
        append(store, "order-3", event("paid", "c", "3", None)).await;
        until(processes, "3", Standing::Ended).await;
        assert_eq!(told(store, OVERDUE).await.len(), 0);
        world.pass(Duration::from_secs(1));
    }
    until(processes, "1", Standing::Overdue).await;
    assert_eq!(told(store, OVERDUE).await.len(), 1);
}

#[tokio::test]
async fn a_refused_payment_has_one_notice_sent_which_is_the_end_of_it() {
    let world = World::of_this_machine();
    let store = world.store().await;
    let processes = Processes::open(&store).await.unwrap();
    processes.declare(with_notice()).await.unwrap();
    append(&store, "order-1", event("placed", "a", "1", None)).await;
    // With a copy of it in another stream; the bank changes its mind behind the end.
    let refused = || vec![event("refused", "b", "1", Some("a"))];
    let both = AppendBatch::to(name("bank-1"), ExpectedVersion::Any, refused());
    store.append(both.and_to(name("copies"), ExpectedVersion::Any, refused())).await.unwrap();
    until(&processes, "1", Standing::Undone).await;
    append(&store, "bank-1", event("refused", "c", "1", Some("a"))).await;
    caught_up(&store, &processes).await;
    assert_eq!(effects(&store).await, ["notice for 1"]);
    let looked = processes.look(&name("order"), "1").await.unwrap();
    assert_eq!((looked.course.repeated, looked.course.late), (1, 1));
    let graph = processes.graph(&name("order"), "1").await.unwrap();
    let tree = "order 1: undone\n  placed  order-1 @1\n    refused  bank-1 @2\n      cancelled  mails @4\n    refused  bank-1 @5\n";
    assert_eq!(graph.tree(), tree);
    assert!(graph.mermaid().contains("  e2 --> e4\n"), "{}", graph.mermaid());
    assert!(graph.dot().contains("  e1 -> e2;\n"), "{}", graph.dot());
}

#[tokio::test]
async fn wherever_the_log_is_left_each_event_is_reacted_to_once() {
    const ORDERS: u64 = 8;
    for place in 0..=ORDERS * 3 {
        let world = World::of_this_machine();
        let store = world.store().await;
        let processes = Processes::open(&store).await.unwrap();
        processes.declare(with_notice().start(Start::Beginning)).await.unwrap();
        let mut moves = processes.watch(&name("order")).unwrap();
        for n in 0..ORDERS {
            let (course, id) = (n.to_string(), format!("r-{n}"));
            append(&store, "orders", event("placed", &course, &course, None)).await;
            append(&store, "bank", event("refused", &id, &course, Some(&course))).await;
        }
        // It dies in the middle of whatever it does behind that place: the store refuses it to write from one moment to the next.
        moves.wait_for(|at| at.get() >= place).await.unwrap();
        store.close().await.unwrap();
        drop((processes, moves));
        let store = world.store().await;
        let processes = Processes::open(&store).await.unwrap();
        processes.declare(with_notice()).await.unwrap();
        for n in 0..ORDERS {
            until(&processes, &n.to_string(), Standing::Undone).await;
        }
        let mut notices = effects(&store).await;
        notices.sort();
        let expected: Vec<String> = (0..ORDERS).map(|n| format!("notice for {n}")).collect();
        assert_eq!(notices, expected, "place {place}");
        assert_eq!(told(&store, "cancelled").await.len() as u64, ORDERS, "place {place}");
    }
}

#[tokio::test]
async fn a_process_manager_that_refuses_or_panics_stops_its_course_and_no_other() {
    let world = World::of_this_machine();
    let store = world.store().await;
    let processes = Processes::open(&store).await.unwrap();
    let poisonous = order().react("mails", "placed", &["welcomed"], |tx, reacting| {
        Box::pin(async move {
            note(tx, format!("seen {}", reacting.key)).await?;
            match &*reacting.key {
                "refuses" => Err(ReactError::Refused("no such customer".to_owned())),
                "panics" => panic!("torn"),
                "undeclared" => Ok(Reacted::default().append(name("mails"), NewEvent::new("", "/mails", "odd"))),
                _ => Ok(Reacted::default().append(name("mails"), NewEvent::new("", "/mails", "welcomed"))),
            }
        })
    });
    processes.declare(poisonous).await.unwrap();
    let events = ["good", "refuses", "panics", "undeclared", "better"].map(|key| event("placed", key, key, None));
    store.append(AppendBatch::to(name("orders"), ExpectedVersion::Any, events.into())).await.unwrap();
    for (course, reason) in [
        ("refuses", "no such customer"),
        ("panics", "panicked"),
        ("undeclared", "the reaction to `placed` was not declared to emit `odd`"),
    ] {
        until(&processes, course, Standing::Stopped).await;
        let looked = processes.look(&name("order"), course).await.unwrap();
        assert!(looked.course.reason.as_deref().unwrap().contains(reason), "{:?}", looked.course.reason);
    }
    until(&processes, "better", Standing::OnTime).await;
    assert_eq!(effects(&store).await, ["seen good", "seen better"]);
    assert_eq!((told(&store, "welcomed").await.len(), told(&store, STOPPED).await.len()), (2, 3));
}

#[tokio::test]
async fn a_circle_that_is_meant_goes_round_so_often_and_is_stopped() {
    let world = World::of_this_machine();
    let store = world.store().await;
    let processes = Processes::open(&store).await.unwrap();
    let again = |process: Process, on: &'static str, emits: &'static str| {
        process.react("retry", on, &[emits], move |_tx, reacting| {
            let (Value::Null | Value::Number(_)) = &reacting.state else { unreachable!("nothing else was kept") };
            let rounds = json!(reacting.state.as_u64().unwrap_or(0) + 1);
            Box::pin(
                async move { Ok(Reacted::with(rounds).append(name("retries"), NewEvent::new("", "/retry", emits))) },
            )
        })
    };
    let circle = again(again(order(), "placed", "tried"), "tried", "placed").chain(64, 5);
    assert!(
        matches!(processes.declare(circle.clone()).await, Err(ProcessError::Cycle { path }) if path.contains(" → "))
    );
    processes.declare(circle.meant("tried")).await.unwrap();
    append(&store, "orders", event("placed", "a", "1", None)).await;
    until(&processes, "1", Standing::Stopped).await;
    caught_up(&store, &processes).await;
    let looked = processes.look(&name("order"), "1").await.unwrap();
    assert_eq!(
        looked.course.reason.as_deref(),
        Some("`placed` came 6 times on one chain of causes: placed → tried → placed")
    );
    assert_eq!((looked.course.state, looked.trail.len()), (json!(10), 11));
}

#[tokio::test]
async fn a_cycle_over_two_processes_is_refused_and_nothing_is_declared() {
    let world = World::of_this_machine();
    let store = world.store().await;
    let processes = Processes::open(&store).await.unwrap();
    processes.declare(order().reaction("stock", "placed", &["reserved"])).await.unwrap();
    let other = Process::new(name("other")).begins(&["reserved"]).reaction("orders", "reserved", &["placed"]);
    let Err(ProcessError::Cycle { path }) = processes.declare(other).await else { panic!("no cycle") };
    assert_eq!(path, "placed → reserved (by stock) → placed (by orders)");
    assert_eq!(processes.names(), [name("order")]);
}

const DOCUMENT: &str = r#"
process = "order"
by = "data"
key = ".order"
start = "beginning"
begins = ["placed"]
ends = ["paid"]

[[expect]]
after = "placed"
events = ["paid"]
within = "1m"

[[reactions]]
by = "bank"
on = "placed"
emits = ["paid"]
"#;

fn by_data(kind: &str, id: &str) -> NewEvent {
    NewEvent::new(id, "/shop", kind).json(r#"{"order": 7}"#)
}

#[tokio::test]
async fn a_document_is_followed_after_a_restart_by_itself_and_can_say_something_else() {
    let world = World::new();
    let store = world.store().await;
    append(&store, "orders", by_data("placed", "a")).await;
    append(&store, "orders", NewEvent::new("b", "/shop", "placed").json("{}")).await;
    let document = Document::read(DOCUMENT, Format::Toml).unwrap();
    let processes = Processes::open(&store).await.unwrap();
    assert_eq!(processes.declare_document(document.clone()).await.unwrap(), Declared::New);
    assert_eq!(processes.declare_document(document).await.unwrap(), Declared::Unchanged);
    until(&processes, "7", Standing::OnTime).await;
    assert_eq!(processes.describe(&name("order")).await.unwrap().counts.keyless, 1);
    store.close().await.unwrap();
    drop(processes);
    let store = world.store().await;
    let processes = Processes::open(&store).await.unwrap();
    world.pass(MINUTE);
    until(&processes, "7", Standing::Overdue).await;
    let other = Document::read(&DOCUMENT.replace("ends = [\"paid\"]", "ends = [\"sent\"]"), Format::Toml).unwrap();
    assert_eq!(processes.declare_document(other).await.unwrap(), Declared::Changed);
    append(&store, "orders", by_data("paid", "c")).await;
    until(&processes, "7", Standing::OnTime).await;
    append(&store, "orders", by_data("sent", "d")).await;
    until(&processes, "7", Standing::Ended).await;
    let listed =
        processes.list(&name("order"), Search { standing: Some(Standing::Ended), ..Search::default() }).await.unwrap();
    assert_eq!(listed.iter().map(|one| &*one.key).collect::<Vec<_>>(), ["7"]);
    processes.remove(&name("order")).await.unwrap();
    assert!(matches!(processes.look(&name("order"), "7").await, Err(ProcessError::Undeclared { .. })));
}

#[tokio::test]
async fn the_data_of_an_event_about_a_data_subject_is_not_looked_at() {
    let world = World::of_this_machine();
    let store = world.store().await;
    let processes = Processes::open(&store).await.unwrap();
    let by = By::Data(Arc::new(quorate_foundations::jq::Program::compile(".mail").unwrap()));
    processes.declare(order().by(by)).await.unwrap();
    let mut placed = NewEvent::new("a", "/shop", "placed").json(r#"{"mail": "ada@example.com"}"#);
    placed.data_subject = Some("person-1".into());
    append(&store, "orders", placed).await;
    caught_up(&store, &processes).await;
    assert_eq!(processes.list(&name("order"), Search::default()).await.unwrap(), []);
}

#[tokio::test]
async fn an_alarm_that_the_log_refuses_keeps_no_course_waiting() {
    let world = World::new();
    let store = world.store().await;
    let processes = Processes::open(&store).await.unwrap();
    processes.declare(order()).await.unwrap();
    append(&store, "orders", event("placed", "a", "1", None)).await;
    append(&store, "orders", event("placed", "b", "2", None)).await;
    until(&processes, "2", Standing::OnTime).await;
    write_into(&store, "process-order", NewEvent::new("x", "/somebody", "odd")).await;
    store.retire(name("process-order"), Retire::Tombstone { expected: ExpectedVersion::Any }).await.unwrap();
    world.pass(MINUTE);
    until(&processes, "1", Standing::Overdue).await;
    until(&processes, "2", Standing::Overdue).await;
    assert_eq!(told(&store, OVERDUE).await, Vec::<Value>::new());
    append(&store, "orders", event("paid", "c", "1", Some("a"))).await;
    until(&processes, "1", Standing::Ended).await;
}

#[tokio::test]
async fn a_key_that_could_not_be_told_is_none() {
    let world = World::of_this_machine();
    let store = world.store().await;
    let processes = Processes::open(&store).await.unwrap();
    let by = By::Data(Arc::new(quorate_foundations::jq::Program::compile(".order").unwrap()));
    processes.declare(order().by(by)).await.unwrap();
    append(&store, "orders", NewEvent::new("a", "/shop", "placed").json(r#"{"order": "a\nb"}"#)).await;
    append(&store, "orders", NewEvent::new("b", "/shop", "placed").json(r#"{"order": "c"}"#)).await;
    until(&processes, "c", Standing::OnTime).await;
    assert_eq!(processes.describe(&name("order")).await.unwrap().counts.keyless, 1);
}

#[tokio::test]
async fn what_is_kept_too_deep_to_be_read_again_stops_its_course_and_no_other() {
    let world = World::of_this_machine();
    let store = world.store().await;
    let processes = Processes::open(&store).await.unwrap();
    let keeping = order().react("deep", "placed", &["welcomed"], |_tx, reacting| {
        let depth = if &*reacting.key == "deep" { 126 } else { 1 };
        let state = (0..depth).fold(Value::Null, |state, _| json!([state]));
        Box::pin(async move { Ok(Reacted::with(state)) })
    });
    processes.declare(keeping).await.unwrap();
    append(&store, "orders", event("placed", "a", "deep", None)).await;
    append(&store, "orders", event("placed", "b", "flat", None)).await;
    until(&processes, "deep", Standing::Stopped).await;
    until(&processes, "flat", Standing::OnTime).await;
    append(&store, "orders", event("paid", "c", "deep", None)).await;
    append(&store, "orders", event("paid", "d", "flat", None)).await;
    until(&processes, "flat", Standing::Ended).await;
    assert_eq!(processes.look(&name("order"), "deep").await.unwrap().course.late, 1);
}
