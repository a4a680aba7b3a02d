//! What stays of processes, whoever leaves in the middle of something.

use quorate_foundations::document::Format;
use quorate_runtime::Env;

use super::{
    choreography::{MINUTE, append, event, order, told, until},
    world::{PATIENCE, World, name},
};
use crate::saga::choreography::{Document, OVERDUE, Processes, Standing};

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
async fn who_opens_again_while_processes_are_followed_finds_them() {
    let world = World::of_this_machine();
    let store = world.store().await;
    let processes = Processes::open(&store).await.unwrap();
    processes.declare(order()).await.unwrap();
    drop(processes);
    let processes = Processes::open(&store).await.unwrap();
    assert!(processes.describe(&name("order")).await.unwrap().process.is_some(), "it is followed already");
}
