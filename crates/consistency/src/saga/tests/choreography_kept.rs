//! What stays of processes and courses: whoever leaves in the middle of something, and however much time passes.

use std::time::Duration;

use quorate_foundations::document::Format;
use quorate_runtime::Env;

use super::{
    choreography::{MINUTE, append, event, order, told, until},
    world::{PATIENCE, World, name},
};
use crate::saga::choreography::{Document, OVERDUE, Processes, ReactError, Reacted, Standing};

/// So often at most whoever leaves has looked whether it is done.
const POLLS: usize = 12;

fn document(description: &str) -> Document {
    let text = format!(
        "process: order\ndescription: {description}\nbegins: [placed]\nends: [paid]\nexpect:\n- {{after: placed, events: [paid], within: 1m}}\n"
    );
    Document::read(&text, Format::Yaml).unwrap()
}

/// Polls `asking` so often, and leaves.
async fn leave<T>(asking: impl Future<Output = T>, polls: usize) {
    let mut asking = Box::pin(asking);
    for _ in 0..polls {
        if futures_util::poll!(&mut asking).is_ready() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_process_is_watched_on_wherever_whoever_declares_it_anew_leaves() {
    for polls in 1..POLLS {
        let world = World::new();
        let store = world.store().await;
        let processes = Processes::open(&store).await.unwrap();
        processes.declare_document(document("as it was")).await.unwrap();
        append(&store, "orders", event("placed", "a", "1", None)).await;
        until(&processes, "1", Standing::OnTime).await;
        leave(processes.declare_document(document("as it is to be")), polls).await;
        world.pass(MINUTE);
        until(&processes, "1", Standing::Overdue).await;
        assert_eq!(told(&store, OVERDUE).await.len(), 1, "left behind {polls}");
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_removal_that_was_begun_is_done_wherever_whoever_asked_leaves() {
    for polls in 1..POLLS {
        let world = World::of_this_machine();
        let store = world.store().await;
        let processes = Processes::open(&store).await.unwrap();
        processes.declare_document(document("as it was")).await.unwrap();
        let order = name("order");
        leave(processes.remove(&order), polls).await;
        let gone = async {
            while !processes.names().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        Env::real().timeout(PATIENCE, gone).await.unwrap();
        processes.declare_document(document("as it was")).await.unwrap();
        append(&store, "orders", event("placed", "a", "1", None)).await;
        until(&processes, "1", Standing::OnTime).await;
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn courses_are_forgotten_so_long_after_their_end() {
    let world = World::new();
    let store = world.store().await;
    let processes = Processes::open(&store).await.unwrap();
    processes.declare(order().keep(Duration::from_secs(86_400))).await.unwrap();
    append(&store, "orders", event("paid", "a", "1", None)).await;
    append(&store, "orders", event("placed", "b", "2", None)).await;
    until(&processes, "2", Standing::OnTime).await;
    world.pass(Duration::from_secs(90_000));
    append(&store, "orders", event("placed", "c", "3", None)).await;
    until(&processes, "3", Standing::OnTime).await;
    let gone = async {
        while processes.look(&name("order"), "1").await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    Env::real().timeout(PATIENCE, gone).await.unwrap();
    until(&processes, "2", Standing::Overdue).await;
}

#[tokio::test]
async fn a_stopped_course_waits_for_whoever_has_it_go_on_however_long_that_takes() {
    let world = World::new();
    let store = world.store().await;
    let processes = Processes::open(&store).await.unwrap();
    let refusing = order().keep(Duration::from_secs(1)).react("mails", "placed", &["welcomed"], |_tx, reacting| {
        let is_refused = &*reacting.key == "1";
        Box::pin(async move {
            if is_refused { Err(ReactError::Refused("no such customer".to_owned())) } else { Ok(Reacted::default()) }
        })
    });
    processes.declare(refusing).await.unwrap();
    append(&store, "orders", event("placed", "a", "1", None)).await;
    until(&processes, "1", Standing::Stopped).await;
    append(&store, "orders", event("placed", "b", "2", None)).await;
    append(&store, "orders", event("paid", "c", "2", None)).await;
    until(&processes, "2", Standing::Ended).await;
    world.pass(Duration::from_secs(7_200));
    // Whatever happens next has those forgotten that are over.
    append(&store, "orders", event("placed", "d", "3", None)).await;
    let gone = async {
        while processes.look(&name("order"), "2").await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    Env::real().timeout(PATIENCE, gone).await.unwrap();
    assert_eq!(processes.look(&name("order"), "1").await.unwrap().course.standing, Standing::Stopped);
    let open = processes.overview(None, 1).await.remove(0).open.unwrap();
    assert_eq!(open.iter().find(|(standing, _)| *standing == Standing::Stopped), Some(&(Standing::Stopped, 1)));
}

#[tokio::test]
async fn who_opens_again_while_processes_are_followed_finds_them() {
    let world = World::of_this_machine();
    let store = world.store().await;
    let processes = Processes::open(&store).await.unwrap();
    processes.declare(order()).await.unwrap();
    drop(processes);
    let processes = Processes::open(&store).await.unwrap();
    assert!(processes.describe(&name("order")).await.unwrap().process.is_some(), "it is followed already");
}
