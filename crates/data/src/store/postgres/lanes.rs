//! Appends that wait together.
//!
//! Each stream has a lane, which it shares with others by hash. What waits in a lane goes into one transaction: while that is
//! on its way, the next group gathers. So the price of a commit is shared, and appends to one stream keep the order in
//! which they came. Another lane does not wait for a row that somebody holds.

use std::{
    collections::VecDeque,
    hash::BuildHasher,
    sync::{Arc, Mutex, PoisonError},
};

use foldhash::fast::FixedState;
use tokio::sync::oneshot;

use super::{
    backend::{Pass, Shared},
    fault::Fault,
    group::{self, Answer, Decided, Known, Written},
    ready::Ready,
    schemas,
};
use crate::store::{AppendError, Appended, StoreError, Token};

const LANES: usize = 8;
/// The most appends, and bytes, that share a transaction. One always fits.
const GROUP: usize = 512;
const GROUP_BYTES: usize = 4 << 20;

const APPENDING: &str = "appending events";

type Reply = Result<Appended, AppendError>;

/// The lanes of a store.
#[derive(Default)]
pub(super) struct Lanes([Mutex<Lane>; LANES]);

#[derive(Default)]
struct Lane {
    waiting: VecDeque<Job>,
    is_served: bool,
}

struct Job {
    ready: Arc<Ready>,
    reply: oneshot::Sender<Reply>,
    /// It counts as accepted until it is answered.
    _pass: Pass,
    /// It was new, and its transaction was told to commit: it may be in the log.
    may_be_written: bool,
}

impl Lanes {
    fn lane(&self, n: usize) -> std::sync::MutexGuard<'_, Lane> {
        self.0[n].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn waiting(&self) -> usize {
        (0..LANES).map(|n| self.lane(n).waiting.len()).sum()
    }
}

/// Puts a batch in its lane, and tells where its answer will be.
pub(super) fn submit(shared: &Arc<Shared>, ready: Ready) -> Result<oneshot::Receiver<Reply>, StoreError> {
    let pass = shared.enter()?;
    let waiting = shared.lanes.waiting();
    if waiting >= shared.limits.waiting_writes {
        return Err(StoreError::Overloaded { waiting });
    }
    let stream = ready.streams.first().map_or("", |part| part.stream.as_str());
    let n = (FixedState::default().hash_one(stream) >> 32) as usize % LANES;
    let (reply, answer) = oneshot::channel();
    let mut lane = shared.lanes.lane(n);
    lane.waiting.push_back(Job { ready: Arc::new(ready), reply, _pass: pass, may_be_written: false });
    if !std::mem::replace(&mut lane.is_served, true) {
        shared.env.tasks().spawn("store/lane", serve(shared.clone(), n));
    }
    Ok(answer)
}

async fn serve(shared: Arc<Shared>, n: usize) {
    loop {
        let mut group = Vec::new();
        {
            let mut lane = shared.lanes.lane(n);
            let mut bytes = 0;
            while group.len() < GROUP
                && let Some(job) = lane.waiting.pop_front_if(|job| {
                    bytes += job.ready.bytes;
                    group.is_empty() || bytes <= GROUP_BYTES
                })
            {
                group.push(job);
            }
            if group.is_empty() {
                lane.is_served = false;
                return;
            }
        }
        append(&shared, group).await;
    }
}

/// Appends a group, and one by one where one of them spoils it for the others.
async fn append(shared: &Arc<Shared>, mut group: Vec<Job>) {
    match attempts(shared, &mut group).await {
        Ok(written) => answer(shared, group, written),
        Err(cause) if group.len() == 1 => {
            for job in group {
                let _gone = job.reply.send(Err(cause.clone().into()));
            }
        }
        Err(_) => {
            for job in group {
                let mut alone = vec![job];
                match attempts(shared, &mut alone).await {
                    Ok(written) => answer(shared, alone, written),
                    Err(cause) => alone.into_iter().for_each(|job| {
                        let _gone = job.reply.send(Err(cause.clone().into()));
                    }),
                }
            }
        }
    }
}

