//! The kinds of problems: one row each, with its page.

use http::StatusCode;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $slug:literal, $status:ident, $title:literal;)*) => {
        /// A kind of problem.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Every kind, in the order of their statuses.
            pub(crate) const ALL: &[Self] = &[$(Self::$name),*];

            /// Its name in addresses.
            pub(crate) const fn slug(self) -> &'static str {
                match self { $(Self::$name => $slug),* }
            }

            /// What it is called.
            pub(crate) const fn title(self) -> &'static str {
                match self { $(Self::$name => $title),* }
            }

            /// The status that goes with it.
            pub(crate) const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status),* }
            }

            /// The address of its page.
            pub(crate) const fn address(self) -> &'static str {
                match self { $(Self::$name => concat!("/errors/", $slug)),* }
            }

            /// Its page, in Markdown.
            pub(crate) const fn page(self) -> &'static str {
                match self { $(Self::$name => include_str!(concat!("../../../../../docs/errors/", $slug, ".md"))),* }
            }
        }
    };
}

codes! {
    InvalidJson = "invalid-json", BAD_REQUEST, "Body is not the JSON it should be";
    InvalidEvent = "invalid-event", BAD_REQUEST, "Event breaks a rule";
    InvalidBatch = "invalid-batch", BAD_REQUEST, "Batch breaks a rule";
    InvalidName = "invalid-name", BAD_REQUEST, "Name cannot be used";
    InvalidParameter = "invalid-parameter", BAD_REQUEST, "Parameter or header cannot be used";
    InvalidPrecondition = "invalid-precondition", BAD_REQUEST, "Precondition cannot be used";
    InvalidToken = "invalid-token", BAD_REQUEST, "Token was not given out by quorate";
    SchemaViolation = "schema-violation", BAD_REQUEST, "Event does not fit the schema of its type";
    UnknownType = "unknown-type", BAD_REQUEST, "Type of the event has no schema";
    InvalidView = "invalid-view", BAD_REQUEST, "View cannot be made or asked so";
    InvalidSchema = "invalid-schema", BAD_REQUEST, "Schema cannot be used";
    InvalidViewQuery = "invalid-view-query", BAD_REQUEST, "Query of a view cannot be asked so";
    ForbiddenTarget = "forbidden-target", BAD_REQUEST, "Address may not be called";
    InvalidPolicy = "invalid-policy", BAD_REQUEST, "Policy cannot be read";
    ImpossiblePolicy = "impossible-policy", BAD_REQUEST, "Policy cannot work";
    InvalidSaga = "invalid-saga", BAD_REQUEST, "Saga's document cannot be used";
    InvalidProcess = "invalid-process", BAD_REQUEST, "Process's document cannot be used";
    LimitExceeded = "limit-exceeded", BAD_REQUEST, "More was asked for than one request may have";
    ForeignRequest = "foreign-request", FORBIDDEN, "Request comes from another site";
    NotFound = "not-found", NOT_FOUND, "Nothing is at this address";
    StreamNotFound = "stream-not-found", NOT_FOUND, "Stream does not exist";
    ViewNotFound = "view-not-found", NOT_FOUND, "View does not exist";
    ViewTableNotFound = "view-table-not-found", NOT_FOUND, "View has no such table";
    RowNotFound = "row-not-found", NOT_FOUND, "View has no row with this key";
    BreakerNotFound = "breaker-not-found", NOT_FOUND, "Circuit breaker does not exist";
    PolicyNotFound = "policy-not-found", NOT_FOUND, "Policy does not exist";
    LimitNotFound = "limit-not-found", NOT_FOUND, "Rate limit does not exist";
    SubscriptionNotFound = "subscription-not-found", NOT_FOUND, "Subscription does not exist";
    QueueNotFound = "queue-not-found", NOT_FOUND, "Queue does not exist";
    RequestTypeNotFound = "request-type-not-found", NOT_FOUND, "Type of requests is not declared";
    RequestNotFound = "request-not-found", NOT_FOUND, "Request is not known";
    SagaUndefined = "saga-undefined", NOT_FOUND, "No such saga is declared";
    TransactionNotFound = "transaction-not-found", NOT_FOUND, "Nobody knows of such a transaction";
    SagaNotFound = "saga-not-found", NOT_FOUND, "Saga does not exist";
    ProcessNotFound = "process-not-found", NOT_FOUND, "Process does not exist";
    CourseNotFound = "course-not-found", NOT_FOUND, "Process has no such course";
    EventTypeNotFound = "event-type-not-found", NOT_FOUND, "Event type is not known";
    WebhookNotFound = "webhook-not-found", NOT_FOUND, "Webhook does not exist";
    InboxNotFound = "inbox-not-found", NOT_FOUND, "Inbox does not exist";
    MessageNotParked = "message-not-parked", NOT_FOUND, "Inbox has no such parked message";
    RelayNotFound = "relay-not-found", NOT_FOUND, "Relay does not exist";
    DeadLetterNotFound = "dead-letter-not-found", NOT_FOUND, "Queue has no such dead letter";
    ScheduleNotFound = "schedule-not-found", NOT_FOUND, "Queue has no such schedule";
    SchemaNotFound = "schema-not-found", NOT_FOUND, "Schema does not exist";
    EventNotFound = "event-not-found", NOT_FOUND, "Event is not there";
    MethodNotAllowed = "method-not-allowed", METHOD_NOT_ALLOWED, "Method does not apply here";
    NotAcceptable = "not-acceptable", NOT_ACCEPTABLE, "Event has no form that was asked for";
    RequestTimeout = "request-timeout", REQUEST_TIMEOUT, "Request took too long to arrive";
    ConditionFailed = "condition-failed", CONFLICT, "Condition of the append does not hold";
    IdReused = "id-reused", CONFLICT, "Event id was used for another event";
    BatchPartlyKnown = "batch-partly-known", CONFLICT, "Only some events of the batch are known";
    RequestInFlight = "request-in-flight", CONFLICT, "The same request is still being done";
    OtherTimeline = "other-timeline", CONFLICT, "Token belongs to another timeline";
    PositionAhead = "position-ahead", CONFLICT, "Position is ahead of the log";
    AlreadyRunning = "already-running", CONFLICT, "This is running already";
    BackupExists = "backup-exists", CONFLICT, "A backup of this name exists";
    SubscriptionExists = "subscription-exists", CONFLICT, "Subscription exists with another configuration";
    SchemaIncompatible = "schema-incompatible", CONFLICT, "Schema breaks an earlier one";
    TooManySchemas = "too-many-schemas", CONFLICT, "There are as many schemas as a store keeps";
    TooManySubscriptions = "too-many-subscriptions", CONFLICT, "There are as many subscriptions as a store keeps";
    PolicyInFile = "policy-in-file", CONFLICT, "Policy stands in a file";
    PolicyTaken = "policy-taken", CONFLICT, "Dependency has another policy";
    TooManyPolicies = "too-many-policies", CONFLICT, "There are as many policies as a node has room for";
    SubscriptionOfWebhook = "subscription-of-webhook", CONFLICT, "Subscription belongs to a webhook";
    WebhookTaken = "webhook-taken", CONFLICT, "Somebody else has made a webhook of that name";
    SubscriptionOfRelay = "subscription-of-relay", CONFLICT, "Subscription belongs to a relay";
    WebhookFixed = "webhook-fixed", CONFLICT, "Webhook cannot be changed so";
    TooManyWebhooks = "too-many-webhooks", CONFLICT, "There are as many webhooks as a store keeps";
    TooManyQueues = "too-many-queues", CONFLICT, "There are as many queues as a store keeps";
    TooManyRequestTypes = "too-many-request-types", CONFLICT, "There are as many types of requests as a store keeps";
    TooManyResponders = "too-many-responders", CONFLICT, "There are as many responders as a node has room for";
    RequestNotHeld = "request-not-held", CONFLICT, "Responder has no such request";
    RequestIdReused = "request-id-reused", CONFLICT, "Request was asked with another body";
    TooManySchedules = "too-many-schedules", CONFLICT, "There are as many schedules as a store keeps";
    TransactionIdReused = "transaction-id-reused", CONFLICT, "Transaction was begun with something else";
    TooManyParticipants = "too-many-participants", CONFLICT, "There are as many participants as a store keeps";
    TransactionUnderWay = "transaction-under-way", CONFLICT, "Transaction may still be decided";
    TransactionEndedOtherwise = "transaction-ended-otherwise", CONFLICT, "Participant had ended the transaction otherwise";
    TooManyOrders = "too-many-orders", CONFLICT, "Participant has been ordered too often how the transaction ends";
    StreamOfTransaction = "stream-of-transaction", CONFLICT, "Stream belongs to a coordinator of transactions";
    SagaTaken = "saga-taken", CONFLICT, "Version of the saga says something else";
    SagaIdReused = "saga-id-reused", CONFLICT, "Saga was started with something else";
    SagaRefuses = "saga-refuses", CONFLICT, "Saga does not stand so";
    SagaEnded = "saga-ended", CONFLICT, "Saga has ended";
    StreamOfSaga = "stream-of-saga", CONFLICT, "Stream belongs to a saga";
    SagaStalled = "saga-stalled", CONFLICT, "Nobody here can run this version of the saga";
    TooManySagas = "too-many-sagas", CONFLICT, "There are as many documents of sagas as a store keeps";
    ProcessCycle = "process-cycle", CONFLICT, "Reactions of processes lead back to themselves";
    ProcessOfProgram = "process-of-program", CONFLICT, "Process is declared by a program";
    TooManyProcesses = "too-many-processes", CONFLICT, "There are as many processes as a store keeps";
    CourseRefuses = "course-refuses", CONFLICT, "Course does not go on";
    StreamOfProcess = "stream-of-process", CONFLICT, "Stream belongs to a process";
    QueueFull = "queue-full", CONFLICT, "Queue is full";
    LeaseLost = "lease-lost", CONFLICT, "Lease is lost";
    WindowFull = "window-full", CONFLICT, "Too many events are unsettled";
    ParkedFull = "parked-full", CONFLICT, "Too many events are parked";
    ViewRefuses = "view-refuses", CONFLICT, "View cannot take in the event";
    ViewChanged = "view-changed", CONFLICT, "View was made by other code";
    ViewCodeMissing = "view-without-code", CONFLICT, "No code of the view runs here";
    ViewNotCaughtUp = "view-not-caught-up", CONFLICT, "Build is behind the one readers have";
    ViewIncomplete = "view-incomplete", CONFLICT, "Build has parked events";
    ViewLive = "view-live", CONFLICT, "Readers have this build";
    ViewStillPoison = "view-still-poison", CONFLICT, "Parked event still cannot be applied";
    TooManyViews = "too-many-views", CONFLICT, "There are as many views or builds as a store keeps";
    ArchiveExists = "archive-exists", CONFLICT, "A file of this name holds something else";
    StreamOvertaken = "stream-overtaken", CONFLICT, "Stream changed while it was being archived";
    NothingToArchive = "nothing-to-archive", CONFLICT, "There is no event to archive";
    ViewCursorOutdated = "view-cursor-outdated", GONE, "View became another one since that page";
    EventArchived = "event-archived", GONE, "Event was moved to an archive";
    StreamTombstoned = "stream-tombstoned", GONE, "Stream was closed for good";
    VersionConflict = "version-conflict", PRECONDITION_FAILED, "Stream is at another version";
    MetadataConflict = "metadata-conflict", PRECONDITION_FAILED, "Metadata are at another version";
    TooLarge = "too-large", PAYLOAD_TOO_LARGE, "More was sent than one request may have";
    UnsupportedMediaType = "unsupported-media-type", UNSUPPORTED_MEDIA_TYPE, "Content type is not understood here";
    RequestFault = "request-fault", UNPROCESSABLE_ENTITY, "Responder has no answer to the request";
    KeyReused = "key-reused", UNPROCESSABLE_ENTITY, "Idempotency key was used for another request";
    ViewUnexplained = "view-unexplained", UNPROCESSABLE_ENTITY, "Row cannot be explained within the limits";
    QueryStopped = "query-stopped", UNPROCESSABLE_ENTITY, "Query takes more than it may";
    RateLimited = "rate-limited", TOO_MANY_REQUESTS, "Requests come too often";
    TooManyRequests = "too-many-requests", TOO_MANY_REQUESTS, "One client asks for too much at once";
    OutcomeUnknown = "outcome-unknown", INTERNAL_SERVER_ERROR, "It may or may not have happened";
    StoreCorrupt = "store-corrupt", INTERNAL_SERVER_ERROR, "Stored bytes are damaged";
    KeyMissing = "key-missing", INTERNAL_SERVER_ERROR, "Key of a data subject is not there";
    ErasureIncomplete = "erasure-incomplete", INTERNAL_SERVER_ERROR, "Copies of what was erased remain";
    StoreFailed = "store-failed", INTERNAL_SERVER_ERROR, "The store failed";
    UnknownTransferCoding = "unknown-transfer-coding", NOT_IMPLEMENTED, "Transfer coding is not understood here";
    Unsupported = "unsupported", NOT_IMPLEMENTED, "This store cannot do it";
    StoreUnreachable = "store-unreachable", SERVICE_UNAVAILABLE, "The database cannot be reached";
    StoreReadOnly = "store-read-only", SERVICE_UNAVAILABLE, "The database takes no writes";
    StoreMoved = "store-moved", SERVICE_UNAVAILABLE, "The store has moved away";
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "Too much is being done at once";
    ParticipantAway = "participant-away", SERVICE_UNAVAILABLE, "Participant of the transaction does not answer";
    LimitUnavailable = "limit-unavailable", SERVICE_UNAVAILABLE, "Rate limit cannot be counted";
    Behind = "behind", SERVICE_UNAVAILABLE, "The write a token names is not readable here yet";
    InboxNotStarted = "inbox-not-started", SERVICE_UNAVAILABLE, "Inbox has not started yet";
    RelayNotStarted = "relay-not-started", SERVICE_UNAVAILABLE, "Relay has not started yet";
    ViewNotBuilt = "view-not-built", SERVICE_UNAVAILABLE, "View is being built for the first time";
    ViewBehind = "view-behind", SERVICE_UNAVAILABLE, "View has not applied the write yet";
    ViewStale = "view-stale", SERVICE_UNAVAILABLE, "View is older than the read allows";
    ViewFeedStale = "view-feed-stale", SERVICE_UNAVAILABLE, "Feed of the view is silent or late";
    NoResponder = "no-responder", SERVICE_UNAVAILABLE, "Nobody answers requests of this type here";
    RequestRefused = "request-refused", SERVICE_UNAVAILABLE, "Nobody has begun on the request";
    ShuttingDown = "shutting-down", SERVICE_UNAVAILABLE, "The node is stopping";
    RequestUnknown = "request-unknown", GATEWAY_TIMEOUT, "It is not known what became of the request";
    DeadlinePassed = "deadline-passed", GATEWAY_TIMEOUT, "The request's time is over";
    DiskFull = "disk-full", INSUFFICIENT_STORAGE, "The disk is full";
}

