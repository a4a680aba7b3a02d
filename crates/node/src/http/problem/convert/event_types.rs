//! What goes wrong with event types.

use quorate_communication::event_bus::catalogue::CatalogueError;
use quorate_data::store::SqlError;

use super::{Code, Problem};
use crate::verbs::EventTypesError;

impl From<EventTypesError> for Problem {
    fn from(error: EventTypesError) -> Self {
        match error {
            EventTypesError::Catalogue(
                CatalogueError::Store(cause) | CatalogueError::Tables(SqlError::Store(cause)),
            ) => cause.into(),
            EventTypesError::Catalogue(cause @ CatalogueError::Limit { .. }) => Self::of(Code::LimitExceeded, &cause),
            EventTypesError::Catalogue(cause) => Self::of(Code::StoreFailed, &cause).retry(cause.retry()),
            EventTypesError::Subscriptions(cause) => cause.into(),
            EventTypesError::Webhooks(cause) => cause.into(),
            EventTypesError::Views(cause) => cause.into(),
        }
    }
}
