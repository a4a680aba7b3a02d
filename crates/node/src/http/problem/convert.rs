//! What the inside calls an error, in the words of the border.

mod event_types;

use std::time::Duration;

use quorate_communication::{
    event_bus::webhook::WebhookError, inbox::InboxError, message_queue::QueueError, outbox::RelayError,
};
use quorate_data::{
    event::Timestamp,
    materialized_view::ViewError,
    schema::{RegisterError, RegistrarError, Rejection},
    store::{
        self, AppendError, ArchiveError, Bound, EraseError, InvalidQuery, MetadataError, Retry, SqlError, StoreError,
        TokenError, TransactError,
    },
    subscription::SubscriptionError,
};
use quorate_foundations::name::NameError;
use serde_json::{Value, json};

use super::{Code, Problem};
use crate::{
    http::{cloud_events::Fault, schemas},
    verbs::{ArchivingError, BackupError, InboxCareError, OnceError, ReadError, RelayCareError, RowError, TokenUnmet},
};

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if let StoreError::InvalidQuery(cause) = error {
            return cause.into();
        }
        let code = code_of(&error);
        let problem = Self::of(code, &error).retry(error.retry());
        match error {
            _ if code == Code::OutcomeUnknown => problem.unknown(),
            StoreError::NotWiped { .. } | StoreError::PartlyForgotten { .. } => problem.partial(),
            _ => problem,
        }
    }
}

fn code_of(error: &StoreError) -> Code {
    match error {
        StoreError::KeyMissing { .. } => Code::KeyMissing,
        StoreError::DiskFull => Code::DiskFull,
        StoreError::Overloaded { .. }
        | StoreError::Forgetting { .. }
        | StoreError::Busy
        | StoreError::TimedOut { .. } => Code::Overloaded,
        StoreError::Unreachable { .. } => Code::StoreUnreachable,
        StoreError::ReadOnly => Code::StoreReadOnly,
        StoreError::Moved { .. } => Code::StoreMoved,
        StoreError::Unsupported { .. } => Code::Unsupported,
        StoreError::Closed => Code::ShuttingDown,
        StoreError::OutcomeUnknown => Code::OutcomeUnknown,
        StoreError::Corrupt { .. } => Code::StoreCorrupt,
        StoreError::TooMuch { .. } => Code::LimitExceeded,
        // What was in the way is what somebody has to do something about.
        StoreError::NotWiped { cause, .. }
        | StoreError::PartlyForgotten { cause, .. }
        | StoreError::Stuck { cause, .. } => code_of(cause),
        _ => Code::StoreFailed,
    }
}

impl Problem {
    /// Why a transaction of rooms' own tables did not commit.
    pub(crate) fn of_transaction(failed: TransactError<SqlError>) -> Self {
        match failed {
            TransactError::Store(cause) | TransactError::Aborted(SqlError::Store(cause)) => cause.into(),
            TransactError::TooLong { .. } => Self::of(Code::Overloaded, &failed).retry(Retry::Now),
            _ => Self::of(Code::StoreFailed, &failed),
        }
    }
}

impl From<AppendError> for Problem {
    fn from(error: AppendError) -> Self {
        let told = |code| Self::of(code, &error);
        match &error {
            AppendError::Store(cause) => cause.clone().into(),
            AppendError::VersionConflict { stream, actual, .. } => {
                told(Code::VersionConflict).with("stream", stream.as_str()).at_version(actual.get())
            }
            AppendError::ConditionFailed { condition, position } => {
                told(Code::ConditionFailed).with("condition", *condition).with("logposition", position.to_string())
            }
            AppendError::Ahead { condition, head, .. } => {
                told(Code::PositionAhead).with("condition", *condition).with("logposition", head.to_string())
            }
            AppendError::IdReused { stream, id, version, .. } => told(Code::IdReused)
                .with("stream", stream.as_str())
                .with("id", id.as_str())
                .with("streamversion", version.to_string()),
            AppendError::PartlyKnown { .. } => told(Code::BatchPartlyKnown),
            AppendError::Reserved { stream, room } => {
                let code = if *room == "process" { Code::StreamOfProcess } else { Code::StreamOfSaga };
                told(code).with("stream", stream.as_str())
            }
            AppendError::Tombstoned { stream } => told(Code::StreamTombstoned).with("stream", stream.as_str()),
            AppendError::Invalid { stream, index, .. } => {
                told(Code::InvalidEvent).with("stream", stream.as_str()).with("index", *index)
            }
            AppendError::View { view, .. } => told(Code::ViewRefuses).with("view", &**view),
            AppendError::Schema { stream, index, event_type, cause } => {
                let code = match cause {
                    Rejection::UnknownType => Code::UnknownType,
                    // Nothing is wrong with the event as far as can be told.
                    Rejection::Broken { .. } => Code::StoreFailed,
                    _ => Code::SchemaViolation,
                };
                let problem = told(code).with("stream", stream.as_str()).with("index", *index);
                rejected(problem.with("eventtype", &**event_type), cause)
            }
            _ => told(Code::InvalidBatch),
        }
    }
}

