//! The embedded store as a participant: a promise is a row, written in the transaction that sets aside what was promised.
//!
//! Think of a cloakroom. What is handed over is hung up with a number; until the number comes back nobody else gets the coat, and
//! whoever closes for the night finds the coats still hanging in the morning.
//!
//! A promise that is durable must not be broken by what others do meanwhile. So the work is done when it is prepared, as a
//! reservation that is durable and seen by everybody (money leaves what is free, and is not yet spent), and what is left for the
//! end cannot fail. What a transaction *claims* no other one prepares until it has ended.

mod resource;
mod room;
mod rows;

use std::sync::Arc;

use quorate_data::store::{DynTx, Store, StoreError, TransactError};
use quorate_foundations::name::Name;
use quorate_runtime::BoxFuture;

pub use self::resource::{Reserved, Resource, SqlResource, Unprepared};
pub(crate) use self::rows::TABLES;
use self::{
    room::{Room, Rooms},
    rows::{Entry, Rows},
};
use super::{
    CoordinatorId, Gid, Participant, ParticipantError, Prepared, TxnError, Vote, Work,
    branch::{Asked, Known, Step},
};

/// Work up to so many bytes is kept in memory until it ends.
const KEPT_WORK: usize = 4 << 10;

/// A participant in an embedded store. Cheap to clone; clones are the same.
///
/// # Example
/// See [the room](super).
#[derive(Clone)]
pub struct Embedded {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    resource: Arc<dyn Resource>,
    rows: Rows,
    room: Arc<Room>,
    /// The store keeps these for as long as somebody holds them.
    _rooms: Arc<Rooms>,
}

/// Why a transaction of the participant's own did not commit.
#[derive(Debug)]
enum Stopped {
    /// It has nothing to keep, and this answer.
    Vote(Vote),
    /// It was ended otherwise.
    Contradicted(Known),
    /// It could not be tried.
    Untried,
    /// It was only tried, with this outcome.
    Tried(Result<(), Unprepared>),
    Failed(String),
    Store(StoreError),
}

impl From<quorate_data::store::SqlError> for Stopped {
    fn from(failed: quorate_data::store::SqlError) -> Self {
        match failed {
            quorate_data::store::SqlError::Store(cause) => Self::Store(cause),
            other => Self::Failed(other.to_string()),
        }
    }
}

impl From<StoreError> for Stopped {
    fn from(cause: StoreError) -> Self {
        Self::Store(cause)
    }
}

impl From<Unprepared> for Stopped {
    fn from(failed: Unprepared) -> Self {
        Self::Failed(failed.to_string())
    }
}

impl Embedded {
    /// The participant `name` in `store`, whose work `resource` does. What it promised before is still promised.
    ///
    /// Several participants of one store need different names; a transaction then names each by itself.
    ///
    /// # Errors
    /// [`StoreError::Unsupported`] on a store that several processes write to: there, use [`Postgres`](super::Postgres).
    pub async fn open(store: &Store, name: &Name, resource: Arc<dyn Resource>) -> Result<Self, TxnError> {
        let what = "take part in two-phase commit by rows: use its own prepared transactions";
        store.require(|engine| !engine.several_writers, what)?;
        store.declare(rows::TABLES).await?;
        let rooms = store.room::<Rooms>();
        let (room, rows) = (rooms.of(name), Rows::of(name));
        Ok(Self { inner: Arc::new(Inner { store: store.clone(), resource, rows, room, _rooms: rooms }) })
    }

    async fn ask(&self, gid: &Gid, work: &Work, in_one: bool) -> Result<Vote, ParticipantError> {
        // Whoever asks reads the work, and the one writer has less to do. What it makes of it counts only where the transaction is new.
        let claims = self.inner.resource.claims(work);
        if claims.is_ok()
            && let Some(why) = self.try_out(gid, work).await?
        {
            return Ok(Vote::No { why });
        }
        let (inner, gid, work) = (self.inner.clone(), *gid, work.clone());
        let store = inner.store.clone();
        let prepared = store.transact(move |tx| {
            let (inner, asked) = (inner.clone(), (work.clone(), claims.clone()));
            Box::pin(async move { inner.prepare(tx, gid, asked, in_one).await })
        });
        match prepared.await {
            Ok(vote) | Err(TransactError::Aborted(Stopped::Vote(vote))) => Ok(vote),
            Err(failed) => Err(told(failed)),
        }
    }

