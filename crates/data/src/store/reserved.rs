//! Streams that belong to rooms: a room believes what stands in its own records, so nobody else may write there.
//!
//! Whether a stream is one of them is said by its name alone, also where the room was never opened: what is written before it is
//! would be found by it later on.

use quorate_foundations::name::Name;

use super::{AppendBatch, AppendError};

/// The room that `stream` belongs to by its name; `None`: it is the application's.
///
/// A stream called `saga-…:…` is the journal of a saga; in one called `process-…` stands what a choreographed process says.
pub fn reserved_for(stream: &str) -> Option<&'static str> {
    let is_sagas = stream.strip_prefix("saga-").is_some_and(|rest| rest.contains(':'));
    let is_processes = stream.strip_prefix("process-").is_some_and(|rest| !rest.is_empty());
    if is_sagas { Some("saga") } else { is_processes.then_some("process") }
}

/// Refuses a batch that would write to a room's own records.
pub(super) fn check(batch: &AppendBatch) -> Result<(), AppendError> {
    let of_room = |stream: &Name| reserved_for(stream.as_str()).map(|room| (stream.clone(), room));
    match batch.streams.iter().find_map(|part| of_room(&part.stream)) {
        Some((stream, room)) => Err(AppendError::Reserved { stream, room }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::reserved_for;

    #[test]
    fn a_name_tells_whose_stream_it_is() {
        for own in ["saga-order:17", "saga-order:", "saga-:17", "saga-order:17:18", "saga-a-b:c"] {
            assert_eq!(reserved_for(own), Some("saga"), "{own}");
        }
        for own in ["process-order", "process-order:17", "process--"] {
            assert_eq!(reserved_for(own), Some("process"), "{own}");
        }
        for free in ["process", "process-", "processes-order", "process:order", "order-process-x"] {
            assert_eq!(reserved_for(free), None, "{free}");
        }
        for free in ["saga", "saga-", "saga-order", "saga:17", "sagas-order:17", "Saga-order:17", "order-saga-x:1"] {
            assert_eq!(reserved_for(free), None, "{free}");
        }
    }
}