/// With the places where data do not fit.
fn rejected(problem: Problem, cause: &Rejection) -> Problem {
    let Rejection::Violations { version, violations, more, .. } = cause else { return problem };
    let shown: Vec<Value> = violations
        .iter()
        .map(|one| json!({ "path": one.instance, "rule": one.schema, "message": one.message }))
        .collect();
    problem
        .with("path", violations.first().map_or("", |first| &first.instance))
        .with("schemaversion", version.get())
        .with("violations", shown)
        .with("more", *more)
}

impl From<RegisterError> for Problem {
    fn from(error: RegisterError) -> Self {
        let told = |code| Self::of(code, &error);
        match &error {
            RegisterError::Schema(fault) => told(Code::InvalidSchema).with("path", fault.at()),
            RegisterError::Incompatible { event_type, mode, with, not_compared } => {
                let first = with.first().and_then(|one| one.findings.first());
                told(Code::SchemaIncompatible)
                    .with("eventtype", event_type.as_str())
                    .with("mode", mode.as_str())
                    .with("path", first.map_or("", |finding| &finding.new))
                    .with("incompatible", schemas::incompatible(with))
                    .with("notcompared", *not_compared)
            }
            RegisterError::TooManyVersions { limit, .. } | RegisterError::Full { limit, .. } => {
                told(Code::TooManySchemas).with("limit", *limit)
            }
            _ => told(Code::StoreFailed),
        }
    }
}

impl From<RegistrarError> for Problem {
    fn from(error: RegistrarError) -> Self {
        match error {
            RegistrarError::Refused(cause) => cause.into(),
            RegistrarError::Store(cause) => cause.into(),
            RegistrarError::NotFound { ref event_type } => {
                Self::of(Code::SchemaNotFound, &error).with("eventtype", event_type.as_str())
            }
            RegistrarError::Contended { .. } => Self::of(Code::Overloaded, &error).retry(error.retry()),
            _ => Self::of(Code::StoreFailed, &error),
        }
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        let code = match &fault {
            Fault { too_large: true, .. } => Code::TooLarge,
            Fault { index: None, attribute: None, .. } => Code::InvalidJson,
            _ => Code::InvalidEvent,
        };
        let mut problem = Self::new(code, fault.to_string());
        if let Some(index) = fault.index {
            problem = problem.with("index", index);
        }
        if let Some(attribute) = fault.attribute {
            problem = problem.with("attribute", attribute);
        }
        problem
    }
}

impl From<NameError> for Problem {
    fn from(error: NameError) -> Self {
        Self::of(Code::InvalidName, &error)
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        Self::of(Code::InvalidToken, &error)
    }
}

impl From<InvalidQuery> for Problem {
    fn from(error: InvalidQuery) -> Self {
        let code =
            if matches!(error, InvalidQuery::TooLarge { .. }) { Code::LimitExceeded } else { Code::InvalidParameter };
        Self::of(code, &error)
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        let told = |code| Self::of(code, &error);
        match &error {
            ReadError::NoStream { stream } => told(Code::StreamNotFound).with("stream", stream.as_str()),
            ReadError::Tombstoned { stream } => told(Code::StreamTombstoned).with("stream", stream.as_str()),
            ReadError::NoEvent { stream, .. } => told(Code::EventNotFound).with("stream", stream.as_str()),
            ReadError::Archived { stream, archive, .. } => told(Code::EventArchived)
                .with("stream", stream.as_str())
                .with("archiveid", archive.id.to_string())
                .with("archive", archive.name.as_str()),
            ReadError::Ahead { head, .. } => told(Code::PositionAhead).with("logposition", head.to_string()),
            ReadError::Store(cause) => cause.clone().into(),
        }
    }
}

impl From<MetadataError> for Problem {
    fn from(error: MetadataError) -> Self {
        let told = |code| Self::of(code, &error);
        match &error {
            MetadataError::Conflict { stream, actual, .. } => {
                told(Code::MetadataConflict).with("stream", stream.as_str()).at_metadata(actual.get())
            }
            MetadataError::Tombstoned { stream } => told(Code::StreamTombstoned).with("stream", stream.as_str()),
            MetadataError::Store(cause) => cause.clone().into(),
            _ => told(Code::InvalidParameter),
        }
    }
}