/// Tries until it is known what came of it, or patience ends.
///
/// An attempt whose end is unknown holds the rows of its streams until it has ended, so that the next one waits for it and
/// finds its events, or does not, for good.
async fn attempts(shared: &Shared, group: &mut [Job]) -> Result<(Decided, Written), StoreError> {
    let until = shared.env.mono() + shared.patience;
    loop {
        let (fault, at_commit) = match attempt(shared, group).await {
            Ok(done) => return Ok(done),
            Err(failed) => failed,
        };
        if at_commit && fault.is_lost() {
            shared.env.reached("store: a commit was lost");
            group.iter_mut().for_each(|job| job.may_be_written = true);
        }
        let again = fault.is_lost() || fault.is_conflict();
        if !again || shared.env.mono() >= until {
            let unknown = group.iter().any(|job| job.may_be_written);
            return Err(if unknown { StoreError::OutcomeUnknown } else { fault.into_store(APPENDING) });
        }
        if matches!(fault, Fault::Stale) {
            match schemas::refresh(shared).await {
                Ok(()) => continue,
                Err(StoreError::Unreachable { .. }) => {}
                Err(_) if group.iter().any(|job| job.may_be_written) => return Err(StoreError::OutcomeUnknown),
                Err(cause) => return Err(cause),
            }
        }
        shared.env.sleep(shared.pause()).await;
    }
}

/// One attempt, and how it failed: the fault, and whether the commit was on its way.
async fn attempt(shared: &Shared, group: &[Job]) -> Result<(Decided, Written), (Fault, bool)> {
    let before = |fault| (fault, false);
    let lease = shared.pool.lease().await.map_err(before)?;
    let ground = shared.ground();
    let batches: Vec<Arc<Ready>> = group.iter().map(|job| job.ready.clone()).collect();
    let decided = group::decide(&ground, &lease, &lease, &batches, &[], Some(&shared.sql.begin)).await;
    let decided = decided.map_err(before)?;
    let written = if decided.is_empty() {
        lease.batch_execute("ROLLBACK").await.map_err(|failed| before(failed.into()))?;
        Written::default()
    } else {
        let written = decided.write(&shared.sql, &lease, Some("COMMIT")).await;
        written.map_err(|fault| (fault, true))?
    };
    lease.keep();
    if !decided.is_empty() {
        shared.count_commit();
    }
    Ok((decided, written))
}

/// Answers everybody, once positions were given or the patience for that is over.
fn answer(shared: &Arc<Shared>, group: Vec<Job>, (decided, written): (Decided, Written)) {
    let of = shared.clone();
    shared.env.tasks().spawn("store/answers", async move {
        let _late = of.catch_up().await;
        for (job, answer) in group.into_iter().zip(decided.answers) {
            let answer = told(&of, answer, &written.ids, job.may_be_written).await;
            let _gone = job.reply.send(answer);
        }
    });
}

/// An answer as whoever appended gets it.
pub(super) async fn told(shared: &Shared, answer: Answer, ids: &[i64], may_be_written: bool) -> Reply {
    let token = |id: i64| Token::new(shared.timeline, id.cast_unsigned());
    let id = |known| match known {
        Known::Stored(id) => id,
        Known::Row(row) => ids[row],
    };
    match answer {
        Answer::Refused(refused) => Err(refused),
        Answer::Matched { condition, event } => {
            let position = shared.position_of(id(event)).await?;
            Err(AppendError::ConditionFailed { condition, position })
        }
        Answer::Repeated { versions, newest } => {
            // What is known from an attempt of its own is new to whoever asked.
            Ok(Appended { versions, token: token(id(newest)), repeated: !may_be_written })
        }
        Answer::New { versions, last } => Ok(Appended { versions, token: token(ids[last]), repeated: false }),
    }
}