impl Code {
    /// The kind whose name is `slug`.
    pub(crate) fn named(slug: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.slug() == slug)
    }
}

#[cfg(test)]
mod tests {
    use super::Code;
    use std::collections::BTreeSet;

    #[test]
    fn every_code_has_a_page_and_every_page_a_code() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors");
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        let pages: BTreeSet<String> = files.filter(|name| name != "README.md").collect();
        let codes: BTreeSet<String> = Code::ALL.iter().map(|code| format!("{}.md", code.slug())).collect();
        assert_eq!(pages, codes);
    }

    #[test]
    fn a_page_has_its_codes_title_and_answers_the_three_questions() {
        for code in Code::ALL {
            let page = code.page();
            let head = format!("# {}\n\n`{}` · status {}\n", code.title(), code.slug(), code.status().as_u16());
            assert!(page.starts_with(&head), "{} begins differently from\n{head}", code.slug());
            for question in ["**What happened.** ", "**Did anything change?** ", "**What to do.** "] {
                assert_eq!(page.matches(question).count(), 1, "{} answers {question}", code.slug());
            }
        }
    }

    #[test]
    fn a_code_is_found_by_its_name() {
        assert!(Code::ALL.iter().all(|code| Code::named(code.slug()) == Some(*code)));
        assert_eq!(Code::named("../problem"), None);
    }
}