impl From<ArchivingError> for Problem {
    fn from(error: ArchivingError) -> Self {
        match error {
            ArchivingError::Name(cause) => cause.into(),
            ArchivingError::Archive(cause) => cause.into(),
            _ => Self::of(Code::StoreFailed, &error),
        }
    }
}

impl From<ArchiveError> for Problem {
    fn from(error: ArchiveError) -> Self {
        let told = |code| Self::of(code, &error);
        match &error {
            ArchiveError::Exists { name } => told(Code::ArchiveExists).with("archive", name.as_str()),
            ArchiveError::NoStream { stream } => told(Code::StreamNotFound).with("stream", stream.as_str()),
            ArchiveError::Nothing { stream, .. } => told(Code::NothingToArchive).with("stream", stream.as_str()),
            ArchiveError::Overtaken { stream } => {
                told(Code::StreamOvertaken).with("stream", stream.as_str()).retry(Retry::Now)
            }
            ArchiveError::Store(cause) => cause.clone().into(),
            _ => told(Code::StoreFailed),
        }
    }
}

impl From<TokenUnmet> for Problem {
    fn from(error: TokenUnmet) -> Self {
        match &error {
            TokenUnmet::Store(cause) => cause.clone().into(),
            TokenUnmet::OtherTimeline => Self::of(Code::OtherTimeline, &error),
            TokenUnmet::Behind { head } => {
                Self::of(Code::Behind, &error).with("logposition", head.to_string()).after(Duration::from_millis(100))
            }
        }
    }
}

impl From<OnceError> for Problem {
    fn from(error: OnceError) -> Self {
        match error {
            OnceError::KeyReused => Self::of(Code::KeyReused, &error),
            OnceError::InFlight => Self::of(Code::RequestInFlight, &error).after(Duration::from_millis(100)),
            OnceError::TooLong { .. } => Self::of(Code::Overloaded, &error).retry(Retry::Now),
            OnceError::TooLarge { limit } => Self::of(Code::LimitExceeded, &error).with("limit", limit),
            OnceError::View { ref view, .. } => Self::of(Code::ViewRefuses, &error).with("view", &**view),
            OnceError::Sql(_) => Self::of(Code::StoreFailed, &error),
            OnceError::Store(cause) => cause.into(),
        }
    }
}

impl From<ViewError> for Problem {
    fn from(error: ViewError) -> Self {
        let told = |code| Self::of(code, &error).retry(error.retry());
        match &error {
            ViewError::Store(cause) | ViewError::Sql(SqlError::Store(cause)) => cause.clone().into(),
            ViewError::NotFound { .. } | ViewError::NoBuild { .. } => told(Code::ViewNotFound),
            ViewError::NotBuilt { applied, head, .. } => {
                told(Code::ViewNotBuilt).with("applied", applied.to_string()).with("head", head.to_string())
            }
            ViewError::Behind { applied, .. } => told(Code::ViewBehind).with("applied", applied.to_string()),
            ViewError::Stale { applied, behind, lag, max_lag, max_events, .. } => told(Code::ViewStale)
                .with("applied", applied.to_string())
                .with("lag-events", *behind)
                .with("lag-seconds", lag.as_ref().map(Duration::as_secs_f64))
                .with("max-events", *max_events)
                .with("max-seconds", max_lag.as_ref().map(Duration::as_secs_f64)),
            ViewError::FeedStale { feed, said, lag, max_lag, .. } => told(Code::ViewFeedStale)
                .with("source", feed.as_str())
                .with("feed-time", said.map(|at| Timestamp::from(at).as_str().to_owned()))
                .with("feed-lag-seconds", lag.as_ref().map(Duration::as_secs_f64))
                .with("max-feed-seconds", max_lag.as_secs_f64()),
            ViewError::Busy { concurrent } => {
                told(Code::Overloaded).with("limit", *concurrent).with("setting", "views.max-queries")
            }
            ViewError::InvalidQuery { .. } => told(Code::InvalidViewQuery),
            ViewError::Sql(SqlError::Exceeded(bound)) => stopped(*bound),
            ViewError::NoTable { tables, .. } => told(Code::ViewTableNotFound).with("tables", tables.clone()),
            ViewError::OutdatedCursor => told(Code::ViewCursorOutdated),
            ViewError::Token(_) => told(Code::OtherTimeline),
            ViewError::FoldChanged { .. } => told(Code::ViewChanged),
            ViewError::NoCode { .. } => told(Code::ViewCodeMissing),
            ViewError::NotCaughtUp { applied, live, .. } => {
                told(Code::ViewNotCaughtUp).with("applied", applied.to_string()).with("live", live.to_string())
            }
            ViewError::Incomplete { parked, .. } => told(Code::ViewIncomplete).with("parked", *parked),
            ViewError::Live { .. } => told(Code::ViewLive),
            ViewError::StillPoison { position, .. } => {
                told(Code::ViewStillPoison).with("logposition", position.to_string())
            }
            ViewError::TooMany { max, .. } => told(Code::TooManyViews).with("limit", *max),
            ViewError::Started { .. } => told(Code::AlreadyRunning),
            ViewError::Document(faults) => crate::http::views::declared::refused(faults),
            ViewError::Unexplained { .. } => told(Code::ViewUnexplained),
            ViewError::Explaining => told(Code::AlreadyRunning),
            ViewError::Invalid { .. } => told(Code::InvalidParameter),
            ViewError::Schema(_) | ViewError::Sql(_) => told(Code::InvalidView),
            _ => told(Code::StoreFailed),
        }
    }
}

