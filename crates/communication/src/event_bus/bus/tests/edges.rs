//! What handlers, upcasters and names may do to a group.

use std::time::Duration;

use quorate_data::{schema::upcast::Upcasters, subscription::Config};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Notes, Priced, PricedInPence, World, name, noting};
use crate::event_bus::{BusError, Event, Handlers, Heard};

/// What cannot be read where it says so.
#[derive(Clone, Debug, Serialize)]
struct Fragile {
    pounds: u64,
}
impl<'de> Deserialize<'de> for Fragile {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Priced { pounds } = Priced::deserialize(from)?;
        assert!(pounds != 13, "nobody foresaw thirteen");
        Ok(Self { pounds })
    }
}
impl Event for Fragile {
    const TYPE: &'static str = "item.priced";
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upcaster_or_a_reader_that_panics_parks_its_event_and_the_group_goes_on() {
    let mut world = World::new().await;
    let up = |data: serde_json::Value| match data["pounds"].as_u64() {
        Some(13) | None => panic!("nobody foresaw {data}"),
        Some(pounds) => Ok(json!({ "pence": pounds * 100 })),
    };
    let upcasters = Upcasters::builder().latest("item.priced", 2).step("item.priced", 1, 2, up).build().unwrap();
    let (read, upcast) = (Notes::default(), Notes::default());
    let (reads, _a) = world.serve("reads", noting::<Fragile>(&read), Config::default()).await;
    world.bus = world.bus.clone().with_upcasters(upcasters);
    let (upcasts, _b) = world.serve("upcasts", noting::<PricedInPence>(&upcast), Config::default()).await;
    for (stream, pounds) in [("a", 13), ("a", 1), ("b", 2)] {
        world.publish(stream, Priced { pounds }).await;
    }
    for (group, reason) in [(&reads, "reading it panicked"), (&upcasts, "it panicked: nobody foresaw {\"pounds\":13}")]
    {
        world.settled(group).await;
        let parked = group.subscription().parked(Default::default(), 10).await.unwrap();
        assert_eq!(parked.iter().map(|one| one.attempts).collect::<Vec<_>>(), [1, 0], "it is of no use again");
        assert!(parked[0].failures[0].reason.contains(reason), "{parked:?}");
    }
    assert_eq!(
        (read.lock().unwrap().len(), upcast.lock().unwrap().clone()),
        (1, vec![("b".to_owned(), PricedInPence { pence: 200 })])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_takes_no_name_of_those_that_feed_webhooks() {
    let world = World::new().await;
    let refused = world.bus.group(&name("webhook:w:0000000000000007"), Config::default()).await.err();
    assert!(matches!(refused, Some(BusError::Reserved { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_held_for_its_handler_for_longer_than_a_lease() {
    let world = World::new().await;
    let heard = Notes::<u32>::default();
    let (noted, store) = (heard.clone(), world.store.clone());
    let handlers = Handlers::default().on(move |heard: Heard<Priced>| {
        let (noted, store) = (noted.clone(), store.clone());
        async move {
            noted.lock().unwrap().push(heard.attempt());
            // Longer than several leases.
            store.env().sleep(Duration::from_secs(5)).await;
            Ok(())
        }
    });
    let config = Config { lease_ttl: Duration::from_secs(2), max_attempts: 1, ..Config::default() };
    let (group, _env) = world.serve("g", handlers, config).await;
    world.publish("a", Priced { pounds: 1 }).await;
    world.settled(&group).await;
    assert_eq!(*heard.lock().unwrap(), [1]);
    assert_eq!(group.subscription().describe().await.unwrap().counts.parked, 0);
}
