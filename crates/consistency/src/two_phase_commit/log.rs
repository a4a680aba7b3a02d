//! What stands in the log: who took over, what was decided, and what people did by hand.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use quorate_data::{
    event::{NewEvent, Position, Recorded, Tags, Version},
    store::{
        AppendBatch, AppendCondition, AppendError, Appended, ExpectedVersion, Query, QueryItem, ReadStream, Store,
        StoreError, StreamAppend, Timeline,
    },
};
use quorate_foundations::name::Name;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{CoordinatorId, Gid, TxnError, orders::Order};

/// What the types of these events begin with, which nobody else may append.
pub(super) const TYPES: &str = "quorate.txn.";
/// What the names of coordinators' streams begin with.
pub(super) const TAKEOVERS: &str = "txncoordinator-";
const SOURCE: &str = "/quorate/transactions";
const TAKEN: &str = "quorate.txn.taken";
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
struct Taken {
    coordinator: String,
    store: String,
    epoch: u32,
    /// Who it was on earlier timelines of the store.
    #[serde(default)]
    former: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Participants {
    participants: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Decided {
    ending: Ending,
}

/// A coordinator's standing: who it is, under which takeover, and what its decisions are held against.
pub(super) struct Standing {
    pub(super) id: CoordinatorId,
    /// Who it was on earlier timelines of the store: what these decided holds, and what they did not decide is unknown.
    pub(super) former: Vec<CoordinatorId>,
    pub(super) takeover: u64,
    /// What any takeover matches.
    takeovers: Query,
    /// Up to here nobody took over since.
    clear: AtomicU64,
}

/// Takes over the coordinator of that name.
pub(super) async fn take_over(store: &Store, name: &Name, patience: std::time::Duration) -> Result<Standing, TxnError> {
    let stream = coordinator(name)?;
    let tag = format!("txncoordinator:{name}");
    loop {
        let page = store.read_stream(ReadStream::backward(stream.clone(), 1)).await?;
        let (expected, known) = match page.events.first() {
            Some(last) => (ExpectedVersion::Exact(page.head.version), known_ids(last, store.timeline())?),
            None if page.head.version == Version::ZERO => (ExpectedVersion::NoStream, (None, Vec::new())),
            // Under another id nobody would ever look for what this one left behind.
            None => {
                let what = "its events were forgotten: whose transactions the coordinator's are cannot be told. \
                            One of another name can be opened; what this one left in doubt is then ended by hand";
                let place = format!("stream `{stream}`");
                return Err(StoreError::Corrupt { place, what: what.to_owned() }.into());
            }
        };
        let (id, former) = known;
        let id = id.unwrap_or_else(|| CoordinatorId::new(uuid_of(&store.event_id())));
        let Timeline { store: of, epoch } = store.timeline();
        let names = former.iter().map(ToString::to_string).collect();
        let taken = Taken { coordinator: id.to_string(), store: format!("{of:016x}"), epoch, former: names };
        let tags = Tags::new([&tag]).map_err(|cause| TxnError::Invalid { what: cause.to_string() })?;
        let event = event(store.event_id(), TAKEN, &taken).tagged(tags);
        let appended = match store.append(AppendBatch::to(stream.clone(), expected, vec![event])).await {
            Ok(appended) => appended,
            // Somebody else took over just now, and is taken over from.
            Err(AppendError::VersionConflict { .. }) => continue,
            Err(failed) => return Err(failed.into()),
        };
        // Everything that was decided before stands before this place; nothing of it is decided behind it.
        let Some(after) = store.reach(appended.token, patience).await? else {
            let what = format!("its takeover did not become readable within {patience:?}");
            return Err(StoreError::Unreachable { what }.into());
        };
        let takeovers = Query::of([QueryItem::types([TAKEN]).tagged([tag])]);
        let clear = AtomicU64::new(after.get());
        return Ok(Standing { id, former, takeover: appended.version().get(), takeovers, clear });
    }
}

/// The stream of a coordinator's takeovers.
fn coordinator(name: &Name) -> Result<Name, TxnError> {
    Name::new(format!("{TAKEOVERS}{name}")).map_err(|cause| TxnError::Invalid { what: cause.to_string() })
}

/// How many times somebody has taken over the coordinator of that name.
pub(super) async fn takeovers(store: &Store, name: &Name) -> Result<u64, TxnError> {
    Ok(store.stream_head(&coordinator(name)?).await?.version.get())
}

/// Whether somebody has taken over the coordinator of that name since it began `gid`: what it has not decided by now it never will. Not where
/// the store has another timeline since: then the decision may be missing.
pub(super) async fn is_replaced(store: &Store, name: &Name, gid: &Gid) -> Result<bool, TxnError> {
    let page = store.read_stream(ReadStream::backward(coordinator(name)?, 1)).await?;
    let Some(last) = page.events.first() else { return Ok(false) };
    let (id, _) = known_ids(last, store.timeline())?;
    Ok(id == Some(gid.coordinator) && page.head.version.get() > gid.txn.takeover)
}

/// Whose transactions the last takeover's are, and were before. Where the store has another timeline since, they are from before:
/// decisions may be missing.
fn known_ids(last: &Recorded, timeline: Timeline) -> Result<(Option<CoordinatorId>, Vec<CoordinatorId>), TxnError> {
    let taken: Taken = read(last)?;
    let is_same = taken.store == format!("{:016x}", timeline.store) && taken.epoch == timeline.epoch;
    let parsed = |text: &String| text.parse::<CoordinatorId>().map_err(|cause| corrupt(last, &cause));
    let id = parsed(&taken.coordinator)?;
    let mut former = taken.former.iter().map(parsed).collect::<Result<Vec<_>, _>>()?;
    if is_same {
        return Ok((Some(id), former));
    }
    former.push(id);
    Ok((None, former))
}

fn uuid_of(text: &str) -> Uuid {
    Uuid::try_parse(text).unwrap_or_else(|_| unreachable!("ids of events are UUIDs"))
}

impl Standing {
    /// The append that decides `gid`, with the caller's own events.
    pub(super) fn decision(&self, gid: &Gid, participants: &[Name], events: &[StreamAppend]) -> AppendBatch {
        let prepared =
            Participants { participants: participants.iter().map(|name| name.as_str().to_owned()).collect() };
        let own = vec![
            event("prepared", PREPARED, &prepared),
            event("decided", DECIDED, &Decided { ending: Ending::Commit }),
        ];
        let mut batch = AppendBatch::to(gid.stream(), ExpectedVersion::NoStream, own);
        batch.streams.extend(events.iter().cloned());
        let after = Position::new(self.clear.load(Ordering::Relaxed));
        batch.conditions.push(AppendCondition { fail_if_match: self.takeovers.clone(), after });
        batch
    }

    /// A decision is in the log: nobody took over before it, so that the next one need not look there again.
    pub(super) fn decided(&self, store: &Store, appended: &Appended) {
        // What was known already was appended without being held against anything.
        if store.capabilities().tokens_are_positions && !appended.repeated {
            self.clear.fetch_max(appended.token.append(), Ordering::Relaxed);
        }
    }
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
