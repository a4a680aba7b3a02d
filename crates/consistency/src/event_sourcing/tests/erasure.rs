//! Claims about erased data subjects: what their events said is in no state, and in no copy of one.

use std::num::NonZeroU64;

use quorate_data::store::{Query, ReadLog, Store};
use serde::{Deserialize, Serialize};

use super::bank::{run, store};
use crate::{
    event_sourcing::{Aggregate, Aggregates, Decider, Metadata, Snapshotted},
    event_types,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Event {
    Opened { at: u32 },
    Named { patient: u32, name: String },
}

event_types! {
    Event {
        Opened = "file.opened" version 1,
        Named { patient } = "file.named" version 1 tags ["patient:{patient}"] about "patient:{patient}",
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct State {
    opened: u32,
    names: Vec<String>,
}

#[derive(Clone, Copy)]
struct Files;

impl Decider for Files {
    type Command = Event;
    type Event = Event;
    type State = State;
    type Rejection = ();

    fn decide(&self, _: &State, command: &Event) -> Result<Vec<Event>, ()> {
        Ok(vec![command.clone()])
    }

    fn evolve(mut state: State, event: &Event) -> State {
        match event {
            Event::Opened { .. } => state.opened += 1,
            Event::Named { name, .. } => state.names.push(name.clone()),
        }
        state
    }
}

impl Aggregate for Files {
    const CATEGORY: &'static str = "file";
}

impl Snapshotted for Files {
    const FOLD_VERSION: u32 = 1;

    fn probe() -> Vec<Event> {
        Vec::new()
    }
}

async fn files(store: &Store) -> Aggregates<Files> {
    Aggregates::of(Files).snapshots_every(NonZeroU64::MIN).open(store).await.unwrap()
}

fn named(patient: u32, name: &str) -> Event {
    Event::Named { patient, name: name.into() }
}

async fn handle(files: &Aggregates<Files>, id: u32, command: Event) {
    files.handle(id, command, Metadata::default()).await.unwrap();
    files.flush().await;
}

async fn snapshots(store: &Store) -> Vec<String> {
    let rows = store.room_query("SELECT state FROM quorate_snapshot ORDER BY stream", vec![]).await.unwrap();
    rows.iter().map(|row| row.at(0).as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_erasure_takes_events_out_of_states_in_memory_and_in_the_log() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let files = files(&store).await;
        for event in [Event::Opened { at: 1 }, named(4, "Ada"), named(5, "Bob"), Event::Opened { at: 2 }] {
            handle(&files, 1, event).await;
        }
        let both = State { opened: 2, names: vec!["Ada".into(), "Bob".into()] };
        assert_eq!(*files.load(1).await.unwrap().state, both);
        assert_eq!(store.erase("patient:4").await.unwrap().events, 1);
        for _ in 0..2 {
            let left = State { opened: 2, names: vec!["Bob".into()] };
            assert_eq!(*files.load(1).await.unwrap().state, left);
            files.forget_states();
        }
        assert_eq!(files.statistics().erased_events, 2);
        handle(&files, 1, named(4, "Ada again")).await;
        assert_eq!(files.load(1).await.unwrap().state.names, ["Bob", "Ada again"]);
    });
}

#[test]
fn nothing_of_a_command_about_a_data_subject_outlives_its_erasure_in_a_digest() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let files = files(&store).await;
        let asking = |id: &'static str, event: Event| {
            let metadata = Metadata::command(id).asking(&format!("{event:?}")).unwrap();
            files.handle(1, event, metadata)
        };
        asking("a", Event::Opened { at: 1 }).await.unwrap();
        asking("b", named(4, "Ada")).await.unwrap();
        let read = ReadLog { query: Query::EVERYTHING, after: Default::default(), limit: 10 };
        let kept: Vec<bool> =
            store.read_log(read).await.unwrap().events.iter().map(|event| !event.extensions().is_empty()).collect();
        assert_eq!(kept, [true, false]);
        assert!(asking("b", named(4, "Ada")).await.unwrap().repeated);
    });
}

#[test]
fn no_snapshot_holds_what_a_data_subjects_events_said() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let files = files(&store).await;
        for event in [Event::Opened { at: 1 }, named(4, "Ada"), Event::Opened { at: 2 }] {
            handle(&files, 1, event).await;
        }
        handle(&files, 2, Event::Opened { at: 3 }).await;
        assert_eq!(snapshots(&store).await, [r#"{"opened":1,"names":[]}"#; 2]);
        files.forget_states();
        handle(&files, 1, Event::Opened { at: 4 }).await;
        store.erase("patient:4").await.unwrap();
        handle(&files, 1, Event::Opened { at: 5 }).await;
        assert!(snapshots(&store).await.iter().all(|state| state.contains("\"names\":[]")));
        assert_eq!(files.load(1).await.unwrap().state.opened, 4);
    });
}
