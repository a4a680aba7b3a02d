//! Appends that wait together.
//!
//! Each stream has a lane, which it shares with others by hash: appends to one stream keep the order in which they came. What
//! waits in several lanes goes into one transaction, and while that is on its way the next group gathers: the more wait, the larger
//! the groups are, and the price of statements and of the commit is shared by all in them. A few groups are on their way at once,
//! more where so many wait that each is full.
//!
//! Such a group hurries: where somebody holds a row or a word that it needs, it gives up after moments and falls apart into
//! its lanes, each of which then waits by itself. So nobody waits for long for what others need.

use std::{
    collections::VecDeque,
    hash::BuildHasher,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use foldhash::fast::FixedState;
use tokio::sync::oneshot;

use super::{
    backend::{Pass, Shared},
    fault::Fault,
    group::{self, Answer, Decided, Known, Within, Written},
    ready::Ready,
    schemas,
    words::Words,
};
use crate::store::{AppendError, Appended, StoreError, Token};

const LANES: usize = 8;
/// The most appends, and bytes, that share a transaction. One always fits.
const GROUP: usize = 512;
const GROUP_BYTES: usize = 4 << 20;
/// So many groups are on their way at once, and one more for each so many appends that wait.
const GOING: usize = 2;
const FULL: usize = 256;

const APPENDING: &str = "appending events";

type Reply = Result<Appended, AppendError>;

/// The lanes of a store.
#[derive(Default)]
pub(super) struct Lanes(Mutex<State>);

#[derive(Default)]
struct State {
    lanes: [Lane; LANES],
    /// Groups that hurry.
    going: usize,
    /// The lane that the next group begins with, so that each has its turn.
    next: usize,
}

#[derive(Default)]
struct Lane {
    waiting: VecDeque<Job>,
    /// Appends of it are on their way.
    is_busy: bool,
}

struct Job {
    lane: usize,
    ready: Arc<Ready>,
    reply: oneshot::Sender<Reply>,
    /// It counts as accepted until it is answered.
    _pass: Pass,
    /// It was new, and its transaction was told to commit: it may be in the log.
    may_be_written: bool,
}

impl Job {
    fn reply(self, answer: Reply) {
        let _gone = self.reply.send(answer);
    }
}

impl Lanes {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn waiting(&self) -> usize {
        self.state().lanes.iter().map(|lane| lane.waiting.len()).sum()
    }
}

impl State {
    /// How many appends wait that could be on their way.
    fn ready(&self) -> usize {
        self.lanes.iter().filter(|lane| !lane.is_busy).map(|lane| lane.waiting.len()).sum()
    }

    /// How many groups may be on their way at once.
    fn most(&self) -> usize {
        (GOING + self.ready() / FULL).min(LANES)
    }

    /// Whether one more group may be on its way beside those that are.
    fn wants_more(&self) -> bool {
        self.ready() > 0 && self.going < self.most()
    }

    /// What shares the next transaction, of lanes that are not busy; they are now. It leaves lanes to the others that may be on
    /// their way.
    fn group(&mut self) -> Vec<Job> {
        let (mut group, mut bytes, mut words) = (Vec::new(), 0, Words::default());
        let (first, mut lanes) = (self.next, LANES / self.most());
        for n in (0..LANES).map(|n| (first + n) % LANES) {
            let lane = &mut self.lanes[n];
            if lane.is_busy || lane.waiting.is_empty() {
                continue;
            }
            self.next = (n + 1) % LANES;
            lanes -= 1;
            while let Some(job) = lane.waiting.pop_front_if(|job| {
                bytes += job.ready.bytes;
                let fits = group.len() < GROUP && bytes <= GROUP_BYTES && words.join(&job.ready.words);
                fits || group.is_empty()
            }) {
                lane.is_busy = true;
                group.push(job);
            }
            // If it is full: whoever did not fit begins the next one.
            if !lane.waiting.is_empty() {
                self.next = n;
                break;
            }
            if lanes == 0 {
                break;
            }
        }
        group
    }

    fn free(&mut self, lanes: [bool; LANES]) {
        for (lane, is_free) in self.lanes.iter_mut().zip(lanes) {
            lane.is_busy &= !is_free;
        }
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
    let lane = (FixedState::default().hash_one(stream) >> 32) as usize % LANES;
    let (reply, answer) = oneshot::channel();
    let job = Job { lane, ready: Arc::new(ready), reply, _pass: pass, may_be_written: false };
    let mut state = shared.lanes.state();
    state.lanes[lane].waiting.push_back(job);
    begin(shared, &mut state);
    Ok(answer)
}

/// Begins one more group if that is wanted.
fn begin(shared: &Arc<Shared>, state: &mut State) {
    if state.wants_more() {
        state.going += 1;
        shared.env.tasks().spawn("store/lanes", serve(shared.clone()));
    }
}

/// Appends group after group, as long as that is wanted.
async fn serve(shared: Arc<Shared>) {
    loop {
        let mut group = {
            let mut state = shared.lanes.state();
            let group = state.group();
            if group.is_empty() {
                state.going -= 1;
                return;
            }
            group
        };
        match attempts(&shared, &mut group, Pace::Hurried).await {
            Ok(written) => {
                shared.lanes.state().free(of(&group));
                answer(&shared, group, written);
            }
            Err(cause) if group.len() == 1 && !matches!(cause, StoreError::Busy) => {
                shared.lanes.state().free(of(&group));
                group.into_iter().for_each(|job| job.reply(Err(cause.clone().into())));
            }
            Err(_) => apart(&shared, group),
        }
        let mut state = shared.lanes.state();
        state.going -= 1;
        if !state.wants_more() {
            return;
        }
        state.going += 1;
    }
}

/// The lanes of a group.
fn of(group: &[Job]) -> [bool; LANES] {
    let mut lanes = [false; LANES];
    group.iter().for_each(|job| lanes[job.lane] = true);
    lanes
}

/// Has each lane of a group go on by itself, for as long as it takes.
fn apart(shared: &Arc<Shared>, group: Vec<Job>) {
    let mut lanes: [Vec<Job>; LANES] = Default::default();
    group.into_iter().for_each(|job| lanes[job.lane].push(job));
    for (n, jobs) in lanes.into_iter().enumerate().filter(|(_, jobs)| !jobs.is_empty()) {
        let shared = shared.clone();
        shared.env.tasks().clone().spawn("store/lane", async move {
            append(&shared, jobs).await;
            let mut state = shared.lanes.state();
            state.lanes[n].is_busy = false;
            begin(&shared, &mut state);
        });
    }
}

/// Appends what waited in one lane, and one by one where one of them spoils it for the others.
async fn append(shared: &Arc<Shared>, mut group: Vec<Job>) {
    match attempts(shared, &mut group, Pace::Patient).await {
        Ok(written) => answer(shared, group, written),
        Err(cause) if group.len() == 1 => group.into_iter().for_each(|job| job.reply(Err(cause.clone().into()))),
        Err(_) => {
            for job in group {
                let mut alone = vec![job];
                match attempts(shared, &mut alone, Pace::Patient).await {
                    Ok(written) => answer(shared, alone, written),
                    Err(cause) => alone.into_iter().for_each(|job| job.reply(Err(cause.clone().into()))),
                }
            }
        }
    }
}

/// Whether a group gives up where somebody is in its way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    Hurried,
    Patient,
}

/// Tries until it is known what came of it, or patience ends.
///
/// An attempt whose end is unknown holds the rows of its streams until it has ended, so that the next one waits for it and
/// finds its events, or does not, for good.
async fn attempts(shared: &Shared, group: &mut [Job], pace: Pace) -> Result<(Decided, Written), StoreError> {
    let until = shared.env.mono() + shared.patience;
    loop {
        let (fault, at_commit) = match attempt(shared, group, pace).await {
            Ok(done) => return Ok(done),
            Err(failed) => failed,
        };
        if at_commit && fault.is_lost() {
            shared.env.reached("store: a commit was lost");
            group.iter_mut().for_each(|job| job.may_be_written = true);
        }
        if pace == Pace::Hurried && fault.is_waiting() {
            return Err(StoreError::Busy);
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
async fn attempt(shared: &Shared, group: &[Job], pace: Pace) -> Result<(Decided, Written), (Fault, bool)> {
    let before = |fault| (fault, false);
    let lease = shared.pool.lease().await.map_err(before)?;
    let ground = shared.ground();
    let batches: Vec<Arc<Ready>> = group.iter().map(|job| job.ready.clone()).collect();
    let begin = if pace == Pace::Hurried { &shared.sql.begin_hurried } else { &shared.sql.begin };
    let decided = group::decide(&ground, &lease, &batches, Within::Group { begin }).await;
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
            job.reply(answer);
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