impl From<RowError> for Problem {
    fn from(error: RowError) -> Self {
        match error {
            RowError::Missing { position, .. } => {
                Self::of(Code::RowNotFound, &error).with("logposition", position.to_string())
            }
            RowError::View(failed) => failed.into(),
        }
    }
}

/// A query that was stopped: by which limit, what it is, and how it is raised.
fn stopped(bound: Bound) -> Problem {
    let (setting, limit) = match bound {
        Bound::Time(most) => ("views.max-query-time", serde_json::Value::from(format!("{most:?}"))),
        Bound::Rows(most) => ("views.max-query-rows", most.into()),
        Bound::Bytes(most) => ("views.max-query-bytes", most.into()),
        Bound::Memory(most) => ("views.max-query-memory", most.into()),
    };
    let variable = setting.replace(['.', '-'], "_").to_uppercase();
    let detail = format!(
        "the query was stopped: {bound}. Ask for less, or raise `{setting}` (QUORATE_{variable}) and start the node anew"
    );
    Problem::new(Code::QueryStopped, detail)
        .with("exceeded", bound.name())
        .with("limit", limit)
        .with("setting", setting)
}

impl From<EraseError> for Problem {
    fn from(error: EraseError) -> Self {
        match error {
            EraseError::Invalid(_) => Self::of(Code::InvalidName, &error),
            // Refused before it was begun.
            EraseError::Store(
                cause @ (StoreError::Overloaded { .. } | StoreError::Closed | StoreError::Unsupported { .. }),
            ) => cause.into(),
            // The ledger may know it already: then it holds, whatever failed behind that.
            EraseError::Store(cause) => Self::from(cause).unknown(),
            EraseError::Copies { room, .. } => {
                Self::of(Code::ErasureIncomplete, &error).retry(Retry::Now).partial().with("room", room)
            }
            _ => Self::of(Code::StoreFailed, &error).unknown(),
        }
    }
}

impl From<SubscriptionError> for Problem {
    fn from(error: SubscriptionError) -> Self {
        let told = |code| Self::of(code, &error).retry(error.retry());
        match &error {
            SubscriptionError::NotFound { name } => {
                told(Code::SubscriptionNotFound).with("subscription", name.as_str())
            }
            SubscriptionError::Exists { name } => told(Code::SubscriptionExists).with("subscription", name.as_str()),
            SubscriptionError::TooMany { max } => told(Code::TooManySubscriptions).with("limit", *max),
            SubscriptionError::Invalid { .. } => told(Code::InvalidParameter),
            SubscriptionError::LeaseLost { leases } => {
                told(Code::LeaseLost).with("leases", leases.iter().map(ToString::to_string).collect::<Vec<_>>())
            }
            SubscriptionError::WindowFull { window, .. } => told(Code::WindowFull).with("limit", *window),
            SubscriptionError::ParkedFull { max, .. } => told(Code::ParkedFull).with("limit", *max),
            SubscriptionError::Contended => told(Code::Overloaded),
            SubscriptionError::Store(cause) | SubscriptionError::Tables(SqlError::Store(cause)) => cause.clone().into(),
            _ => told(Code::StoreFailed),
        }
    }
}