    /// Tries both ends of work of a kind that was not seen before, and takes back what that did. Why it cannot end, where it cannot. What is
    /// known of already is not tried: it is answered as it stands.
    async fn try_out(&self, gid: &Gid, work: &Work) -> Result<Option<String>, ParticipantError> {
        let kinds = self.inner.resource.kinds(work);
        if self.inner.room.has_tried(&kinds) {
            return Ok(None);
        }
        for asked in [Asked::Commit, Asked::Abort] {
            let (inner, gid, work) = (self.inner.clone(), *gid, work.clone());
            let store = inner.store.clone();
            let tried = store.transact(move |tx| {
                let (inner, work) = (inner.clone(), work.clone());
                Box::pin(async move {
                    inner.room.refresh(tx, &inner.rows).await?;
                    if inner.known(tx, &gid).await? != Known::Nothing {
                        return Err::<(), _>(Stopped::Untried);
                    }
                    // What it sets aside is judged when it is prepared.
                    if inner.resource.prepare(tx, &gid, &work).await.is_err() {
                        return Err(Stopped::Untried);
                    }
                    let ended = match asked {
                        Asked::Commit => inner.resource.commit(tx, &gid, &work).await,
                        _ => inner.resource.abort(tx, &gid, &work).await,
                    };
                    Err(Stopped::Tried(ended))
                })
            });
            match tried.await {
                Err(TransactError::Aborted(Stopped::Tried(Ok(())))) => {}
                Err(TransactError::Aborted(Stopped::Untried)) => return Ok(None),
                Err(TransactError::Aborted(Stopped::Tried(Err(cause)))) => {
                    let how = if asked == Asked::Commit { "commit" } else { "abort" };
                    return Ok(Some(format!("what it would do to {how} cannot be done: {cause}")));
                }
                Err(failed) => return Err(told(failed)),
                Ok(()) => unreachable!("it is taken back"),
            }
        }
        self.inner.room.tried(kinds);
        Ok(None)
    }

    async fn end(&self, gid: &Gid, asked: Asked) -> Result<(), ParticipantError> {
        let (inner, gid) = (self.inner.clone(), *gid);
        let store = inner.store.clone();
        let ended = store.transact(move |tx| {
            let inner = inner.clone();
            Box::pin(async move { inner.end(tx, gid, asked).await })
        });
        match ended.await {
            Ok(()) => Ok(()),
            Err(failed) => Err(told(failed)),
        }
    }
}

impl Inner {
    async fn prepare(
        &self,
        tx: &mut DynTx,
        gid: Gid,
        (work, claims): (Work, Result<Vec<Arc<str>>, Unprepared>),
        in_one: bool,
    ) -> Result<Vote, Stopped> {
        let no = |why: String| Stopped::Vote(Vote::No { why });
        self.room.refresh(tx, &self.rows).await?;
        let known = self.known(tx, &gid).await?;
        match known.step(Asked::Prepare) {
            Step::Prepare => {}
            Step::Repeat => {
                if self.rows.work(tx, &gid).await? == work {
                    return Ok(Vote::Yes);
                }
                let name = self.rows.participant();
                return Err(no(format!("`{name}` takes part in transaction {gid} twice: put its work together")));
            }
            // Whether that was this one, done at once, is forgotten with it.
            Step::Late if in_one && known == Known::Forgotten => return Err(StoreError::OutcomeUnknown.into()),
            // Done in one phase, and asked again because the answer was lost.
            Step::Late if in_one && known == Known::Committed => return Ok(Vote::Yes),
            _ => return Err(no(format!("transaction {gid} has ended here"))),
        }
        let refused = |failed: Unprepared| no(failed.to_string());
        let claims = claims.map_err(refused)?;
        if let Some((claim, holder)) = self.room.conflict(&claims) {
            return Err(no(format!("`{claim}` is held by transaction {holder}, which has not ended")));
        }
        if self.resource.prepare(tx, &gid, &work).await.map_err(refused)? == Reserved::Nothing {
            return Err(Stopped::Vote(Vote::ReadOnly));
        }
        if in_one {
            self.resource.commit(tx, &gid, &work).await.map_err(refused)?;
            self.remember(tx, &gid, Known::Committed).await?;
            return Ok(Vote::Yes);
        }
        let mut entry = Entry { gid, claims, work: Some(work), since: self.store.env().wall() };
        self.rows.insert(tx, &entry).await?;
        // Large work is read again when it ends: memory has room for the rest.
        entry.work = entry.work.filter(|work| work.as_bytes().len() <= KEPT_WORK);
        self.room.take(tx, entry)?;
        Ok(Vote::Yes)
    }

    async fn end(&self, tx: &mut DynTx, gid: Gid, asked: Asked) -> Result<(), Stopped> {
        self.room.refresh(tx, &self.rows).await?;
        let known = self.known(tx, &gid).await?;
        let (ended, entry) = match known.step(asked) {
            Step::Nothing => return Ok(()),
            Step::Remember => return self.remember(tx, &gid, Known::Aborted).await,
            Step::Contradict => return Err(Stopped::Contradicted(known)),
            step => (if step == Step::Commit { Known::Committed } else { Known::Aborted }, self.room.entry(&gid)),
        };
        let work = match entry.and_then(|entry| entry.work.clone()) {
            Some(work) => work,
            None => self.rows.work(tx, &gid).await?,
        };
        match ended {
            Known::Committed => self.resource.commit(tx, &gid, &work).await?,
            _ => self.resource.abort(tx, &gid, &work).await?,
        }
        self.rows.end(tx, &gid, ended).await?;
        Ok(self.room.release(tx, &gid)?)
    }

