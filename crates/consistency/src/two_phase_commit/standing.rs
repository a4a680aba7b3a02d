//! Who may decide under a coordinator's name: whoever opened it last, alone, or several beside each other of which each is fenced by itself.
//!
//! Each event of the name's stream says who may decide behind it, and expects the version before it. So the last event is all that is to be
//! read, and of two who change it at once one is first.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
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

use super::{
    CoordinatorId, Gid, TxnError,
    log::{corrupt, event, of_decision, read},
};

/// What the names of coordinators' streams begin with.
pub(super) const TAKEOVERS: &str = "txncoordinator-";
const TAKEN: &str = "quorate.txn.taken";
const JOINED: &str = "quorate.txn.joined";
const FENCED: &str = "quorate.txn.fenced";
/// The most that are there beside each other. Whoever comes then fences the one that has been there for longest.
const MOST: usize = 256;

/// What each event of the stream says.
#[derive(Serialize, Deserialize)]
struct Said {
    coordinator: String,
    store: String,
    epoch: u32,
    /// Who it was on earlier timelines of the store.
    #[serde(default)]
    former: Vec<String>,
    /// Which takeovers may decide from here on; where it does not say, the one of this event alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    open: Option<BTreeSet<u64>>,
    /// Which takeover decides nothing any more, and whether it said so itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fenced: Option<Gone>,
}

#[derive(Serialize, Deserialize)]
struct Gone {
    takeover: u64,
    left: bool,
}

/// Who may decide under a name, as far as its stream was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Holders {
    /// Whose transactions they are; none where the store has another timeline since, or nobody ever opened the name.
    id: Option<CoordinatorId>,
    former: Vec<CoordinatorId>,
    /// Up to which version this is so.
    version: u64,
    /// The takeovers that may decide.
    open: BTreeSet<u64>,
    /// Whether there is one alone, that whoever comes fences by coming.
    is_alone: bool,
}

impl Holders {
    /// Whether that takeover decides nothing any more, and never will. What is not known yet may.
    pub(super) fn is_behind(&self, takeover: u64) -> bool {
        takeover <= self.version && !self.open.contains(&takeover)
    }

    pub(super) fn may_decide(&self, takeover: u64) -> bool {
        self.open.contains(&takeover)
    }

    /// The takeovers that may decide.
    pub(super) fn open(&self) -> &BTreeSet<u64> {
        &self.open
    }

    fn expected(&self) -> ExpectedVersion {
        match self.version {
            0 => ExpectedVersion::NoStream,
            version => ExpectedVersion::Exact(Version::new(version)),
        }
    }
}

/// A coordinator's standing: who it is, under which takeover, and what its decisions are held against.
pub(super) struct Standing {
    pub(super) id: CoordinatorId,
    /// Who it was on earlier timelines of the store: what these decided holds, and what they did not decide is unknown.
    pub(super) former: Vec<CoordinatorId>,
    pub(super) takeover: u64,
    /// What matches whatever keeps it from deciding.
    fence: Query,
    /// Up to here nothing did.
    clear: AtomicU64,
    /// Who may decide, as it was last read.
    holders: Mutex<Arc<Holders>>,
}

/// Takes over the coordinator of that name: nobody else decides under it any more.
pub(super) async fn take_over(store: &Store, name: &Name, patience: Duration) -> Result<Standing, TxnError> {
    loop {
        let before = holders(store, name).await?;
        // Whoever is alone looks for this event itself; each of several looks for its own.
        let gone: Vec<u64> = if before.is_alone { Vec::new() } else { before.open.iter().copied().collect() };
        let takeover = before.version + gone.len() as u64 + 1;
        let mut opening = Opening::new(store, name, before, takeover);
        let own = BTreeSet::from([takeover]);
        for takeover in gone {
            opening.fence(takeover, &own)?;
        }
        opening.add(TAKEN, None)?;
        let fence = QueryItem::types([TAKEN, JOINED]).tagged([tag_of(name)]);
        match opening.append(own, true, fence, patience).await {
            // Somebody else came just now.
            Err(TxnError::Refused(AppendError::VersionConflict { .. })) => {}
            opened => return opened,
        }
    }
}

