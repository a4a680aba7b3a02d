//! Limits that cannot be set: what stored events, other nodes and clients rely on. They are shown beside the settings.

use quorate_communication::event_bus::{catalogue::Catalogue, webhook};
use quorate_consistency::{
    saga::{
        self,
        choreography::{self, Process, Processes},
        declared::Document,
    },
    two_phase_commit::{Ledger, Order, RequestId, Transaction, Work},
};
use quorate_data::{
    event::{NewEvent, Tags},
    materialized_view, schema,
    store::{AppendBatch, Limits, Query, Rules, StreamMetadata, Verified},
    subscription::Subscriptions,
};
use quorate_foundations::name::Name;

use super::{MAX_INBOXES, MAX_PARTICIPANTS, MAX_RELAYS};
use crate::{
    http::limits,
    verbs::{Coordinating, SagaCare, Transactions},
};

/// A limit that cannot be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedLimit {
    /// Its name: room, then what is limited.
    pub name: String,
    /// The most there may be; bytes where the name ends so.
    pub value: u64,
}

/// Every limit that cannot be set, by name.
pub fn fixed_limits() -> Vec<FixedLimit> {
    let sagas = saga::Config::default();
    let limits = [
        ("catalogue.events-read-on", Catalogue::MAX_LOOK as u64),
        ("catalogue.name-bytes", Catalogue::MAX_NAME_BYTES as u64),
        ("catalogue.producers-and-schemas-of-a-type", Catalogue::MAX_CARDS),
        ("catalogue.types", Catalogue::MAX_TYPES),
        ("event.attribute-bytes", NewEvent::MAX_ATTRIBUTE_BYTES as u64),
        ("event.data-subject-bytes", NewEvent::MAX_DATA_SUBJECT_BYTES as u64),
        ("event.extension-bytes", NewEvent::MAX_EXTENSION_BYTES as u64),
        ("event.json-depth", limits::JSON_DEPTH as u64),
        ("event.name-bytes", Name::MAX_BYTES as u64),
        ("event.tag-bytes", Tags::MAX_BYTES as u64),
        ("event.tags", Tags::MAX_COUNT as u64),
        ("http.http2-resets", limits::RESETS as u64),
        ("http.http2-send-bytes", limits::SEND_BUFFER as u64),
        ("http.http2-window-bytes", u64::from(limits::WINDOW)),
        ("http.least-read-bytes", limits::LEAST),
        ("inboxes.count", MAX_INBOXES as u64),
        ("processes.by-bytes", Processes::MAX_BY_BYTES as u64),
        ("processes.chain", u64::from(Process::MAX_DEPTH)),
        ("processes.count", Processes::MAX_PROCESSES as u64),
        ("processes.counted", Processes::MAX_COUNTED),
        ("processes.document-bytes", choreography::Document::MAX_BYTES as u64),
        ("processes.emitted", Process::MAX_EMITTED as u64),
        ("processes.events", Process::MAX_EVENTS as u64),
        ("processes.key-bytes", Process::MAX_KEY_BYTES as u64),
        ("processes.name-bytes", Process::MAX_NAME_BYTES as u64),
        ("processes.note-bytes", Processes::MAX_NOTE_BYTES as u64),
        ("processes.rules", Process::MAX_RULES as u64),
        ("processes.state-bytes", Process::MAX_STATE_BYTES as u64),
        ("processes.types", Process::MAX_TYPES as u64),
        ("relays.count", MAX_RELAYS as u64),
        ("retention.metadata-bytes", StreamMetadata::MAX_BYTES as u64),
        ("retention.metadata-key-bytes", StreamMetadata::MAX_KEY_BYTES as u64),
        ("retention.metadata-values", StreamMetadata::MAX_VALUES as u64),
        ("retention.max-count", Rules::MAX_COUNT),
        ("sagas.business-key-bytes", saga::Config::MAX_KEY_BYTES as u64),
        ("sagas.bytes", saga::machine::MAX_BYTES as u64),
        ("sagas.calls", sagas.max_calls as u64),
        ("sagas.document-bytes", Document::MAX_BYTES as u64),
        ("sagas.documents", SagaCare::MAX_DOCUMENTS as u64),
        ("sagas.documents-bytes", SagaCare::MAX_TOTAL as u64),
        ("sagas.events", sagas.max_events),
        ("sagas.id-bytes", saga::Config::MAX_ID_BYTES as u64),
        ("sagas.open", sagas.max_running as u64),
        ("sagas.signals", saga::machine::MAX_SIGNALS as u64),
        ("sagas.steps", saga::Definition::MAX_STEPS as u64),
        ("sagas.value-bytes", saga::Config::MAX_VALUE_BYTES as u64),
        ("store.candidates-per-page", Limits::CANDIDATES_PER_PAGE as u64),
        ("store.condition-looks", AppendBatch::MAX_LOOKS as u64),
        ("store.condition-looks-of-writer", AppendBatch::MAX_LOOKS_OF_WRITER as u64),
        ("store.condition-words", AppendBatch::MAX_CONDITION_WORDS as u64),
        ("store.conditions", AppendBatch::MAX_CONDITIONS as u64),
        ("store.query-words", Query::MAX_WORDS as u64),
        ("store.readers", Limits::READERS as u64),
        ("store.verify-findings", Verified::MAX_FINDINGS as u64),
        ("subscriptions.count", Subscriptions::MAX_COUNT as u64),
        ("subscriptions.leases", limits::LEASES as u64),
        ("subscriptions.pull", limits::PULL as u64),
        ("transactions.databases", MAX_PARTICIPANTS as u64),
        ("transactions.document-bytes", Coordinating::MAX_DOCUMENT_BYTES as u64),
        ("transactions.id-bytes", RequestId::MAX_BYTES as u64),
        ("transactions.open", Coordinating::MAX_OPEN as u64),
        ("transactions.open-of-one", Coordinating::MAX_OPEN_OF_ONE as u64),
        ("transactions.page", Transactions::MAX_PAGE as u64),
        ("transactions.participants", Transaction::MAX_PARTICIPANTS as u64),
        ("transactions.reason-bytes", Order::MAX_REASON_BYTES as u64),
        ("transactions.services", Ledger::MAX_PARTICIPANTS as u64),
        ("transactions.work-bytes", Work::MAX_BYTES as u64),
        ("webhooks.attempts-kept", webhook::Webhooks::KEPT_ATTEMPTS),
        ("webhooks.count", webhook::Webhooks::MAX_COUNT as u64),
        ("webhooks.places", webhook::Config::MAX_PLACES as u64),
        ("webhooks.secrets", webhook::Webhooks::MAX_SECRETS as u64),
        ("webhooks.url-bytes", webhook::Config::MAX_URL_BYTES as u64),
    ];
    let mut all: Vec<FixedLimit> = limits.into_iter().map(|(name, value)| FixedLimit::of(name, value)).collect();
    all.extend(
        schema::fixed_limits().into_iter().map(|(name, value)| FixedLimit::of(format!("schemas.{name}"), value)),
    );
    let of_views = materialized_view::fixed_limits().into_iter();
    all.extend(of_views.map(|(name, value)| FixedLimit::of(format!("views.{name}"), value as u64)));
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all
}

impl FixedLimit {
    fn of(name: impl Into<String>, value: u64) -> Self {
        Self { name: name.into(), value }
    }
}

#[cfg(test)]
mod tests {
    use super::fixed_limits;
    use crate::config::Layers;

    #[test]
    fn the_page_names_every_setting_and_every_limit_with_its_value() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guide/settings.md");
        let page = std::fs::read_to_string(page).unwrap();
        let limits = fixed_limits();
        let of_limits = limits.iter().map(|limit| format!("| `{}` | {} |", limit.name, limit.value));
        let layers = Layers::defaults();
        let of_settings = layers.entries().map(|(key, entry)| format!("| `{key}` | `{}` |", entry.value));
        let missing: Vec<String> = of_settings.chain(of_limits).filter(|row| !page.contains(row.as_str())).collect();
        assert!(missing.is_empty(), "rows that docs/guide/settings.md lacks:\n{}", missing.join("\n"));
    }

    #[test]
    fn limits_are_named_once_and_in_order() {
        let names: Vec<String> = fixed_limits().into_iter().map(|limit| limit.name).collect();
        assert!(names.is_sorted_by(|one, other| one < other), "{names:?}");
    }
}
