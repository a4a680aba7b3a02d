//! Appends that wait together.
//!
//! Each stream has a lane, which it shares with others by hash: appends to one stream keep the order in which they came. What
//! waits in several lanes goes into one transaction, and while that is on its way the next group gathers: the more wait, the larger
//! the groups are, and the price of statements and of the commit is shared by all in them. A few groups are on their way at once,
//! more where so many wait that each is full.
//!
//! Such a group hurries: where somebody holds a row or a word that it needs, it gives up after moments and falls apart into
//! its lanes, and a lane into its appends, one behind the other. An append that is in somebody's way even so waits by itself,
//! what comes to its stream waits behind it, and its lane goes on without them. So nobody waits for long for what others need.
//!
//! Each append has patience from when it came: once that is over it is answered with whatever is in its way then, whoever
//! shared an attempt with it.

mod attempts;

use std::{
    collections::{BTreeMap, VecDeque},
    hash::BuildHasher,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use foldhash::fast::FixedState;
use quorate_foundations::time::Mono;
use tokio::sync::{Semaphore, oneshot};

pub(super) use self::attempts::told;
use self::attempts::{Pace, answer, attempts};
use super::{
    backend::{Pass, Shared},
    fault::Fault,
    ready::Ready,
    words::Words,
};
use crate::store::{AppendError, Appended, StoreError};

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
pub(super) struct Lanes {
    state: Mutex<State>,
    /// Who may wait on a connection for as long as it takes.
    patient: Semaphore,
}

#[derive(Default)]
struct State {
    lanes: [Lane; LANES],
    /// Groups that hurry.
    going: usize,
    /// The lane that the next group begins with, so that each has its turn.
    next: usize,
    /// Streams whose next append waits for somebody by itself, and what waits behind it. None of it is in the lanes.
    held: BTreeMap<String, VecDeque<Job>>,
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
    /// When its patience ends.
    until: Mono,
    /// It was new, and its transaction was told to commit: it may be in the log.
    may_be_written: bool,
}

impl Job {
    fn reply(self, answer: Reply) {
        let _gone = self.reply.send(answer);
    }

    /// Answers that nothing more is tried.
    fn give_up(self, cause: StoreError) {
        let cause = if self.may_be_written { StoreError::OutcomeUnknown } else { cause };
        self.reply(Err(cause.into()));
    }

    fn stream(&self) -> &str {
        self.ready.home()
    }
}

impl Lanes {
    /// Those of a store with so many connections: half of them are left to who is in nobody's way.
    pub(super) fn new(connections: usize) -> Self {
        Self { state: Mutex::default(), patient: Semaphore::new((connections / 2).clamp(1, LANES)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn waiting(&self) -> usize {
        let state = self.state();
        state.lanes.iter().map(|lane| lane.waiting.len()).chain(state.held.values().map(VecDeque::len)).sum()
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

    /// Has the appends to `stream` wait: those of `group`, which is on its way, and those behind them.
    fn hold(&mut self, lane: usize, stream: &str, group: &mut VecDeque<Job>) {
        let mut behind = VecDeque::new();
        for from in [group, &mut self.lanes[lane].waiting] {
            let (of_stream, others): (Vec<Job>, _) = from.drain(..).partition(|job| job.stream() == stream);
            behind.extend(of_stream);
            from.extend::<Vec<Job>>(others);
        }
        self.held.insert(stream.to_owned(), behind);
    }

    /// Has them go on, in their order.
    fn release(&mut self, lane: usize, stream: &str) {
        for job in self.held.remove(stream).into_iter().flatten().rev() {
            self.lanes[lane].waiting.push_front(job);
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
    let lane = (FixedState::default().hash_one(ready.home()) >> 32) as usize % LANES;
    let (reply, answer) = oneshot::channel();
    let until = shared.env.mono() + shared.patience;
    let job = Job { lane, ready: Arc::new(ready), reply, _pass: pass, until, may_be_written: false };
    let mut state = shared.lanes.state();
    match state.held.get_mut(job.stream()) {
        Some(behind) => behind.push_back(job),
        None => state.lanes[lane].waiting.push_back(job),
    }
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
        let lanes = of(&group);
        let free = |lanes| {
            let mut state = shared.lanes.state();
            state.free(lanes);
            begin(&shared, &mut state);
        };
        match attempts(&shared, &mut group, Pace::Hurried).await {
            Ok(done) => {
                free(lanes);
                answer(&shared, group, done);
            }
            Err(fault) => {
                let left = of(&group);
                free(std::array::from_fn(|n| lanes[n] && !left[n]));
                apart(&shared, group, &fault);
            }
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

/// Has each lane of a group that failed go on by itself.
fn apart(shared: &Arc<Shared>, group: Vec<Job>, fault: &Fault) {
    let mut lanes: [Vec<Job>; LANES] = Default::default();
    group.into_iter().for_each(|job| lanes[job.lane].push(job));
    let is_one = lanes.iter().filter(|jobs| !jobs.is_empty()).count() == 1;
    for (n, mut jobs) in lanes.into_iter().enumerate().filter(|(_, jobs)| !jobs.is_empty()) {
        let (shared, fault) = (shared.clone(), fault.clone());
        shared.env.tasks().clone().spawn("store/lane", async move {
            let done = if is_one { Err(fault) } else { attempts(&shared, &mut jobs, Pace::Hurried).await };
            match done {
                Ok(done) => answer(&shared, jobs, done),
                Err(fault) => one_by_one(&shared, jobs.into(), fault).await,
            }
            let mut state = shared.lanes.state();
            state.lanes[n].is_busy = false;
            begin(&shared, &mut state);
        });
    }
}

/// Appends one by one what failed together, as long as nobody is in the way of one.
async fn one_by_one(shared: &Arc<Shared>, mut group: VecDeque<Job>, fault: Fault) {
    let is_alone = group.len() == 1;
    let mut fault = fault;
    while let Some(job) = group.pop_front() {
        let mut alone = vec![job];
        // What one of them is refused for is no answer to the others, but what takes time has taken theirs.
        let takes_time = fault.is_waiting() || fault.is_late() || fault.is_lost();
        let is_over = takes_time && alone[0].until <= shared.env.mono();
        if !is_alone && !is_over {
            match attempts(shared, &mut alone, Pace::Hurried).await {
                Ok(done) => {
                    answer(shared, alone, done);
                    continue;
                }
                Err(failed) => fault = failed,
            }
        }
        for job in alone {
            if fault.is_waiting() && shared.env.mono() < job.until {
                wait(shared, job, &mut group);
            } else {
                job.give_up(fault.clone().into_store(APPENDING));
            }
        }
    }
}

/// Has an append go on by itself, for as long as it takes, and what is for its stream wait behind it.
fn wait(shared: &Arc<Shared>, job: Job, group: &mut VecDeque<Job>) {
    let (lane, stream) = (job.lane, job.stream().to_owned());
    shared.lanes.state().hold(lane, &stream, group);
    let shared = shared.clone();
    shared.env.tasks().clone().spawn("store/held", async move {
        let left = job.until.saturating_since(shared.env.mono());
        let permit = shared.env.timeout(left, shared.lanes.patient.acquire()).await;
        // Where too many wait already, it looks once more in the end.
        let pace = if permit.is_some() { Pace::Patient } else { Pace::Hurried };
        let mut alone = vec![job];
        match attempts(&shared, &mut alone, pace).await {
            Ok(done) => answer(&shared, alone, done),
            Err(fault) => alone.into_iter().for_each(|job| job.give_up(fault.clone().into_store(APPENDING))),
        }
        drop(permit);
        let mut state = shared.lanes.state();
        state.release(lane, &stream);
        begin(&shared, &mut state);
    });
}