    /// What is known of a transaction: in memory what is promised, in rows what has ended.
    async fn known(&self, tx: &mut DynTx, gid: &Gid) -> Result<Known, Stopped> {
        if self.room.entry(gid).is_some() {
            return Ok(Known::Prepared);
        }
        if self.room.is_forgotten(gid) {
            return Ok(Known::Forgotten);
        }
        if self.room.is_new(gid) {
            return Ok(Known::Nothing);
        }
        Ok(self.rows.known(tx, gid).await?)
    }

    async fn remember(&self, tx: &mut DynTx, gid: &Gid, ended: Known) -> Result<(), Stopped> {
        self.rows.remember(tx, gid, ended).await?;
        Ok(self.room.saw(tx, gid)?)
    }
}

fn told(failed: TransactError<Stopped>) -> ParticipantError {
    match failed {
        TransactError::Aborted(Stopped::Contradicted(known)) => {
            let how = match known {
                Known::Committed => "it was committed",
                Known::Nothing => "nothing was promised here, or the promise was lost with the store's file",
                _ => "it was aborted",
            };
            ParticipantError::Contradicted { what: how.to_owned() }
        }
        TransactError::Aborted(Stopped::Store(cause)) | TransactError::Store(cause) => of_store(&cause),
        TransactError::Aborted(Stopped::Failed(what)) => ParticipantError::Failed { what },
        other => ParticipantError::Failed { what: other.to_string() },
    }
}

fn of_store(cause: &StoreError) -> ParticipantError {
    match cause {
        StoreError::OutcomeUnknown => ParticipantError::Unanswered { what: cause.to_string() },
        other => ParticipantError::Failed { what: other.to_string() },
    }
}

impl Participant for Embedded {
    fn prepare<'a>(&'a self, gid: &'a Gid, work: &'a Work) -> BoxFuture<'a, Result<Vote, ParticipantError>> {
        Box::pin(self.ask(gid, work, false))
    }

    fn commit<'a>(&'a self, gid: &'a Gid) -> BoxFuture<'a, Result<(), ParticipantError>> {
        Box::pin(self.end(gid, Asked::Commit))
    }

    fn abort<'a>(&'a self, gid: &'a Gid) -> BoxFuture<'a, Result<(), ParticipantError>> {
        Box::pin(self.end(gid, Asked::Abort))
    }

    fn in_doubt(&self, coordinator: CoordinatorId) -> BoxFuture<'_, Result<Vec<Prepared>, ParticipantError>> {
        Box::pin(async move {
            let inner = self.inner.clone();
            let now = inner.store.env().wall();
            // Behind everything that waits for the writer: what is in memory may still be taken back.
            let store = inner.store.clone();
            let listed = store.transact(move |tx| {
                let inner = inner.clone();
                Box::pin(async move {
                    inner.room.refresh(tx, &inner.rows).await?;
                    Ok::<_, Stopped>(inner.room.entries(coordinator))
                })
            });
            let entries = listed.await.map_err(told)?;
            let prepared = |entry: Arc<Entry>| Prepared {
                gid: entry.gid,
                age: Some(now.saturating_since(entry.since)),
                held: entry.claims.iter().map(ToString::to_string).collect(),
            };
            Ok(entries.into_iter().map(prepared).collect())
        })
    }

    fn has_one_phase(&self) -> bool {
        true
    }

    fn repeats_one_phase(&self) -> bool {
        true
    }

    fn one_phase<'a>(&'a self, gid: &'a Gid, work: &'a Work) -> BoxFuture<'a, Result<Vote, ParticipantError>> {
        Box::pin(self.ask(gid, work, true))
    }

    fn forget<'a>(&'a self, gid: &'a Gid) -> BoxFuture<'a, Result<(), ParticipantError>> {
        Box::pin(async move {
            let (inner, gid) = (self.inner.clone(), *gid);
            let store = inner.store.clone();
            loop {
                let inner = inner.clone();
                let forgotten = store.transact(move |tx| {
                    let inner = inner.clone();
                    Box::pin(async move {
                        let count = inner.rows.forget(tx, &gid).await?;
                        inner.room.forget(tx, gid)?;
                        Ok::<_, Stopped>(count)
                    })
                });
                if forgotten.await.map_err(told)? < rows::FORGOTTEN_AT_ONCE {
                    return Ok(());
                }
            }
        })
    }
}
