//! Transactions under names of their callers: each is begun once, however often it is asked for, and how it ended stands in the log.
//!
//! A request is a stream, `txnrequest-<id>`. Its first event names the transaction, before any participant is asked; its second one says how that
//! ended: *committed* is a part of the append that decides it, *aborted* is an append of its own. Both expect the first version, so that the
//! log takes one of them, whoever writes it, and whatever anybody believes.

use std::{fmt, time::Duration};

use quorate_data::{
    event::{Recorded, Version},
    store::{AppendBatch, AppendError, ExpectedVersion, ReadStream, Store, StoreError, StreamAppend},
};
use quorate_foundations::name::Name;
use serde::{Deserialize, Serialize};

use super::{
    Ended, Gid, Receipt, Transaction, TxnError,
    log::{self, corrupt, read},
    standing,
};

/// What the names of requests' streams begin with.
pub(super) const REQUESTS: &str = "txnrequest-";
const BEGUN: &str = "quorate.txn.begun";
const COMMITTED: &str = "quorate.txn.committed";
const ABORTED: &str = "quorate.txn.aborted";
/// The pause before an append is sent again whose answer did not come.
const PAUSE: Duration = Duration::from_millis(50);
/// Characters of a reason that are kept.
const MOST_TOLD: usize = 1_000;

/// What a caller calls its transaction, for ever: 1 to 256 bytes of UTF-8 without control characters, which do not begin with `quorate:`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(Name);

impl RequestId {
    /// The most bytes of it.
    pub const MAX_BYTES: usize = 256;

    /// `text` as an id.
    ///
    /// # Errors
    /// [`TxnError::Invalid`] where it cannot be one.
    pub fn new(text: &str) -> Result<Self, TxnError> {
        let max = Self::MAX_BYTES;
        let invalid = |what: String| TxnError::Invalid { what };
        if text.len() > max || text.starts_with("quorate:") {
            let what = format!("a transaction's id has at most {max} bytes, and does not begin with `quorate:`");
            return Err(invalid(what));
        }
        Name::new(text).map(Self).map_err(|wrong| invalid(format!("a transaction's id cannot be so: {wrong}")))
    }