impl From<QueueError> for Problem {
    fn from(error: QueueError) -> Self {
        let told = |code| Self::of(code, &error).retry(error.retry());
        match &error {
            QueueError::NotFound { name } => told(Code::QueueNotFound).with("queue", name.as_str()),
            QueueError::TooMany { max } => told(Code::TooManyQueues).with("limit", *max),
            QueueError::Invalid { .. } => told(Code::InvalidParameter),
            QueueError::Message { index, .. } => told(Code::InvalidEvent).with("index", *index),
            QueueError::IdReused { index, id, .. } => {
                told(Code::IdReused).with("index", *index).with("id", id.as_str())
            }
            QueueError::Full { name, max, .. } => {
                told(Code::QueueFull).with("queue", name.as_str()).with("limit", *max)
            }
            QueueError::Crowded { .. } => told(Code::Overloaded),
            QueueError::LeaseLost { leases } => {
                told(Code::LeaseLost).with("leases", leases.iter().map(ToString::to_string).collect::<Vec<_>>())
            }
            QueueError::NoSchedule { queue, name } => {
                told(Code::ScheduleNotFound).with("queue", queue.as_str()).with("schedule", name.as_str())
            }
            QueueError::TooManySchedules { max } => told(Code::TooManySchedules).with("limit", *max),
            QueueError::NotParked { id, .. } => told(Code::DeadLetterNotFound).with("id", id.as_str()),
            QueueError::Store(cause) | QueueError::Tables(SqlError::Store(cause)) => cause.clone().into(),
            _ => told(Code::StoreFailed),
        }
    }
}

impl From<WebhookError> for Problem {
    fn from(error: WebhookError) -> Self {
        let told = |code| Self::of(code, &error).retry(error.retry());
        match &error {
            WebhookError::NotFound { name } => told(Code::WebhookNotFound).with("webhook", name.as_str()),
            WebhookError::Fixed { name, field } => {
                told(Code::WebhookFixed).with("webhook", name.as_str()).with("parameter", *field)
            }
            WebhookError::Taken { name } => told(Code::WebhookTaken).with("webhook", name.as_str()),
            WebhookError::TooMany { max } => told(Code::TooManyWebhooks).with("limit", *max),
            WebhookError::Invalid { .. } => told(Code::InvalidParameter),
            WebhookError::Forbidden(forbidden) => {
                let problem = told(Code::ForbiddenTarget).with("address", forbidden.address.to_string());
                problem.with("setting", "webhooks.allow")
            }
            WebhookError::Contended { .. } => told(Code::Overloaded),
            WebhookError::Subscription(cause) => cause.clone().into(),
            WebhookError::Store(cause) | WebhookError::Tables(SqlError::Store(cause)) => cause.clone().into(),
            _ => told(Code::StoreFailed),
        }
    }
}

impl From<InboxCareError> for Problem {
    fn from(error: InboxCareError) -> Self {
        let told = |code| Self::of(code, &error).retry(error.retry());
        match &error {
            InboxCareError::NotFound { name } => told(Code::InboxNotFound).with("inbox", name.as_str()),
            InboxCareError::NotStarted { name, .. } => told(Code::InboxNotStarted).with("inbox", name.as_str()),
            InboxCareError::Inbox(InboxError::NotParked { identity }) => {
                told(Code::MessageNotParked).with("identity", identity.as_str())
            }
            InboxCareError::Inbox(
                InboxError::Store(cause)
                | InboxError::Tables(SqlError::Store(cause))
                | InboxError::Ids(store::InboxError::Store(cause)),
            ) => cause.clone().into(),
            InboxCareError::Inbox(_) => told(Code::StoreFailed),
        }
    }
}

impl From<RelayCareError> for Problem {
    fn from(error: RelayCareError) -> Self {
        let told = |code| Self::of(code, &error).retry(error.retry());
        match &error {
            RelayCareError::NotFound { name } => told(Code::RelayNotFound).with("relay", name.as_str()),
            RelayCareError::NotStarted { name, .. } => told(Code::RelayNotStarted).with("relay", name.as_str()),
            RelayCareError::Subscription(cause) | RelayCareError::Relay(RelayError::Subscription(cause)) => {
                cause.clone().into()
            }
            RelayCareError::Relay(RelayError::Store(cause) | RelayError::Tables(SqlError::Store(cause))) => {
                cause.clone().into()
            }
            RelayCareError::Relay(_) => told(Code::StoreFailed),
        }
    }
}

impl From<BackupError> for Problem {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Name { .. } => Self::of(Code::InvalidName, &error),
            BackupError::Exists { .. } => Self::of(Code::BackupExists, &error),
            BackupError::Running => Self::of(Code::AlreadyRunning, &error).after(Duration::from_secs(5)),
            BackupError::Io(_) => Self::of(Code::StoreFailed, &error),
            BackupError::Store(cause) => cause.into(),
        }
    }
}

#[cfg(test)]
mod tests;
