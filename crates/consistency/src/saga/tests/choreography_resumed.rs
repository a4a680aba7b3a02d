//! Courses that were stopped go on once somebody says so; and nobody but the process writes to its stream.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use quorate_data::{
    event::{NewEvent, Version},
    store::{AppendBatch, AppendError, ExpectedVersion, Retire},
};
use serde_json::{Value, json};

use super::{
    choreography::{MINUTE, append, event, order, told, until},
    world::{World, effects, name, note},
};
use crate::saga::choreography::{
    Document, OVERDUE, Process, ProcessError, Processes, RESUMED, ReactError, Reacted, STOPPED, Standing,
};

/// A process manager that is in order once the switch is set.
fn fragile(is_mended: &Arc<AtomicBool>) -> Process {
    let is_mended = is_mended.clone();
    order().react("mails", "placed", &["welcomed"], move |tx, reacting| {
        let is_mended = is_mended.load(Ordering::SeqCst);
        Box::pin(async move {
            note(tx, format!("seen {}", reacting.event.id())).await?;
            if !is_mended {
                return Err(ReactError::Refused("no template".to_owned()));
            }
            let seen = reacting.state.as_u64().unwrap_or(0) + 1;
            Ok(Reacted::with(json!(seen)).append(name("mails"), NewEvent::new("", "/mails", "welcomed")))
        })
    })
}

#[tokio::test]
async fn a_stopped_course_goes_on_with_what_came_since_and_each_event_is_reacted_to_once() {
    let world = World::of_this_machine();
    let store = world.store().await;
    let processes = Processes::open(&store).await.unwrap();
    let (is_mended, order) = (Arc::new(AtomicBool::new(false)), name("order"));
    processes.declare(fragile(&is_mended)).await.unwrap();
    append(&store, "orders", event("placed", "a", "1", None)).await;
    until(&processes, "1", Standing::Stopped).await;
    append(&store, "orders", event("placed", "b", "1", None)).await;
    append(&store, "orders", event("paid", "c", "1", Some("a"))).await;
    append(&store, "orders", event("paid", "d", "1", Some("b"))).await;
    let head = store.head();
    processes.watch(&order).unwrap().wait_for(|at| *at >= head).await.unwrap();

    let refused = processes.resume(&order, "1", "ada", "").await;
    assert!(matches!(&refused, Err(ProcessError::Refused { why, .. }) if **why == *"no template"), "{refused:?}");
    assert_eq!((store.head(), effects(&store).await), (head, Vec::<String>::new()), "nothing was changed");
    is_mended.store(true, Ordering::SeqCst);
    let standing = processes.resume(&order, "1", "ada", "there is a template").await.unwrap();
    assert_eq!(standing, Standing::Ended);
    let looked = processes.look(&order, "1").await.unwrap();
    // The second payment came behind the end.
    assert_eq!((looked.course.late, looked.course.reason, looked.course.state), (1, None, json!(2)));
    assert_eq!(effects(&store).await, ["seen a", "seen b"]);
    assert_eq!((told(&store, "welcomed").await.len(), told(&store, STOPPED).await.len()), (2, 1));
    let said = json!({
        "process": "order", "course": "1", "at": { "type": "placed", "id": "a", "logposition": "1" },
        "by": "ada", "note": "there is a template",
    });
    assert_eq!(told(&store, RESUMED).await, [said]);
    for (key, by) in [("1", "ada"), ("2", "ada"), ("1", "")] {
        assert!(processes.resume(&order, key, by, "").await.is_err(), "{key} {by}");
    }
    assert_eq!(processes.describe(&order).await.unwrap().counts.tally.resumed, 1);
    // Its follower goes on behind it.
    append(&store, "orders", event("placed", "e", "3", None)).await;
    until(&processes, "3", Standing::OnTime).await;
}