    /// As a text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The stream that tells what became of it.
    pub fn stream(&self) -> Name {
        Name::new(format!("{REQUESTS}{}", self.0)).unwrap_or_else(|_| unreachable!("an id is a name, and short"))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A transaction that is to be carried out once under its caller's name.
#[derive(Clone, Debug)]
pub struct Request {
    pub(super) id: RequestId,
    pub(super) digest: String,
    pub(super) transaction: Transaction,
}

impl Request {
    /// `transaction` under the name `id`. `digest` stands for everything that was asked for: the same id with another one is refused.
    pub fn new(id: RequestId, digest: [u8; 32], transaction: Transaction) -> Self {
        Self { id, digest: in_hex(&digest), transaction }
    }
}

pub(super) fn in_hex(digest: &[u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requested {
    /// The transaction that it was begun as.
    pub gid: Gid,
    /// Who takes part.
    pub participants: Vec<Name>,
    /// How it ended. [`Ended::Unknown`] is what it is while somebody may still decide it: it will be one of the others.
    pub ended: Ended,
    /// What its coordinator said when it ended, for whoever waited for that; none where this was read in the log.
    pub receipt: Option<Receipt>,
}

/// What is written before any participant is asked.
#[derive(Serialize, Deserialize)]
pub(super) struct Begun {
    transaction: String,
    coordinator: String,
    participants: Vec<String>,
    digest: String,
}

#[derive(Serialize)]
struct Committed {}

#[derive(Serialize, Deserialize)]
struct Aborted {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    why: String,
}

/// What the log has of a request.
pub(super) struct Found {
    pub(super) gid: Gid,
    /// The name of the coordinator that began it.
    pub(super) coordinator: Name,
    pub(super) participants: Vec<Name>,
    pub(super) digest: String,
    /// How it ended, if that is decided.
    pub(super) ended: Option<Ended>,
}

impl Found {
    pub(super) fn told(self, ended: Ended) -> Requested {
        let Self { gid, participants, .. } = self;
        Requested { gid, participants, ended, receipt: None }
    }
}

impl Begun {
    pub(super) fn new(gid: &Gid, coordinator: &Name, participants: &[Name], digest: &str) -> Self {
        Self {
            transaction: gid.to_string(),
            coordinator: coordinator.to_string(),
            participants: participants.iter().map(ToString::to_string).collect(),
            digest: digest.to_owned(),
        }
    }

    /// Writes it down, if nothing was begun under that id. Whether nothing was.
    pub(super) async fn write(&self, store: &Store, id: &RequestId, patience: Duration) -> Result<bool, TxnError> {
        // The transaction's name is the event's: a second attempt is another event, which the stream's version refuses.
        let begun = log::event(self.transaction.as_str(), BEGUN, self);
        let batch = AppendBatch::to(id.stream(), ExpectedVersion::NoStream, vec![begun]);
        match append(store, batch, patience).await {
            Ok(()) => Ok(true),
            Err(AppendError::VersionConflict { .. }) => Ok(false),
            Err(failed) => Err(failed.into()),
        }
    }
}

/// What the decision appends to the stream of its request.
pub(super) fn committed(id: &RequestId) -> StreamAppend {
    let event = log::event("committed", COMMITTED, &Committed {});
    StreamAppend { stream: id.stream(), expected: ExpectedVersion::Exact(Version::new(1)), events: vec![event] }
}

/// Writes down that a request is aborted, unless it was decided otherwise. How it ended.
pub(super) async fn abort(
    store: &Store,
    id: &RequestId,
    (by, why): (Option<Name>, &str),
    patience: Duration,
) -> Result<Ended, TxnError> {
    let why: String = why.chars().take(MOST_TOLD).collect();
    let told = Aborted { by: by.as_ref().map(ToString::to_string), why: why.clone() };
    let event = log::event(store.event_id(), ABORTED, &told);
    let batch = AppendBatch::to(id.stream(), ExpectedVersion::Exact(Version::new(1)), vec![event]);
    match append(store, batch, patience).await {
        Ok(()) => Ok(Ended::Aborted { by, why }),
        Err(AppendError::VersionConflict { .. }) => {
            // Somebody was first: what stands there is how it ended.
            let found = found(store, id).await?.and_then(|found| found.ended);
            let what = "its end is not to be read yet".to_owned();
            found.ok_or(TxnError::Store(StoreError::Unreachable { what }))
        }
        Err(failed) => Err(failed.into()),
    }
}

/// What the log has of a request; none where nothing was begun under that id.
pub(super) async fn found(store: &Store, id: &RequestId) -> Result<Option<Found>, TxnError> {
    let page = store.read_stream(ReadStream::forward(id.stream(), 2)).await?;
    if page.head.version == Version::ZERO {
        return Ok(None);
    }
    let Some(first) = page.events.first().filter(|event| event.kind() == BEGUN) else {
        let what = "events of it were forgotten: how it ended cannot be told".to_owned();
        return Err(StoreError::Corrupt { place: format!("stream `{}`", id.stream()), what }.into());
    };
    let Begun { transaction, coordinator, participants, digest } = read(first)?;
    let named = |text: String| Name::new(text).map_err(|cause| corrupt(first, &cause));
    let found = Found {
        gid: transaction.parse().map_err(|cause| corrupt(first, &cause))?,
        coordinator: named(coordinator)?,
        participants: participants.into_iter().map(named).collect::<Result<_, _>>()?,
        digest,
        ended: page.events.get(1).map(ended).transpose()?,
    };
    Ok(Some(found))
}

/// What became of a request, by the log alone. Where its coordinator was replaced before it was decided nobody ever will: that is then
/// written down.
pub(super) async fn requested(
    store: &Store,
    id: &RequestId,
    patience: Duration,
) -> Result<Option<Requested>, TxnError> {
    let Some(found) = found(store, id).await? else { return Ok(None) };
    let ended = match &found.ended {
        Some(ended) => ended.clone(),
        None if standing::is_replaced(store, &found.coordinator, &found.gid).await? => {
            abort(store, id, (None, STOPPED), patience).await?
        }
        None => Ended::Unknown,
    };
    Ok(Some(found.told(ended)))
}

/// Why something is aborted that nobody is at any more.
pub(super) const STOPPED: &str = "its coordinator stopped before it was decided";

fn ended(event: &Recorded) -> Result<Ended, TxnError> {
    match event.kind() {
        COMMITTED => Ok(Ended::Committed),
        ABORTED => {
            let Aborted { by, why } = read(event)?;
            let by = by.map(Name::new).transpose().map_err(|cause| corrupt(event, &cause))?;
            Ok(Ended::Aborted { by, why })
        }
        kind => Err(corrupt(event, &format!("`{kind}` is no end of a request"))),
    }
}

/// Appends, and again with the same ids for as long as it is not known whether it is there.
async fn append(store: &Store, batch: AppendBatch, patience: Duration) -> Result<(), AppendError> {
    let env = store.env();
    let until = env.mono() + patience;
    let mut may_be_there = false;
    loop {
        let failed = match store.append(batch.clone()).await {
            Ok(_) => return Ok(()),
            Err(AppendError::Store(failed)) => failed,
            Err(refused) => return Err(refused),
        };
        may_be_there |= matches!(failed, StoreError::OutcomeUnknown);
        if !may_be_there {
            return Err(failed.into());
        }
        if env.mono() >= until {
            return Err(StoreError::OutcomeUnknown.into());
        }
        env.sleep(PAUSE).await;
    }
}
