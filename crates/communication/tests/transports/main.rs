//! Every transport keeps the same promises, relays and inboxes keep theirs over each, and real brokers are killed meanwhile.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "these tests look at brokers from outside: their processes, their connections"
)]

#[cfg(any(feature = "nats", feature = "rabbitmq"))]
mod broker;
#[cfg(any(feature = "nats", feature = "rabbitmq"))]
mod brokers;
#[cfg(any(feature = "nats", feature = "rabbitmq"))]
mod children;
mod embedded;
#[cfg(any(feature = "nats", feature = "rabbitmq"))]
mod killed;
#[cfg(feature = "nats")]
mod nats;
#[cfg(any(feature = "nats", feature = "rabbitmq"))]
mod part;
#[cfg(any(feature = "nats", feature = "rabbitmq"))]
mod proxy;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
#[cfg(any(feature = "nats", feature = "rabbitmq"))]
mod server;
