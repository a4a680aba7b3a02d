//! Webhooks: the node calls somebody else's service with every event that it asked for, until it has taken it.
//!
//! Think of a courier with a round. An endpoint leaves an address and says what it wants; the courier takes what has come to the post
//! office for it, rings, and notes in the book who has signed. Nobody at home: it comes back later. Nobody at home for days: it keeps
//! the parcels, and puts up a notice. Parcels that belong together (a *key*) are handed over one after the other; one that nobody
//! wants to sign for is put aside with what follows it, and does not keep the others waiting.
//!
//! *When not to use it*: for consumers that can hold a connection or come and ask (a durable
//! [`subscription`](quorate_data::subscription) has no moving parts between); for answers, since an endpoint's body is not looked at.
//!
//! # What holds when things go wrong
//! * **Nothing is skipped.** An endpoint is fed by a durable subscription, and its checkpoint moves only over what the endpoint took (2xx),
//!   or what somebody discarded. A process that dies between any two steps leaves leases, which run out; then the events are sent again.
//! * **Order**: of a key one event is under way at a time, also over retries, crashes and several processes: the first arrival of each event is in
//!   order. A repeat may come late.
//! * **At least once**, and repeats can be told: [`webhook-id`](ID) is the same for every attempt, also from a restored or moved store.
//! * **An endpoint that is down** opens its breaker: then nothing is sent but a probe now and then, and no event loses an attempt. One
//!   that is gone (410), or has taken nothing for [`disable_after`](Config::disable_after), is [disabled](Disabled), which says so everywhere.
//! * **A poisonous event** is parked after its last attempt, with its key and its history; other keys go on. See
//!   [`parked`](Webhooks::parked), [`replay`](Webhooks::replay), [`discard`](Webhooks::discard).
//! * **Another address or secret** is another chance: what failed, what was asked for and what disabled the endpoint by itself are forgotten
//!   in the transaction of the change. What a person disabled stays disabled.
//! * **Whom it calls**: public addresses, unless [`Allowed`] says otherwise; judged when the socket is dialled. Redirections are not followed.
//! * **One event that rests** (after a failure, up to its last attempt) holds up its key alone, as long as no more than a
//!   [`window`](Config::window) of events lies between it and the last one sent; then the endpoint waits for it, and says so (`stall`).
//! * **Data that is gone**: an event that was truncated or archived before its turn is passed over, and counted; one whose data subject was erased is sent
//!   without data, and says so in `stub`.
//!
//! # What is sent
//! A POST with the event as [CloudEvents](crate::cloud_events), signed as Standard Webhooks; receivers in Rust use [`verify`].
//!
//! # Where ours differs
//! From Svix, Stripe and others: order per key is kept, and what is parked is a key, not a delivery. From the CloudEvents specification of
//! web hooks: there is no handshake by OPTIONS, since an endpoint is declared by whoever runs the node.
//!
//! # Example
//! ```no_run
//! use quorate_communication::event_bus::webhook::{Calls, Config, Webhooks};
//! use quorate_data::{store::{Query, QueryItem, sqlite}, subscription::Subscriptions};
//! use quorate_runtime::Env;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let env = Env::real();
//! let store = sqlite::open(&env, sqlite::Config::at("shop.db")).await?;
//! let webhooks = Webhooks::open(&store, &Subscriptions::open(&store).await?, Calls::new(&env)).await?;
//! let billing = Config {
//!     filter: Query::of([QueryItem::types(["order.placed"])]),
//!     ..Config::to("https://billing.example/hooks")
//! };
//! let declared = webhooks.declare(&"billing".parse()?, billing, None).await?;
//! println!("give this to whoever verifies: {}", declared.secret.map(|secret| secret.reveal()).unwrap_or_default());
//! env.tasks().spawn("webhooks", webhooks.run(env.clone()));
//! # Ok(())
//! # }
//! ```
//!
//! Sources: Standard Webhooks 1.0; CloudEvents 1.0.2, "HTTP Protocol Binding"; OWASP, "Server Side Request Forgery Prevention"; ADR 28.

mod address;
mod calls;
mod config;
mod courier;
mod error;
pub mod machine;
mod message;
mod rows;
mod secret;
mod service;
mod signature;

pub use address::{Allowed, Forbidden};
pub use calls::Calls;
pub use config::{Config, Content};
pub use error::WebhookError;
pub(crate) use message::AGENT;
pub use message::TEST;
pub(crate) use rows::TABLES;
pub use secret::{Secret, SecretError};
pub use service::{Attempt, Declared, Description, Disabled, Signer, Summary, Tested, Webhooks};
pub(crate) use signature::sign;
pub use signature::{ID, SIGNATURE, TIMESTAMP, TOLERANCE, VerifyError, verify};

#[cfg(test)]
pub(crate) mod tests;
