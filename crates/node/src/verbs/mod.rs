//! What the node can do, once each: typed in, typed out, without HTTP. `http`, the console and the command line translate.

mod archive_files;
mod at_work;
mod breakers;
mod coordinating;
mod erasure;
mod event_types;
mod idempotency;
mod inboxes;
mod limits;
mod moment;
mod policies;
mod processes;
mod queues;
mod relays;
mod requests;
mod retention;
mod sagas;
mod schemas;
mod store;
mod streams;
mod subscribe;
mod subscriptions;
mod transactions;
mod views;
mod webhooks;

pub use archive_files::ArchiveFiles;
pub use breakers::{Breakers, NoBreaker};
pub use coordinating::{AddressError, Coordinating};
pub use erasure::Erasures;
pub use event_types::{Consumer, ConsumerKind, EventType, EventTypes, EventTypesError};
pub use idempotency::{Idempotency, Key, OnceError, Reply};
pub use inboxes::{InboxCare, InboxCareError, InboxStanding};
pub use limits::{LimitError, Limited, Limits};
pub use moment::Moment;
pub use policies::{Described, Kept, Misfit, Policies, PolicyDeclared, PolicyError};
pub use processes::{ProcessCare, ProcessCareError};
pub use queues::MessageQueues;
pub use relays::{RelayCare, RelayCareError, RelayStanding};
pub use requests::{DurableResponder, RequestCare, RequestCareError, RequestType};
pub use retention::{Archives, ArchivingError};
pub use sagas::{DeclareSagaError, SagaCare, SagaDeclared};
pub use schemas::{EventSchemas, Foreseen, SchemaSummary};
pub use store::{BackupError, StoreCare};
pub use streams::{ReadError, Streams, TokenUnmet};
pub use subscribe::Source;
pub use subscriptions::{DurableSubscriptions, Settlement};
pub use transactions::{Branch, Decision, Doubtful, InDoubt, Resolved, Standing, Transactions};
pub use views::{RowError, ViewCare};
pub use webhooks::WebhookCare;

/// The tables of the rooms here.
pub(crate) const TABLES: [quorate_data::store::RoomTables; 4] =
    [idempotency::TABLES, policies::TABLES, requests::TABLES, sagas::TABLES];