/// Comes beside those who are there under that name. One that had it alone decides nothing any more.
pub(super) async fn join(store: &Store, name: &Name, patience: Duration) -> Result<Standing, TxnError> {
    loop {
        let before = holders(store, name).await?;
        let mut open = if before.is_alone { BTreeSet::new() } else { before.open.clone() };
        // Which one that is matters little: one that lives comes again.
        let gone = (open.len() >= MOST).then(|| open.pop_first()).flatten();
        let takeover = before.version + u64::from(gone.is_some()) + 1;
        open.insert(takeover);
        let mut opening = Opening::new(store, name, before, takeover);
        if let Some(gone) = gone {
            opening.fence(gone, &open)?;
        }
        opening.add(JOINED, Some(&open))?;
        let fence = QueryItem::types([FENCED]).tagged([tag_of_one(name, takeover)]);
        match opening.append(open, false, fence, patience).await {
            Err(TxnError::Refused(AppendError::VersionConflict { .. })) => {}
            opened => return opened,
        }
    }
}

/// Writes down that a takeover of `id` decides nothing any more. Whether it might have before. `left`: whether it says so itself.
///
/// Its decisions are before that, or never.
pub(super) async fn fence(
    store: &Store,
    name: &Name,
    (id, takeover): (CoordinatorId, u64),
    left: bool,
) -> Result<bool, TxnError> {
    loop {
        let mut before = holders(store, name).await?;
        if before.id != Some(id) || before.is_alone || !before.open.remove(&takeover) {
            return Ok(false);
        }
        let (open, expected) = (before.open.clone(), before.expected());
        let gone = Gone { takeover, left };
        let said = said(store, (id, &before.former), Some(&open), Some(gone));
        let event = marked(store, FENCED, &said, tag_of_one(name, takeover))?;
        match store.append(AppendBatch::to(stream(name)?, expected, vec![event])).await {
            Ok(_) => return Ok(true),
            Err(AppendError::VersionConflict { .. }) => {}
            Err(failed) => return Err(failed.into()),
        }
    }
}

/// The events of one who opens a name.
struct Opening<'s> {
    store: &'s Store,
    name: &'s Name,
    before: Holders,
    id: CoordinatorId,
    takeover: u64,
    events: Vec<NewEvent>,
}

impl<'s> Opening<'s> {
    fn new(store: &'s Store, name: &'s Name, before: Holders, takeover: u64) -> Self {
        let id = before.id.unwrap_or_else(|| CoordinatorId::new(uuid_of(&store.event_id())));
        Self { store, name, before, id, takeover, events: Vec::new() }
    }

    /// `open`: who may decide once all of it is there.
    fn fence(&mut self, takeover: u64, open: &BTreeSet<u64>) -> Result<(), TxnError> {
        let gone = Gone { takeover, left: false };
        let said = said(self.store, (self.id, &self.before.former), Some(open), Some(gone));
        self.events.push(marked(self.store, FENCED, &said, tag_of_one(self.name, takeover))?);
        Ok(())
    }

    fn add(&mut self, kind: &str, open: Option<&BTreeSet<u64>>) -> Result<(), TxnError> {
        let said = said(self.store, (self.id, &self.before.former), open, None);
        self.events.push(marked(self.store, kind, &said, tag_of(self.name))?);
        Ok(())
    }

    async fn append(
        self,
        open: BTreeSet<u64>,
        is_alone: bool,
        fence: QueryItem,
        patience: Duration,
    ) -> Result<Standing, TxnError> {
        let Self { store, name, before, id, takeover, events } = self;
        let appended = store.append(AppendBatch::to(stream(name)?, before.expected(), events)).await?;
        // Everything that was decided before stands before this place; nothing that is fenced by it is decided behind it.
        let Some(after) = store.reach(appended.token, patience).await? else {
            let what = format!("its takeover did not become readable within {patience:?}");
            return Err(StoreError::Unreachable { what }.into());
        };
        let former = before.former;
        let holders = Holders { id: Some(id), former: former.clone(), version: takeover, open, is_alone };
        let (fence, clear) = (Query::of([fence]), AtomicU64::new(after.get()));
        Ok(Standing { id, former, takeover, fence, clear, holders: Mutex::new(Arc::new(holders)) })
    }
}

fn said(
    store: &Store,
    (id, former): (CoordinatorId, &[CoordinatorId]),
    open: Option<&BTreeSet<u64>>,
    fenced: Option<Gone>,
) -> Said {
    let Timeline { store: of, epoch } = store.timeline();
    let former = former.iter().map(ToString::to_string).collect();
    Said { coordinator: id.to_string(), store: format!("{of:016x}"), epoch, former, open: open.cloned(), fenced }
}

fn marked(store: &Store, kind: &str, said: &Said, tag: String) -> Result<NewEvent, TxnError> {
    let tags = Tags::new([&tag]).map_err(|cause| TxnError::Invalid { what: cause.to_string() })?;
    Ok(event(store.event_id(), kind, said).tagged(tags))
}

