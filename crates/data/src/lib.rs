//! The one transaction: the event log, the application's own tables, schemas and subscriptions.

pub mod event;
#[doc(hidden)]
pub mod fuzzing;
pub mod materialized_view;
pub mod schema;
pub mod store;
pub mod subscription;
