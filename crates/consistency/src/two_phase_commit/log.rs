//! What stands in the log of a transaction: what was decided, and what people did by hand.

use std::sync::Arc;

use quorate_data::{
    event::{NewEvent, Recorded, Version},
    store::{AppendBatch, AppendError, ExpectedVersion, ReadStream, Store, StoreError},
};
use quorate_foundations::name::Name;
use serde::{Deserialize, Serialize};

use super::{Gid, TxnError, orders::Order};

/// What the types of these events begin with, which nobody else may append.
pub(super) const TYPES: &str = "quorate.txn.";
const SOURCE: &str = "/quorate/transactions";
const PREPARED: &str = "quorate.txn.prepared";
const DECIDED: &str = "quorate.txn.decided";
const HEURISTIC: &str = "quorate.txn.heuristic";
/// The most events of one transaction's stream that are read at a time; fewer where they are large.
const PAGE: usize = 1_000;

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// It is done.
    Commit,
    /// Nothing of it is left.
    Abort,
}

/// What somebody did to a transaction at one participant, without regard to what was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Heuristic {
    /// At which participant.
    #[serde(with = "text")]
    pub participant: Name,
    /// What it was.
    pub ending: Ending,
    /// Who ordered it, in their own words; the participant where it was found to be so.
    pub by: String,
    /// Why.
    pub why: String,
    /// Whether nobody ordered it here: the participant said that it had been done. It is kept for people, and nobody acts on it.
    #[serde(default)]
    pub is_found: bool,
    /// Whether it differs from what was decided, so that the transaction was not atomic.
    pub contradicts: bool,
}

/// What the log says of a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Whether it was decided to commit it. What has no decision behind the end of its coordinator is aborted.
    pub is_decided: bool,
    /// Who takes part, where it was decided.
    pub participants: Vec<Name>,
    /// What people did, in order.
    pub heuristics: Vec<Heuristic>,
    /// The version of its stream.
    pub(super) version: Version,
}

impl Record {
    /// How it ends at `participant`: as somebody ordered by hand, or as it was decided.
    pub fn ending(&self, participant: &Name) -> Ending {
        self.ordered(participant).unwrap_or_else(|| self.decision())
    }

    /// What somebody ordered by hand for `participant`.
    pub(super) fn ordered(&self, participant: &Name) -> Option<Ending> {
        let of = |done: &&Heuristic| done.participant == *participant && !done.is_found;
        self.heuristics.iter().rev().find(of).map(|done| done.ending)
    }

    /// Whether it says that `participant` has taken part.
    pub(super) fn concerns(&self, participant: &Name) -> bool {
        self.participants.contains(participant) || self.heuristics.iter().any(|done| done.participant == *participant)
    }

    /// What was decided; what was not is aborted.
    pub fn decision(&self) -> Ending {
        if self.is_decided { Ending::Commit } else { Ending::Abort }
    }
}

#[derive(Serialize, Deserialize)]
struct Participants {
    participants: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Decided {
    ending: Ending,
}

/// The events of a decision to commit.
pub(super) fn of_decision(participants: &[Name]) -> Vec<NewEvent> {
    let prepared = Participants { participants: participants.iter().map(|name| name.as_str().to_owned()).collect() };
    vec![event("prepared", PREPARED, &prepared), event("decided", DECIDED, &Decided { ending: Ending::Commit })]
}

/// What the log says of `gid`.
pub(super) async fn record(store: &Store, gid: &Gid) -> Result<Record, TxnError> {
    let (mut record, mut read_events) = (Record::default(), 0);
    let mut next = Some(Version::new(1));
    while let Some(from) = next {
        let page = store.read_stream(ReadStream::forward(gid.stream(), PAGE).from(from)).await?;
        for event in &page.events {
            take(&mut record, event)?;
        }
        read_events += page.events.len() as u64;
        (record.version, next) = (page.head.version, page.next);
    }
    if read_events != record.version.get() {
        let what = "events of it were forgotten: how it ended cannot be told".to_owned();
        return Err(StoreError::Corrupt { place: format!("stream `{}`", gid.stream()), what }.into());
    }
    Ok(record)
}

/// Reads one more event into the record.
fn take(record: &mut Record, event: &Recorded) -> Result<(), TxnError> {
    match event.kind() {
        PREPARED => {
            let names = read::<Participants>(event)?.participants.into_iter().map(Name::new);
            record.participants = names.collect::<Result<_, _>>().map_err(|cause| corrupt(event, &cause))?;
        }
        DECIDED => record.is_decided = read::<Decided>(event)?.ending == Ending::Commit,
        HEURISTIC => record.heuristics.push(read(event)?),
        _ => {}
    }
    Ok(())
}

/// Records what somebody does by hand, before it is done. The same again changes nothing. Of each participant so much is recorded, of
/// what was ordered and of what was found: whoever changes his mind for ever does not make a transaction unreadable.
pub(super) async fn add_heuristic(store: &Store, gid: &Gid, done: Heuristic) -> Result<Heuristic, TxnError> {
    loop {
        let record = record(store, gid).await?;
        let done = Heuristic { contradicts: done.ending != record.decision(), ..done.clone() };
        let of = |known: &&Heuristic| known.participant == done.participant && known.is_found == done.is_found;
        if record.heuristics.iter().rfind(of).is_some_and(|known| known.ending == done.ending) {
            return Ok(done);
        }
        let most = Order::MAX_PER_PARTICIPANT;
        if record.heuristics.iter().filter(of).count() >= most {
            return Err(TxnError::TooManyOrders { gid: *gid, participant: done.participant, most });
        }
        let expected = match record.version {
            Version::ZERO => ExpectedVersion::NoStream,
            version => ExpectedVersion::Exact(version),
        };
        let event = event(store.event_id(), HEURISTIC, &done);
        match store.append(AppendBatch::to(gid.stream(), expected, vec![event])).await {
            Ok(_) => return Ok(done),
            // It was decided meanwhile, or somebody else was at it as well.
            Err(AppendError::VersionConflict { .. }) => {}
            Err(failed) => return Err(failed.into()),
        }
    }
}

pub(super) fn event(id: impl Into<Arc<str>>, kind: &str, data: &impl Serialize) -> NewEvent {
    let data = serde_json::to_vec(data).unwrap_or_else(|_| unreachable!("it is written as JSON"));
    NewEvent::new(id, SOURCE, kind).json(data)
}

pub(super) fn read<T: for<'de> Deserialize<'de>>(event: &Recorded) -> Result<T, TxnError> {
    serde_json::from_slice(event.data().unwrap_or_default()).map_err(|cause| corrupt(event, &cause))
}

pub(super) fn corrupt(event: &Recorded, cause: &dyn std::fmt::Display) -> TxnError {
    let place = format!("stream `{}`, version {}", event.stream(), event.version());
    StoreError::Corrupt { place, what: cause.to_string() }.into()
}

/// A name as a text.
mod text {
    use quorate_foundations::name::Name;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(name: &Name, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(name.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Name, D::Error> {
        Name::new(String::deserialize(from)?).map_err(D::Error::custom)
    }
}
