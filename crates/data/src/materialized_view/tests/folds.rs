//! Projections with typed rows, and trying them out.

use super::{super::*, world::*};
use crate::{
    event::{NewEvent, Recorded},
    store::{Query, QueryItem, Value},
    view_row,
};

view_row! {
    /// How a counter stands.
    pub(super) struct Counter in "counter" {
        /// Which.
        stream: String,
        /// The sum of its weights.
        sum: i64,
        /// Its last note.
        note: Option<String>,
    }
}

struct Counters;

impl Fold for Counters {
    const NAME: &'static str = "counters";
    const VERSION: u32 = 1;
    type Row = Counter;

    fn query(&self) -> Query {
        Query::of([QueryItem::types(["up", "noted", "closed"])])
    }

    fn key(&self, event: &Recorded) -> Option<String> {
        Some(event.stream().to_owned())
    }

    fn fold(&self, row: Option<Counter>, event: &Recorded) -> Result<Option<Counter>, String> {
        let row = row.unwrap_or_else(|| Counter { stream: event.stream().to_owned(), sum: 0, note: None });
        match event.kind() {
            "up" => Ok(Some(Counter { sum: row.sum + 1, ..row })),
            "noted" => {
                let note = event.data().and_then(|data| serde_json::from_slice(data).ok()).ok_or("it has no note")?;
                Ok(Some(Counter { note: Some(note), ..row }))
            }
            _ => Ok(None),
        }
    }
}

fn event(kind: &str) -> NewEvent {
    NewEvent::new("e-1", "/test", kind)
}

#[tokio::test]
async fn given_events_a_fold_makes_these_rows() {
    let world = World::new();
    let store = world.open().await;
    let noted = event("noted").json(&br#""hello""#[..]);
    let events = [("a", event("up")), ("b", event("up")), ("a", noted), ("a", event("up")), ("a", event("ignored"))];
    let made = given(&store, events).applied_to(Folded::new(Counters)).await.unwrap();
    let a = Counter { stream: "a".into(), sum: 2, note: Some("hello".into()) };
    let b = Counter { stream: "b".into(), sum: 1, note: None };
    assert_eq!(made.all::<Counter>(), [a, b]);
    assert!(store.query("SELECT 1 FROM view__counters__0__counter", vec![]).await.is_err(), "nothing is kept");
}

#[tokio::test]
async fn a_row_that_a_fold_gives_up_is_deleted() {
    let world = World::new();
    let store = world.open().await;
    let events = [("a", event("up")), ("a", event("closed")), ("b", event("up"))];
    let made = given(&store, events).applied_to(Folded::new(Counters)).await.unwrap();
    assert_eq!(made.all::<Counter>().len(), 1);
}

#[tokio::test]
async fn an_event_that_a_fold_cannot_take_is_named() {
    let world = World::new();
    let store = world.open().await;
    let refused = given(&store, [("a", event("up")), ("a", event("noted"))]).applied_to(Folded::new(Counters)).await;
    let told = refused.unwrap_err().to_string();
    assert_eq!(told, "the event at position 2 cannot be applied: it has no note");
}

#[tokio::test]
async fn a_fold_keeps_up_with_the_log_in_batches_that_touch_a_row_often() {
    let world = World::new();
    let store = world.open().await;
    for _ in 0..5 {
        append(&store, "a", &["up"; 50]).await;
        append(&store, "b", &["up", "closed", "up"]).await;
    }
    let counters = Views::open(&store).await.unwrap().start(Folded::new(Counters), config()).await.unwrap();
    counters.wait(store.token(), LONG).await.unwrap();
    let reading = counters.query("SELECT stream, sum, note FROM {counter} ORDER BY stream", vec![]).await.unwrap();
    let rows: Vec<Counter> = reading.rows.iter().filter_map(Counter::from_row).collect();
    assert_eq!(rows.iter().map(|row| row.sum).collect::<Vec<_>>(), [250, 1]);
}

#[test]
fn values_and_columns_agree() {
    assert_eq!(Counter::definition(), "stream TEXT NOT NULL PRIMARY KEY, sum BIGINT NOT NULL, note TEXT");
    assert_eq!(u32::from_value(&Value::Integer(-1)), None);
    assert_eq!(Option::<i64>::from_value(&Value::Null), Some(None));
    assert_eq!(bool::from_value(&true.to_value()), Some(true));
}