#[tokio::test]
async fn what_is_expected_runs_on_in_a_course_that_goes_on_and_what_was_told_is_not_told_again() {
    let world = World::new();
    let store = world.store().await;
    let processes = Processes::open(&store).await.unwrap();
    let text = "process: order\nbegins: [placed]\nends: [done]\nmax-repeats: 1\nexpect:\n\
        - {after: placed, events: [paid], within: 1m}\n- {after: placed, events: [sent], within: 10m}\n";
    let document = Document::read(text, quorate_foundations::document::Format::Yaml).unwrap();
    processes.declare_document(document).await.unwrap();
    append(&store, "orders", event("placed", "a", "1", None)).await;
    until(&processes, "1", Standing::OnTime).await;
    world.pass(MINUTE);
    until(&processes, "1", Standing::Overdue).await;
    append(&store, "orders", event("placed", "b", "1", Some("a"))).await;
    until(&processes, "1", Standing::Stopped).await;
    // What was told may be forgotten by then.
    store.retire(name("process-order"), Retire::Truncate { before: Version::new(2) }).await.unwrap();
    world.pass(8 * MINUTE);
    let standing = processes.resume(&name("order"), "1", "ada", "").await.unwrap();
    assert_eq!(standing, Standing::Overdue);
    // The first parcel is due in a minute: nobody had to say anything for that to be noticed.
    world.pass(MINUTE);
    let missing = async {
        loop {
            let course = processes.look(&name("order"), "1").await.unwrap().course;
            if course.pending.iter().filter(|one| one.overdue).count() == 3 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    quorate_runtime::Env::real().timeout(super::world::PATIENCE, missing).await.unwrap();
    let all: Vec<Value> = told(&store, OVERDUE).await;
    let mut edges: Vec<(&str, &str)> = all
        .iter()
        .filter(|one| !one.is_null())
        .map(|one| (one["after"]["id"].as_str().unwrap(), one["expected"][0].as_str().unwrap()))
        .collect();
    edges.sort_unstable();
    assert_eq!(edges, [("a", "sent"), ("b", "paid")], "what was told before was forgotten, and is not told again");
}

#[tokio::test]
async fn a_circle_goes_round_as_often_again_once_somebody_has_it_go_on() {
    let world = World::of_this_machine();
    let store = world.store().await;
    let processes = Processes::open(&store).await.unwrap();
    let again = |process: Process, on: &'static str, emits: &'static str| {
        process.react("retry", on, &[emits], move |_tx, _| {
            Box::pin(async move { Ok(Reacted::default().append(name("retries"), NewEvent::new("", "/retry", emits))) })
        })
    };
    let circle = again(again(order(), "placed", "tried"), "tried", "placed").chain(64, 5).meant("tried");
    processes.declare(circle).await.unwrap();
    append(&store, "orders", event("placed", "a", "1", None)).await;
    until(&processes, "1", Standing::Stopped).await;
    let rounds = told(&store, "placed").await.len();
    processes.resume(&name("order"), "1", "ada", "").await.unwrap();
    until(&processes, "1", Standing::Stopped).await;
    assert_eq!((rounds, told(&store, "placed").await.len()), (6, 11));
    assert_eq!((told(&store, STOPPED).await.len(), told(&store, RESUMED).await.len()), (2, 1));
}

#[tokio::test]
async fn wherever_going_on_is_left_it_is_done_whole_or_not_at_all() {
    for polls in 0..12 {
        let world = World::of_this_machine();
        let store = world.store().await;
        let processes = Processes::open(&store).await.unwrap();
        let is_mended = Arc::new(AtomicBool::new(false));
        processes.declare(fragile(&is_mended)).await.unwrap();
        append(&store, "orders", event("placed", "a", "1", None)).await;
        until(&processes, "1", Standing::Stopped).await;
        is_mended.store(true, Ordering::SeqCst);
        let order = name("order");
        let mut going = Box::pin(processes.resume(&order, "1", "ada", ""));
        for _ in 0..polls {
            if futures_util::poll!(&mut going).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(going);
        store.close().await.unwrap();
        drop(processes);
        let store = world.store().await;
        let processes = Processes::open(&store).await.unwrap();
        processes.declare(fragile(&is_mended)).await.unwrap();
        let has_gone_on = processes.look(&name("order"), "1").await.unwrap().course.standing != Standing::Stopped;
        let done =
            (told(&store, RESUMED).await.len(), told(&store, "welcomed").await.len(), effects(&store).await.len());
        assert_eq!(done, if has_gone_on { (1, 1, 1) } else { (0, 0, 0) }, "left behind {polls}");
        if !has_gone_on {
            processes.resume(&name("order"), "1", "ada", "").await.unwrap();
        }
        until(&processes, "1", Standing::OnTime).await;
    }
}

#[tokio::test]
async fn a_document_takes_no_programs_place_and_nobody_else_writes_what_a_process_says() {
    let world = World::of_this_machine();
    let store = world.store().await;
    let processes = Processes::open(&store).await.unwrap();
    processes.declare(order()).await.unwrap();
    let document = || {
        let text = "process: order\nbegins: [placed]\n";
        Document::read(text, quorate_foundations::document::Format::Yaml).unwrap()
    };
    let refused = processes.declare_document(document()).await;
    assert!(matches!(refused, Err(ProcessError::OfProgram { .. })), "{refused:?}");
    let forged = AppendBatch::to(
        name("process-order"),
        ExpectedVersion::Any,
        vec![NewEvent::new("x", "/quorate/process", OVERDUE)],
    );
    let refused = store.append(forged).await;
    assert!(matches!(refused, Err(AppendError::Reserved { room: "process", .. })), "{refused:?}");
    store.close().await.unwrap();
    drop(processes);
    // Also before the program has declared it again.
    let store = world.store().await;
    let processes = Processes::open(&store).await.unwrap();
    assert!(matches!(processes.declare_document(document()).await, Err(ProcessError::OfProgram { .. })));
    assert!(processes.describe(&name("order")).await.unwrap().is_of_program);
    assert_eq!(processes.troubles().len(), 1);
    processes.remove(&name("order")).await.unwrap();
    processes.declare_document(document()).await.unwrap();
    let all = processes.overview(None, 10).await;
    assert_eq!((all.len(), all[0].trouble.clone(), processes.troubles().len()), (1, None, 0));
    assert_eq!(processes.overview(Some(&name("order")), 10).await.len(), 0);
}
