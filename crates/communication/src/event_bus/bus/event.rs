//! Events that services tell each other, as types.

use std::sync::Arc;

use quorate_data::{
    event::{NewEvent, Tags},
    schema::{SchemaVersion, address},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{Context, PublishError};

/// An event that services tell each other: data under a type and a version.
///
/// Several types may share one `TYPE` with different versions: each consumer reads the one it knows.
///
/// # Example
/// ```
/// use quorate_communication::event_bus::Event;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct OrderPlaced { customer: u32, cents: u64 }
/// impl Event for OrderPlaced {
///     const TYPE: &'static str = "order.placed";
///     const VERSION: u32 = 2;
///     fn tags(&self) -> Vec<String> { vec![format!("customer:{}", self.customer)] }
/// }
/// ```
pub trait Event: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The `type`: what happened, in the past tense, under the name of what it happened to.
    const TYPE: &'static str;
    /// The version of its data, from 1.
    const VERSION: u32 = 1;

    /// What it can be found and ordered by, each `key:value`.
    fn tags(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whose data it holds, so that it can be erased.
    fn data_subject(&self) -> Option<String> {
        None
    }
}

/// The version that `E` is of.
pub(super) fn version_of<E: Event>() -> SchemaVersion {
    SchemaVersion::new(E::VERSION).unwrap_or(SchemaVersion::FIRST)
}

/// `event` as it is appended: under `id`, from `source`, with what `context` brings along.
pub(super) fn to_append<E: Event>(
    event: &E,
    (id, source): (Arc<str>, Arc<str>),
    context: &Context,
) -> Result<NewEvent, PublishError> {
    let data =
        serde_json::to_vec(event).map_err(|cause| PublishError::Encode { kind: E::TYPE, cause: cause.into() })?;
    let mut new = NewEvent::new(id, source, E::TYPE).json(data);
    new.schema = Some(address(E::TYPE, version_of::<E>()).into());
    new.data_subject = event.data_subject().map(Into::into);
    new.tags = Tags::new(event.tags()).map_err(|cause| PublishError::Tag { kind: E::TYPE, cause })?;
    context.stamp(&mut new);
    Ok(new)
}
