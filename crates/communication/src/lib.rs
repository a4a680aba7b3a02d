//! How services talk to each other: one room per pattern.

mod attributes;
pub mod cloud_events;
pub mod event_bus;
pub mod inbox;
pub mod message_queue;
pub mod outbox;
pub mod request;
#[cfg(any(feature = "served", feature = "webhooks"))]
mod roots;
pub mod transports;

/// The rooms of this crate that keep tables, for whoever moves a store.
pub fn rooms() -> Vec<quorate_data::store::moving::Room> {
    use quorate_data::store::moving::Room;
    vec![
        Room::carried(message_queue::TABLES),
        // What queues of several nodes tell each other.
        Room::begun_anew(message_queue::TURN_TABLES).leaving(message_queue::LEAVING),
        Room::carried(event_bus::catalogue::TABLES),
        #[cfg(feature = "webhooks")]
        Room::carried(event_bus::webhook::TABLES),
        Room::carried(outbox::TABLES),
        Room::carried(inbox::TABLES),
    ]
}