fn tag_of(name: &Name) -> String {
    format!("txncoordinator:{name}")
}

/// A word of its own for each, so that the decisions of one wait for nobody else's.
fn tag_of_one(name: &Name, takeover: u64) -> String {
    format!("txncoordinator:{name}:{takeover}")
}

/// The stream of a coordinator's takeovers.
fn stream(name: &Name) -> Result<Name, TxnError> {
    Name::new(format!("{TAKEOVERS}{name}")).map_err(|cause| TxnError::Invalid { what: cause.to_string() })
}

/// Whether anybody ever opened the coordinator of that name.
pub(super) async fn was_opened(store: &Store, name: &Name) -> Result<bool, TxnError> {
    Ok(store.stream_head(&stream(name)?).await?.version > Version::ZERO)
}

/// Who may decide under that name.
pub(super) async fn holders(store: &Store, name: &Name) -> Result<Holders, TxnError> {
    let stream = stream(name)?;
    let page = store.read_stream(ReadStream::backward(stream.clone(), 1)).await?;
    match page.events.first() {
        Some(last) => read_holders(last, store.timeline()),
        None if page.head.version == Version::ZERO => Ok(Holders::default()),
        // Under another id nobody would ever look for what this one left behind.
        None => {
            let what = "its events were forgotten: whose transactions the coordinator's are cannot be told. \
                        One of another name can be opened; what this one left in doubt is then ended by hand";
            let place = format!("stream `{stream}`");
            Err(StoreError::Corrupt { place, what: what.to_owned() }.into())
        }
    }
}

/// Whether whoever began `gid` under that name decides nothing any more: what it has not decided by now it never will. Not where
/// the store has another timeline since: then the decision may be missing.
pub(super) async fn is_replaced(store: &Store, name: &Name, gid: &Gid) -> Result<bool, TxnError> {
    let holders = holders(store, name).await?;
    Ok(holders.id == Some(gid.coordinator) && holders.is_behind(gid.txn.takeover))
}

/// Whose transactions the last takeover's are, and were before. Where the store has another timeline since, they are from before:
/// decisions may be missing.
fn read_holders(last: &Recorded, timeline: Timeline) -> Result<Holders, TxnError> {
    let said: Said = read(last)?;
    let version = last.version().get();
    let is_same = said.store == format!("{:016x}", timeline.store) && said.epoch == timeline.epoch;
    let parsed = |text: &String| text.parse::<CoordinatorId>().map_err(|cause| corrupt(last, &cause));
    let id = parsed(&said.coordinator)?;
    let mut former = said.former.iter().map(parsed).collect::<Result<Vec<_>, _>>()?;
    if is_same {
        let open = said.open.unwrap_or_else(|| BTreeSet::from([version]));
        return Ok(Holders { id: Some(id), former, version, open, is_alone: last.kind() == TAKEN });
    }
    former.push(id);
    Ok(Holders { former, version, ..Holders::default() })
}

fn uuid_of(text: &str) -> Uuid {
    Uuid::try_parse(text).unwrap_or_else(|_| unreachable!("ids of events are UUIDs"))
}

impl Standing {
    /// The append that decides `gid`, with the caller's own events. Its first condition is that nobody keeps this coordinator from deciding.
    pub(super) fn decision(&self, gid: &Gid, participants: &[Name], events: &[StreamAppend]) -> AppendBatch {
        let mut batch = AppendBatch::to(gid.stream(), ExpectedVersion::NoStream, of_decision(participants));
        batch.streams.extend(events.iter().cloned());
        let after = Position::new(self.clear.load(Ordering::Relaxed));
        batch.conditions.push(AppendCondition { fail_if_match: self.fence.clone(), after });
        batch
    }

    /// A decision is in the log: nobody kept it from that before, so that the next one need not look there again.
    pub(super) fn decided(&self, store: &Store, appended: &Appended) {
        // What was known already was appended without being held against anything.
        if store.capabilities().tokens_are_positions && !appended.repeated {
            self.clear.fetch_max(appended.token.append(), Ordering::Relaxed);
        }
    }

    /// Who may decide, as it was last read.
    pub(super) fn holders(&self) -> Arc<Holders> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads who may decide. Whether this one does.
    pub(super) async fn look(&self, store: &Store, name: &Name) -> Result<bool, TxnError> {
        let found = holders(store, name).await?;
        if found.id != Some(self.id) {
            return Ok(false);
        }
        let may_decide = found.may_decide(self.takeover);
        let mut known = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        if found.version > known.version {
            *known = Arc::new(found);
        }
        Ok(may_decide)
    }
}
